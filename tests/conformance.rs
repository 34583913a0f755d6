//! The conformance suite accepts a correct manager, finds each defect, and proves the backends of
//! this crate.

#![allow(clippy::unwrap_used, reason = "a test")]

mod reference;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use leasemgr::Durability;
use leasemgr::LeaseMgr;
use leasemgr::ManagedLease;
use leasemgr::conformance::{
    Fixture, InMemory, Rule, Suite, TIME_LIMIT, TestedLease, assert_conforms4, assert_conforms6, assert_none,
    assert_persists4, assert_persists6,
};
use leasemgr::lease::{Lease4, Lease6};
use leasemgr::lease_file::FileLease;
use leasemgr::memfile::{self, LfcProgram, MemfileOptions};
use reference::Reference;
use reference::broken::{Broken, BrokenStore, Defect, DefectLease, Index, Missed};
use rstest::rstest;
use tempfile::TempDir;

fn reference<L: ManagedLease + FileLease>() -> Arc<dyn LeaseMgr<L>> {
    Arc::new(Reference::<L>::new())
}

#[test]
fn the_reference_passes_all_rules() {
    assert_conforms4(reference);
    assert_conforms6(reference);
}

#[test]
fn without_a_defect_no_rule_is_violated() {
    assert_persists4(|| BrokenStore::new(Defect::None));
    assert_persists6(|| BrokenStore::new(Defect::None));
}

mod shared_v4 {
    use super::{BrokenStore, Defect};

    leasemgr::conformance_tests!(
        v4,
        shared,
        || BrokenStore::new(Defect::None),
        time_limit = super::TIME_LIMIT
    );
}

/// Each defect, and rules that it breaks. A defect of something that DHCPv4 lacks is for DHCPv6
/// only.
#[rustfmt::skip]
const DEFECTS: &[(Defect, Only, &[&str])] = {
    use Defect::*;
    use Only::{Both, V6};
    &[
        (AddForgets, Both, &["an_added_lease_can_be_read", "leases_outlive_their_manager"]),
        (AddOverwrites, Both, &["an_address_has_one_lease", "a_prefix_and_an_address_exclude_each_other"]),
        (AddRaces, Both, &["concurrent_adds_have_one_winner", "no_concurrent_change_of_an_address_is_lost", "concurrent_batches_are_applied", "concurrent_submitted_adds_have_one_winner"]),
        (AddressesAreUsedOnce, Both, &["a_freed_address_can_be_leased_again"]),
        (ZeroLifetimeIsTaken, Both, &["a_lifetime_of_zero_is_refused"]),
        (ZeroLifetimeIsAlwaysRefused, Both, &["a_lease_that_is_not_in_use_may_have_a_lifetime_of_zero"]),
        (NamesAreCutAt255, Both, &["a_lease_is_stored_unchanged", "a_name_of_any_bytes_is_found"]),
        (NamesAreLowerCased, V6, &["a_hostname_keeps_its_case"]),
        (TypesHaveSeparateAddresses, V6, &["a_prefix_and_an_address_exclude_each_other"]),
        (TheLastAddressIsUnknown, Both, &["the_first_and_the_last_address_can_be_leased", "leases_come_in_the_order_of_their_addresses"]),
        (TemporaryLeasesAreHidden, V6, &["a_lease_is_found_by_its_address_and_type"]),
        (UpdateInserts, Both, &["an_update_of_a_missing_lease_fails"]),
        (UpdateKeepsThePool, Both, &["an_update_replaces_the_lease"]),
        (UpdateIsTorn, Both, &["a_reader_sees_only_leases_that_were_written", "an_update_is_atomic"]),
        (UpdateRaces, Both, &["no_conditional_update_is_lost", "no_concurrent_change_of_an_address_is_lost", "an_update_and_a_delete_have_one_winner"]),
        (ConditionalChangesFail, Both, &["reclaimed_leases_are_counted", "an_unchanged_lease_can_be_updated", "an_unchanged_lease_can_be_deleted", "a_reopened_manager_continues_with_its_leases"]),
        (ContextsAreNotCompared, Both, &["a_lease_that_changed_in_any_field_is_not_updated", "a_lease_that_changed_in_any_field_is_not_deleted"]),
        (SourcesAreNotCompared, Both, &["a_lease_that_changed_in_any_field_is_not_updated", "a_lease_that_changed_in_any_field_is_not_deleted"]),
        (OnlyEndsAreCompared, Both, &["a_lease_that_changed_in_any_field_is_not_updated"]),
        (AddressesAreNotCompared, Both, &["an_expected_lease_of_another_address_is_refused"]),
        (PrefixLengthsAreNotCompared, V6, &["prefixes_that_differ_in_length_are_different"]),
        (UpdateKeepsThePrefixLength, V6, &["prefixes_that_differ_in_length_are_different"]),
        (UpdateDeletesAndAdds, Both, &["an_update_is_atomic"]),
        (RefusedUpdateIsWritten, Both, &["a_refused_change_changes_nothing"]),
        (DeleteForgets, Both, &["a_deleted_lease_is_gone", "writing_replaces_an_existing_file"]),
        (DeleteAlwaysSucceeds, Both, &["an_empty_manager_has_no_leases", "deleting_a_missing_lease_returns_no_such_lease"]),
        (DeleteIgnoresTheExpected, Both, &["a_lease_that_changed_in_any_field_is_not_deleted"]),
        (DeleteRaces, Both, &["concurrent_deletes_have_one_winner", "no_concurrent_change_of_an_address_is_lost"]),
        (StatusCountsOneMore, Both, &["the_status_names_the_backend_and_counts_its_leases"]),
        (FlushForgetsALease, Both, &["flushing_changes_no_lease"]),
        (CleanupForgetsALease, Both, &["a_cleanup_changes_no_lease"]),

        (OrderIsThatOfStrings, Both, &["leases_come_in_the_order_of_their_addresses", "leases_written_to_a_file_are_read_back_in_order"]),
        (HostnamesAreIgnored, Both, &["a_key_finds_exactly_its_leases"]),
        (UnknownKeysFindAll, Both, &["an_unknown_key_finds_nothing"]),
        (SubnetIsIgnoredWithStates, Both, &["a_subnet_restricts_every_key", "a_state_of_any_number_is_found"]),
        (SubnetZeroIsAll, Both, &["a_subnet_restricts_every_key"]),
        (AfterIsIncluded, Both, &["a_page_begins_after_its_address", "pages_return_each_of_thousands_of_leases_once"]),
        (AfterSkipsOneMore, Both, &["a_page_begins_after_its_address", "pages_of_a_relay_agent_respect_a_window"]),
        (LimitIsIgnored, Both, &["a_limit_returns_the_first_leases"]),
        (LimitGivesTheLast, Both, &["a_limit_returns_the_first_leases"]),
        (LimitZeroIsAll, Both, &["a_limit_of_zero_is_refused"]),
        (BoundsAreNotChecked, Both, &["a_limit_of_zero_is_refused", "an_invalid_window_is_refused", "statistics_of_invalid_subnets_are_refused"]),
        (LimitCountsOtherSubnets, Both, &["a_limit_counts_only_leases_that_match", "a_long_history_of_few_leases_is_consistent"]),
        (WindowIsOpenAtItsEnd, Both, &["a_window_includes_both_of_its_ends", "a_long_history_of_many_leases_is_consistent"]),
        (WindowIsForAllLeasesOnly, Both, &["a_window_restricts_every_key"]),
        (RangeEndsAreLeftOut, Both, &["a_range_includes_both_of_its_ends"]),
        (RangeIsForAllLeasesOnly, Both, &["a_range_restricts_every_key"]),
        (RangesAreNotChecked, Both, &["a_range_that_ends_before_it_begins_is_refused"]),
        (ReverseIsIgnored, Both, &["a_reversed_query_returns_leases_in_reverse_order"]),
        (ReverseGoesOnForward, Both, &["a_reversed_page_begins_before_its_address"]),
        (ExpiryBoundIsIgnored, Both, &["ended_by_finds_only_leases_that_have_ended"]),
        (HostnamesHaveCase, Both, &["a_name_is_found_in_any_case"]),
        (StatesAreFoundInAFewSubnets, Both, &["a_state_is_found_across_many_subnets"]),
        (ClientHasOneLease, Both, &["a_client_may_have_leases_in_several_subnets"]),
        (ClientsLastLeaseComesFirst, Both, &["the_lowest_address_of_a_client_in_a_subnet_comes_first"]),
        (HardwareTypesAreCompared, Both, &["a_hardware_address_is_found_with_any_type_and_source"]),
        (IdentifiersAreCutAt14, Both, &["the_shortest_and_the_longest_identifiers_are_found"]),
        (IdentifiersAreCutAt100, Both, &["identifiers_that_differ_in_one_byte_are_different"]),
        (NamesEndAtNul, Both, &["a_name_of_any_bytes_is_found"]),
        (EmptyNamesAreFound, Both, &["an_empty_name_finds_nothing"]),
        (NamelessLeasesAreHidden, Both, &["a_lease_without_an_identifier_is_found_by_the_others"]),
        (StatesBeyondFourAreUnknown, Both, &["a_state_of_any_number_is_found"]),
        (AtMost1000AreFound, Both, &["pages_return_each_of_thousands_of_leases_once", "thousands_of_leases_survive"]),
        (IaidIsIgnored, V6, &["type_and_iaid_restrict_an_identity"]),
        (Stale(Index::Subnet), Both, &["a_lease_moves_to_another_subnet"]),
        (Stale(Index::HwAddr), Both, &["a_lease_moves_to_another_hardware_address", "a_declined_lease_has_no_client", "a_lease_loses_identifiers_and_gets_them_back"]),
        (Stale(Index::Client), Both, &["a_lease_moves_to_another_client_id_or_duid", "a_lease_moves_to_another_identity_association", "a_lease_moves_to_another_type"]),
        (Stale(Index::Hostname), Both, &["a_lease_moves_to_another_hostname", "all_fields_of_a_lease_change_at_once"]),
        (Stale(Index::State), Both, &["a_lease_moves_to_another_state"]),
        (Stale(Index::Relay), Both, &["a_lease_moves_to_another_relay_agent", "each_of_several_relay_agents_is_found"]),
        (PoolsAreStale, Both, &["a_lease_moves_to_another_pool"]),
        (RenewalLosesTheHostname, Both, &["a_renewed_lease_is_found_under_the_same_keys"]),
        (DeletedAreFoundByHostname, Both, &["a_deleted_lease_is_found_under_no_key"]),
        (UpdateUnindexesOthersOfTheHardwareAddress, Both, &["an_update_does_not_move_other_leases_with_the_same_key"]),
        (FindIsStale, Both, &["a_thread_reads_its_own_writes"]),
        (RelaysAreNotFound, Both, &["a_key_finds_exactly_its_leases", "a_lease_is_found_by_the_relay_id_in_its_user_context", "a_lease_is_found_by_the_remote_id_in_its_user_context"]),
        (RelaysAndRemotesAreMixed, Both, &["a_relay_id_is_not_a_remote_id"]),
        (OptionsOfRelaysAreIgnored, Both, &["ids_in_the_options_of_a_relay_agent_are_found"]),
        (OnlyOneRelayIsFound, V6, &["each_of_several_relay_agents_is_found"]),

        (ExpiredOneSecondLater, Both, &["a_lease_expires_at_its_end"]),
        (ExpiredByAddress, Both, &["expired_leases_come_in_the_order_of_their_ends"]),
        (ExpiredTogetherBackwards, Both, &["leases_that_end_together_come_in_the_order_of_their_addresses"]),
        (ExpiredLimitBeforeOrder, Both, &["a_limit_returns_the_longest_expired"]),
        (ExpiredZeroIsNone, Both, &["a_limit_of_zero_returns_all_expired"]),
        (InfiniteExpires, Both, &["an_infinite_lease_never_expires"]),
        (ReclaimedExpires, Both, &["a_reclaimed_lease_has_not_expired"]),
        (OnlyLeasesInUseExpire, Both, &["a_lease_expires_in_every_other_state"]),
        (ExpiresAsFirstAdded, Both, &["a_renewed_lease_has_not_expired", "a_lease_with_a_new_earlier_end_expires"]),
        (ReclaimedForEver, Both, &["a_reclaimed_lease_that_is_renewed_expires_again"]),
        (DeletedExpires, Both, &["a_deleted_lease_does_not_expire"]),
        (ExpiresIn32Bits, Both, &["a_lease_may_end_beyond_32_bits"]),
        (ExpiresInUnsigned, Both, &["a_lease_that_ended_before_1970_has_expired", "reclaimed_leases_that_ended_before_1970_are_deleted"]),
        (ExpiredAreTaken, Both, &["listing_expired_leases_changes_nothing"]),

        (RemovesAllExpired, Both, &["only_reclaimed_leases_are_deleted"]),
        (RemovesOneSecondLater, Both, &["a_reclaimed_lease_is_deleted_from_its_end_on"]),
        (RemovesInfinite, Both, &["an_infinite_reclaimed_lease_is_never_deleted"]),
        (RemovesInfiniteAtTheEndOfTime, Both, &["an_infinite_reclaimed_lease_is_never_deleted"]),
        (RemovesOnceReclaimed, Both, &["a_lease_that_is_no_longer_reclaimed_is_not_deleted"]),
        (RemovesAtMost1000, Both, &["thousands_of_reclaimed_leases_are_deleted"]),
        (RemovesWithoutLooking, Both, &["a_renewed_lease_is_not_deleted_as_reclaimed"]),
        (RemovalSaysZero, Both, &["deleting_reclaimed_leases_returns_their_number"]),
        (WipesAllSubnets, Both, &["wiping_a_subnet_leaves_other_subnets"]),
        (WipesAtMost1000, Both, &["thousands_of_leases_of_a_subnet_are_wiped"]),

        (ReclaimedAreCounted, Both, &["only_counted_states_have_rows"]),
        (RangesEndEarly, Both, &["statistics_are_of_the_requested_subnets"]),
        (PoolsAreNotCounted, Both, &["statistics_by_pool_have_rows_for_each_pool"]),
        (RowsAreNotInOrder, Both, &["statistics_come_in_the_order_of_their_fields"]),
        (StatisticsMiss(Missed::Additions), Both, &["statistics_follow_an_addition", "a_class_counts_the_leases_in_use_that_name_it"]),
        (StatisticsMiss(Missed::Updates), Both, &["statistics_follow_an_update", "class_counts_follow_every_change", "leases_with_common_keys_change_concurrently"]),
        (StatisticsMiss(Missed::Deletions), Both, &["statistics_follow_a_deletion", "class_counts_follow_every_change"]),
        (StatisticsMiss(Missed::BulkDeletions), Both, &["statistics_follow_the_deletion_of_many_leases", "class_counts_follow_every_change"]),
        (RenewalsAreCounted, Both, &["a_renewal_does_not_change_statistics"]),
        (RefusedAreCounted, Both, &["a_refused_change_is_not_counted"]),
        (RecountDoubles, Both, &["a_recount_gives_the_same_statistics", "a_recount_gives_the_same_class_counts"]),
        (TemporaryAreCounted, V6, &["addresses_and_prefixes_are_counted_separately"]),
        (ClassesCountAllStates, Both, &["a_class_counts_the_leases_in_use_that_name_it"]),
        (ClassesCountAllKinds, Both, &["a_class_counts_addresses_and_prefixes_separately"]),
        (ClassesCountNames, Both, &["a_class_that_a_lease_names_twice_counts_once"]),
        (ClassesAreLookedForInText, Both, &["names_elsewhere_in_the_context_are_not_classes"]),

        (NotifiesOfNothing, Both, &["an_addition_is_an_assignment_but_a_renewal_is_not", "a_lease_that_is_assigned_again_is_counted_again", "totals_are_counted_in_their_subnet_and_pool", "an_addition_is_reported", "an_update_is_reported_with_the_lease_before_and_after", "a_deletion_is_reported_with_the_deleted_lease", "a_callback_that_panics_fails_nothing_else", "a_callback_may_register_and_unregister", "imported_leases_are_reported", "a_change_is_reported_for_its_type_only"]),
        (NotifiesBeforeTheChange, Both, &["a_callback_may_read_leases"]),
        (NotifiesBeforeItIsFound, Both, &["a_callback_may_read_leases"]),
        (CallbacksChangeLeases, Both, &["a_callback_cannot_change_leases", "a_callback_cannot_apply_or_submit"]),
        (NotifiesOfNewAsOld, Both, &["an_update_is_reported_with_the_lease_before_and_after", "a_move_is_reported_for_both_subnets"]),
        (NotifiesOfSubnetOne, Both, &["a_change_is_reported_for_its_subnet_only"]),
        (NotifiesOfRefused, Both, &["a_refused_change_is_not_reported", "a_refused_change_is_not_an_assignment"]),
        (NotifiesOfNoBulkDeletions, Both, &["each_of_many_deleted_leases_is_reported"]),
        (NotifiesLate, Both, &["changes_of_an_address_are_reported_in_order", "no_concurrent_change_of_an_address_is_lost"]),
        (TracksTwice, Both, &["an_unregistered_callback_is_not_called", "callbacks_are_unregistered_by_owner_and_by_subnet", "an_address_lock_has_one_holder"]),

        (KeptLosesTheHostname, Both, &["kept_returns_the_lease_as_it_is_read_back"]),
        (KeepsAnything, Both, &["a_lease_that_cannot_be_kept_is_refused"]),
        (GetManyReordersLeases, Both, &["get_many_returns_leases_in_the_order_of_the_addresses", "an_import_adds_only_the_leases_that_are_missing"]),
        (CountIgnoresTheLimit, Both, &["count_returns_the_number_of_leases"]),
        (ScanSkipsALease, Both, &["a_scan_returns_every_lease_once", "thousands_of_leases_are_written_to_a_file"]),
        (ScanTakesAnyCursor, Both, &["an_invalid_cursor_is_refused"]),
        (ReclaimedComeBackAsTheyWere, Both, &["reclaim_expired_returns_reclaimed_leases"]),
        (ReclaimsByAddress, Both, &["the_longest_expired_are_reclaimed_first"]),
        (ReclaimsForEveryone, Both, &["concurrent_reclaims_have_one_winner"]),
        (LimitsAreIgnored, Both, &["a_lease_is_added_within_limits"]),
        (LimitsAreCheckedBefore, Both, &["concurrent_adds_within_a_limit_do_not_exceed_it"]),
        (UpdateRaces, Both, &["update_with_loses_no_other_update"]),
        (DeleteForgets, Both, &["delete_if_deletes_only_a_matching_lease"]),
        (FirstFreeIgnoresGaps, Both, &["the_lowest_address_without_a_lease_is_free"]),
        (FirstFreeIgnoresEnds, Both, &["an_address_whose_lease_has_ended_is_free"]),
        (FirstFreeIgnoresReclaimed, Both, &["the_address_of_a_reclaimed_lease_is_free"]),
        (FirstFreeIgnoresExclusions, Both, &["an_excluded_address_is_not_free"]),
        (FirstFreeIsAlwaysSomething, Both, &["a_full_range_has_no_free_address"]),
        (FirstFreeIsOneMore, Both, &["leases_outside_the_range_are_ignored"]),
        (FirstFreeIsAsFirstAdded, Both, &["free_addresses_follow_every_change"]),
        (FirstFreeLooksAt1000, Both, &["a_long_run_of_leases_is_skipped"]),
        (ClaimForgets, Both, &["a_claim_takes_the_lowest_free_address"]),
        (ClaimForgetsTheReplaced, Both, &["a_claim_replaces_a_lease_that_has_ended"]),
        (ClaimTakesAnyAddress, Both, &["a_claim_for_another_address_is_refused"]),
        (ClaimRaces, Both, &["concurrent_claims_take_different_addresses"]),
        (ClaimsInCallbacks, Both, &["a_claim_in_a_callback_is_refused"]),

        (BatchStopsAtAnError, Both, &["each_change_of_a_batch_has_its_own_result"]),
        (BatchDecidesAtOnce, Both, &["a_change_of_a_batch_sees_earlier_ones"]),
        (BatchIsCutAt1000, Both, &["a_batch_of_thousands_of_changes_is_applied"]),
        (BatchNotifiesInReverse, Both, &["changes_of_a_batch_are_reported_in_order"]),
        (SubmitAlwaysSucceeds, Both, &["a_submitted_change_returns_its_result"]),
        (SubmitReorders, Both, &["submitted_changes_of_an_address_are_made_in_order"]),
        (SubmitAnswersEarly, Both, &["a_submitted_change_is_made_before_its_completion"]),
        (SubmitIsRefusedInAnswers, Both, &["a_completion_may_submit_and_change"]),
        (SubmitEndsWithAPanic, Both, &["a_panic_in_a_completion_fails_nothing_else"]),
        (LookUpsIgnoreTheSubnet, Both, &["submitted_look_ups_find_addresses_and_clients"]),
        (LookUpsAreCached, Both, &["a_submitted_look_up_sees_answered_changes"]),
        (SubmitLosesTheLast, Both, &["submitted_changes_are_made_before_the_manager_ends"]),

        (ForgetsAll, Both, &["leases_outlive_their_manager", "a_lease_is_stored_unchanged"]),
        (ForgetsAtTheThirdTime, Both, &["repeated_reopening_changes_nothing"]),
        (FindsMore, Both, &["an_empty_manager_is_empty_when_reopened"]),
        (SavesOneChangeLate, Both, &["the_last_of_many_changes_survives"]),
        (SavesNoDeletions, Both, &["a_deleted_lease_stays_deleted"]),
        (SavesNoBulkDeletions, Both, &["deleted_reclaimed_leases_stay_deleted", "a_wiped_subnet_stays_empty"]),
        (SavesRefused, Both, &["a_refused_change_is_not_persisted"]),
        (SavesOnlyAtFirst, Both, &["a_reopened_manager_continues_with_its_leases"]),
        (Saves1000, Both, &["thousands_of_leases_survive"]),
        (SavesOutOfOrder, Both, &["the_last_concurrent_changes_survive"]),
        (SavesNothingAfterACleanup, Both, &["changes_around_a_cleanup_survive"]),
        (SavesWhenItEnds, Both, &["acknowledged_changes_survive_a_crash"]),

        (SharedIsCached, Both, &["a_manager_sees_the_changes_of_another"]),
        (
            SharedRaces,
            Both,
            &[
                "concurrent_adds_of_several_managers_have_one_winner",
                "no_update_of_several_managers_is_lost",
                "an_expired_lease_is_reclaimed_by_one_of_several_managers",
                "a_free_address_is_claimed_by_one_of_several_managers",
            ],
        ),
    ]
};

/// The families in which a defect shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    Both,
    V6,
}

/// Returns the rules that a defect should break, but does not.
fn undiscovered<L: TestedLease + DefectLease>(
    defects: impl Iterator<Item = (Defect, &'static [&'static str])>,
) -> Vec<String> {
    let rules: Vec<Rule<L>> = Suite::new().rules();
    let mut undiscovered = Vec::new();
    for (defect, names) in defects {
        for rule in rules.iter().filter(|rule| names.contains(&rule.name())) {
            // A race may not show in each run.
            let mut results = (0..50).map(|_| rule.check(Arc::new(BrokenStore::<L>::new(defect))));
            match results.find(Result::is_err).unwrap_or(Ok(())) {
                Err(violation) if violation.found.contains("a panic") => {
                    undiscovered.push(violation.to_string());
                }
                Err(violation) => assert_eq!(violation.rule, rule.name()),
                Ok(()) => undiscovered.push(format!("{defect:?} keeps {}", rule.name())),
            }
        }
    }
    undiscovered
}

#[test]
fn every_defect_is_found_in_dhcpv4() {
    let defects = DEFECTS.iter().filter(|(_, only, _)| *only == Only::Both);
    let none: [String; 0] = [];
    assert_eq!(undiscovered::<Lease4>(defects.map(|(defect, _, rules)| (*defect, *rules))), none);
}

#[test]
fn every_defect_is_found_in_dhcpv6() {
    let none: [String; 0] = [];
    assert_eq!(undiscovered::<Lease6>(DEFECTS.iter().map(|(defect, _, rules)| (*defect, *rules))), none);
}

#[test]
fn every_rule_is_violated_by_a_defect() {
    let broken: BTreeSet<_> = DEFECTS.iter().flat_map(|(_, _, rules)| *rules).copied().collect();
    let rules4 = Suite::<Lease4>::new().rules();
    let rules6 = Suite::<Lease6>::new().rules();
    let names = rules4.iter().map(Rule::name).chain(rules6.iter().map(Rule::name));
    assert_eq!(broken, names.collect::<BTreeSet<_>>());
}

#[test]
fn rule_names_are_unique() {
    let rules = Suite::<Lease6>::new().rules();
    let names: BTreeSet<_> = rules.iter().map(Rule::name).collect();
    assert_eq!(names.len(), rules.len());
}

/// Panics unless the first violation of a whole run is of a rule about the defect.
fn first_violation<L: TestedLease + DefectLease>(defect: Defect) {
    let about = DEFECTS.iter().filter(|(other, ..)| *other == defect).flat_map(|(.., rules)| *rules);
    let violations = Suite::<L>::new().run(move || Arc::new(Broken::new(defect)));
    assert!(!violations.is_empty(), "{defect:?} violates no rule");
    let first = &violations[0];
    let list = violations.iter().map(|violation| violation.rule).collect::<Vec<_>>();
    assert!(about.copied().any(|rule| rule == first.rule), "{defect:?}: {first}\n{list:?}");
}

#[rstest]
#[case(Defect::AddForgets)]
#[case(Defect::DeleteForgets)]
#[case(Defect::UpdateKeepsThePool)]
#[case(Defect::HostnamesAreIgnored)]
#[case(Defect::RelaysAreNotFound)]
#[case(Defect::IaidIsIgnored)]
#[case(Defect::Stale(Index::Hostname))]
#[case(Defect::ExpiredByAddress)]
#[case(Defect::InfiniteExpires)]
#[case(Defect::PoolsAreNotCounted)]
#[case(Defect::ClassesCountAllStates)]
fn the_first_violation_is_of_a_rule_about_the_defect(#[case] defect: Defect) {
    first_violation::<Lease6>(defect);
}

#[test]
fn a_violation_names_the_fields_that_differ() {
    let rule = |name| Suite::<Lease6>::new().rules().into_iter().find(|rule| rule.name() == name).unwrap();
    let broken = |name, defect| rule(name).check(Arc::new(BrokenStore::new(defect))).unwrap_err();
    let violation = broken("an_update_replaces_the_lease", Defect::UpdateKeepsThePool);
    assert_eq!(violation.fields, ["pool_id"]);
    assert!(violation.to_string().ends_with("\n    differs:  pool_id"), "{violation}");
    let violation =
        broken("prefixes_that_differ_in_length_are_different", Defect::UpdateKeepsThePrefixLength);
    assert_eq!(violation.fields, ["prefix_len"]);
    // A missing lease has no differing field.
    assert!(broken("an_added_lease_can_be_read", Defect::AddForgets).fields.is_empty());
}

#[test]
fn a_hanging_rule_is_violated() {
    let suite = Suite::<Lease4>::new().time_limit(Duration::from_millis(50));
    let hangs = || -> Arc<dyn LeaseMgr<Lease4>> {
        loop {
            thread::park();
        }
    };
    let violation = suite.rules()[0].check(Arc::new(InMemory(hangs))).unwrap_err();
    assert_eq!(violation.rule, suite.rules()[0].name());
    assert_eq!(
        (&*violation.expected, &*violation.found),
        ("that they return within 50ms", "they have not returned")
    );
}

#[test]
fn a_rule_applies_to_fixtures_that_support_it() {
    let rules = Suite::<Lease4>::new().rules();
    let count = |fixture: &dyn Fixture<Lease4>| rules.iter().filter(|rule| rule.applies_to(fixture)).count();
    let in_memory = count(&InMemory(reference::<Lease4>));
    let on_disk = count(&InFile::new(Durability::Written));
    assert!(in_memory < on_disk && on_disk < rules.len());
    assert_eq!(count(&BrokenStore::<Lease4>::new(Defect::None)), rules.len());
}

#[rstest]
#[case::unknown("a_rule", "no such rule")]
#[case::about_sharing("a_manager_sees_the_changes_of_another", "another one")]
fn a_rule_that_does_not_apply_cannot_be_asserted(#[case] name: &'static str, #[case] found: &str) {
    let assert = || Suite::<Lease4>::new().assert_rule(name, InMemory(reference::<Lease4>));
    let panic = catch_unwind(assert).unwrap_err();
    let message = panic.downcast::<String>().unwrap();
    assert!(message.contains(found), "{message}");
}

#[test]
fn a_panic_of_the_backend_is_a_violation() {
    let rules = Suite::<Lease4>::new().rules();
    let violation = rules[0].check(Arc::new(InMemory(|| panic!("out of order")))).unwrap_err();
    assert_eq!((violation.rule, violation.found.as_str()), (rules[0].name(), "a panic: out of order"));
}

#[test]
#[should_panic(expected = "an_added_lease_can_be_read\n    action:   get 10.0.0.1\n    expected: 1 lease")]
fn an_assertion_lists_the_violations() {
    assert_none(&Suite::<Lease4>::new().run(|| Arc::new(Broken::new(Defect::AddForgets))));
}

#[test]
fn without_extended_info_no_lease_may_be_found_by_relay_agent() {
    let suite = Suite::<Lease6>::new().without_extended_info();
    let violations = suite.run(reference);
    let rules: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, ["without_extended_info_nothing_is_found_by_relay_agents"]);
    let violations = suite.run(|| Arc::new(Broken::new(Defect::RelaysAreNotFound)));
    assert_none(&violations);
}

fn in_memory<L: ManagedLease + FileLease>(extended_info_tables: bool) -> Arc<dyn LeaseMgr<L>> {
    let options = MemfileOptions::default().extended_info_tables(extended_info_tables);
    memfile::open::<L>(options).unwrap()
}

mod memfile_v4_in_memory {
    leasemgr::conformance_tests!(v4, in_memory, || super::in_memory(false));
}

mod memfile_v6_in_memory {
    leasemgr::conformance_tests!(v6, in_memory, || super::in_memory(true));
}

mod memfile_v6_in_memory_without_extended_info {
    leasemgr::conformance_tests!(v6 without extended_info, in_memory, || super::in_memory(false));
}

/// A memfile in a directory of its own.
struct InFile {
    directory: Mutex<TempDir>,
    durability: Durability,
    extended_info_tables: bool,
}

impl InFile {
    fn new(durability: Durability) -> Self {
        Self { directory: Mutex::new(tempfile::tempdir().unwrap()), durability, extended_info_tables: true }
    }

    fn path(&self) -> PathBuf {
        self.directory.lock().unwrap().path().join("leases.csv")
    }
}

impl<L: TestedLease> Fixture<L> for InFile {
    fn open(&self) -> Arc<dyn LeaseMgr<L>> {
        let options = MemfileOptions::at(self.path())
            .durability(self.durability)
            .extended_info_tables(self.extended_info_tables)
            .lfc_program(LfcProgram::Internal);
        memfile::open::<L>(options).unwrap()
    }

    /// Restores the files as they were before the manager ended.
    fn crash(&self, manager: Arc<dyn LeaseMgr<L>>) {
        let left = tempfile::tempdir().unwrap();
        let mut directory = self.directory.lock().unwrap();
        for entry in fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, left.path().join(path.file_name().unwrap())).unwrap();
        }
        drop(manager);
        *directory = left;
    }
}

mod memfile_v4_on_disk {
    use super::{Durability, InFile};

    leasemgr::conformance_tests!(v4, persistent, || InFile::new(Durability::Written));
}

mod memfile_v6_on_disk {
    use super::{Durability, InFile};

    leasemgr::conformance_tests!(v6, persistent, || InFile::new(Durability::Written));
}

mod memfile_v6_on_disk_without_extended_info {
    use super::{Durability, InFile};

    leasemgr::conformance_tests!(v6 without extended_info, persistent, || {
        InFile { extended_info_tables: false, ..InFile::new(Durability::Written) }
    });
}

/// Checks the rules for batches and submitted changes, which a memfile that syncs each change
/// implements separately.
fn check_synced<L: TestedLease>() {
    let is_about_them =
        |rule: &Rule<L>| ["batch", "submit", "completion"].iter().any(|word| rule.name().contains(word));
    let rules: Vec<_> = Suite::<L>::new().rules().into_iter().filter(is_about_them).collect();
    assert_eq!(rules.len(), 15);
    let check = |rule: Rule<L>| rule.check(Arc::new(InFile::new(Durability::Synced))).err();
    assert_none(&rules.into_iter().filter_map(check).collect::<Vec<_>>());
}

#[test]
fn a_memfile_that_syncs_each_change_passes_the_rules_for_batches_and_submitted_changes() {
    check_synced::<Lease4>();
    check_synced::<Lease6>();
}
