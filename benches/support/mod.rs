//! What the benchmarks share: leases, and files in memory.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

#[path = "../../tests/support/wrap_files.rs"]
mod wrap_files;

use std::error::Error;
use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use leasemgr::fs::{Memory, WriteFile};
use leasemgr::lease::{
    ClientId, Duid, Hostname, HwAddr, Iaid, Lease4, Lease6, LeaseState, LeaseType, Lifetime, SubnetId,
    UserContext,
};
use leasemgr::lease_file::{FileLease, Writer};
use wrap_files::{WrapFiles, WrappedFileSystem};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Returns a configuration with few and short runs: the differences of interest are factors, not
/// percents.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// Returns the throughput in rows and bytes.
pub(crate) fn throughput(rows: usize, text: &[u8]) -> Throughput {
    Throughput::ElementsAndBytes { elements: rows as u64, bytes: text.len() as u64 }
}

/// The rows that have a user context.
#[derive(Clone, Copy)]
pub(crate) enum Contexts {
    None,
    All,
}

pub(crate) trait Sample: FileLease {
    /// Returns the lease of client `i`; a client with a greater number has a greater address.
    fn of_client(i: u32) -> Outcome<Self>;
}

impl Sample for Lease4 {
    fn of_client(i: u32) -> Outcome<Self> {
        let hwaddr = hwaddr(i);
        let client_id = if i % 2 == 1 { Some(ClientId::new(&[&[1], &hwaddr[..]].concat())?) } else { None };
        let address = Ipv4Addr::from_bits(0x0a00_0000 + i);
        Ok(Self::new(address, Some(HwAddr::new(&hwaddr)?), client_id, LeaseState::DEFAULT)?)
    }
}

impl Sample for Lease6 {
    fn of_client(i: u32) -> Outcome<Self> {
        let hwaddr = hwaddr(i);
        let duid = Duid::new(&[&[0, 1, 0, 1, 0x2a, 0xbb, 0xcc, 0xdd], &hwaddr[..]].concat())?;
        let address = Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(i) + 1);
        let mut lease = Self::new(LeaseType::NA, address, duid, Iaid(i), LeaseState::DEFAULT)?;
        lease.set_preferred_lifetime(Lifetime(2250));
        lease.set_hwaddr(Some(HwAddr::new(&hwaddr)?));
        Ok(lease)
    }
}

fn hwaddr(i: u32) -> [u8; 6] {
    let [a, b, c, d] = i.to_be_bytes();
    [2, 0xab, a, b, c, d]
}

/// Returns the leases of these clients. Every third has a name.
pub(crate) fn leases<L: Sample>(clients: impl Iterator<Item = u32>, contexts: Contexts) -> Outcome<Vec<L>> {
    const CONTEXT: &[u8] =
        br#"{ "ISC": { "relay-agent-info": { "remote-id": "0A0B", "sub-options": "0x0104AABBCCDD" } } }"#;
    let context = match contexts {
        Contexts::None => None,
        Contexts::All => Some(UserContext::parse(CONTEXT)?),
    };
    let lease = |i: u32| {
        let mut lease = L::of_client(i)?;
        let data = lease.data_mut();
        data.cltt = 1_790_000_000 + i64::from(i % 1000);
        data.valid_lifetime = Lifetime(3600);
        data.subnet_id = SubnetId(1 + i / 65536);
        if i.is_multiple_of(3) {
            data.hostname = Hostname::from(&*format!("host-{i}.example.org"));
        }
        data.user_context = context.clone();
        Ok(lease)
    };
    clients.map(lease).collect()
}

/// Returns a lease file with a row for each lease.
pub(crate) fn text<L: FileLease>(leases: &[L]) -> Outcome<Vec<u8>> {
    let mut writer = Writer::new(Vec::new())?;
    for lease in leases {
        writer.append(lease)?;
    }
    Ok(writer.into_inner())
}

/// Files in memory, so that the disk is not measured. Written data is discarded.
pub(crate) type Files = WrappedFileSystem<Discarding, Memory>;

/// Returns these files in memory.
pub(crate) fn memory_files<const N: usize>(files: [(&Path, &[u8]); N]) -> Files {
    let memory = Memory::default();
    for (path, bytes) in files {
        memory.put(path, bytes);
    }
    WrappedFileSystem(Discarding, memory)
}

#[derive(Debug)]
pub(crate) struct Discarding;

impl WrapFiles for Discarding {
    fn wrap_write(&self, _: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        Box::new(Discard)
    }
}

/// A file that discards what is written to it.
struct Discard;

impl WriteFile for Discard {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], _at: u64) -> io::Result<usize> {
        black_box(bytes);
        Ok(bytes.len())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
