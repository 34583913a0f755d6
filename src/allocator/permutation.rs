//! Integers in an unpredictable order.

use std::hash::{BuildHasher, RandomState};

/// Number of rounds after which the result looks random.
const ROUNDS: u8 = 4;

/// A permutation of the integers from 0 to a last one that needs no memory: a Feistel network over
/// the bits of the last integer, with random keys.
#[derive(Debug)]
pub(super) struct Permutation {
    keys: RandomState,
    last: u128,
    /// The width of each half of a number, in bits.
    half: u32,
}

impl Permutation {
    pub(super) fn new(last: u128) -> Self {
        Self { keys: RandomState::new(), last, half: (128 - last.leading_zeros()).div_ceil(2).max(1) }
    }

    /// Returns the integer at a position. Different positions have different integers. `place` must
    /// not be greater than the last integer.
    pub(super) fn at(&self, place: u128) -> u128 {
        let mut number = place;
        loop {
            number = self.mix(number);
            // The network permutes up to four times as many integers. Repeated for results beyond
            // the last integer, it ends at one that it reaches from no other position.
            if number <= self.last {
                return number;
            }
        }
    }

    fn mix(&self, number: u128) -> u128 {
        let mask = u128::MAX >> (128 - self.half);
        let (mut left, mut right) = ((number >> self.half) & mask, number & mask);
        for round in 0..ROUNDS {
            let hash = u128::from(self.keys.hash_one((round, right)));
            (left, right) = (right, left ^ (hash & mask));
        }
        (left << self.half) | right
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_integer_occurs_once() {
        for last in [0, 1, 2, 3, 4, 99, 255, 256, 4999] {
            let permutation = Permutation::new(last);
            let numbers: HashSet<u128> = (0..=last).map(|place| permutation.at(place)).collect();
            assert_eq!(numbers, (0..=last).collect(), "up to {last}");
        }
    }

    #[test]
    fn numbers_of_128_bits_are_mixed_too() {
        for last in [u128::MAX, u128::MAX >> 1, (1 << 64) - 1, 1 << 64] {
            let permutation = Permutation::new(last);
            let numbers: HashSet<u128> = (0..1000).map(|place| permutation.at(place)).collect();
            assert_eq!(numbers.len(), 1000);
            assert!(numbers.iter().all(|&number| number <= last));
            // Of 1000 random numbers of 2^64 or more, hardly ever are all in one half.
            assert!(numbers.iter().any(|&number| number > last / 2));
            assert!(numbers.iter().any(|&number| number <= last / 2));
        }
    }

    #[test]
    fn permutations_differ() {
        let order = || {
            let permutation = Permutation::new(999);
            (0..100).map(|place| permutation.at(place)).collect::<Vec<_>>()
        };
        assert_ne!(order(), order());
    }
}
