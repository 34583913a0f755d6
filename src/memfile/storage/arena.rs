//! Blocks of bytes, packed into pages.
//!
//! A lease has no allocation of its own: a million of them would cost a million allocator headers. Blocks are cut from
//! pages of 64 KiB in steps of 8 bytes, and freed ones are given out again by their size.

use super::prefetch::prefetch;

/// Blocks start and end at multiples of this, in bytes.
const GRANULE: usize = 8;
/// The bits of an id that count granules in a page.
const GRANULE_BITS: u32 = 13;
/// Pages start at multiples of this, in bytes, so that a usual lease is one cache line and not parts of two.
const LINE: usize = 64;
/// The longest block, in granules, that shares a page with others: what a byte can tell.
const LARGEST: usize = u8::MAX as usize;
/// How many pages there can be, so that ids have 31 bits: 16 GiB.
const PAGES: usize = 1 << (31 - GRANULE_BITS);

/// Where a block is. It has 31 bits.
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

/// Bytes that blocks are cut from.
#[derive(Debug, Default)]
struct Page {
    bytes: Box<[u8]>,
    /// Where the first block starts.
    start: usize,
}

impl Page {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + LINE].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(LINE).min(LINE);
        Self { bytes, start }
    }
}

/// Blocks of bytes. The first byte of each belongs to the arena: the length of the block in granules, 0 where
/// it has a page of its own.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pages: Vec<Page>,
    /// The page that blocks are cut from, and the first granule that was not.
    open: Option<(usize, usize)>,
    /// Freed blocks, by their length in granules.
    free: Vec<Vec<BlockId>>,
    /// Pages of long blocks that were freed.
    free_pages: Vec<usize>,
}

impl Arena {
    /// Whether there certainly is room for so many blocks, whatever their length.
    pub(super) fn has_room_for(&self, blocks: usize) -> bool {
        PAGES - self.pages.len() + self.free_pages.len() >= blocks
    }

    /// Whether a block of `old` bytes is as good as one for `new`: so its content can be replaced.
    pub(super) fn fits(&self, id: BlockId, len: usize) -> bool {
        let own = self.get(id).len();
        len <= own && own - len < GRANULE.max(own / 2)
    }

    /// A copy of a record, whose first byte is not kept.
    pub(super) fn insert(&mut self, record: &[u8]) -> Option<BlockId> {
        let granules = record.len().div_ceil(GRANULE);
        let id = if granules > LARGEST { self.new_page(granules)? } else { self.cut(granules)? };
        self.put(id, record);
        Some(id)
    }

    /// Replaces the content of a block, which must be long enough.
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

    /// The block, which may be longer than what was put into it.
    #[inline]
    pub(super) fn get(&self, id: BlockId) -> &[u8] {
        let page = &self.pages[id.page()];
        let rest = &page.bytes[page.start + id.granule() * GRANULE..];
        match rest[0] {
            0 => rest,
            granules => &rest[..usize::from(granules) * GRANULE],
        }
    }

    /// Has the processor fetch the block.
    #[inline]
    pub(super) fn fetch(&self, id: BlockId) {
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

    /// How many bytes are allocated.
    pub(super) fn memory(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| page.bytes.len()).sum();
        let free: usize = self.free.iter().map(|list| list.capacity() * size_of::<BlockId>()).sum();
        pages + free + self.pages.capacity() * size_of::<Page>()
    }

    /// A page for one long block.
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

    /// A block from the free ones or from the open page.
    fn cut(&mut self, granules: usize) -> Option<BlockId> {
        if let Some(id) = self.free.get_mut(granules).and_then(Vec::pop) {
            return Some(id);
        }
        if let Some((page, at)) = self.open
            && at + granules <= 1 << GRANULE_BITS
        {
            self.open = Some((page, at + granules));
            return self.start(page, at, granules);
        }
        // A longer block that nobody needs is cut in two before memory is taken for another page.
        if let Some(long) = (granules + 1..self.free.len()).find(|&n| !self.free[n].is_empty()) {
            let id = self.free[long].pop()?;
            let (page, at) = (id.page(), id.granule());
            self.start(page, at + granules, long - granules)?;
            self.remove(BlockId::new(page, at + granules)?);
            return self.start(page, at, granules);
        }
        // What is left of the open page is given out later.
        if let Some((page, at)) = self.open.take()
            && at < 1 << GRANULE_BITS
        {
            let id = self.start(page, at, (1 << GRANULE_BITS) - at)?;
            self.remove(id);
        }
        let page = self.new_page(1 << GRANULE_BITS)?.page();
        self.open = Some((page, granules));
        self.start(page, 0, granules)
    }

    /// Says how long a block is.
    fn start(&mut self, page: usize, at: usize, granules: usize) -> Option<BlockId> {
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
            let mut held: BTreeMap<usize, (BlockId, Vec<u8>)> = BTreeMap::new();
            let long = long.into_iter().map(|(len, which)| (true, len, which));
            for (n, (add, len, which)) in steps.into_iter().chain(long).enumerate() {
                if add || held.is_empty() {
                    let bytes = record(n, len);
                    held.insert(n, (arena.insert(&bytes).unwrap(), bytes));
                } else {
                    let at = which.index(held.len());
                    let key = *held.keys().nth(at).unwrap();
                    let (id, _) = held.remove(&key).unwrap();
                    arena.remove(id);
                }
                for (id, bytes) in held.values() {
                    prop_assert_eq!(&arena.get(*id)[1..bytes.len()], &bytes[1..]);
                }
            }
        }
    }
}
