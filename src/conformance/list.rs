//! The list of all rules, basic ones first, and the tests that are generated from it.

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
                an_added_lease_can_be_read,
                an_address_has_one_lease,
                a_deleted_lease_is_gone,
                deleting_a_missing_lease_returns_no_such_lease,
                an_update_replaces_the_lease,
                an_update_of_a_missing_lease_fails,
                the_first_and_the_last_address_can_be_leased,
                a_lease_is_stored_unchanged,
                a_freed_address_can_be_leased_again,
                an_unchanged_lease_can_be_updated,
                a_lease_that_changed_in_any_field_is_not_updated,
                an_expected_lease_of_another_address_is_refused,
                a_lifetime_of_zero_is_refused,
                a_lease_that_is_not_in_use_may_have_a_lifetime_of_zero,
                an_unchanged_lease_can_be_deleted,
                a_lease_that_changed_in_any_field_is_not_deleted,
                a_refused_change_changes_nothing,
                the_status_names_the_backend_and_counts_its_leases,
                flushing_changes_no_lease,
                a_cleanup_changes_no_lease,
            }
            find {
                leases_come_in_the_order_of_their_addresses,
                a_key_finds_exactly_its_leases,
                an_unknown_key_finds_nothing,
                a_subnet_restricts_every_key,
                a_page_begins_after_its_address,
                a_limit_returns_the_first_leases,
                a_limit_of_zero_is_refused,
                a_limit_counts_only_leases_that_match,
                a_window_includes_both_of_its_ends,
                an_invalid_window_is_refused,
                a_window_restricts_every_key,
                a_range_includes_both_of_its_ends,
                a_range_restricts_every_key,
                a_range_that_ends_before_it_begins_is_refused,
                a_reversed_query_returns_leases_in_reverse_order,
                a_reversed_page_begins_before_its_address,
                ended_by_finds_only_leases_that_have_ended,
                a_name_is_found_in_any_case,
                a_state_is_found_across_many_subnets,
                a_client_may_have_leases_in_several_subnets,
                the_lowest_address_of_a_client_in_a_subnet_comes_first,
                a_hardware_address_is_found_with_any_type_and_source,
                the_shortest_and_the_longest_identifiers_are_found,
                identifiers_that_differ_in_one_byte_are_different,
                a_name_of_any_bytes_is_found,
                an_empty_name_finds_nothing,
                a_lease_without_an_identifier_is_found_by_the_others,
                a_state_of_any_number_is_found,
                a_declined_lease_has_no_client,
                pages_return_each_of_thousands_of_leases_once,
            }
            expiry {
                a_lease_expires_at_its_end,
                expired_leases_come_in_the_order_of_their_ends,
                leases_that_end_together_come_in_the_order_of_their_addresses,
                a_limit_returns_the_longest_expired,
                a_limit_of_zero_returns_all_expired,
                an_infinite_lease_never_expires,
                a_reclaimed_lease_has_not_expired,
                a_lease_expires_in_every_other_state,
                a_renewed_lease_has_not_expired,
                a_lease_with_a_new_earlier_end_expires,
                a_reclaimed_lease_that_is_renewed_expires_again,
                a_deleted_lease_does_not_expire,
                a_lease_may_end_beyond_32_bits,
                a_lease_that_ended_before_1970_has_expired,
                listing_expired_leases_changes_nothing,
            }
            reclaimed {
                only_reclaimed_leases_are_deleted,
                a_reclaimed_lease_is_deleted_from_its_end_on,
                deleting_reclaimed_leases_returns_their_number,
                an_infinite_reclaimed_lease_is_never_deleted,
                a_lease_that_is_no_longer_reclaimed_is_not_deleted,
                reclaimed_leases_that_ended_before_1970_are_deleted,
                thousands_of_reclaimed_leases_are_deleted,
                wiping_a_subnet_leaves_other_subnets,
                thousands_of_leases_of_a_subnet_are_wiped,
            }
            statistics {
                only_counted_states_have_rows,
                statistics_are_of_the_requested_subnets,
                statistics_of_invalid_subnets_are_refused,
                statistics_by_pool_have_rows_for_each_pool,
                statistics_come_in_the_order_of_their_fields,
                statistics_follow_an_addition,
                statistics_follow_an_update,
                statistics_follow_a_deletion,
                statistics_follow_the_deletion_of_many_leases,
                a_renewal_does_not_change_statistics,
                a_refused_change_is_not_counted,
                a_recount_gives_the_same_statistics,
            }
            totals {
                an_addition_is_an_assignment_but_a_renewal_is_not,
                a_lease_that_is_assigned_again_is_counted_again,
                reclaimed_leases_are_counted,
                a_refused_change_is_not_an_assignment,
                totals_are_counted_in_their_subnet_and_pool,
            }
            round_trips {
                kept_returns_the_lease_as_it_is_read_back,
                a_lease_that_cannot_be_kept_is_refused,
                get_many_returns_leases_in_the_order_of_the_addresses,
                count_returns_the_number_of_leases,
                a_scan_returns_every_lease_once,
                an_invalid_cursor_is_refused,
                reclaim_expired_returns_reclaimed_leases,
                the_longest_expired_are_reclaimed_first,
                concurrent_reclaims_have_one_winner,
                a_lease_is_added_within_limits,
                concurrent_adds_within_a_limit_do_not_exceed_it,
                update_with_loses_no_other_update,
                delete_if_deletes_only_a_matching_lease,
            }
            free_range {
                the_lowest_address_without_a_lease_is_free,
                an_address_whose_lease_has_ended_is_free,
                the_address_of_a_reclaimed_lease_is_free,
                an_excluded_address_is_not_free,
                a_full_range_has_no_free_address,
                leases_outside_the_range_are_ignored,
                free_addresses_follow_every_change,
                a_claim_takes_the_lowest_free_address,
                a_claim_replaces_a_lease_that_has_ended,
                a_claim_for_another_address_is_refused,
                concurrent_claims_take_different_addresses,
                a_claim_in_a_callback_is_refused,
                a_long_run_of_leases_is_skipped,
            }
            classes {
                a_class_counts_the_leases_in_use_that_name_it,
                a_class_counts_addresses_and_prefixes_separately,
                class_counts_follow_every_change,
                a_class_that_a_lease_names_twice_counts_once,
                names_elsewhere_in_the_context_are_not_classes,
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
                all_fields_of_a_lease_change_at_once,
                a_renewed_lease_is_found_under_the_same_keys,
                a_deleted_lease_is_found_under_no_key,
                an_update_does_not_move_other_leases_with_the_same_key,
            }
            tracking {
                an_addition_is_reported,
                an_update_is_reported_with_the_lease_before_and_after,
                a_deletion_is_reported_with_the_deleted_lease,
                a_change_is_reported_for_its_subnet_only,
                a_move_is_reported_for_both_subnets,
                a_refused_change_is_not_reported,
                each_of_many_deleted_leases_is_reported,
                an_unregistered_callback_is_not_called,
                callbacks_are_unregistered_by_owner_and_by_subnet,
                changes_of_an_address_are_reported_in_order,
                a_callback_may_read_leases,
                a_callback_cannot_change_leases,
                a_callback_may_register_and_unregister,
                a_callback_that_panics_fails_nothing_else,
                an_address_lock_has_one_holder,
            }
            files {
                leases_written_to_a_file_are_read_back_in_order,
                writing_replaces_an_existing_file,
                thousands_of_leases_are_written_to_a_file,
            }
            batches {
                each_change_of_a_batch_has_its_own_result,
                a_change_of_a_batch_sees_earlier_ones,
                a_batch_of_thousands_of_changes_is_applied,
                changes_of_a_batch_are_reported_in_order,
                an_import_adds_only_the_leases_that_are_missing,
                imported_leases_are_reported,
                concurrent_batches_are_applied,
            }
            submitted {
                a_submitted_change_returns_its_result,
                submitted_changes_of_an_address_are_made_in_order,
                a_submitted_change_is_made_before_its_completion,
                a_completion_may_submit_and_change,
                a_panic_in_a_completion_fails_nothing_else,
                a_callback_cannot_apply_or_submit,
                submitted_look_ups_find_addresses_and_clients,
                a_submitted_look_up_sees_answered_changes,
                concurrent_submitted_adds_have_one_winner,
            }
            threads {
                concurrent_adds_have_one_winner,
                concurrent_deletes_have_one_winner,
                no_conditional_update_is_lost,
                no_concurrent_change_of_an_address_is_lost,
                an_update_is_atomic,
                an_update_and_a_delete_have_one_winner,
                a_thread_reads_its_own_writes,
                a_reader_sees_only_leases_that_were_written,
                leases_with_common_keys_change_concurrently,
                a_renewed_lease_is_not_deleted_as_reclaimed,
            }
            history {
                a_long_history_of_few_leases_is_consistent,
                a_long_history_of_many_leases_is_consistent,
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
                a_relay_id_is_not_a_remote_id,
                ids_in_the_options_of_a_relay_agent_are_found,
                a_lease_moves_to_another_relay_agent,
                each_of_several_relay_agents_is_found,
                pages_of_a_relay_agent_respect_a_window,
            }
        }
    };
    // Rules for backends that do not find leases by relay agents.
    (no_relay_agents $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            relays {
                without_extended_info_nothing_is_found_by_relay_agents,
            }
        }
    };
    // Rules about DHCPv6 only.
    (dhcpv6 $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            changes {
                prefixes_that_differ_in_length_are_different,
            }
            find {
                type_and_iaid_restrict_an_identity,
                a_lease_is_found_by_its_address_and_type,
                a_prefix_and_an_address_exclude_each_other,
                a_hostname_keeps_its_case,
            }
            indexes {
                a_lease_moves_to_another_identity_association,
                a_lease_moves_to_another_type,
            }
            statistics {
                addresses_and_prefixes_are_counted_separately,
            }
            tracking {
                a_change_is_reported_for_its_type_only,
            }
        }
    };
    // Rules about leases that outlive their manager.
    (persistent $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            persistence {
                leases_outlive_their_manager,
                an_empty_manager_is_empty_when_reopened,
                the_last_of_many_changes_survives,
                a_deleted_lease_stays_deleted,
                deleted_reclaimed_leases_stay_deleted,
                a_wiped_subnet_stays_empty,
                a_refused_change_is_not_persisted,
                a_reopened_manager_continues_with_its_leases,
                repeated_reopening_changes_nothing,
                thousands_of_leases_survive,
                the_last_concurrent_changes_survive,
                changes_around_a_cleanup_survive,
                acknowledged_changes_survive_a_crash,
            }
            submitted {
                submitted_changes_are_made_before_the_manager_ends,
            }
        }
    };
    // Rules about several managers of the same leases.
    (shared $then:ident $($args:tt)*) => {
        $crate::__conformance_rules! {
            @$then [$($args)*]
            shared {
                a_manager_sees_the_changes_of_another,
                concurrent_adds_of_several_managers_have_one_winner,
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

/// Generates a test of each rule of the [conformance suite](crate::conformance), with the name of
/// the rule.
///
/// * The family: `v4`, `v6`, or `v6 without extended_info` ([`Suite::without_extended_info`]).
/// * The kind of backend: `in_memory`, with a closure that returns a manager without leases;
///   `persistent`, with a closure that returns a [`Fixture`]; or `shared`, with a closure that
///   returns a [`Fixture`] whose leases several managers use at the same time.
/// * Optionally `time_limit =` a [`Duration`](std::time::Duration) for each rule (default
///   [`TIME_LIMIT`](crate::conformance::TIME_LIMIT)).
///
/// Each call needs a module of its own, as the tests have the same names.
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

/// Generates the tests of groups of rules.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($lease:ident, $suite:expr, [$($group:ident)*], in_memory, $make:expr $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__conformance_tests! {
            @ $lease, $suite, [$($group)*],
            {
                let make = $make;
                // The closure may return an `Arc` of the backend's own type.
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
