//! What a power cut leaves of a disk.

use std::collections::{BTreeMap, BTreeSet};

use super::Contents;
use super::state::{FileId, FileState, State, apply};

/// Number of bytes that are written to the disk atomically.
pub(super) const SECTOR: usize = 512;

/// The disks that a power cut may leave.
#[derive(Debug)]
#[non_exhaustive]
pub struct Survivors {
    /// Number of combinations that were considered, for reports.
    pub combinations: usize,
    /// The distinct disks that result from them. There is at least one.
    pub disks: BTreeSet<Contents>,
}

impl State {
    /// Returns what a power cut may leave now: all combinations of changes of names that survive or
    /// do not, and of the bytes that were not synced; samples if there are too many combinations.
    ///
    /// Samples are taken if there are more than 8 changes of names, or 4 sectors that differ. They
    /// are the same in each run with the same `seed`. Files are combined with each other without
    /// such a limit: if many of them are not synced, use [`some_survivors`](Self::some_survivors).
    #[must_use]
    pub fn survivors(&self, seed: u64) -> Survivors {
        const MAX_CHANGES: usize = 8;
        const SAMPLES: usize = 200;
        let mut random = Random(seed);
        let mut maps = BTreeSet::new();
        let mut combinations = 0;
        let changes = self.pending.len();
        let mut keep = |kept: &dyn Fn(usize) -> bool| {
            let mut names = self.durable_names.clone();
            for (_, change) in self.pending.iter().enumerate().filter(|&(n, _)| kept(n)) {
                apply(&mut names, &change.names);
            }
            maps.insert(names);
            combinations += 1;
        };
        if changes <= MAX_CHANGES {
            for mask in 0..1_u64 << changes {
                keep(&|n| mask >> n & 1 == 1);
            }
        } else {
            keep(&|_| true);
            for upto in 0..changes {
                keep(&|n| n < upto);
            }
            for _ in 0..SAMPLES {
                let mask = random.next();
                keep(&|n| mask >> n & 1 == 1);
            }
        }

        let mut after = BTreeMap::new();
        for &id in maps.iter().flat_map(BTreeMap::values) {
            after.entry(id).or_insert_with(|| self.files[id].after_power_cut());
        }
        let mut disks = BTreeSet::new();
        for names in maps {
            let ids: BTreeSet<FileId> = names.values().copied().collect();
            let mut combined: Vec<BTreeMap<FileId, &Vec<u8>>> = vec![BTreeMap::new()];
            for id in ids {
                let with = |bytes| {
                    let add = |others: &BTreeMap<FileId, _>| {
                        others.iter().map(|(&id, &bytes)| (id, bytes)).chain([(id, bytes)]).collect()
                    };
                    combined.iter().map(add).collect::<Vec<_>>()
                };
                combined = after[&id].iter().flat_map(with).collect();
            }
            for files in combined {
                combinations += 1;
                disks.insert(names.iter().map(|(path, id)| (path.clone(), files[id].clone())).collect());
            }
        }
        Survivors { combinations, disks }
    }

    /// Returns some of the disks that a power cut may leave now: at most `count`, which differ.
    /// With many changes and files, there would be too many to try them all.
    ///
    /// They are the same in each run with the same `seed`.
    #[must_use]
    pub fn some_survivors(&self, seed: u64, count: usize) -> BTreeSet<Contents> {
        let random = &mut Random(seed);
        let mut survivor = || {
            let mut names = self.durable_names.clone();
            // All changes have the same probability of surviving, which may also be 0 or 1.
            let probability = random.below(5);
            for change in &self.pending {
                if random.below(4) < probability {
                    apply(&mut names, &change.names);
                }
            }
            let mut content = |id: FileId| self.files[id].some_after_power_cut(random);
            names.iter().map(|(path, &id)| (path.clone(), content(id))).collect()
        };
        (0..count).map(|_| survivor()).collect()
    }
}

/// Random numbers that are the same in every run with the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

impl FileState {
    /// Returns what a power cut may leave of the file.
    fn after_power_cut(&self) -> BTreeSet<Vec<u8>> {
        let mut disks = BTreeSet::from([self.durable.to_vec()]);
        for bytes in self.between.iter().chain([&self.bytes]) {
            if bytes.starts_with(&self.durable) {
                disks.extend(Tail::ALL.map(|tail| tail.of(bytes, self.durable.len())));
            } else {
                let (count, mixture) = mixtures(&self.durable, bytes);
                disks.extend((0..count).map(mixture));
            }
        }
        disks
    }

    /// Returns one of [`after_power_cut`](Self::after_power_cut).
    fn some_after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let mut one_of = |len: usize| random.below(len);
        let bytes = self.between.get(one_of(self.between.len() + 1)).unwrap_or(&self.bytes);
        if bytes.starts_with(&self.durable) {
            Tail::ALL[one_of(Tail::ALL.len())].of(bytes, self.durable.len())
        } else {
            let (count, mixture) = mixtures(&self.durable, bytes);
            mixture(one_of(count))
        }
    }
}

/// What a power cut leaves of the bytes after the durable ones.
#[derive(Clone, Copy, Debug)]
enum Tail {
    Lost,
    Half,
    AllButOne,
    All,
    /// The length survives, and the bytes do not.
    Zeros,
}

impl Tail {
    const ALL: [Self; 5] = [Self::Lost, Self::Half, Self::AllButOne, Self::All, Self::Zeros];
}

impl Tail {
    /// Returns what is left of these bytes, the first `durable` of which are durable.
    fn of(self, bytes: &[u8], durable: usize) -> Vec<u8> {
        let unsynced = bytes.len() - durable;
        let kept = match self {
            Self::All => unsynced,
            Self::Lost | Self::Zeros => 0,
            Self::Half => unsynced / 2,
            Self::AllButOne => unsynced.saturating_sub(1),
        };
        let mut left = bytes[..durable + kept].to_vec();
        if matches!(self, Self::Zeros) {
            left.resize(bytes.len(), 0);
        }
        left
    }
}

/// Returns files that have the length of either version, and each sector of either version, as
/// their number and a function that makes each of them. Samples are taken if many sectors differ.
fn mixtures(old: &[u8], new: &[u8]) -> (usize, impl Fn(usize) -> Vec<u8>) {
    const MAX_SECTORS: usize = 4;
    let sector = |bytes: &[u8], n: usize| {
        let mut sector = [0; SECTOR];
        let rest = &bytes[bytes.len().min(n * SECTOR)..];
        let count = rest.len().min(SECTOR);
        sector[..count].copy_from_slice(&rest[..count]);
        sector
    };
    let sectors = 0..old.len().max(new.len()).div_ceil(SECTOR);
    let changed: Vec<usize> = sectors.filter(|&n| sector(old, n) != sector(new, n)).collect();
    let count = changed.len();
    let mut masks: Vec<Vec<bool>> = Vec::new();
    if count <= MAX_SECTORS {
        masks.extend((0..1_u32 << count).map(|mask| (0..count).map(|n| mask >> n & 1 == 1).collect()));
    } else {
        for at in 0..count {
            masks.push((0..count).map(|n| n < at).collect());
            masks.push((0..count).map(|n| n >= at).collect());
            masks.push((0..count).map(|n| n == at).collect());
            masks.push((0..count).map(|n| n != at).collect());
        }
    }
    (2 * masks.len(), move |which: usize| {
        let len = if which.is_multiple_of(2) { old.len() } else { new.len() };
        let mut file = old.to_vec();
        file.resize(len.next_multiple_of(SECTOR), 0);
        for (&n, _) in changed.iter().zip(&masks[which / 2]).filter(|&(_, &is_new)| is_new) {
            if let Some(place) = file.get_mut(n * SECTOR..(n + 1) * SECTOR) {
                place.copy_from_slice(&sector(new, n));
            }
        }
        file.truncate(len);
        file
    })
}
