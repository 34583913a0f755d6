//! Writes lease files as a server leaves them before a cleanup, for benchmarks and load tests.
//!
//! ```text
//! gen_leases 4|6 LEASES JOURNAL_ROWS DIR [SEED]
//! ```
//!
//! `DIR/leases.csv.2` is the result of the previous cleanup: LEASES leases in address order.
//! `DIR/leases.csv.1` is the journal: of its rows, 85 % renew a lease, 10 % are new leases and 5 %
//! delete a lease. A tenth of all rows has a user context, a third a hostname, some with escapes.
//! The same SEED creates the same files.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use leasemgr::lease::{
    ClientId, Duid, Hostname, HwAddr, Lease4, Lease6, LeaseError, Lifetime, SubnetId, UserContext,
};
use leasemgr::lease_file::{FileLease, Writer};

const USAGE: &str = "usage: gen_leases 4|6 LEASES JOURNAL_ROWS DIR [SEED]";
const START: i64 = 1_790_000_000;
const LIFETIME: u32 = 3600;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (family, leases, journal, dir, seed) = match args[..] {
        [family, leases, journal, dir] => (family, leases, journal, dir, "1"),
        [family, leases, journal, dir, seed] => (family, leases, journal, dir, seed),
        _ => return Err(USAGE.into()),
    };
    let (leases, journal, random) = (leases.parse()?, journal.parse()?, Random::new(seed.parse()?));
    let context = UserContext::parse(CONTEXT)?;
    let generator = Generator { random, context };
    match family {
        "4" => generator.write_files::<Lease4>(leases, journal, dir.as_ref()),
        "6" => generator.write_files::<Lease6>(leases, journal, dir.as_ref()),
        _ => Err(USAGE.into()),
    }
}

/// Relay agent information as a server stores it.
const CONTEXT: &[u8] =
    br#"{ "ISC": { "relay-agent-info": { "sub-options": "0x0104AABBCCDD", "remote-id": "0A0B" } } }"#;

/// Leases of either family.
trait Sample: FileLease {
    /// Returns a lease of client `i`, which always has the same address.
    fn of_client(i: u32) -> Result<Self, LeaseError>;

    /// Returns the clients in the order of their addresses.
    fn in_order(clients: u32) -> impl Iterator<Item = u32>;

    fn set_lifetime(&mut self, seconds: u32);
}

impl Sample for Lease4 {
    fn of_client(i: u32) -> Result<Self, LeaseError> {
        let hwaddr = hwaddr(i);
        let client_id = if i % 2 == 1 { Some(ClientId::new(&[&[1], &hwaddr[..]].concat())?) } else { None };
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits().saturating_add(i));
        Self::builder(address).client((HwAddr::new(&hwaddr)?, client_id)).build()
    }

    fn in_order(clients: u32) -> impl Iterator<Item = u32> {
        0..clients
    }

    fn set_lifetime(&mut self, seconds: u32) {
        self.data_mut().valid_lifetime = Lifetime(seconds);
    }
}

impl Sample for Lease6 {
    /// Every fourth client has a prefix.
    fn of_client(i: u32) -> Result<Self, LeaseError> {
        let hwaddr = hwaddr(i);
        let duid = Duid::new(&[&[0, 1, 0, 1, 0x2a, 0xbb, 0xcc, 0xdd], &hwaddr[..]].concat())?;
        let base = |text: [u16; 3]| Ipv6Addr::new(text[0], text[1], text[2], 0, 0, 0, 0, 0).to_bits();
        let number = u128::from(i) + 1;
        let builder = if has_prefix(i) {
            Self::prefix_builder((base([0x2001, 0xdb8, 0x100]) + (number << 64)).into(), 64)
        } else {
            Self::builder((base([0x2001, 0xdb8, 0]) + number).into())
        };
        builder.client(duid, i).hwaddr(HwAddr::new(&hwaddr)?).build()
    }

    fn in_order(clients: u32) -> impl Iterator<Item = u32> {
        (0..clients).filter(|&i| !has_prefix(i)).chain((0..clients).filter(|&i| has_prefix(i)))
    }

    fn set_lifetime(&mut self, seconds: u32) {
        self.data_mut().valid_lifetime = Lifetime(seconds);
        self.set_preferred_lifetime(Lifetime(seconds / 8 * 5));
    }
}

fn has_prefix(i: u32) -> bool {
    i % 4 == 3
}

/// Returns a locally administered address.
fn hwaddr(i: u32) -> [u8; 6] {
    let [a, b, c, d] = i.to_be_bytes();
    [2, 0, a, b, c, d]
}

struct Generator {
    random: Random,
    context: UserContext,
}

impl Generator {
    fn write_files<L: Sample>(mut self, leases: u32, journal: u32, dir: &Path) -> Result<(), Box<dyn Error>> {
        if leases == 0 {
            return Err("LEASES must be at least 1".into());
        }
        fs::create_dir_all(dir)?;
        let mut file = writer::<L>(&dir.join("leases.csv.2"))?;
        for i in L::in_order(leases) {
            file.append(&self.lease(i, START, LIFETIME)?)?;
        }
        file.into_inner().flush()?;

        let mut file = writer::<L>(&dir.join("leases.csv.1"))?;
        let mut clients = leases;
        for row in 0..journal {
            let now = START + i64::from(row / 1000);
            let lease = match self.random.below(100) {
                0..85 => {
                    let i = self.random.below(clients);
                    self.lease(i, now, LIFETIME)?
                }
                85..95 => {
                    clients = clients.checked_add(1).ok_or("too many leases")?;
                    self.lease(clients - 1, now, LIFETIME)?
                }
                _ => {
                    let i = self.random.below(clients);
                    self.lease(i, now, 0)?
                }
            };
            file.append(&lease)?;
        }
        file.into_inner().flush()?;
        Ok(())
    }

    fn lease<L: Sample>(&mut self, i: u32, now: i64, lifetime: u32) -> Result<L, LeaseError> {
        let mut lease = L::of_client(i)?;
        lease.set_lifetime(lifetime);
        let data = lease.data_mut();
        data.cltt = now;
        data.subnet_id = SubnetId(1 + i / 65536);
        data.hostname = match self.random.below(100) {
            0..30 => Hostname::from(&*format!("host-{i}.example.org")),
            30..33 => Hostname::from(&*format!("odd,host-{i}")),
            _ => Hostname::default(),
        };
        if self.random.below(10) == 0 {
            data.user_context = Some(self.context.clone());
        }
        Ok(lease)
    }
}

fn writer<L: FileLease>(path: &Path) -> std::io::Result<Writer<L, BufWriter<File>>> {
    Writer::new(BufWriter::with_capacity(1 << 20, File::create(path)?))
}

/// Marsaglia's xorshift generator of 64 bits: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // The state must not be 0; the multiplier spreads small seeds over all bits.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let scaled = (self.0 >> 32) * u64::from(bound);
        u32::try_from(scaled >> 32).unwrap_or(u32::MAX)
    }
}
