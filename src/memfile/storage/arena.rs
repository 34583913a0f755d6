//! Blocks of bytes, packed into pages.
//!
//! A lease has no allocation of its own, which saves an allocator header for each. Blocks are cut
//! from pages of 64 KiB in steps of 8 bytes, and freed blocks are reused by their size.

use super::prefetch::prefetch;

/// Block alignment and size unit in bytes.
const GRANULE: usize = 8;
/// Number of bits of a block ID for the granule within a page.
const GRANULE_BITS: u32 = 13;
/// Page alignment in bytes, so that a usual lease takes one cache line and not parts of two.
const LINE: usize = 64;
/// Maximum length in granules of a block that shares a page with others, limited by the length
/// byte.
const LARGEST: usize = u8::MAX as usize;
/// Maximum number of pages, so that block IDs have 31 bits: 16 GiB.
const PAGES: usize = 1 << (31 - GRANULE_BITS);

/// The position of a block, in 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockId(pub(super) u32);

impl BlockId {
    fn new(page: usize, granule: usize) -> Option<Self> {
        let page = u32::try_from(page).ok().filter(|&page| (page as usize) < PAGES)?;
        Some(Self(page << GRANULE_BITS | u32::try_from(granule).ok()?))
    }

    fn page(self) -> usize {
        (self.0 >> GRANULE_BITS) as usize
    }

    fn granule(self) -> usize {
        (self.0 & ((1 << GRANULE_BITS) - 1)) as usize
    }
}

/// Memory that blocks are cut from.
#[derive(Debug, Default)]
struct Page {
    bytes: Box<[u8]>,
    /// The position of the first block.
    start: usize,
}

impl Page {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + LINE].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(LINE).min(LINE);
        Self { bytes, start }
    }
}

/// Blocks of bytes. The first byte of each is reserved for the arena: the length of the block in
/// granules, or 0 if it has a page of its own.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pages: Vec<Page>,
    /// The page that blocks are cut from, and its first unused granule.
    open: Option<(usize, usize)>,
    /// Freed blocks, indexed by their length in granules.
    free: Vec<Vec<BlockId>>,
    /// Freed pages of long blocks.
    free_pages: Vec<usize>,
}

impl Arena {
    /// Returns whether there is certainly room for this number of blocks, whatever their length.
    pub(super) fn has_room_for(&self, blocks: usize) -> bool {
        PAGES - self.pages.len() + self.free_pages.len() >= blocks
    }

    /// Returns whether `len` bytes can replace the contents of a block without wasting much of it.
    pub(super) fn fits(&self, id: BlockId, len: usize) -> bool {
        let own = self.get(id).len();
        len <= own && own - len < GRANULE.max(own / 2)
    }

    /// Copies a record, except for its first byte, into a new block.
    pub(super) fn insert(&mut self, record: &[u8]) -> Option<BlockId> {
        let granules = record.len().div_ceil(GRANULE);
        let id = if granules > LARGEST { self.new_page(granules)? } else { self.allocate(granules)? };
        self.put(id, record);
        Some(id)
    }

    /// Replaces the contents of a block, which must be long enough.
    pub(super) fn put(&mut self, id: BlockId, record: &[u8]) {
        let block = self.get_mut(id);
        block[1..record.len()].copy_from_slice(&record[1..]);
    }

    /// Frees a block.
    pub(super) fn remove(&mut self, id: BlockId) {
        let granules = usize::from(self.get(id)[0]);
        if granules == 0 {
            self.pages[id.page()] = Page::default();
            self.free_pages.push(id.page());
        } else {
            if self.free.len() <= granules {
                self.free.resize_with(granules + 1, Vec::new);
            }
            self.free[granules].push(id);
        }
    }

    /// Returns a block, which may be longer than its contents.
    #[inline]
    pub(super) fn get(&self, id: BlockId) -> &[u8] {
        let page = &self.pages[id.page()];
        let rest = &page.bytes[page.start + id.granule() * GRANULE..];
        match rest[0] {
            0 => rest,
            granules => &rest[..usize::from(granules) * GRANULE],
        }
    }

    /// Prefetches a block.
    #[inline]
    pub(super) fn prefetch(&self, id: BlockId) {
        let page = &self.pages[id.page()];
        prefetch(&page.bytes[page.start + id.granule() * GRANULE]);
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: BlockId) -> &mut [u8] {
        let page = &mut self.pages[id.page()];
        let rest = &mut page.bytes[page.start + id.granule() * GRANULE..];
        match rest[0] {
            0 => rest,
            granules => &mut rest[..usize::from(granules) * GRANULE],
        }
    }

    /// Returns the number of allocated bytes.
    pub(super) fn memory(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| page.bytes.len()).sum();
        let free: usize = self.free.iter().map(|list| list.capacity() * size_of::<BlockId>()).sum();
        pages + free + self.pages.capacity() * size_of::<Page>()
    }

    /// Allocates a page for one long block.
    fn new_page(&mut self, granules: usize) -> Option<BlockId> {
        let page = Page::new(granules * GRANULE);
        if let Some(n) = self.free_pages.pop() {
            self.pages[n] = page;
            return BlockId::new(n, 0);
        }
        let id = BlockId::new(self.pages.len(), 0)?;
        self.pages.push(page);
        Some(id)
    }

    /// Takes a block from the freed ones or from the open page.
    fn allocate(&mut self, granules: usize) -> Option<BlockId> {
        if let Some(id) = self.free.get_mut(granules).and_then(Vec::pop) {
            return Some(id);
        }
        if let Some((page, at)) = self.open
            && at + granules <= 1 << GRANULE_BITS
        {
            self.open = Some((page, at + granules));
            return self.set_len(page, at, granules);
        }
        // A longer freed block is split before memory for another page is allocated.
        if let Some(long) = (granules + 1..self.free.len()).find(|&n| !self.free[n].is_empty()) {
            let id = self.free[long].pop()?;
            let (page, at) = (id.page(), id.granule());
            self.set_len(page, at + granules, long - granules)?;
            self.remove(BlockId::new(page, at + granules)?);
            return self.set_len(page, at, granules);
        }
        // The rest of the open page becomes a freed block.
        if let Some((page, at)) = self.open.take()
            && at < 1 << GRANULE_BITS
        {
            let id = self.set_len(page, at, (1 << GRANULE_BITS) - at)?;
            self.remove(id);
        }
        let page = self.new_page(1 << GRANULE_BITS)?.page();
        self.open = Some((page, granules));
        self.set_len(page, 0, granules)
    }

    /// Records the length of a block, and returns its ID.
    fn set_len(&mut self, page: usize, at: usize, granules: usize) -> Option<BlockId> {
        let start = self.pages[page].start;
        self.pages[page].bytes[start + at * GRANULE] = u8::try_from(granules).ok()?;
        BlockId::new(page, at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn record(n: usize, len: usize) -> Vec<u8> {
        (0..len).map(|i| (n + i) as u8).collect()
    }

    #[test]
    fn freed_blocks_are_given_out_again() {
        let mut arena = Arena::default();
        let ids: Vec<_> = (0..10_000).map(|n| arena.insert(&record(n, 70)).unwrap()).collect();
        let memory = arena.memory();
        for round in 0..5 {
            for &id in &ids {
                arena.remove(id);
            }
            for n in 0..10_000 {
                let len = if round % 2 == 0 { 70 } else { 33 };
                arena.insert(&record(n, len)).unwrap();
            }
            if round % 2 == 1 {
                return;
            }
            assert!(arena.memory() < memory + 200_000, "{} {memory}", arena.memory());
        }
    }

    proptest! {
        #[test]
        fn blocks_keep_what_was_put_into_them(
            steps in proptest::collection::vec((any::<bool>(), 8_usize..200, any::<prop::sample::Index>()), 1..400),
            long in proptest::collection::vec((2000_usize..200_000, any::<prop::sample::Index>()), 0..5),
        ) {
            let mut arena = Arena::default();
            let mut live: BTreeMap<usize, (BlockId, Vec<u8>)> = BTreeMap::new();
            let long = long.into_iter().map(|(len, which)| (true, len, which));
            for (n, (add, len, which)) in steps.into_iter().chain(long).enumerate() {
                if add || live.is_empty() {
                    let bytes = record(n, len);
                    live.insert(n, (arena.insert(&bytes).unwrap(), bytes));
                } else {
                    let at = which.index(live.len());
                    let key = *live.keys().nth(at).unwrap();
                    let (id, _) = live.remove(&key).unwrap();
                    arena.remove(id);
                }
                for (id, bytes) in live.values() {
                    prop_assert_eq!(&arena.get(*id)[1..bytes.len()], &bytes[1..]);
                }
            }
        }
    }
}
