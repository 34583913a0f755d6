//! What threads that change leases do to each other, in thousands of orders (`scripts/threads`).
//!
//! The store and its journal are as they are in use, on the disk of the journal's models.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use shuttle::{check_pct, check_random, thread};

use super::*;
use crate::lease::{HwAddr, Lease4, LeaseState, Lifetime};
use crate::lease_file::FileLease;
use crate::lease_mgr::{Added, Borrowed, ChangeKind, Deleted, Done, Durability};
use crate::memfile::journal::models::Disk;

const ORDERS: usize = 1000;
const LIFETIME: u32 = 3600;

/// When the client was heard, which is another time for each change; `None` where there is no lease.
type Heard = Option<i64>;

/// A store, and what is known of the changes in it.
struct Model {
    store: Store<Lease4>,
    disk: Disk,
    durability: Durability,
    /// What callbacks were told: the address, and its lease before and after.
    told: Arc<Mutex<Vec<(Ipv4Addr, Heard, Heard)>>>,
    /// Leases that were acknowledged.
    made: Mutex<Vec<i64>>,
    /// Number of deletions that were acknowledged.
    deleted: Mutex<usize>,
}

fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, n)
}

fn lease(n: u8, heard: i64) -> Lease4 {
    let client = HwAddr::from([2, 0, 0, 0, 0, n]);
    let mut lease = Lease4::new(address(n), Some(client), None, LeaseState::DEFAULT).unwrap();
    lease.data_mut().valid_lifetime = Lifetime(LIFETIME);
    lease.data_mut().cltt = heard;
    lease
}

impl Model {
    fn new(durability: Durability, fails: Option<usize>) -> Arc<Self> {
        let disk = Disk::default();
        let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
        let files = LeaseFileSet::new("/leases/f");
        let path = files.current_path().to_owned();
        let journal = Journal::open(Arc::clone(&fs), path, Lease4::schema().header, durability).unwrap();
        disk.fail_after_now(fails);
        let persistence = Persistence {
            journal: Arc::new(journal),
            files,
            fs,
            has_invalid_rows: AtomicBool::new(false),
            _owners: Vec::new(),
        };
        let store = Store::new(Storage::new(true), OnFail::default(), Some(persistence));
        let told = Arc::<Mutex<Vec<_>>>::default();
        for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
            let told = Arc::clone(&told);
            let tell = move |change: &crate::lease_mgr::Change<'_, Lease4>| {
                let heard = |lease: Option<&Lease4>| lease.map(|lease| lease.data().cltt);
                let change = (change.address(), heard(change.before()), heard(change.now()));
                told.lock().unwrap().push(change);
            };
            store.tracking.register("model", kind, None, tell).unwrap();
        }
        Arc::new(Self { store, disk, durability, told, made: Mutex::default(), deleted: Mutex::default() })
    }

    fn add(&self, n: u8, heard: i64) {
        if let Ok(Added::Added) = self.store.add(&lease(n, heard)) {
            self.made.lock().unwrap().push(heard);
        }
    }

    /// Renews a lease, if it is still the one that is read.
    fn renew(&self, n: u8, heard: i64) {
        let read = self.store.read().get(Lease4::key_of(address(n))).map(|packed| packed.lease());
        let Some(read) = read else {
            return;
        };
        match self.store.update(&lease(n, heard), Some(&read)) {
            Ok(()) => {
                self.made.lock().unwrap().push(heard);
                let change = (address(n), Some(read.data().cltt), Some(heard));
                assert!(self.told.lock().unwrap().contains(&change), "{change:?} is what the caller knows");
            }
            Err(error) if error.is_stale() => {}
            Err(error) => assert!(self.disk.has_failed(), "{error}"),
        }
    }

    fn delete(&self, n: u8) {
        if let Ok(Deleted::Deleted) = self.store.delete(address(n), None) {
            *self.deleted.lock().unwrap() += 1;
        }
    }

    /// A batch that adds leases, and deletes one.
    fn batch(&self, adds: [u8; 2], deletes: u8, heard: i64) {
        let leases = [lease(adds[0], heard), lease(adds[1], heard + 1)];
        let [first, second] = leases.each_ref().map(Borrowed::Add);
        let delete = Borrowed::Delete(address(deletes), None);
        let results = self.store.apply([first, delete, second].into_iter());
        for (result, heard) in results.into_iter().zip([heard, 0, heard + 1]) {
            match result {
                Ok(Done::Added) => self.made.lock().unwrap().push(heard),
                Ok(Done::Deleted) => *self.deleted.lock().unwrap() += 1,
                _ => {}
            }
        }
    }

    /// What is in memory is in the journal before.
    fn read(&self, n: u8) {
        let there = self.store.read().get(Lease4::key_of(address(n))).map(|packed| packed.cltt());
        if there.is_some() {
            let journal = self.journal(self.durability == Durability::Synced);
            let rows = journal.get(&address(n)).cloned().unwrap_or_default();
            assert!(rows.contains(&there), "{there:?} is in memory, and {rows:?} in the journal");
        }
    }

    /// What each row says of its address.
    fn journal(&self, durable: bool) -> BTreeMap<Ipv4Addr, Vec<Heard>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for row in self.disk.rows(durable) {
            let values: Vec<_> = row.split(',').collect();
            let (lifetime, expire): (i64, i64) = (values[3].parse().unwrap(), values[4].parse().unwrap());
            let heard = (lifetime > 0).then_some(expire - lifetime);
            found.entry(values[0].parse().unwrap()).or_default().push(heard);
        }
        found
    }

    /// What was told is what was acknowledged, what is in memory, and what is in the journal, in this order.
    fn end(&self) {
        let mut chains = BTreeMap::<_, Vec<Heard>>::new();
        let told = self.told.lock().unwrap().clone();
        for (address, before, now) in &told {
            let chain = chains.entry(*address).or_default();
            assert_eq!(chain.last().copied().flatten(), *before, "{told:?}");
            chain.push(*now);
        }
        assert_eq!(self.journal(false), chains);
        for (address, chain) in chains {
            let there = self.store.read().get(Lease4::key_of(address)).map(|packed| packed.cltt());
            assert_eq!(there, chain.last().copied().flatten(), "{address} of {told:?}");
        }
        let mut told_made: Vec<_> = told.iter().filter_map(|(_, _, now)| *now).collect();
        let mut made = self.made.lock().unwrap().clone();
        told_made.sort_unstable();
        made.sort_unstable();
        assert_eq!(told_made, made);
        assert_eq!(told.iter().filter(|(_, _, now)| now.is_none()).count(), *self.deleted.lock().unwrap());
    }
}

fn changing(durability: Durability, fails: Option<usize>) {
    let model = Model::new(durability, fails);
    let spawn = |work: fn(&Model)| {
        let model = Arc::clone(&model);
        thread::spawn(move || work(&model))
    };
    let threads = [
        spawn(|model| {
            model.add(1, 100);
            model.renew(1, 101);
        }),
        spawn(|model| {
            model.add(1, 200);
            model.delete(1);
            model.renew(2, 201);
        }),
        spawn(|model| model.batch([2, 1], 2, 300)),
        spawn(|model| model.batch([1, 2], 1, 400)),
        spawn(|model| {
            model.read(1);
            model.read(2);
            model.renew(2, 500);
        }),
    ];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    model.end();
}

#[test]
fn memory_journal_and_callbacks_have_the_changes_of_an_address_in_one_order() {
    for durability in [Durability::Written, Durability::Synced] {
        check_random(move || changing(durability, None), ORDERS);
        check_pct(move || changing(durability, None), ORDERS, 3);
    }
}

#[test]
fn what_the_disk_refuses_is_neither_in_memory_nor_told() {
    for durability in [Durability::Written, Durability::Synced] {
        for fails in 1..=8 {
            check_random(move || changing(durability, Some(fails)), ORDERS / 10);
        }
    }
}
