//! What the benchmarks work on: leases, and files in memory.

#![allow(dead_code, reason = "each of the benchmarks uses a part of it")]

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use criterion::{Criterion, Throughput};
use leasemgr::fs::{FileSystem, ReadFile, WriteFile};
use leasemgr::lease::{
    ClientId, Duid, Hostname, HwAddr, Iaid, Lease4, Lease6, LeaseState, LeaseType, Lifetime, SubnetId,
    UserContext,
};
use leasemgr::lease_file::{FileLease, Writer};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Few and short runs: what is measured differs by factors, not by percents.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// Rows and bytes a second.
pub(crate) fn throughput(rows: usize, text: &[u8]) -> Throughput {
    Throughput::ElementsAndBytes { elements: rows as u64, bytes: text.len() as u64 }
}

/// Which rows have a user context.
#[derive(Clone, Copy)]
pub(crate) enum Contexts {
    None,
    All,
}

pub(crate) trait Sample: FileLease {
    /// The lease of client `i`; a client with a greater number has a greater address.
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

/// The leases of these clients. Every third has a name.
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

/// A lease file with a row for each lease.
pub(crate) fn text<L: FileLease>(leases: &[L]) -> Outcome<Vec<u8>> {
    let mut writer = Writer::new(Vec::new())?;
    for lease in leases {
        writer.append(lease)?;
    }
    Ok(writer.into_inner())
}

/// Files in memory, so that what is measured is not the disk. What is written is thrown away.
#[derive(Debug)]
pub(crate) struct MemoryFiles(Mutex<HashMap<PathBuf, MemoryFile>>);

#[derive(Clone, Debug)]
pub(crate) struct MemoryFile(Arc<[u8]>);

impl From<&[u8]> for MemoryFile {
    fn from(text: &[u8]) -> Self {
        Self(text.into())
    }
}

impl MemoryFiles {
    pub(crate) fn with<const N: usize>(files: [(&Path, &MemoryFile); N]) -> Self {
        let files = files.map(|(path, file)| (path.to_owned(), file.clone()));
        Self(Mutex::new(files.into()))
    }

    fn files(&self) -> MutexGuard<'_, HashMap<PathBuf, MemoryFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, path: &Path) -> io::Result<MemoryFile> {
        self.files().remove(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl FileSystem for MemoryFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        match self.files().get(path) {
            Some(file) => Ok(Box::new(file.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.files().insert(path.to_owned(), MemoryFile([].into()));
        Ok(Box::new(Discard))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.take(from)?;
        self.files().insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.take(path).map(drop)
    }

    fn sync_file(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(()))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.open(path).map(|_| Box::new(Discard) as _)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.open(path).map(|_| Box::new(Discard) as _)
    }

    fn try_lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Ok(Some(Box::new(())))
    }
}

impl ReadFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, self.0.as_ptr().addr() as u64))
    }
}

/// A file that forgets what is written to it.
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
