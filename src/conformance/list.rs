//! The list of all rules, basic ones first, and the tests that are made of it.

/// Calls one of its own arms with the rules of a group, each under its module.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_rules {
    // Rules for both families.
    (every $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            changes {
                an_empty_manager_has_no_leases,
                an_added_lease_is_there,
                an_address_has_one_lease,
                a_deleted_lease_is_gone,
                deleting_a_lease_that_is_not_there_says_so,
                an_update_takes_the_place_of_the_lease,
                an_update_needs_a_lease,
                the_first_and_the_last_address_can_be_leased,
                a_lease_is_kept_as_it_was_given,
                a_freed_address_can_be_leased_again,
                an_unchanged_lease_can_be_updated,
                a_lease_that_changed_in_any_field_is_not_updated,
                an_expected_lease_of_another_address_is_refused,
                a_lease_that_is_valid_for_no_time_is_refused,
                an_unchanged_lease_can_be_deleted,
                a_lease_that_changed_in_any_field_is_not_deleted,
                a_refused_change_changes_nothing,
                the_status_names_the_backend_and_counts_its_leases,
                flushing_changes_no_lease,
                a_cleanup_changes_no_lease,
            }
            find {
                leases_come_in_the_order_of_their_addresses,
                a_key_finds_its_leases_and_no_others,
                a_key_that_nobody_has_finds_nothing,
                a_subnet_narrows_every_key,
                a_page_begins_behind_its_address,
                a_limit_gives_the_first_leases,
                a_limit_of_zero_is_refused,
                a_limit_counts_only_leases_that_match,
                a_window_includes_both_of_its_ends,
                a_window_that_cannot_be_is_refused,
                a_window_narrows_every_key,
                a_range_includes_both_of_its_ends,
                a_range_narrows_every_key,
                a_range_that_ends_before_it_begins_is_refused,
                a_reversed_query_gives_the_leases_in_reverse_order,
                a_reversed_query_goes_on_before_its_address,
                only_leases_that_have_ended_are_found_by_their_end,
                a_name_is_found_in_any_case,
                a_state_is_found_across_many_subnets,
                a_client_may_have_leases_in_several_subnets,
                of_a_clients_leases_in_a_subnet_the_lowest_address_comes_first,
                a_hardware_address_is_found_whatever_its_type_and_source,
                the_shortest_and_the_longest_identifiers_are_found,
                identifiers_that_differ_in_one_byte_are_different,
                a_name_of_any_bytes_is_found,
                an_empty_name_finds_nothing,
                a_lease_without_an_identifier_is_found_by_the_others,
                a_state_of_any_number_is_found,
                a_declined_lease_is_nobodys,
                thousands_of_leases_are_paged_through_once,
            }
            expiry {
                a_lease_has_expired_when_its_time_has_come,
                what_ended_first_comes_first,
                leases_that_end_together_come_in_the_order_of_their_addresses,
                a_limit_gives_the_longest_expired,
                a_limit_of_zero_gives_all_expired,
                an_infinite_lease_never_expires,
                a_reclaimed_lease_has_not_expired,
                a_lease_expires_in_every_other_state,
                a_renewed_lease_has_not_expired,
                a_lease_whose_end_moves_back_expires,
                a_reclaimed_lease_that_is_renewed_expires_again,
                a_deleted_lease_does_not_expire,
                a_lease_may_end_beyond_32_bits,
                a_lease_that_ended_before_1970_has_expired,
                asking_for_expired_leases_changes_nothing,
            }
            reclaimed {
                only_reclaimed_leases_are_removed,
                a_reclaimed_lease_is_removed_from_its_end_on,
                removing_reclaimed_leases_says_how_many_there_were,
                an_infinite_reclaimed_lease_is_never_removed,
                a_lease_that_is_no_longer_reclaimed_is_not_removed,
                reclaimed_leases_that_ended_before_1970_are_deleted,
                thousands_of_reclaimed_leases_are_removed,
                a_subnet_is_wiped_and_no_other,
                thousands_of_leases_of_a_subnet_are_wiped,
            }
            statistics {
                counted_states_have_rows_and_no_others,
                statistics_are_of_the_subnets_that_are_asked_for,
                statistics_of_subnets_that_cannot_be_are_refused,
                statistics_by_pool_have_rows_for_each_pool,
                statistics_come_in_the_order_of_their_fields,
                statistics_follow_an_addition,
                statistics_follow_an_update,
                statistics_follow_a_deletion,
                statistics_follow_the_removal_of_many,
                a_renewal_leaves_statistics_as_they_are,
                a_refused_change_is_not_counted,
                a_recount_gives_the_same_statistics,
            }
            totals {
                an_addition_is_an_assignment_and_a_renewal_is_none,
                a_lease_that_is_assigned_again_is_counted_again,
                reclaimed_leases_are_counted,
                a_refused_change_is_no_assignment,
                totals_are_counted_in_their_subnet_and_pool,
            }
            round_trips {
                a_lease_is_kept_as_it_is_read_back,
                a_lease_that_cannot_be_kept_is_refused,
                leases_of_many_addresses_come_in_the_order_of_these,
                a_query_is_counted,
                a_scan_gives_every_lease_once,
                a_scan_from_an_unknown_place_is_refused,
                expired_leases_come_back_reclaimed,
                the_longest_expired_are_reclaimed_first,
                an_expired_lease_is_reclaimed_by_one,
                a_lease_is_added_within_limits,
                concurrent_adds_within_a_limit_do_not_exceed_it,
                an_update_of_what_is_there_loses_no_other_update,
                a_lease_is_deleted_if_it_is_meant,
            }
            free_range {
                the_lowest_address_without_a_lease_is_free,
                an_address_whose_lease_has_ended_is_free,
                the_address_of_a_reclaimed_lease_is_free,
                an_excluded_address_is_not_free,
                a_full_range_has_no_free_address,
                leases_out_of_the_range_do_not_matter,
                free_addresses_follow_every_change,
                a_claim_takes_the_lowest_free_address,
                a_claim_replaces_a_lease_that_has_ended,
                a_claim_for_another_address_is_refused,
                concurrent_claims_take_different_addresses,
                a_claim_in_a_callback_is_refused,
                a_long_row_of_leases_is_skipped,
            }
            classes {
                a_class_has_the_leases_in_use_that_name_it,
                a_class_has_addresses_and_prefixes_apart,
                class_counts_follow_every_change,
                a_class_that_a_lease_names_twice_counts_once,
                only_names_in_their_place_count_as_classes,
                a_recount_gives_the_same_class_counts,
            }
            indexes {
                a_lease_moves_to_another_subnet,
                a_lease_moves_to_another_hardware_address,
                a_lease_moves_to_another_client_id_or_duid,
                a_lease_moves_to_another_hostname,
                a_lease_moves_to_another_state,
                a_lease_moves_to_another_pool,
                a_lease_loses_identifiers_and_gets_them_back,
                everything_of_a_lease_changes_at_once,
                a_renewal_leaves_a_lease_where_it_is_found,
                a_deleted_lease_is_found_under_no_key,
                leases_that_share_a_key_do_not_follow_each_other,
            }
            tracking {
                an_addition_is_told,
                an_update_is_told_with_the_lease_before_and_after,
                a_deletion_is_told_with_the_lease_that_was_there,
                a_change_is_told_for_its_subnet_only,
                a_move_is_told_to_both_subnets,
                a_refused_change_is_not_told,
                each_of_many_removed_leases_is_told,
                nothing_is_told_behind_the_end_of_the_registration,
                callbacks_are_unregistered_by_owner_and_by_subnet,
                changes_of_an_address_are_told_in_their_order,
                a_callback_may_read_leases,
                a_callback_cannot_change_leases,
                a_callback_may_register_and_unregister,
                a_callback_that_panics_fails_nothing_else,
                a_lock_is_the_same_for_all,
            }
            files {
                leases_written_to_a_file_are_read_back_in_order,
                a_file_is_written_in_place_of_the_one_before,
                thousands_of_leases_are_written_to_a_file,
            }
            batches {
                each_change_of_a_batch_has_its_own_result,
                a_later_change_of_a_batch_finds_what_an_earlier_one_left,
                a_batch_of_thousands_of_changes_is_made,
                changes_of_a_batch_are_told_in_their_order,
                batches_of_several_threads_are_made,
            }
            submitted {
                a_submitted_change_is_answered_with_its_result,
                submitted_changes_of_an_address_are_made_in_their_order,
                a_submitted_change_is_made_when_it_is_answered,
                an_answer_may_submit_and_change,
                a_panic_at_an_answer_fails_nothing_else,
                a_callback_cannot_apply_or_submit,
                of_many_that_submit_an_addition_one_has_it,
            }
            threads {
                of_many_that_add_an_address_one_has_it,
                of_many_that_delete_a_lease_one_has_deleted_it,
                no_conditional_update_is_lost,
                no_change_of_an_address_is_lost_among_threads,
                an_update_is_one_step,
                of_an_update_and_a_deletion_one_wins,
                a_thread_reads_what_it_has_written,
                a_reader_sees_only_leases_that_were_written,
                leases_that_share_their_keys_change_at_the_same_time,
                a_lease_renewed_in_time_is_not_removed,
            }
            history {
                a_long_history_of_few_leases_is_answered_rightly,
                a_long_history_of_many_leases_is_answered_rightly,
            }
        }
    };
    // Rules about relay ids and remote ids.
    (relay_agents $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            relays {
                a_lease_is_found_by_the_relay_id_in_its_user_context,
                a_lease_is_found_by_the_remote_id_in_its_user_context,
                a_relay_id_is_no_remote_id,
                ids_among_the_options_of_a_relay_agent_are_found,
                a_lease_moves_to_another_relay_agent,
                each_of_several_relay_agents_is_found,
                relay_agents_are_paged_through_in_a_window,
            }
        }
    };
    // Rules for backends that do not find leases by these.
    (no_relay_agents $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            relays {
                without_extended_info_nothing_is_found_by_relay_agents,
            }
        }
    };
    // Rules about what DHCPv4 does not have.
    (dhcpv6 $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            changes {
                prefixes_that_differ_in_length_are_different,
            }
            find {
                an_identity_is_narrowed_by_type_and_iaid,
                a_lease_is_found_by_its_address_and_type,
                a_prefix_and_an_address_exclude_each_other,
                a_hostname_keeps_its_case,
            }
            indexes {
                a_lease_moves_to_another_identity_association,
                a_lease_moves_to_another_type,
            }
            statistics {
                addresses_and_prefixes_are_counted_apart,
            }
            tracking {
                a_change_is_told_for_its_type_only,
            }
        }
    };
    // Rules about leases that outlive their manager.
    (persistent $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            persistence {
                leases_outlive_their_manager,
                an_empty_manager_is_empty_when_it_is_opened_again,
                the_last_of_many_changes_is_found_again,
                a_deleted_lease_stays_deleted,
                removed_reclaimed_leases_stay_removed,
                a_wiped_subnet_stays_empty,
                a_refused_change_leaves_no_trace,
                a_reopened_manager_goes_on_where_it_was,
                opening_again_and_again_changes_nothing,
                thousands_of_leases_are_found_again,
                what_many_threads_changed_last_is_found_again,
                changes_around_a_cleanup_are_found_again,
                acknowledged_changes_outlive_a_crash,
            }
            submitted {
                what_was_submitted_is_made_before_the_manager_ends,
            }
        }
    };
    // Rules about several managers of the same leases.
    (shared $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            shared {
                a_manager_finds_what_another_has_changed,
                of_several_managers_one_has_an_address,
                no_update_of_several_managers_is_lost,
                an_expired_lease_is_reclaimed_by_one_of_several_managers,
                a_free_address_is_claimed_by_one_of_several_managers,
            }
        }
    };
    (@list [$new:ident] $($module:ident { $($name:ident,)* })*) => {
        vec![$($($crate::conformance::Rule::$new(
            stringify!($name),
            $crate::conformance::$module::$name,
        )),*),*]
    };
    (@test [] $($module:ident { $($name:ident,)* })*) => {
        $($(
            #[test]
            fn $name() {
                check_rule(stringify!($name));
            }
        )*)*
    };
}

/// Makes a test of each rule of the [conformance suite](crate::conformance), with the name of the
/// rule.
///
/// * The family: `v4`, `v6`, or `v6 without extended_info` ([`Suite::without_extended_info`]).
/// * What the backend is: `in_memory`, with a closure that returns a manager without leases;
///   `persistent`, with a closure that returns a [`Fixture`]; or `shared`, with a [`Fixture`] whose
///   leases several managers use at the same time.
/// * Optionally `time_limit =` a [`Duration`](std::time::Duration) for each rule
///   ([`TIME_LIMIT`](crate::conformance::TIME_LIMIT) without it).
///
/// Each call needs a module of its own, because the tests have the same names.
///
/// ```no_run,test_harness
/// mod conformance {
///     use std::sync::Arc;
///     use std::time::Duration;
///
///     use leasemgr::memfile::{Memfile, MemfileOptions};
///
///     mod v4 {
///         use super::*;
///         leasemgr::conformance_tests!(v4, in_memory, || {
///             Arc::new(Memfile::open(MemfileOptions::default()).unwrap())
///         });
///     }
///
///     mod v6 {
///         use super::*;
///         leasemgr::conformance_tests!(
///             v6 without extended_info,
///             in_memory,
///             || Arc::new(Memfile::open(MemfileOptions::default()).unwrap()),
///             time_limit = Duration::from_secs(300),
///         );
///     }
/// }
/// ```
///
/// [`Fixture`]: crate::conformance::Fixture
/// [`Suite::without_extended_info`]: crate::conformance::Suite::without_extended_info
#[macro_export]
macro_rules! conformance_tests {
    (v4, $($rest:tt)*) => {
        $crate::__conformance_tests! {
            Lease4, $crate::conformance::Suite::new(), [every relay_agents], $($rest)*
        }
    };
    (v6, $($rest:tt)*) => {
        $crate::__conformance_tests! {
            Lease6, $crate::conformance::Suite::new(), [every relay_agents dhcpv6], $($rest)*
        }
    };
    (v6 without extended_info, $($rest:tt)*) => {
        $crate::__conformance_tests! {
            Lease6, $crate::conformance::Suite::new().without_extended_info(),
            [every no_relay_agents dhcpv6], $($rest)*
        }
    };
}

/// Makes the tests of groups of rules.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($lease:ident, $suite:expr, [$($group:ident)*], in_memory, $make:expr $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__conformance_tests! {
            @ $lease, $suite, [$($group)*],
            {
                let make = $make;
                // The closure may return an `Arc` of the backend itself.
                $crate::conformance::InMemory(
                    move || -> ::std::sync::Arc<dyn $crate::LeaseMgr<$crate::lease::$lease>> { make() },
                )
            }
            $(, $option = $value)*
        }
    };
    ($lease:ident, $suite:expr, [$($group:ident)*], persistent, $make:expr $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__conformance_tests! {
            @ $lease, $suite, [$($group)* persistent], { let make = $make; make() } $(, $option = $value)*
        }
    };
    ($lease:ident, $suite:expr, [$($group:ident)*], shared, $make:expr $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__conformance_tests! {
            @ $lease, $suite, [$($group)* persistent shared], { let make = $make; make() } $(, $option = $value)*
        }
    };
    (@ $lease:ident, $suite:expr, [$($group:ident)*], $fixture:expr $(, $option:ident = $value:expr)*) => {
        fn check_rule(name: &str) {
            let suite: $crate::conformance::Suite<$crate::lease::$lease> = $suite;
            $(let suite = suite.$option($value);)*
            suite.assert_rule(name, $fixture);
        }
        $($crate::__conformance_rules! { $group test })*
    };
}
