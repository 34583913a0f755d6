//! Ordered maps and sets in little memory, for the indexes of leases.

use std::iter::{Copied, Zip};
use std::mem;
use std::ops::Bound;
use std::slice;

/// How many entries a leaf has at most, and how many leaves a node.
///
/// Measured: smaller leaves cost memory and a larger tree, larger ones cost time for moving entries.
pub(crate) type OrderedMap<K, V> = Tree<K, V, 128, 256>;

/// A map in the order of its keys: a B+ tree of at most three levels, whose leaves are arrays of up to `LEAF`
/// entries that are allocated as they fill. `V = ()` makes it a set.
///
/// All operations take logarithmic time as long as there are no more than some 10^9 entries; then, the top node is
/// so large that it shows.
#[derive(Clone, Debug)]
pub(crate) struct Tree<K, V, const LEAF: usize, const INNER: usize> {
    root: Root<K, V>,
}

/// Few entries are one leaf, and take nothing else.
#[derive(Clone, Debug)]
enum Root<K, V> {
    Small(Leaf<K, V>),
    /// Two leaves or more.
    Large(Box<Top<K, V>>),
}

#[derive(Clone, Debug)]
struct Top<K, V> {
    /// How many entries there are.
    len: usize,
    node: Node<K, Inner<K, V>>,
}

type Inner<K, V> = Node<K, Leaf<K, V>>;

/// Children with consecutive ranges of keys.
#[derive(Clone, Debug)]
struct Node<K, C> {
    /// Between two children each: greater than all keys before it, not greater than any key behind it.
    bounds: Vec<K>,
    /// Never empty, one more than bounds.
    children: Vec<C>,
}

/// Entries in the order of their keys, never none in a large tree.
#[derive(Clone, Debug)]
struct Leaf<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

/// How many elements to allocate for `len` of them: a fourth more at most, and at least 4.
fn roomy(len: usize) -> usize {
    let step = (len.next_power_of_two() / 8).max(4);
    len.next_multiple_of(step)
}

/// Makes room for `additional` elements, without going beyond `most` elements where that is avoidable.
fn reserve<T>(vec: &mut Vec<T>, additional: usize, most: usize) {
    let len = vec.len() + additional;
    if len > vec.capacity() {
        vec.reserve_exact(roomy(len).min(most.max(len)) - vec.len());
    }
}

/// Gives memory back where less than half of it is used.
fn trim<T>(vec: &mut Vec<T>) {
    if vec.len() <= vec.capacity() / 2 {
        vec.shrink_to(roomy(vec.len() + 1));
    }
}

fn bytes<T>(vec: &Vec<T>) -> usize {
    vec.capacity() * size_of::<T>()
}

/// How many of the keys, which are in order, are less than `key`.
fn count_less<K: Copy + Ord>(keys: &[K], key: K) -> usize {
    count_first(keys, |&other| other < key)
}

/// How many of the keys, which are in order, are not greater than `key`.
fn count_not_greater<K: Copy + Ord>(keys: &[K], key: K) -> usize {
    count_first(keys, |&other| other <= key)
}

/// How many keys come before the first one that is not `before`. Counting needs no branches and can look at many keys at a
/// time, so in small arrays it takes less time than cutting them in halves.
fn count_first<K>(keys: &[K], before: impl Fn(&K) -> bool) -> usize {
    const BLOCK: usize = 16;
    const FEW: usize = 32;
    let (blocks, _) = keys.as_chunks::<BLOCK>();
    let block_before = |block: &[K; BLOCK]| before(&block[BLOCK - 1]);
    let whole = if blocks.len() <= FEW {
        blocks.iter().map(|block| u32::from(block_before(block))).sum::<u32>() as usize
    } else {
        blocks.partition_point(block_before)
    } * BLOCK;
    let rest = &keys[whole..keys.len().min(whole + BLOCK)];
    whole + rest.iter().map(|key| u32::from(before(key))).sum::<u32>() as usize
}

impl<K: Copy + Ord, C> Node<K, C> {
    fn with(child: C) -> Self {
        Self { bounds: Vec::new(), children: vec![child] }
    }

    /// The child that has the key, if any has.
    fn find(&self, key: K) -> usize {
        count_not_greater(&self.bounds, key)
    }

    /// Puts a child behind child `at`.
    fn insert_behind(&mut self, at: usize, bound: K, child: C, most: usize) {
        reserve(&mut self.bounds, 1, most - 1);
        reserve(&mut self.children, 1, most);
        self.bounds.insert(at, bound);
        self.children.insert(at + 1, child);
    }

    /// Takes child `at` out; the one before it, or else the one behind it, gets its range of keys.
    fn remove(&mut self, at: usize) -> C {
        if !self.bounds.is_empty() {
            self.bounds.remove(at.saturating_sub(1));
        }
        let child = self.children.remove(at);
        trim(&mut self.bounds);
        trim(&mut self.children);
        child
    }

    /// Takes the children from `at` on away, with the bound before them. There must be children on both sides.
    fn split_off(&mut self, at: usize) -> (K, Self) {
        let children = self.children.split_off(at);
        let bounds = self.bounds.split_off(at);
        let bound = self.bounds.remove(at - 1);
        trim(&mut self.bounds);
        trim(&mut self.children);
        (bound, Self { bounds, children })
    }

    /// Gets the children of the node behind it.
    fn append(&mut self, bound: K, mut other: Self) {
        reserve(&mut self.bounds, other.bounds.len() + 1, 0);
        reserve(&mut self.children, other.children.len(), 0);
        self.bounds.push(bound);
        self.bounds.append(&mut other.bounds);
        self.children.append(&mut other.children);
    }

    fn shrink_to_fit(&mut self) {
        self.bounds.shrink_to_fit();
        self.children.shrink_to_fit();
    }

    /// Two neighbours, child `at` and another, that take no more than three quarters of one: the first of them.
    fn mergeable(&self, at: usize, most: usize, len: impl Fn(&C) -> usize) -> Option<usize> {
        let fits = |left: &usize| {
            let pair = self.children.get(*left..*left + 2);
            pair.is_some_and(|pair| pair.iter().map(&len).sum::<usize>() <= most * 3 / 4)
        };
        [Some(at), at.checked_sub(1)].into_iter().flatten().find(fits)
    }
}

impl<K: Copy + Ord, V: Copy> Leaf<K, V> {
    fn with_capacity(capacity: usize) -> Self {
        Self { keys: Vec::with_capacity(capacity), values: Vec::with_capacity(capacity) }
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    /// Where the key is, or else where it belongs.
    fn find(&self, key: K) -> Result<usize, usize> {
        let at = count_less(&self.keys, key);
        if self.keys.get(at) == Some(&key) { Ok(at) } else { Err(at) }
    }

    fn insert(&mut self, at: usize, key: K, value: V, most: usize) {
        reserve(&mut self.keys, 1, most);
        reserve(&mut self.values, 1, most);
        self.keys.insert(at, key);
        self.values.insert(at, value);
    }

    fn remove(&mut self, at: usize) -> V {
        self.keys.remove(at);
        let value = self.values.remove(at);
        trim(&mut self.keys);
        trim(&mut self.values);
        value
    }

    fn split_off(&mut self, at: usize) -> Self {
        let behind = Self { keys: self.keys.split_off(at), values: self.values.split_off(at) };
        trim(&mut self.keys);
        trim(&mut self.values);
        behind
    }

    /// Gets the entries of the leaf behind it.
    fn append(&mut self, mut other: Self, most: usize) {
        reserve(&mut self.keys, other.len(), most);
        reserve(&mut self.values, other.len(), most);
        self.keys.append(&mut other.keys);
        self.values.append(&mut other.values);
    }

    fn entry(&self, at: usize) -> Option<(K, V)> {
        Some((*self.keys.get(at)?, *self.values.get(at)?))
    }

    fn entries(&self, from: usize) -> Entries<'_, K, V> {
        let keys = self.keys.get(from..).unwrap_or_default();
        let values = self.values.get(from..).unwrap_or_default();
        keys.iter().copied().zip(values.iter().copied())
    }
}

impl<K, V> Leaf<K, V> {
    const EMPTY: Self = Self { keys: Vec::new(), values: Vec::new() };

    fn memory(&self) -> usize {
        bytes(&self.keys) + bytes(&self.values)
    }
}

impl<K: Copy + Ord, V: Copy> Top<K, V> {
    fn with(leaf: Leaf<K, V>) -> Box<Self> {
        Box::new(Self { len: leaf.len(), node: Node::with(Node::with(leaf)) })
    }

    /// Puts a leaf behind all others.
    fn push_leaf<const INNER: usize>(&mut self, leaf: Leaf<K, V>) {
        self.len += leaf.len();
        let outer = self.node.children.len() - 1;
        let middle = self.node.children[outer].children.len() - 1;
        self.add_leaf::<INNER>(outer, middle, leaf.keys[0], leaf);
    }

    fn insert<const LEAF: usize, const INNER: usize>(&mut self, key: K, value: V) -> Option<V> {
        let last = self.node.children.len() - 1;
        let outer = self.node.find(key);
        let inner = &mut self.node.children[outer];
        let middle = inner.find(key);
        let leaf = &mut inner.children[middle];
        let at = match leaf.find(key) {
            Ok(at) => return Some(mem::replace(&mut leaf.values[at], value)),
            Err(at) => at,
        };
        self.len += 1;
        if leaf.len() < LEAF {
            leaf.insert(at, key, value, LEAF);
            return None;
        }

        let (bound, behind) = if at == LEAF {
            // Keys that mostly ascend, as in each of several ranges of addresses, leave full leaves behind them.
            if let Some(next) = inner.children.get_mut(middle + 1)
                && next.len() < LEAF
            {
                next.insert(0, key, value, LEAF);
                inner.bounds[middle] = key;
                return None;
            }
            let rightmost = outer == last && middle + 1 == inner.children.len();
            let mut behind = Leaf::with_capacity(if rightmost { LEAF } else { 0 });
            behind.insert(0, key, value, LEAF);
            (key, behind)
        } else {
            let mut behind = leaf.split_off(LEAF / 2);
            let bound = behind.keys[0];
            if at <= LEAF / 2 {
                leaf.insert(at, key, value, LEAF);
            } else {
                behind.insert(at - LEAF / 2, key, value, LEAF);
            }
            (bound, behind)
        };
        self.add_leaf::<INNER>(outer, middle, bound, behind);
        None
    }

    /// Puts a leaf behind leaf `middle` of node `outer`.
    fn add_leaf<const INNER: usize>(&mut self, outer: usize, middle: usize, bound: K, leaf: Leaf<K, V>) {
        let last = self.node.children.len() - 1;
        let inner = &mut self.node.children[outer];
        if inner.children.len() < INNER {
            inner.insert_behind(middle, bound, leaf, INNER);
            return;
        }
        let (bound, behind) = if outer == last && middle + 1 == INNER {
            (bound, Node::with(leaf))
        } else {
            let (between, mut behind) = inner.split_off(INNER / 2);
            if middle < INNER / 2 {
                inner.insert_behind(middle, bound, leaf, INNER);
            } else {
                behind.insert_behind(middle - INNER / 2, bound, leaf, INNER);
            }
            (between, behind)
        };
        self.node.insert_behind(outer, bound, behind, usize::MAX);
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
            self.node.children[left].append(bound, right);
        }
        Some(value)
    }
}

impl<K, V, const LEAF: usize, const INNER: usize> Tree<K, V, LEAF, INNER> {
    /// An empty map, which takes no memory but its own.
    pub(crate) const fn new() -> Self {
        const { assert!(LEAF >= 2 && INNER >= 2) };
        Self { root: Root::Small(Leaf::EMPTY) }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        match &self.root {
            Root::Small(leaf) => leaf.keys.len(),
            Root::Large(top) => top.len,
        }
    }

    /// Whether there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all entries and gives their memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// How many bytes are allocated, without what the allocator takes itself.
    pub(crate) fn memory(&self) -> usize {
        match &self.root {
            Root::Small(leaf) => leaf.memory(),
            Root::Large(top) => {
                let inner = |inner: &Inner<K, V>| {
                    let leaves: usize = inner.children.iter().map(Leaf::memory).sum();
                    bytes(&inner.bounds) + bytes(&inner.children) + leaves
                };
                let node = &top.node;
                let inners: usize = node.children.iter().map(inner).sum();
                size_of::<Top<K, V>>() + bytes(&node.bounds) + bytes(&node.children) + inners
            }
        }
    }
}

impl<K: Copy + Ord, V: Copy, const LEAF: usize, const INNER: usize> Tree<K, V, LEAF, INNER> {
    /// A map of entries whose keys strictly ascend, without any room to spare.
    pub(crate) fn from_sorted(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut top: Option<Box<Top<K, V>>> = None;
        let mut leaf = Leaf::with_capacity(LEAF);
        for (key, value) in entries {
            debug_assert!(leaf.keys.last().is_none_or(|&last| last < key), "the keys must ascend");
            if leaf.len() == LEAF {
                let full = mem::replace(&mut leaf, Leaf::with_capacity(LEAF));
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

    /// The value of a key.
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

    /// Sets the value of a key, and returns what it replaces.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let leaf = match &mut self.root {
            Root::Large(top) => return top.insert::<LEAF, INNER>(key, value),
            Root::Small(leaf) => leaf,
        };
        match leaf.find(key) {
            Ok(at) => return Some(mem::replace(&mut leaf.values[at], value)),
            Err(at) if leaf.len() < LEAF => leaf.insert(at, key, value, LEAF),
            Err(_) => {
                let mut top = Top::with(mem::replace(leaf, Leaf::EMPTY));
                top.insert::<LEAF, INNER>(key, value);
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

    /// The entry with the least key.
    pub(crate) fn first(&self) -> Option<(K, V)> {
        match &self.root {
            Root::Small(leaf) => leaf.entry(0),
            Root::Large(top) => top.node.children.first()?.children.first()?.entry(0),
        }
    }

    /// The entries from a key on, or those behind it, or all, in the order of their keys.
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
}

impl<K, V, const LEAF: usize, const INNER: usize> Default for Tree<K, V, LEAF, INNER> {
    fn default() -> Self {
        Self::new()
    }
}

type Entries<'a, K, V> = Zip<Copied<slice::Iter<'a, K>>, Copied<slice::Iter<'a, V>>>;

/// What is left of a leaf, the leaves behind it in its node, and the nodes behind that.
#[derive(Debug)]
struct Iter<'a, K, V> {
    entries: Entries<'a, K, V>,
    leaves: slice::Iter<'a, Leaf<K, V>>,
    inners: slice::Iter<'a, Inner<K, V>>,
}

impl<K: Copy + Ord, V: Copy> Iterator for Iter<'_, K, V> {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    impl<K: Copy + Ord + Debug, V: Copy, const LEAF: usize, const INNER: usize> Tree<K, V, LEAF, INNER> {
        fn check(&self) {}
    }
}
