//! Compact ordered maps and sets, for the indexes of leases.

use std::iter::{Copied, Rev, Zip};
use std::mem;
use std::ops::Bound;
use std::slice;

/// A map with measured sizes of leaves and nodes: smaller leaves take more memory for their arrays,
/// larger ones more time for moving entries; nodes of 128 to 512 leaves perform the same.
pub(crate) type OrderedMap<K, V, N = ()> = Tree<K, V, N, 128, 256>;

/// A map in the order of its keys, or with `V = ()` a set: a B+ tree of at most three levels. Its
/// leaves are arrays of up to `LEAF` entries, which are allocated as they fill; a node has up to
/// `INNER` leaves, and the top node any number of nodes. The top node is an array as well, of about
/// 5000 nodes for 10^8 entries.
///
/// Keys should compare without branches, like one number and unlike an array.
#[derive(Clone, Debug)]
pub(crate) struct Tree<K, V, N, const LEAF: usize, const INNER: usize> {
    root: Root<K, V, N>,
}

/// A small map is a single leaf.
#[derive(Clone, Debug)]
enum Root<K, V, N> {
    Small(Leaf<K, V, N>),
    /// Two leaves or more.
    Large(Box<Top<K, V, N>>),
}

#[derive(Clone, Debug)]
struct Top<K, V, N> {
    /// Number of entries.
    len: usize,
    node: Node<K, Inner<K, V, N>>,
}

type Inner<K, V, N> = Node<K, Leaf<K, V, N>>;

/// Children with consecutive ranges of keys.
#[derive(Clone, Debug)]
struct Node<K, C> {
    /// One key between each two children: greater than all keys before it, not greater than any key
    /// after it.
    bounds: Vec<K>,
    /// Never empty; one more than `bounds`.
    children: Vec<C>,
}

/// Entries in the order of their keys. In a large tree, leaves are never empty.
#[derive(Clone, Debug)]
struct Leaf<K, V, N> {
    keys: Vec<K>,
    values: Vec<V>,
    summary: N,
}

/// A summary of the entries of a leaf, for searches that can skip whole leaves. A search may update
/// it through a shared reference when it finds it outdated.
pub(crate) trait Summary: Clone {
    /// Returns the summary of no entries.
    fn none() -> Self;

    /// Returns the summary of entries that have not been examined.
    fn unknown() -> Self;

    /// Extends the summary to further entries.
    fn join(&self, other: &Self);
}

impl Summary for () {
    fn none() -> Self {}

    fn unknown() -> Self {}

    fn join(&self, (): &Self) {}
}

/// The entries of a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafView<'a, K, V, N> {
    /// In ascending order, at least one.
    pub(crate) keys: &'a [K],
    pub(crate) values: &'a [V],
    pub(crate) summary: &'a N,
}

/// Returns the capacity to allocate for `len` elements: up to a quarter more, or up to 3 more.
fn rounded_capacity(len: usize) -> usize {
    let step = (len.next_power_of_two() / 8).max(4);
    len.next_multiple_of(step)
}

/// Reserves room for `additional` elements, for not more than `limit` in total if possible.
fn reserve<T>(vec: &mut Vec<T>, additional: usize, limit: usize) {
    let len = vec.len() + additional;
    if len > vec.capacity() {
        vec.reserve_exact(rounded_capacity(len).min(limit.max(len)) - vec.len());
    }
}

/// Frees memory if at most half of it is used.
fn trim<T>(vec: &mut Vec<T>) {
    if vec.is_empty() {
        *vec = Vec::new();
    } else if vec.len() <= vec.capacity() / 2 {
        vec.shrink_to(rounded_capacity(vec.len() + 1));
    }
}

fn bytes<T>(vec: &Vec<T>) -> usize {
    vec.capacity() * size_of::<T>()
}

/// Returns the number of sorted keys that are less than `key`.
fn count_less<K: Copy + Ord>(keys: &[K], key: K) -> usize {
    count_first(keys, |&other| other < key)
}

/// Returns the number of sorted keys that are not greater than `key`.
fn count_not_greater<K: Copy + Ord>(keys: &[K], key: K) -> usize {
    count_first(keys, |&other| other <= key)
}

/// Returns the number of keys before the first one that is not `before`.
fn count_first<K>(keys: &[K], before: impl Fn(&K) -> bool) -> usize {
    const BLOCK: usize = 16;
    /// Number of blocks from which on a binary search is faster than a scan.
    const MANY: usize = 33;
    // Both ends first: keys are often added in ascending order, and the lowest key is often removed
    // first.
    match keys {
        [.., last] if before(last) => return keys.len(),
        [first, ..] if before(first) => {}
        _ => return 0,
    }
    // Counting has no branches that depend on keys, and waits for memory once instead of at each
    // step, so it is faster than a binary search.
    let (blocks, _) = keys.as_chunks::<BLOCK>();
    let block_before = |block: &[K; BLOCK]| before(&block[BLOCK - 1]);
    let blocks_before =
        if blocks.len() < MANY { count(blocks, block_before) } else { blocks.partition_point(block_before) };
    let whole = blocks_before * BLOCK;
    whole + count(&keys[whole..keys.len().min(whole + BLOCK)], before)
}

/// Returns the number of elements that are `before`, for few elements.
fn count<T>(elements: &[T], before: impl Fn(&T) -> bool) -> usize {
    // A sum of 32 bits is vectorized better.
    elements.iter().map(|element| u32::from(before(element))).sum::<u32>() as usize
}

impl<K: Copy + Ord, C> Node<K, C> {
    fn with(child: C) -> Self {
        Self { bounds: Vec::new(), children: vec![child] }
    }

    /// Returns the child whose range includes the key.
    fn find(&self, key: K) -> usize {
        count_not_greater(&self.bounds, key)
    }

    /// Inserts a child after child `at`.
    fn insert_after(&mut self, at: usize, bound: K, child: C, limit: usize) {
        reserve(&mut self.bounds, 1, limit - 1);
        reserve(&mut self.children, 1, limit);
        self.bounds.insert(at, bound);
        self.children.insert(at + 1, child);
    }

    /// Removes child `at`; its range of keys goes to the child before it, or to the one after it if
    /// it is the first.
    fn remove(&mut self, at: usize) -> C {
        if !self.bounds.is_empty() {
            self.bounds.remove(at.saturating_sub(1));
        }
        let child = self.children.remove(at);
        trim(&mut self.bounds);
        trim(&mut self.children);
        child
    }

    /// Splits off the children from `at` on, with the bound before them. Both parts must have
    /// children.
    fn split_off(&mut self, at: usize) -> (K, Self) {
        let children = self.children.split_off(at);
        let bounds = self.bounds.split_off(at);
        let bound = self.bounds.remove(at - 1);
        trim(&mut self.bounds);
        trim(&mut self.children);
        (bound, Self { bounds, children })
    }

    /// Appends the children of the next node.
    fn append(&mut self, bound: K, mut other: Self, limit: usize) {
        reserve(&mut self.bounds, other.children.len(), limit - 1);
        reserve(&mut self.children, other.children.len(), limit);
        self.bounds.push(bound);
        self.bounds.append(&mut other.bounds);
        self.children.append(&mut other.children);
    }

    fn shrink_to_fit(&mut self) {
        self.bounds.shrink_to_fit();
        self.children.shrink_to_fit();
    }

    /// Returns the first of two neighbours, one of which is child `at`, that together fill at most
    /// three quarters of one.
    fn mergeable(&self, at: usize, limit: usize, len: impl Fn(&C) -> usize) -> Option<usize> {
        let fits = |left: &usize| {
            let pair = self.children.get(*left..*left + 2);
            pair.is_some_and(|pair| pair.iter().map(&len).sum::<usize>() <= limit * 3 / 4)
        };
        [Some(at), at.checked_sub(1)].into_iter().flatten().find(fits)
    }
}

impl<K: Copy + Ord, V: Copy, N: Summary> Leaf<K, V, N> {
    fn with_capacity(capacity: usize) -> Self {
        Self { keys: Vec::with_capacity(capacity), values: Vec::with_capacity(capacity), summary: N::none() }
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns the position of the key, or the position at which to insert it.
    fn find(&self, key: K) -> Result<usize, usize> {
        let at = count_less(&self.keys, key);
        if self.keys.get(at) == Some(&key) { Ok(at) } else { Err(at) }
    }

    fn insert(&mut self, at: usize, (key, value): (K, V), summary: &N, limit: usize) {
        reserve(&mut self.keys, 1, limit);
        reserve(&mut self.values, 1, limit);
        self.keys.insert(at, key);
        self.values.insert(at, value);
        self.summary.join(summary);
    }

    /// Sets the value of the entry at `at`, and returns the old value.
    fn set(&mut self, at: usize, value: V, summary: &N) -> V {
        self.summary.join(summary);
        mem::replace(&mut self.values[at], value)
    }

    fn remove(&mut self, at: usize) -> V {
        self.keys.remove(at);
        let value = self.values.remove(at);
        trim(&mut self.keys);
        trim(&mut self.values);
        value
    }

    fn split_off(&mut self, at: usize) -> Self {
        let (keys, values) = (self.keys.split_off(at), self.values.split_off(at));
        let right = Self { keys, values, summary: self.summary.clone() };
        trim(&mut self.keys);
        trim(&mut self.values);
        right
    }

    /// Appends the entries of the next leaf.
    fn append(&mut self, mut other: Self, limit: usize) {
        reserve(&mut self.keys, other.len(), limit);
        reserve(&mut self.values, other.len(), limit);
        self.keys.append(&mut other.keys);
        self.values.append(&mut other.values);
        self.summary.join(&other.summary);
    }

    fn view(&self) -> LeafView<'_, K, V, N> {
        LeafView { keys: &self.keys, values: &self.values, summary: &self.summary }
    }

    fn entry(&self, at: usize) -> Option<(K, V)> {
        Some((*self.keys.get(at)?, *self.values.get(at)?))
    }

    fn entries(&self, from: usize) -> Entries<'_, K, V> {
        let keys = self.keys.get(from..).unwrap_or_default();
        let values = self.values.get(from..).unwrap_or_default();
        keys.iter().copied().zip(values.iter().copied())
    }

    fn entries_before(&self, upto: usize) -> Rev<Entries<'_, K, V>> {
        let keys = self.keys.get(..upto).unwrap_or_default();
        let values = self.values.get(..upto).unwrap_or_default();
        keys.iter().copied().zip(values.iter().copied()).rev()
    }
}

impl<K, V, N: Summary> Leaf<K, V, N> {
    fn empty() -> Self {
        Self { keys: Vec::new(), values: Vec::new(), summary: N::none() }
    }

    fn memory(&self) -> usize {
        bytes(&self.keys) + bytes(&self.values)
    }
}

impl<K: Copy + Ord, V: Copy, N: Summary> Inner<K, V, N> {
    /// Fills the leaf before leaf `middle` up with entries of leaf `middle`, and returns their
    /// number. Does nothing if this takes more than `limit` entries, or so few that it is not
    /// worthwhile.
    ///
    /// If keys ascend within several ranges, a leaf can have the end of one range and the start of
    /// the next. It is split repeatedly, and would otherwise leave half-full leaves.
    fn fill_left<const LEAF: usize>(&mut self, middle: usize, limit: usize) -> Option<usize> {
        let [.., left, leaf] = self.children.get_mut(..=middle)? else { return None };
        let room = LEAF - left.len();
        if room < LEAF.div_ceil(4) || room > limit {
            return None;
        }
        reserve(&mut left.keys, room, LEAF);
        reserve(&mut left.values, room, LEAF);
        left.keys.extend(leaf.keys.drain(..room));
        left.values.extend(leaf.values.drain(..room));
        left.summary.join(&leaf.summary);
        leaf.keys.shrink_to(rounded_capacity(leaf.keys.len() + 1));
        leaf.values.shrink_to(rounded_capacity(leaf.values.len() + 1));
        Some(room)
    }
}

impl<K: Copy + Ord, V: Copy, N: Summary> Top<K, V, N> {
    fn with(leaf: Leaf<K, V, N>) -> Box<Self> {
        Box::new(Self { len: leaf.len(), node: Node::with(Node::with(leaf)) })
    }

    /// Appends a leaf.
    fn push_leaf<const INNER: usize>(&mut self, leaf: Leaf<K, V, N>) {
        self.len += leaf.len();
        let outer = self.node.children.len() - 1;
        let middle = self.node.children[outer].children.len() - 1;
        self.add_leaf::<INNER>(outer, middle, leaf.keys[0], leaf);
    }

    fn insert<const LEAF: usize, const INNER: usize>(&mut self, key: K, value: V, summary: &N) -> Option<V> {
        let last = self.node.children.len() - 1;
        let outer = self.node.find(key);
        let inner = &mut self.node.children[outer];
        let middle = inner.find(key);
        let leaf = &mut inner.children[middle];
        let at = match leaf.find(key) {
            Ok(at) => return Some(leaf.set(at, value, summary)),
            Err(at) => at,
        };
        self.len += 1;
        if leaf.len() < LEAF {
            leaf.insert(at, (key, value), summary, LEAF);
            return None;
        }

        if let Some(moved) = inner.fill_left::<LEAF>(middle, at) {
            let leaf = &mut inner.children[middle];
            leaf.insert(at - moved, (key, value), summary, LEAF);
            inner.bounds[middle - 1] = leaf.keys[0];
            return None;
        }
        let leaf = &mut inner.children[middle];
        let (bound, right) = if at == LEAF {
            // The leaf stays full. The next leaf takes the key if it has room: otherwise, each key
            // of a sequence that descends towards the end of this leaf would get its own leaf.
            if let Some(next) = inner.children.get_mut(middle + 1)
                && next.len() < LEAF
            {
                next.insert(0, (key, value), summary, LEAF);
                inner.bounds[middle] = key;
                return None;
            }
            // The last leaf of a large map is expected to fill.
            let rightmost = outer == last && middle + 1 == inner.children.len();
            let mut right = Leaf::with_capacity(if rightmost { LEAF.min(self.len / 16) } else { 0 });
            right.insert(0, (key, value), summary, LEAF);
            (key, right)
        } else {
            let mut right = leaf.split_off(LEAF / 2);
            let bound = right.keys[0];
            if at <= LEAF / 2 {
                leaf.insert(at, (key, value), summary, LEAF);
            } else {
                right.insert(at - LEAF / 2, (key, value), summary, LEAF);
            }
            (bound, right)
        };
        self.add_leaf::<INNER>(outer, middle, bound, right);
        None
    }

    /// Inserts a leaf after leaf `middle` of node `outer`.
    fn add_leaf<const INNER: usize>(&mut self, outer: usize, middle: usize, bound: K, leaf: Leaf<K, V, N>) {
        let last = self.node.children.len() - 1;
        let inner = &mut self.node.children[outer];
        if inner.children.len() < INNER {
            inner.insert_after(middle, bound, leaf, INNER);
            return;
        }
        let (bound, right) = if outer == last && middle + 1 == INNER {
            (bound, Node::with(leaf))
        } else {
            let (between, mut right) = inner.split_off(INNER / 2);
            if middle < INNER / 2 {
                inner.insert_after(middle, bound, leaf, INNER);
            } else {
                right.insert_after(middle - INNER / 2, bound, leaf, INNER);
            }
            (between, right)
        };
        self.node.insert_after(outer, bound, right, usize::MAX);
    }

    fn remove<const LEAF: usize, const INNER: usize>(&mut self, key: K) -> Option<V> {
        let outer = self.node.find(key);
        let inner = &mut self.node.children[outer];
        let middle = inner.find(key);
        let leaf = &mut inner.children[middle];
        let value = leaf.remove(leaf.find(key).ok()?);
        self.len -= 1;
        if leaf.len() > LEAF / 2 {
            return Some(value);
        }
        if leaf.len() == 0 {
            inner.remove(middle);
        } else if let Some(left) = inner.mergeable(middle, LEAF, Leaf::len) {
            let right = inner.remove(left + 1);
            inner.children[left].append(right, LEAF);
        } else {
            return Some(value);
        }

        if inner.children.is_empty() {
            self.node.remove(outer);
        } else if inner.children.len() <= INNER / 2
            && let Some(left) = self.node.mergeable(outer, INNER, |inner| inner.children.len())
        {
            let bound = self.node.bounds[left];
            let right = self.node.remove(left + 1);
            self.node.children[left].append(bound, right, INNER);
        }
        Some(value)
    }
}

impl<K, V, N: Summary, const LEAF: usize, const INNER: usize> Tree<K, V, N, LEAF, INNER> {
    /// Creates an empty map, which allocates nothing.
    pub(crate) fn new() -> Self {
        const { assert!(LEAF >= 2 && INNER >= 2) };
        Self { root: Root::Small(Leaf::empty()) }
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        match &self.root {
            Root::Small(leaf) => leaf.keys.len(),
            Root::Large(top) => top.len,
        }
    }

    /// Returns whether the map is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all entries, and frees their memory.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Returns the number of allocated bytes, without the overhead of the allocator.
    pub(crate) fn memory(&self) -> usize {
        match &self.root {
            Root::Small(leaf) => leaf.memory(),
            Root::Large(top) => {
                let inner = |inner: &Inner<K, V, N>| {
                    let leaves: usize = inner.children.iter().map(Leaf::memory).sum();
                    bytes(&inner.bounds) + bytes(&inner.children) + leaves
                };
                let node = &top.node;
                let inners: usize = node.children.iter().map(inner).sum();
                size_of::<Top<K, V, N>>() + bytes(&node.bounds) + bytes(&node.children) + inners
            }
        }
    }
}

impl<K: Copy + Ord, V: Copy, N: Summary, const LEAF: usize, const INNER: usize> Tree<K, V, N, LEAF, INNER> {
    /// Creates a map from entries with strictly ascending keys, without spare capacity.
    pub(crate) fn from_sorted(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut top: Option<Box<Top<K, V, N>>> = None;
        let unknown_leaf = || Leaf { summary: N::unknown(), ..Leaf::with_capacity(LEAF) };
        let mut leaf = unknown_leaf();
        for (key, value) in entries {
            debug_assert!(leaf.keys.last().is_none_or(|&last| last < key), "the keys must ascend");
            if leaf.len() == LEAF {
                let full = mem::replace(&mut leaf, unknown_leaf());
                match &mut top {
                    Some(top) => top.push_leaf::<INNER>(full),
                    None => top = Some(Top::with(full)),
                }
            }
            leaf.keys.push(key);
            leaf.values.push(value);
        }
        leaf.keys.shrink_to_fit();
        leaf.values.shrink_to_fit();
        let Some(mut top) = top else {
            return Self { root: Root::Small(leaf) };
        };
        top.push_leaf::<INNER>(leaf);
        top.node.shrink_to_fit();
        if let Some(inner) = top.node.children.last_mut() {
            inner.shrink_to_fit();
        }
        Self { root: Root::Large(top) }
    }

    /// Returns the value of a key.
    #[cfg(test)]
    pub(crate) fn get(&self, key: K) -> Option<V> {
        let leaf = match &self.root {
            Root::Small(leaf) => leaf,
            Root::Large(top) => {
                let inner = &top.node.children[top.node.find(key)];
                &inner.children[inner.find(key)]
            }
        };
        let at = leaf.find(key).ok()?;
        leaf.values.get(at).copied()
    }

    /// Sets the value of a key, and returns the old value.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.insert_summarized(key, value, &N::none())
    }

    /// Sets the value of a key like [`Tree::insert`], and adds `summary` to that of its leaf.
    pub(crate) fn insert_summarized(&mut self, key: K, value: V, summary: &N) -> Option<V> {
        let leaf = match &mut self.root {
            Root::Large(top) => return top.insert::<LEAF, INNER>(key, value, summary),
            Root::Small(leaf) => leaf,
        };
        match leaf.find(key) {
            Ok(at) => return Some(leaf.set(at, value, summary)),
            Err(at) if leaf.len() < LEAF => leaf.insert(at, (key, value), summary, LEAF),
            Err(_) => {
                let mut top = Top::with(mem::replace(leaf, Leaf::empty()));
                top.insert::<LEAF, INNER>(key, value, summary);
                self.root = Root::Large(top);
            }
        }
        None
    }

    /// Removes an entry, and returns its value.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        match &mut self.root {
            Root::Small(leaf) => {
                let at = leaf.find(key).ok()?;
                Some(leaf.remove(at))
            }
            Root::Large(top) => {
                let value = top.remove::<LEAF, INNER>(key)?;
                if let [inner] = top.node.children.as_mut_slice()
                    && inner.children.len() == 1
                    && let Some(leaf) = inner.children.pop()
                {
                    self.root = Root::Small(leaf);
                }
                Some(value)
            }
        }
    }

    /// Returns the summary of the leaf whose range includes the key.
    pub(crate) fn summary(&self, key: K) -> &N {
        match &self.root {
            Root::Small(leaf) => &leaf.summary,
            Root::Large(top) => {
                let inner = &top.node.children[top.node.find(key)];
                &inner.children[inner.find(key)].summary
            }
        }
    }

    /// Returns the leaves in the order of their keys, from the one whose range includes the key.
    pub(crate) fn leaves_from(&self, key: K) -> impl Iterator<Item = LeafView<'_, K, V, N>> {
        let (leaf, leaves, inners) = match &self.root {
            Root::Small(leaf) => (leaf, [].iter(), [].iter()),
            Root::Large(top) => {
                let outer = top.node.find(key);
                let leaves = &top.node.children[outer].children;
                let middle = top.node.children[outer].find(key);
                (&leaves[middle], leaves[middle + 1..].iter(), top.node.children[outer + 1..].iter())
            }
        };
        let others = leaves.chain(inners.flat_map(|inner| &inner.children));
        let not_empty = |leaf: &&Leaf<K, V, N>| !leaf.keys.is_empty();
        std::iter::once(leaf).chain(others).filter(not_empty).map(Leaf::view)
    }

    /// Returns the entry with the lowest key.
    pub(crate) fn first(&self) -> Option<(K, V)> {
        match &self.root {
            Root::Small(leaf) => leaf.entry(0),
            Root::Large(top) => top.node.children.first()?.children.first()?.entry(0),
        }
    }

    /// Returns the entries from, or after, a key, or all entries, in ascending order.
    pub(crate) fn iter_from(&self, bound: Bound<K>) -> impl Iterator<Item = (K, V)> {
        let (leaf, leaves, inners) = match (&self.root, bound) {
            (Root::Small(leaf), _) => (leaf, [].iter(), [].iter()),
            (Root::Large(top), bound) => {
                let (outer, middle) = match bound {
                    Bound::Included(key) | Bound::Excluded(key) => {
                        let outer = top.node.find(key);
                        (outer, top.node.children[outer].find(key))
                    }
                    Bound::Unbounded => (0, 0),
                };
                let leaves = &top.node.children[outer].children;
                (&leaves[middle], leaves[middle + 1..].iter(), top.node.children[outer + 1..].iter())
            }
        };
        let from = match bound {
            Bound::Included(key) => count_less(&leaf.keys, key),
            Bound::Excluded(key) => count_not_greater(&leaf.keys, key),
            Bound::Unbounded => 0,
        };
        Iter { entries: leaf.entries(from), leaves, inners }
    }

    /// Returns the entries up to, or before, a key, or all entries, in descending order.
    pub(crate) fn iter_back_from(&self, bound: Bound<K>) -> impl Iterator<Item = (K, V)> {
        let (leaf, leaves, inners) = match (&self.root, bound) {
            (Root::Small(leaf), _) => (leaf, [].iter(), [].iter()),
            (Root::Large(top), bound) => {
                let nodes = &top.node.children;
                let (outer, middle) = match bound {
                    Bound::Included(key) | Bound::Excluded(key) => {
                        let outer = top.node.find(key);
                        (outer, nodes[outer].find(key))
                    }
                    Bound::Unbounded => (nodes.len() - 1, nodes[nodes.len() - 1].children.len() - 1),
                };
                let leaves = &nodes[outer].children;
                (&leaves[middle], leaves[..middle].iter(), nodes[..outer].iter())
            }
        };
        let upto = match bound {
            Bound::Included(key) => count_not_greater(&leaf.keys, key),
            Bound::Excluded(key) => count_less(&leaf.keys, key),
            Bound::Unbounded => leaf.len(),
        };
        IterBack { entries: leaf.entries_before(upto), leaves, inners }
    }
}

impl<K, V, N: Summary, const LEAF: usize, const INNER: usize> Default for Tree<K, V, N, LEAF, INNER> {
    fn default() -> Self {
        Self::new()
    }
}

type Entries<'a, K, V> = Zip<Copied<slice::Iter<'a, K>>, Copied<slice::Iter<'a, V>>>;

/// The remaining entries of a leaf, the remaining leaves of its node, and the remaining nodes.
#[derive(Debug)]
struct Iter<'a, K, V, N> {
    entries: Entries<'a, K, V>,
    leaves: slice::Iter<'a, Leaf<K, V, N>>,
    inners: slice::Iter<'a, Inner<K, V, N>>,
}

impl<K: Copy + Ord, V: Copy, N: Summary> Iterator for Iter<'_, K, V, N> {
    type Item = (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(entry);
            }
            if let Some(leaf) = self.leaves.next() {
                self.entries = leaf.entries(0);
            } else {
                self.leaves = self.inners.next()?.children.iter();
            }
        }
    }
}

/// Like [`Iter`], in descending order.
#[derive(Debug)]
struct IterBack<'a, K, V, N> {
    entries: Rev<Entries<'a, K, V>>,
    leaves: slice::Iter<'a, Leaf<K, V, N>>,
    inners: slice::Iter<'a, Inner<K, V, N>>,
}

impl<K: Copy + Ord, V: Copy, N: Summary> Iterator for IterBack<'_, K, V, N> {
    type Item = (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(entry);
            }
            if let Some(leaf) = self.leaves.next_back() {
                self.entries = leaf.entries_before(leaf.len());
            } else {
                self.leaves = self.inners.next_back()?.children.iter();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;
    use std::ops::RangeBounds;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    impl<K: Copy + Ord + Debug, V: Copy, N: Summary, const LEAF: usize, const INNER: usize>
        Tree<K, V, N, LEAF, INNER>
    {
        /// Checks the invariants between operations.
        fn check(&self) {
            let top = match &self.root {
                Root::Small(leaf) => return leaf.check::<LEAF>(Bound::Unbounded, Bound::Unbounded),
                Root::Large(top) => top,
            };
            top.node.check(usize::MAX);
            let mut leaves = 0;
            let mut len = 0;
            let mut from = Bound::Unbounded;
            for (i, inner) in top.node.children.iter().enumerate() {
                inner.check(INNER);
                for (j, leaf) in inner.children.iter().enumerate() {
                    let to = inner.bounds.get(j).or(top.node.bounds.get(i)).copied();
                    let to = to.map_or(Bound::Unbounded, Bound::Excluded);
                    assert!(leaf.len() > 0, "an empty leaf");
                    leaf.check::<LEAF>(from, to);
                    // The last leaf may have been allocated in full.
                    assert!(to == Bound::Unbounded || is_compact(&leaf.keys), "{:?}", leaf.keys);
                    leaves += 1;
                    len += leaf.len();
                    if let Bound::Excluded(to) = to {
                        from = Bound::Included(to);
                    }
                }
            }
            assert!(leaves >= 2, "a large tree of {leaves} leaf");
            assert_eq!(top.len, len);
        }
    }

    /// Returns whether at least half of the memory is used, or the unused part is small.
    fn is_compact<T>(vec: &Vec<T>) -> bool {
        vec.capacity() <= (2 * vec.len()).max(rounded_capacity(vec.len() + 1))
    }

    impl<K: Copy + Ord + Debug, C> Node<K, C> {
        fn check(&self, limit: usize) {
            assert!((1..=limit).contains(&self.children.len()), "{} children", self.children.len());
            assert_eq!(self.bounds.len() + 1, self.children.len());
            assert!(self.bounds.is_sorted_by(|a, b| a < b), "{:?}", self.bounds);
            assert!(is_compact(&self.bounds) && is_compact(&self.children));
        }
    }

    impl<K: Copy + Ord + Debug, V, N> Leaf<K, V, N> {
        fn check<const LEAF: usize>(&self, from: Bound<K>, to: Bound<K>) {
            assert!(self.keys.len() <= LEAF);
            assert_eq!(self.keys.len(), self.values.len());
            assert!(self.keys.is_sorted_by(|a, b| a < b), "{:?}", self.keys);
            assert!(
                self.keys.iter().all(|key| (from, to).contains(key)),
                "{:?}: {from:?}, {to:?}",
                self.keys
            );
            assert!(self.keys.capacity() <= LEAF.max(4));
        }
    }

    /// Maps numbers to different, scattered numbers.
    fn scattered(n: u32) -> u32 {
        n.wrapping_mul(0x9E37_79B1)
    }

    #[expect(clippy::cast_precision_loss, reason = "few bytes")]
    fn bytes_each<K: Copy + Ord + Debug, V: Copy>(map: &OrderedMap<K, V>) -> f64 {
        map.check();
        map.memory() as f64 / map.len() as f64
    }

    #[test]
    fn an_empty_map_is_small_and_allocates_nothing() {
        assert!(size_of::<OrderedMap<u32, u32>>() <= 48);
        assert!(size_of::<OrderedMap<u128, u32>>() <= 48);
        assert!(size_of::<OrderedMap<[u32; 3], ()>>() <= 48);
        let mut map = OrderedMap::<_, _>::new();
        assert_eq!(map.memory(), 0);
        assert_eq!((map.len(), map.first(), map.get(1), map.remove(1)), (0, None, None, None));
        map.insert(1, 2);
        map.remove(1);
        assert!(map.is_empty());
        assert_eq!(map.memory(), 0);
    }

    #[rstest]
    #[case::one(1, 4)]
    #[case::a_few(4, 4)]
    #[case::more(10, 12)]
    #[case::many(100, 112)]
    #[case::a_full_leaf(128, 128)]
    fn a_small_map_takes_no_more_than_its_arrays(#[case] len: u32, #[case] capacity: usize) {
        let map_of = |n| {
            let mut map = OrderedMap::<_, _>::new();
            (0..n).for_each(|n| assert_eq!(map.insert(n, scattered(n)), None));
            map
        };
        assert_eq!(map_of(len).memory(), 8 * capacity);
        assert_eq!(OrderedMap::<_, _>::from_sorted((0..len).map(|n| (n, n))).memory(), 8 * len as usize);
    }

    #[test]
    fn an_insertion_replaces_the_value_of_its_key() {
        for len in [1, 1000] {
            let mut map: OrderedMap<u32, u32> = OrderedMap::from_sorted((0..len).map(|n| (n, n)));
            assert_eq!(map.insert(len / 2, 7777), Some(len / 2));
            assert_eq!(map.get(len / 2), Some(7777));
            assert_eq!(map.len(), len as usize);
        }
    }

    #[test]
    fn ascending_keys_leave_full_leaves() {
        let mut map = OrderedMap::<_, _>::new();
        (0..100_000).for_each(|n| assert_eq!(map.insert(n, ()), None));
        assert!(bytes_each(&map) <= 4.5, "{}", bytes_each(&map));
    }

    #[test]
    fn ascending_keys_in_many_ranges_leave_full_leaves() {
        let mut map = OrderedMap::<_, _>::new();
        for n in 0..5000 {
            (0..20).for_each(|range: u32| assert_eq!(map.insert(range << 24 | n, ()), None));
        }
        assert!(bytes_each(&map) <= 4.6, "{}", bytes_each(&map));
    }

    #[test]
    fn a_map_of_few_leaves_allocates_no_future_leaves() {
        let mut map = OrderedMap::<_, _>::new();
        (0..140).for_each(|n| assert_eq!(map.insert(n, ()), None));
        assert!(map.memory() <= 1000, "{}", map.memory());
    }

    #[rstest]
    #[case::an_inner_leaf(127)]
    #[case::the_last_leaf_of_a_node(128 * 256 - 1)]
    #[case::the_last_leaf_of_the_map(2 * 128 * 256 - 1)]
    fn descending_keys_after_a_full_leaf_share_leaves(#[case] last: u32) {
        let full = (0..2 * 128 * 256).map(|n| (n << 15, ()));
        let mut map: OrderedMap<u32, ()> = OrderedMap::from_sorted(full);
        (1..0x4000).rev().for_each(|n| assert_eq!(map.insert(last << 15 | n, ()), None));
        assert!(bytes_each(&map) <= 5.0, "{}", bytes_each(&map));
    }

    #[test]
    fn keys_in_random_order_take_at_most_half_as_much_again() {
        let mut map = OrderedMap::<_, _>::new();
        (0..100_000).for_each(|n| assert_eq!(map.insert(scattered(n), ()), None));
        assert!(bytes_each(&map) <= 6.0, "{}", bytes_each(&map));
        (0..100_000).for_each(|n| assert_eq!(map.remove(scattered(n)), Some(())));
        assert_eq!(map.memory(), 0);
    }

    #[test]
    fn sorted_entries_take_no_more_than_they_need() {
        let entries = || (0..100_000).map(|n| (n, n + 1));
        let map: OrderedMap<u32, u32> = OrderedMap::from_sorted(entries());
        assert!(bytes_each(&map) <= 8.5, "{}", bytes_each(&map));
        assert_eq!(map.memory(), map.clone().memory(), "a clone has no spare capacity");
        assert!(map.iter_from(Bound::Unbounded).eq(entries()));
    }

    #[test]
    fn the_memory_of_removed_entries_is_freed() {
        let mut map: OrderedMap<u32, ()> = OrderedMap::from_sorted((0..200_000).map(|n| (n, ())));
        let full = map.memory();
        // Every 50th entry is kept; the others are removed in another order than that of the keys.
        let gone = |n: &u32| !n.is_multiple_of(50);
        (0..200_000)
            .map(|n| n * 7919 % 200_000)
            .filter(gone)
            .for_each(|n| assert_eq!(map.remove(n), Some(())));
        map.check();
        assert_eq!(map.len(), 4000);
        assert!(map.memory() * 25 <= full, "{} of {full}", map.memory());
        assert!(matches!(&map.root, Root::Large(top) if top.node.children.len() <= 2), "too many nodes");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u16, u8),
        InsertUp(u16, u16),
        InsertDown(u16, u16),
        Remove(u16),
        RemoveUp(u16, u16),
        RemoveFirst(u16),
        Rebuild,
        Clear,
    }

    const KEYS: u16 = 600;

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let key = 0..KEYS;
        let run = 1..80_u16;
        let op = prop_oneof![
            12 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Op::Insert(key, value)),
            3 => (key.clone(), run.clone()).prop_map(|(key, n)| Op::InsertUp(key, n)),
            3 => (key.clone(), run.clone()).prop_map(|(key, n)| Op::InsertDown(key, n)),
            8 => key.clone().prop_map(Op::Remove),
            4 => (key, run.clone()).prop_map(|(key, n)| Op::RemoveUp(key, n)),
            1 => run.prop_map(Op::RemoveFirst),
            1 => Just(Op::Rebuild),
        ];
        let clear = prop_oneof![60 => op, 1 => Just(Op::Clear)];
        proptest::collection::vec(clear, 1..120)
    }

    /// Applies the same operations to the map and to that of the standard library.
    fn compare<const LEAF: usize, const INNER: usize>(ops: &[Op]) {
        let mut map = Tree::<u16, u8, (), LEAF, INNER>::default();
        let mut expected = BTreeMap::new();
        for op in ops {
            match *op {
                Op::Insert(key, value) => assert_eq!(map.insert(key, value), expected.insert(key, value)),
                Op::InsertUp(key, n) => {
                    (key..key + n).for_each(|key| assert_eq!(map.insert(key, 1), expected.insert(key, 1)));
                }
                Op::InsertDown(key, n) => {
                    (key..key + n)
                        .rev()
                        .for_each(|key| assert_eq!(map.insert(key, 2), expected.insert(key, 2)));
                }
                Op::Remove(key) => assert_eq!(map.remove(key), expected.remove(&key)),
                Op::RemoveUp(key, n) => {
                    (key..key + n).for_each(|key| assert_eq!(map.remove(key), expected.remove(&key)));
                }
                Op::RemoveFirst(n) => {
                    for _ in 0..n {
                        let first = map.first();
                        assert_eq!(first.and_then(|(key, _)| map.remove(key)), first.map(|(_, value)| value));
                        assert_eq!(first, expected.pop_first());
                    }
                }
                Op::Rebuild => map = Tree::from_sorted(expected.iter().map(|(key, value)| (*key, *value))),
                Op::Clear => {
                    map.clear();
                    expected.clear();
                }
            }
            map.check();
            assert_eq!(map.len(), expected.len());
            assert_eq!(map.is_empty(), expected.is_empty());
            assert_eq!(map.first(), expected.first_key_value().map(|(key, value)| (*key, *value)));
        }
        for key in 0..=KEYS + 80 {
            assert_eq!(map.get(key), expected.get(&key).copied());
            for bound in [Bound::Included(key), Bound::Excluded(key)] {
                let entries = expected.range((bound, Bound::Unbounded)).map(|(key, value)| (*key, *value));
                // To the end for some keys, and a few entries for the others.
                let limit = if key % 64 == 0 { usize::MAX } else { 20 };
                assert!(map.iter_from(bound).take(limit).eq(entries.take(limit)), "{bound:?}");
                let entries = expected.range((Bound::Unbounded, bound)).map(|(key, value)| (*key, *value));
                assert!(map.iter_back_from(bound).take(limit).eq(entries.rev().take(limit)), "{bound:?}");
            }
        }
        assert!(map.iter_back_from(Bound::Unbounded).eq(expected.clone().into_iter().rev()));
        assert!(map.iter_from(Bound::Unbounded).eq(expected));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_map_behaves_like_that_of_the_standard_library(ops in ops()) {
            compare::<2, 2>(&ops);
            compare::<5, 3>(&ops);
            compare::<8, 4>(&ops);
            compare::<48, 8>(&ops);
            compare::<128, 256>(&ops);
        }

        #[test]
        fn counting_finds_the_position_of_a_key(
            keys in proptest::collection::btree_set(0..3000_u32, 0..900),
            key in 0..3000_u32,
        ) {
            let keys: Vec<u32> = keys.into_iter().collect();
            prop_assert_eq!(count_less(&keys, key), keys.partition_point(|other| *other < key));
            prop_assert_eq!(count_not_greater(&keys, key), keys.partition_point(|other| *other <= key));
        }
    }
}
