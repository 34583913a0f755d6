//! The data structures of the memfile, compared with alternatives: the B+ tree with the standard
//! library's `BTreeMap`, the hash index with `hashbrown`, the sharded lock with those of `crossbeam`
//! and `parking_lot`, and the search for separators in blocks of 16 bytes with one byte at a time.
//!
//! The structures are private to the crate, so their source files are included here.

mod support;

/// Modules of the crate, under their own names.
#[path = "../src/simd.rs"]
#[expect(dead_code, unused_imports, reason = "only a part is measured")]
mod simd;

mod sync {
    pub(crate) use std::{hint, thread_local};

    pub(crate) use parking_lot::RawRwLock;
}

#[path = "../src/memfile"]
mod memfile {
    #[expect(dead_code, unused_imports, reason = "only a part is measured")]
    pub(crate) mod storage {
        mod b_tree;
        mod hash_index;
        mod prefetch;
        mod sharded_lock;

        pub(crate) use b_tree::OrderedMap;

        /// A number protected by the sharded lock.
        pub(crate) struct Sharded(sharded_lock::ShardedLock<u64>);

        impl Sharded {
            pub(crate) fn new() -> Self {
                Self(sharded_lock::ShardedLock::new(0))
            }

            pub(crate) fn read(&self) -> u64 {
                *self.0.read()
            }

            pub(crate) fn increment(&self) {
                *self.0.write() += 1;
            }
        }

        /// The hash index with the function that returns the hash of a number, which it needs to grow.
        pub(crate) struct Numbers<H> {
            index: hash_index::HashIndex,
            hash: H,
        }

        struct Hashed<'a, H>(&'a H);

        impl<H: Fn(u32) -> u64> hash_index::Hashed for Hashed<'_, H> {
            fn hash(&self, number: u32) -> u64 {
                self.0(number)
            }

            fn prefetch(&self, _: u32) {}
        }

        impl<H: Fn(u32) -> u64> Numbers<H> {
            pub(crate) fn new(hash: H) -> Self {
                Self { index: hash_index::HashIndex::new(), hash }
            }

            pub(crate) fn insert(&mut self, number: u32) {
                self.index.insert((self.hash)(number), number, &Hashed(&self.hash));
            }

            pub(crate) fn find(&self, number: u32) -> Option<u32> {
                self.index.find((self.hash)(number), |other| other == number)
            }

            pub(crate) fn memory(&self) -> usize {
                self.index.memory()
            }
        }
    }
}

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use hashbrown::HashTable;

use memfile::storage::{Numbers, OrderedMap, Sharded};
use simd::Block;
use support::{Outcome, criterion};

/// Numbers of entries: one that fits in the cache, and one that does not.
const SIZES: [u32; 2] = [10_000, 1_000_000];

fn main() -> Outcome {
    let mut criterion = criterion();
    ordered(&mut criterion);
    hashed(&mut criterion);
    locks(&mut criterion);
    bytes(&mut criterion);
    criterion.final_summary();
    Ok(())
}

/// Returns the numbers below `len`, each once, in another order. `len` must not be a multiple of the
/// step.
fn scattered(len: u32) -> impl Iterator<Item = u32> + Clone {
    (0..len).scan(0_u32, move |at, _| {
        *at = (*at + 611_953) % len;
        Some(*at)
    })
}

fn ordered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ordered map");
    for len in SIZES {
        group.throughput(Throughput::Elements(len.into()));
        group.bench_function(BenchmarkId::new("b_tree, insert in any order", len), |bencher| {
            bencher.iter(|| {
                let mut map = OrderedMap::<u32, u32>::default();
                scattered(len).for_each(|key| _ = map.insert(key, key));
                map
            });
        });
        group.bench_function(BenchmarkId::new("BTreeMap, insert in any order", len), |bencher| {
            bencher.iter(|| {
                let mut map = BTreeMap::new();
                scattered(len).for_each(|key| _ = map.insert(key, key));
                map
            });
        });
        let mut own = OrderedMap::<u32, u32>::default();
        let mut standard = BTreeMap::new();
        for key in scattered(len) {
            own.insert(key, key);
            standard.insert(key, key);
        }
        group.bench_function(BenchmarkId::new("b_tree, remove and insert", len), |bencher| {
            bencher.iter(|| {
                for key in scattered(len) {
                    own.remove(key);
                    own.insert(key, key);
                }
            });
        });
        group.bench_function(BenchmarkId::new("BTreeMap, remove and insert", len), |bencher| {
            bencher.iter(|| {
                for key in scattered(len) {
                    standard.remove(&key);
                    standard.insert(key, key);
                }
            });
        });
        group.bench_function(BenchmarkId::new("b_tree, pages of 1000", len), |bencher| {
            bencher.iter(|| {
                let from = |start| own.iter_from(Bound::Included(start)).take(1000);
                (0..len)
                    .step_by(1000)
                    .map(|start| from(start).map(|(_, value)| u64::from(value)).sum::<u64>())
                    .sum::<u64>()
            });
        });
        group.bench_function(BenchmarkId::new("BTreeMap, pages of 1000", len), |bencher| {
            bencher.iter(|| {
                let from = |start| standard.range(start..).take(1000);
                (0..len)
                    .step_by(1000)
                    .map(|start| from(start).map(|(_, &value)| u64::from(value)).sum::<u64>())
                    .sum::<u64>()
            });
        });
    }
    group.finish();
}

fn hashed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash table of numbers");
    let hasher = foldhash::fast::RandomState::default();
    let hash = |number: u32| hasher.hash_one(number);
    for len in SIZES {
        group.throughput(Throughput::Elements(len.into()));
        group.bench_function(BenchmarkId::new("hash_index, insert", len), |bencher| {
            bencher.iter(|| {
                let mut numbers = Numbers::new(hash);
                scattered(len).for_each(|number| numbers.insert(number));
                numbers.memory()
            });
        });
        group.bench_function(BenchmarkId::new("hashbrown, insert", len), |bencher| {
            bencher.iter(|| {
                let mut numbers = HashTable::new();
                scattered(len).for_each(|number| {
                    _ = numbers.insert_unique(hash(number), number, |&number| hash(number));
                });
                numbers.allocation_size()
            });
        });
        let (mut own, mut other) = (Numbers::new(hash), HashTable::new());
        for number in scattered(len) {
            own.insert(number);
            other.insert_unique(hash(number), number, |&number| hash(number));
        }
        group.bench_function(BenchmarkId::new("hash_index, find", len), |bencher| {
            bencher.iter(|| scattered(len).filter(|&number| own.find(number) == Some(number)).count());
        });
        group.bench_function(BenchmarkId::new("hashbrown, find", len), |bencher| {
            let find = |number| other.find(hash(number), |&there| there == number);
            bencher.iter(|| scattered(len).filter(|&number| find(number) == Some(&number)).count());
        });
    }
    group.finish();
}

/// Returns the time in which each of `threads` threads does the work `times` times.
fn in_threads(threads: usize, times: u64, work: impl Fn() + Sync) -> Duration {
    let begin = Barrier::new(threads);
    let elapsed = |()| {
        begin.wait();
        let start = Instant::now();
        (0..times).for_each(|_| work());
        start.elapsed()
    };
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(|| elapsed(()))).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).max().unwrap_or_default()
    })
}

fn locks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lock");
    let own = Sharded::new();
    let crossbeam = crossbeam_utils::sync::ShardedLock::new(0_u64);
    let parking_lot = parking_lot::RwLock::new(0_u64);
    for threads in [1, 2] {
        let mut measure = |name: &str, work: &(dyn Fn() + Sync)| {
            group.bench_function(BenchmarkId::new(name, format!("{threads} threads")), |bencher| {
                bencher.iter_custom(|times| in_threads(threads, times, work));
            });
        };
        measure("sharded_lock, read", &|| _ = black_box(own.read()));
        measure("crossbeam's, read", &|| _ = black_box(crossbeam.read().map(|value| *value).ok()));
        measure("parking_lot's, read", &|| _ = black_box(*parking_lot.read()));
        measure("sharded_lock, write", &|| own.increment());
        measure("crossbeam's, write", &|| _ = crossbeam.write().map(|mut value| *value += 1).ok());
        measure("parking_lot's, write", &|| *parking_lot.write() += 1);
    }
    group.finish();
}

/// Finds the commas and the newlines of a lease file.
fn bytes(criterion: &mut Criterion) {
    const ROW: &[u8; 80] =
        b"192.0.2.101,02:00:00:00:00:01,01:02:00:00:00:00:01,3600,1790003600,1,0,0,h1.a,0\n";
    let text: Vec<u8> = ROW.iter().copied().cycle().take(80 * 1000).collect();
    let mut group = criterion.benchmark_group("separators");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("wide, 16 bytes at a time", |bencher| {
        bencher.iter(|| {
            let blocks = text.as_chunks::<16>().0;
            blocks.iter().map(|block| Block::load(block).is_either(b',', b'\n').count_ones()).sum::<u32>()
        });
    });
    group.bench_function("plain, a byte at a time", |bencher| {
        // Each separator determines where the search continues, as in a parser, so the compiler
        // cannot vectorize it.
        bencher.iter(|| {
            let (mut count, mut rest) = (0_u32, &text[..]);
            while let Some(at) = rest.iter().position(|byte| matches!(byte, b',' | b'\n')) {
                (count, rest) = (count + 1, &rest[at + 1..]);
            }
            count
        });
    });
    group.bench_function("memchr", |bencher| {
        bencher.iter(|| memchr::memchr2_iter(b',', b'\n', &text).count());
    });
    group.finish();
}
