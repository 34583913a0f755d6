//! The changes of a thread, in an order that another process can reproduce.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use leasemgr::lease::{HwAddr, Lease4};
use leasemgr::{Added, Deleted, LeaseMgr, LeaseMgrExt};

use crate::Outcome;

/// Number of addresses of each thread.
pub(crate) const ADDRESSES: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Add,
    Renew,
    Delete,
}

/// One change of a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) address: Ipv4Addr,
    /// The number of the step among those of its thread, from 1 on. The lease has it in its host
    /// name.
    pub(crate) number: u64,
}

/// The steps of a thread, and its leases after the last one.
#[derive(Clone)]
pub(crate) struct Steps {
    thread: u32,
    number: u64,
    random: u64,
    /// The number of the step that made each lease; 0 if there is no lease.
    leases: Vec<u64>,
}

impl Steps {
    pub(crate) fn new(thread: u32) -> Self {
        Self { thread, number: 0, random: u64::from(thread) + 1, leases: vec![0; ADDRESSES as usize] }
    }

    /// Returns each address of the thread, with the number of the step that made its lease.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (Ipv4Addr, Option<u64>)> {
        (0..).zip(&self.leases).map(|(n, &number)| (self.address(n), (number > 0).then_some(number)))
    }

    fn address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + self.thread * ADDRESSES + n)
    }

    /// Returns a random number below the limit (xorshift64).
    fn below(&mut self, limit: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 32) % u64::from(limit)) as u32
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.number += 1;
        // Some leases change often, and others only remain in the result of cleanups.
        let limit = self.below(ADDRESSES) + 1;
        let n = self.below(limit);
        let is_deletion = self.below(4) == 0;
        let there = &mut self.leases[n as usize];
        let action = match (*there, is_deletion) {
            (0, _) => Action::Add,
            (_, false) => Action::Renew,
            (_, true) => Action::Delete,
        };
        *there = if action == Action::Delete { 0 } else { self.number };
        Some(Step { action, address: self.address(n), number: self.number })
    }
}

impl Step {
    /// Makes the change. It has been acknowledged if this succeeds.
    pub(crate) fn make(&self, leases: &dyn LeaseMgr<Lease4>) -> Outcome {
        let as_expected = match self.action {
            Action::Add => leases.add(&self.lease()?)? == Added::Added,
            Action::Renew => {
                leases.update(&self.lease()?)?;
                true
            }
            Action::Delete => leases.delete(self.address)? == Deleted::Deleted,
        };
        if as_expected { Ok(()) } else { Err(format!("unexpected answer to {self:?}").into()) }
    }

    fn lease(&self) -> Outcome<Lease4> {
        let [_, a, b, c] = self.address.octets();
        let lease = Lease4::builder(self.address)
            .client(HwAddr::from([2, 0, 0, a, b, c]))
            .subnet(1)
            .lifetime(3600)
            .heard_at(SystemTime::now())
            .hostname(format!("step-{}", self.number).as_str())
            .build()?;
        Ok(lease)
    }

    /// Returns the number of the step that a lease comes from.
    pub(crate) fn number_of(lease: &Lease4) -> Outcome<u64> {
        let hostname = lease.data().hostname.to_string();
        let number = hostname.strip_prefix("step-").and_then(|number| number.parse().ok());
        number.ok_or_else(|| format!("a lease of another program: {}, {hostname}", lease.address()).into())
    }
}
