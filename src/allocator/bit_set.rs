//! A set of small integers.

/// Number of bits of a word.
const WORD: usize = 64;

/// A set of the integers from 0 up to a bound, with one bit for each possible integer and 1/63
/// more. Each operation takes as many steps as the bound has digits to base 64: at most five for
/// the largest pool.
#[derive(Debug)]
pub(super) struct BitSet {
    /// The lowest level has a bit for each integer; each level above has a bit for each non-zero
    /// word of the one below. The highest level has one word.
    levels: Vec<Vec<u64>>,
}

impl BitSet {
    /// Creates an empty set of integers below `bound`.
    pub(super) fn empty(bound: usize) -> Self {
        let mut levels = Vec::new();
        let mut words = bound;
        loop {
            words = words.div_ceil(WORD).max(1);
            levels.push(vec![0; words]);
            if words == 1 {
                return Self { levels };
            }
        }
    }

    /// Creates the set of all integers below `bound`.
    pub(super) fn full(bound: usize) -> Self {
        let mut set = Self::empty(bound);
        let mut bits = bound;
        for level in &mut set.levels {
            for (word, at) in level.iter_mut().zip((0..bits).step_by(WORD)) {
                *word = if bits - at >= WORD { u64::MAX } else { (1 << (bits - at)) - 1 };
            }
            bits = bits.div_ceil(WORD);
        }
        set
    }

    /// Adds an integer below the bound, and returns whether it was not in the set.
    pub(super) fn insert(&mut self, number: usize) -> bool {
        let mut at = number;
        for level in &mut self.levels {
            let Some(word) = level.get_mut(at / WORD) else {
                return false;
            };
            let before = *word;
            *word |= 1 << (at % WORD);
            if before == *word {
                return false;
            }
            if before != 0 {
                break;
            }
            at /= WORD;
        }
        true
    }

    /// Removes an integer, and returns whether it was in the set.
    pub(super) fn remove(&mut self, number: usize) -> bool {
        let mut at = number;
        for (height, level) in self.levels.iter_mut().enumerate() {
            let Some(word) = level.get_mut(at / WORD) else {
                return false;
            };
            let before = *word;
            *word &= !(1 << (at % WORD));
            if height == 0 && before == *word {
                return false;
            }
            if *word != 0 {
                break;
            }
            at /= WORD;
        }
        true
    }

    /// Returns the lowest integer that is not less than `from`.
    pub(super) fn first_from(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let rest = level.get(at / WORD)? & (u64::MAX << (at % WORD));
            if rest == 0 {
                at = at / WORD + 1;
                continue;
            }
            let mut below = self.levels.get(..height)?.iter().rev();
            let found = at / WORD * WORD + lowest(rest);
            return below.try_fold(found, |word, level| Some(word * WORD + lowest(*level.get(word)?)));
        }
        None
    }
}

fn lowest(word: u64) -> usize {
    word.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_set_has_exactly_the_numbers_below_the_bound() {
        for bound in [1, 63, 64, 65, 4096, 4097, 300_000] {
            let set = BitSet::full(bound);
            assert_eq!(set.first_from(0), Some(0));
            assert_eq!(set.first_from(bound - 1), Some(bound - 1));
            assert_eq!(set.first_from(bound), None);
        }
        assert_eq!(BitSet::full(0).first_from(0), None);
    }

    proptest! {
        #[test]
        fn behaves_like_a_b_tree_set(
            full in any::<bool>(),
            bound in 1_usize..10_000,
            steps in prop::collection::vec((0_u8..3, any::<prop::sample::Index>()), 0..300),
        ) {
            let mut set = if full { BitSet::full(bound) } else { BitSet::empty(bound) };
            let mut model: BTreeSet<usize> = if full { (0..bound).collect() } else { BTreeSet::new() };
            for (step, number) in steps {
                let number = number.index(bound);
                match step {
                    0 => prop_assert_eq!(set.insert(number), model.insert(number)),
                    1 => prop_assert_eq!(set.remove(number), model.remove(&number)),
                    _ => {
                        // Emptied from here to the end of the word or further.
                        for n in number..bound.min(number + 200) {
                            prop_assert_eq!(set.remove(n), model.remove(&n));
                        }
                    }
                }
                prop_assert_eq!(set.first_from(number), model.range(number..).next().copied());
                prop_assert_eq!(set.first_from(0), model.first().copied());
            }
        }
    }
}
