//! The statements that count the statistics again, as the triggers count leases one by one.

use super::columns::table;
use super::driver::Schema;
use crate::lease::{Family, LeaseState};

/// What the statements of a database differ in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counting {
    /// What follows the name of the lease table, such as a hint of the index.
    pub(crate) hint: &'static str,
    /// A table of the client classes of the row `l`, and the expression of a class and a condition in
    /// it.
    pub(crate) classes: &'static str,
    pub(crate) class: &'static str,
    pub(crate) is_class: &'static str,
    /// What follows the addition of a class, if the database can take two names for one.
    pub(crate) on_conflict: &'static str,
}

/// Returns the statements that replace the statistics of a family by what its leases say. The caller
/// executes them in one transaction that has locked the lease table against writers.
pub(crate) fn statements(family: Family, schema: &Schema, counting: Counting) -> Vec<String> {
    let Counting { hint, classes, class, is_class, on_conflict } = counting;
    let leases = table(family);
    let from = format!("FROM {leases} l {hint}");
    let mut kind = "";
    let mut states = "(0, 1)";
    if family == Family::V6 {
        kind = "lease_type, ";
        if schema.states.contains(&LeaseState::REGISTERED) {
            states = "(0, 1, 4)";
        }
    }
    let count = |table: &str, keys: &str, states: &str| {
        [
            format!("DELETE FROM {leases}_{table}"),
            format!(
                "INSERT INTO {leases}_{table} ({keys}, leases) SELECT {keys}, count(*) {from} \
                 WHERE state IN {states} GROUP BY {keys}"
            ),
        ]
    };
    let mut statements = count("stat", &format!("subnet_id, {kind}state"), states).to_vec();
    if schema.has_pool_ids {
        // The tables of pools do not have registered addresses.
        statements.extend(count("pool_stat", &format!("subnet_id, pool_id, {kind}state"), "(0, 1)"));
    }
    statements.push(format!("DELETE FROM {leases}_stat_by_client_class"));
    statements.push(format!(
        "INSERT INTO {leases}_stat_by_client_class (client_class, {kind}leases) \
         SELECT {class}, {kind}count(DISTINCT address) {from}, {classes} \
         WHERE state = 0 AND {is_class} GROUP BY {kind}{class} {on_conflict}"
    ));
    statements
}
