//! Changes of others, of which triggers notify: `docs/sql.md` describes them for operators.
//!
//! A notification has the manager that made a change, which its sessions have told the server, the
//! kind of the change, and addresses. Those of one statement are in several notifications, as the
//! server limits their length.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::connect;
use super::link::Link;
use crate::lease::Family;
use crate::lease_mgr::{ChangeKind, ManagedLease};
use crate::sql::columns::{self, Value};
use crate::sql::driver::{DbError, DbErrorKind, Listener, Notice};
use crate::sql::options::SqlOptions;

/// The setting of a session that tells which manager it belongs to.
const SETTING: &str = "leasemgr.manager";

/// Number of addresses in a notification: of at most 44 bytes each, of the 8000 that it can have.
const ADDRESSES: usize = 100;

const TABLES: [&str; 2] = ["lease4", "lease6"];
const EVENTS: [(&str, &str); 3] = [("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")];

/// Returns the statements that install the triggers, or install them again.
pub(super) fn install() -> Vec<String> {
    let mut statements = remove();
    statements.push(format!(
        "CREATE FUNCTION leasemgr_notify() RETURNS trigger LANGUAGE plpgsql AS $body$ \
         DECLARE part text; \
         BEGIN \
         FOR part IN SELECT string_agg(c.address::text, ' ') FROM \
         (SELECT address, (row_number() OVER () - 1) / {ADDRESSES} AS number FROM changed) AS c \
         GROUP BY c.number LOOP \
         PERFORM pg_notify('leasemgr_' || TG_TABLE_NAME, \
         concat_ws(' ', coalesce(nullif(current_setting('{SETTING}', true), ''), '-'), TG_OP, part)); \
         END LOOP; \
         RETURN NULL; \
         END $body$"
    ));
    for table in TABLES {
        for (event, rows) in EVENTS {
            statements.push(format!(
                "CREATE TRIGGER leasemgr_notify_{event} AFTER {event} ON {table} \
                 REFERENCING {rows} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION leasemgr_notify()"
            ));
        }
    }
    statements
}

/// Returns the statements that remove the triggers.
pub(super) fn remove() -> Vec<String> {
    let mut statements = Vec::new();
    for table in TABLES {
        for (event, _) in EVENTS {
            statements.push(format!("DROP TRIGGER IF EXISTS leasemgr_notify_{event} ON {table}"));
        }
    }
    statements.push("DROP FUNCTION IF EXISTS leasemgr_notify()".to_owned());
    statements
}

/// Returns the statement that tells the server which manager a session belongs to.
pub(super) fn belongs_to(manager: &str) -> String {
    format!("SELECT set_config('{SETTING}', '{manager}', false)")
}

/// Listens for changes of the leases of a family; `None` if the triggers are not installed.
pub(super) fn listen<L: ManagedLease>(
    options: &SqlOptions,
    manager: &str,
) -> Result<Option<Box<dyn Listener<L>>>, DbError> {
    let (mut link, _) = connect::connect(options, &belongs_to(manager))?;
    let table = columns::table(L::FAMILY);
    let sql = format!(
        "SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = to_regclass('{table}') \
         AND tgname = 'leasemgr_notify_update'"
    );
    if link.query::<Value<'_>, _>(&sql, &[], |_| Ok(()))?.is_empty() {
        return Ok(None);
    }
    match link.execute::<Value<'_>>(&format!("LISTEN leasemgr_{table}"), &[]) {
        Ok(_) => Ok(Some(Box::new(Notified { link, manager: manager.to_owned() }))),
        // A standby notifies no one.
        Err(error) if error.kind == DbErrorKind::ReadOnly => Ok(None),
        Err(error) => Err(error),
    }
}

/// A session that is notified.
struct Notified {
    link: Link,
    manager: String,
}

impl<L: ManagedLease> Listener<L> for Notified {
    fn wait(&mut self, time: Duration) -> Result<Vec<Notice<L>>, DbError> {
        let texts = self.link.wire.notifications(Instant::now() + time)?;
        Ok(texts.iter().filter_map(|text| notice(text, &self.manager)).collect())
    }
}

/// Returns what a notification tells, unless it tells of changes of this manager. A text that is
/// none, which any program can send, tells of nothing.
fn notice<L: ManagedLease>(text: &str, manager: &str) -> Option<Notice<L>> {
    let mut words = text.split(' ');
    if words.next()? == manager {
        return None;
    }
    let kind = match words.next()? {
        "INSERT" => ChangeKind::Add,
        "UPDATE" => ChangeKind::Update,
        "DELETE" => ChangeKind::Delete,
        _ => return None,
    };
    // Any program can notify, and an address cannot be held twice.
    let addresses: BTreeSet<_> = words.filter_map(address::<L>).collect();
    Some(Notice { kind, addresses: addresses.into_iter().collect() })
}

/// Returns the address of a row: a number in DHCPv4.
fn address<L: ManagedLease>(word: &str) -> Option<L::Address> {
    let bits = match L::FAMILY {
        Family::V4 => word.parse::<u32>().ok()?.into(),
        Family::V6 => match word.split('/').next()?.parse().ok()? {
            IpAddr::V6(address) => address.to_bits(),
            IpAddr::V4(_) => return None,
        },
    };
    Some(L::address_of_bits(bits))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::{Lease4, Lease6};

    #[rstest]
    #[case("- INSERT 3221225994 5 5", Some((ChangeKind::Add, vec!["0.0.0.5", "192.0.2.10"])))]
    #[case("other DELETE 1 x 4294967296", Some((ChangeKind::Delete, vec!["0.0.0.1"])))]
    #[case("own UPDATE 1", None)]
    #[case("- TRUNCATE", None)]
    #[case("", None)]
    fn notifications_of_others_tell_addresses(
        #[case] text: &str,
        #[case] expected: Option<(ChangeKind, Vec<&str>)>,
    ) {
        let found = notice::<Lease4>(text, "own");
        let found = found.map(|notice| {
            (notice.kind, notice.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
        });
        let expected =
            expected.map(|(kind, addresses)| (kind, addresses.into_iter().map(str::to_owned).collect()));
        assert_eq!(found, expected);
    }

    #[test]
    fn addresses_of_both_schemas_are_read() {
        let found = notice::<Lease6>("- UPDATE 2001:db8::1/128 2001:db8::2 1.2.3.4", "own").unwrap();
        assert_eq!(
            found.addresses,
            ["2001:db8::1", "2001:db8::2"].map(|text| text.parse::<std::net::Ipv6Addr>().unwrap())
        );
    }
}
