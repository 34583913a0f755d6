//! Counts the statistics again, and loads many leases in one transaction: without the trigger that
//! counts each lease, without foreign keys, whose values [`kept`](crate::lease_mgr::LeaseMgr::kept)
//! checks, and without the indexes, which are built again from all rows.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::types::{IsNull, ToSql, Type};

use super::connect::rows;
use super::session::{PostgreSqlSession, other, stored};
use crate::lease_mgr::ManagedLease;
use crate::sql::columns::{self, Column, Value};
use crate::sql::driver::{DbError, Table};
use crate::sql::recount::{self, Counting};

/// Begins a transaction. Each statement sees what was committed before it, and may read whole tables.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; \
    SET LOCAL plan_cache_mode = auto";

/// Sorts for indexes in memory: 256 MiB, if not more is configured.
const SORT: &str = "SELECT set_config(name, greatest(setting::bigint, 262144)::text || 'kB', true) \
    FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'";

/// The classes of a lease. The user contexts are JSON, as a trigger of Kea checks.
const COUNTING: Counting = Counting {
    hint: "",
    classes: "LATERAL (SELECT nullif(l.user_context, '')::json #> '{ISC,client-classes}') AS c(list), \
        LATERAL json_array_elements(CASE json_typeof(list) WHEN 'array' THEN list ELSE '[]' END) \
        AS e(element)",
    class: "element #>> '{}'",
    is_class: "json_typeof(element) = 'string' AND length(element #>> '{}') <= 128",
    on_conflict: "",
};

/// Size of the messages in which rows are sent.
const MESSAGE: usize = 64 << 10;

/// The beginning of rows in binary form: a signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The table has triggers that must not be left out.
#[derive(Debug, thiserror::Error)]
#[error(
    "the table {table} has other triggers for new rows than the one that Kea makes; import the leases without \
     `exclusive`"
)]
struct TriggersError {
    table: &'static str,
}

/// A transaction in which leases are loaded.
#[derive(Debug)]
pub(super) struct Loading {
    /// The types of the columns.
    types: Vec<Type>,
    /// The statements that make again what was left out.
    restore: Vec<String>,
}

impl<L: ManagedLease> PostgreSqlSession<L> {
    /// Executes statements without parameters, of a transaction that is rolled back after an error.
    fn execute_all(&mut self, statements: &[String]) -> Result<(), DbError> {
        let executed = self.link.wire.run(self.link.client.batch_execute(&statements.join("; ")));
        executed.inspect_err(|_| self.link.roll_back())
    }

    fn recounting(&self) -> Vec<String> {
        recount::statements(L::FAMILY, &self.schema, COUNTING)
    }

    pub(super) fn recount_all(&mut self) -> Result<(), DbError> {
        let table = columns::table(L::FAMILY);
        let mut statements =
            vec![BEGIN.to_owned(), format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")];
        statements.extend(self.recounting());
        statements.push("COMMIT".to_owned());
        self.execute_all(&statements)
    }

    pub(super) fn begin_loading(&mut self) -> Result<ControlFlow<(), Table>, DbError> {
        let begun = self.begin();
        match begun {
            Ok((loading, table)) => {
                self.loading = Some(loading);
                Ok(ControlFlow::Continue(table))
            }
            Err(error) => {
                self.link.roll_back();
                Err(error)
            }
        }
    }

    /// Locks the table, and removes what makes additions slow.
    fn begin(&mut self) -> Result<(Loading, Table), DbError> {
        let table = columns::table(L::FAMILY);
        let link = &mut self.link;
        rows(link, &format!("{BEGIN}; {SORT}; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))?;
        let columns = self.statements.columns.iter().map(|column| column.name()).collect::<Vec<_>>();
        let columns = format!("SELECT {} FROM {table} LIMIT 1", columns.join(", "));
        let statement = link.prepare(&columns)?;
        let types = statement.columns().iter().map(|column| column.type_().clone()).collect();
        let first = link.query::<Value<'_>, _>(&columns, &[], |_| Ok(()))?;
        let table_now = if first.is_empty() { Table::Empty } else { Table::Filled };

        // The bits of tgtype: 1 for each row, 2 before, 4 insert, 64 instead of.
        let triggers = rows(
            link,
            &format!(
                "SELECT tgenabled = 'O' AND tgtype & 66 = 0, \
                 format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname), \
                 format('ALTER TABLE %s ENABLE TRIGGER %I', tgrelid::regclass, tgname) \
                 FROM pg_catalog.pg_trigger \
                 WHERE tgrelid = '{table}'::regclass AND NOT tgisinternal AND tgtype & 4 <> 0"
            ),
        )?;
        if triggers.len() > 1 || triggers.iter().any(|trigger| trigger.get(0) != Some("t")) {
            return Err(other(TriggersError { table }));
        }
        // What cannot be made again as it was stays: what has a comment, a tablespace of its own or
        // another peculiarity, or what the user may not make.
        let keys = rows(
            link,
            &format!(
                "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname), \
                 format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, \
                 pg_get_constraintdef(oid)) FROM pg_catalog.pg_constraint \
                 WHERE conrelid = '{table}'::regclass AND contype = 'f' AND convalidated \
                 AND has_table_privilege(confrelid, 'REFERENCES') \
                 AND obj_description(oid, 'pg_constraint') IS NULL ORDER BY conname"
            ),
        )?;
        let indexes = rows(
            link,
            &format!(
                "SELECT format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid) \
                 FROM pg_catalog.pg_index JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid \
                 WHERE indrelid = '{table}'::regclass AND NOT indisunique AND NOT indisclustered \
                 AND NOT indisreplident AND indisvalid AND reltablespace = 0 \
                 AND has_schema_privilege(relnamespace, 'CREATE') \
                 AND obj_description(indexrelid, 'pg_class') IS NULL ORDER BY relname"
            ),
        )?;
        let text = |rows: &[tokio_postgres::SimpleQueryRow], index| {
            rows.iter().filter_map(|row| row.get(index)).map(str::to_owned).collect::<Vec<_>>()
        };
        let remove = [text(&triggers, 1), text(&keys, 0), text(&indexes, 0)].concat();
        let restore = [text(&indexes, 1), text(&keys, 1), text(&triggers, 2)].concat();
        if !remove.is_empty() {
            rows(link, &remove.join("; "))?;
        }
        Ok((Loading { types, restore }, table_now))
    }

    pub(super) fn load_leases(&mut self, leases: &[&L]) -> Result<(), DbError> {
        let Some(loading) = self.loading.as_ref().filter(|_| !leases.is_empty()) else {
            return Ok(());
        };
        let columns = &self.statements.columns;
        let names: Vec<_> = columns.iter().map(|column| column.name()).collect();
        let table = columns::table(L::FAMILY);
        let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", names.join(", "));
        let client = &self.link.client;
        let unencodable = Cell::new(None);
        let copied = self.link.wire.run(async {
            let mut sink = pin!(client.copy_in::<_, Bytes>(&sql).await?);
            let mut message = BytesMut::with_capacity(2 * MESSAGE);
            message.put_slice(HEADER);
            for &lease in leases {
                if let Err(error) = encode(lease, columns, &loading.types, &mut message) {
                    // The server rolls back when the sink is dropped before its end.
                    unencodable.set(Some(error));
                    return Ok(());
                }
                if message.len() >= MESSAGE {
                    sink.feed(message.split().freeze()).await?;
                    message.reserve(2 * MESSAGE);
                }
            }
            message.put_i16(-1);
            sink.feed(message.freeze()).await?;
            sink.finish().await.map(drop)
        });
        match unencodable.take() {
            Some(error) => Err(DbError::new(crate::sql::driver::DbErrorKind::Refused, error)),
            None => copied,
        }
    }

    pub(super) fn end_loading(&mut self) -> Result<(), DbError> {
        let Some(loading) = self.loading.take() else {
            return Ok(());
        };
        let mut statements = loading.restore;
        statements.extend(self.recounting());
        statements.push("COMMIT".to_owned());
        self.execute_all(&statements)
    }

    pub(super) fn cancel_loading(&mut self) {
        if self.loading.take().is_some() {
            self.link.roll_back();
        }
    }
}

/// Appends a row: the number of its columns, and for each the length of its value, or -1 for NULL,
/// and the value.
fn encode<L: ManagedLease>(
    lease: &L,
    columns: &[Column],
    types: &[Type],
    row: &mut BytesMut,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let fields = lease.fields();
    row.put_i16(i16::try_from(columns.len())?);
    for (&column, ty) in columns.iter().zip(types) {
        let start = row.len();
        row.put_i32(-1);
        if let IsNull::No = stored(column, lease, &fields).to_sql(ty, row)? {
            let length = i32::try_from(row.len() - start - size_of::<i32>())?;
            if let Some(place) = row.get_mut(start..start + size_of::<i32>()) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
    }
    Ok(())
}
