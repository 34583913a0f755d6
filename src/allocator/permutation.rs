//! Numbers in an order that nobody can foretell.

use std::hash::{BuildHasher, RandomState};

/// So many that the result looks like chance.
const ROUNDS: u8 = 4;

/// The numbers from 0 to a last one in another order, which takes no memory to keep: a Feistel network over as many bits as the
/// last number has, with keys that are drawn when it is made.
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

    /// What stands at a place. Different places have different numbers. `place` must not be greater than the last number.
    pub(super) fn at(&self, place: u128) -> u128 {
        let mut number = place;
        loop {
            number = self.mix(number);
            // The network permutes up to four times as many numbers. Followed on from one beyond the last, it comes back to
            // one that it reaches from no other place.
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
    fn every_number_comes_once() {
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
            // 1000 of 2^64 numbers or more: they are hardly ever all in one half.
            assert!(numbers.iter().any(|&number| number > last / 2));
            assert!(numbers.iter().any(|&number| number <= last / 2));
        }
    }

    #[test]
    fn every_permutation_is_another() {
        let order = || {
            let permutation = Permutation::new(999);
            (0..100).map(|place| permutation.at(place)).collect::<Vec<_>>()
        };
        assert_ne!(order(), order());
    }
}
