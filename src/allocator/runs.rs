//! A set of integers that are mostly adjacent.

use std::collections::BTreeMap;

/// A set of integers, stored as runs of adjacent ones. Adding, removing and searching take
/// logarithmic time in the number of runs, and memory is needed for each run only.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// The first and the last integer of each run. Runs are not adjacent.
    runs: BTreeMap<u128, u128>,
}

impl Runs {
    /// Returns the run that contains an integer.
    fn around(&self, number: u128) -> Option<(u128, u128)> {
        let (&first, &last) = self.runs.range(..=number).next_back()?;
        (number <= last).then_some((first, last))
    }

    pub(super) fn contains(&self, number: u128) -> bool {
        self.around(number).is_some()
    }

    /// Adds the integers from the first to the last one.
    pub(super) fn insert(&mut self, mut first: u128, mut last: u128) {
        // Runs that overlap or touch the new one become part of it.
        while let Some((&other, &end)) = self.runs.range(..=last.saturating_add(1)).next_back()
            && first <= end.saturating_add(1)
        {
            self.runs.remove(&other);
            (first, last) = (first.min(other), last.max(end));
        }
        self.runs.insert(first, last);
    }

    /// Removes an integer, and returns whether it was in the set.
    pub(super) fn remove(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.around(number) else {
            return false;
        };
        self.runs.remove(&first);
        if first < number {
            self.runs.insert(first, number - 1);
        }
        if number < last {
            self.runs.insert(number + 1, last);
        }
        true
    }

    /// Returns the lowest integer that is not in the set; `None` if all are.
    pub(super) fn lowest_gap(&self) -> Option<u128> {
        self.around(0).map_or(Some(0), |(_, last)| last.checked_add(1))
    }

    /// Returns the integer at a position among those that are not in the set; `None` if there are
    /// not as many.
    pub(super) fn gap_at(&self, place: u128) -> Option<u128> {
        let mut number = place;
        for (first, last) in self.iter() {
            if number < first {
                break;
            }
            number = number.checked_add(last - first)?.checked_add(1)?;
        }
        Some(number)
    }

    /// Returns the number of integers below this one that are not in the set.
    pub(super) fn gaps_below(&self, number: u128) -> u128 {
        let below = self.runs.range(..number).map(|(first, last)| last.min(&(number - 1)) - first + 1);
        number - below.sum::<u128>()
    }

    /// Returns the runs in order: the first and the last integer of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.runs.iter().map(|(&first, &last)| (first, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_b_tree_set(
            steps in prop::collection::vec((any::<bool>(), 0..40_u128, 0..10_u128), 0..60),
            at in 0..60_u128,
        ) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for (is_added, first, len) in steps {
                if is_added {
                    runs.insert(first, first + len);
                    model.extend(first..=first + len);
                } else {
                    prop_assert_eq!(runs.remove(first), model.remove(&first));
                }
                let listed: Vec<_> = runs.iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
                let has_gaps = runs.iter().zip(runs.iter().skip(1)).all(|((_, end), (next, _))| end + 1 < next);
                prop_assert!(has_gaps);
                prop_assert_eq!(runs.contains(at), model.contains(&at));
                let mut gaps = (0..).filter(|n| !model.contains(n));
                prop_assert_eq!(runs.lowest_gap(), gaps.clone().next());
                prop_assert_eq!(runs.gaps_below(at), (0..at).filter(|n| !model.contains(n)).count() as u128);
                let place = usize::try_from(at).unwrap();
                prop_assert_eq!(runs.gap_at(at), gaps.nth(place));
            }
        }
    }

    #[test]
    fn the_largest_integers_can_be_added() {
        let mut runs = Runs::default();
        runs.insert(0, u128::MAX);
        assert_eq!((runs.lowest_gap(), runs.gap_at(0)), (None, None));
        assert_eq!(runs.gaps_below(u128::MAX), 0);
        assert!(runs.remove(u128::MAX));
        assert_eq!(runs.lowest_gap(), Some(u128::MAX));
        assert_eq!((runs.gap_at(0), runs.gap_at(1)), (Some(u128::MAX), None));
        runs.insert(u128::MAX, u128::MAX);
        assert_eq!(runs.iter().collect::<Vec<_>>(), [(0, u128::MAX)]);
    }
}
