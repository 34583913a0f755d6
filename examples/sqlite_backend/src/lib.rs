//! Leases of both families in SQLite: a third-party backend for `leasemgr`.
//!
//! [`SqliteOpener`] is registered with a factory, and opens `type=sqlite name=FILE`. Only the
//! required methods of [`LeaseMgr`] are implemented here; statistics, limits, the deletion of
//! reclaimed leases and everything else are its provided methods.

mod sql;

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use leasemgr::connection::ConnectionString;
use leasemgr::lease::{
    Fields, HwSource, HwType, Iaid, LeaseState, LeaseType, Lifetime, PoolId, SubnetId, seconds_since_epoch,
};
use leasemgr::{
    Added, Change, Deleted, Key, LeaseMgr, LeaseMgrError, ManagedLease, Query, Status, Tracking, check,
    unchanged,
};
use leasemgr::{LeaseMgrOpener, OpenerError};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

/// Opens SQLite databases, which are created if they are missing.
#[derive(Debug)]
pub struct SqliteOpener;

impl<L: ManagedLease> LeaseMgrOpener<L> for SqliteOpener {
    fn name(&self) -> &str {
        "sqlite"
    }

    fn version(&self) -> String {
        format!("SQLite {}", rusqlite::version())
    }

    fn keywords(&self) -> &[&str] {
        &["name"]
    }

    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<L>>, OpenerError> {
        Ok(Arc::new(Sqlite::open(connection.required("name")?)?))
    }
}

/// Leases in a table of a SQLite database.
#[derive(Debug)]
pub struct Sqlite<L: ManagedLease> {
    name: String,
    /// Held by a change until its callbacks have returned, so that these are called in order.
    turn: Mutex<()>,
    connection: Mutex<Connection>,
    tracking: Tracking<L>,
}

impl<L: ManagedLease> Sqlite<L> {
    /// Opens a database file, and creates the table if it is missing.
    ///
    /// # Errors
    /// Returns the error of SQLite if the database cannot be opened or the table cannot be created.
    pub fn open(name: &str) -> Result<Self, OpenerError> {
        let connection = Connection::open(name)?;
        connection.execute_batch(sql::SCHEMA)?;
        let (name, tracking) = (name.to_owned(), Tracking::default());
        Ok(Self { name, turn: Mutex::default(), connection: Mutex::new(connection), tracking })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for other changes.
    fn turn(&self) -> Result<MutexGuard<'_, ()>, LeaseMgrError> {
        self.tracking.refuse_in_callback()?;
        Ok(self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Executes a statement. Returns the number of changed rows.
    fn execute(&self, sql: &str, values: Vec<Value>) -> Result<usize, LeaseMgrError> {
        let connection = self.connection();
        let execute = || connection.prepare_cached(sql)?.execute(params_from_iter(values));
        execute().map_err(failed)
    }

    fn select(&self, sql: &str, values: Vec<Value>) -> Result<Vec<L>, LeaseMgrError> {
        self.select_where(sql, values, None, |_| true)
    }

    /// Returns the leases of a statement that match, up to a limit.
    fn select_where(
        &self,
        sql: &str,
        values: Vec<Value>,
        limit: Option<usize>,
        is_wanted: impl Fn(&L) -> bool,
    ) -> Result<Vec<L>, LeaseMgrError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
        let mut leases = Vec::new();
        while limit != Some(leases.len())
            && let Some(row) = rows.next().map_err(failed)?
        {
            leases.extend(Some(lease(row)?).filter(&is_wanted));
        }
        Ok(leases)
    }

    /// Returns all leases that match the query, in the order of their addresses or in reverse.
    fn search(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        let (mut sql, mut values) = (sql::SELECT.to_owned(), Vec::new());
        let mut add = |condition: &str, value: Value| {
            let joint = if values.is_empty() { "WHERE" } else { "AND" };
            let _ = write!(sql, " {joint} {condition} ?");
            values.push(value);
        };
        match query.key {
            Key::State(state) => add("state =", state.0.into()),
            Key::HwAddr(hwaddr) => add("hwaddr =", hwaddr.as_bytes().to_vec().into()),
            Key::Client(client) => add("client =", client.id.to_vec().into()),
            Key::Hostname(name) => add("hostname_key =", name.as_bytes().to_ascii_lowercase().into()),
            // The relay and remote ids are in the user context, and are checked by
            // `Query::matches`.
            _ => {}
        }
        if let Some(subnet) = query.subnet {
            add("subnet_id =", subnet.0.into());
        }
        for (condition, address) in [("address >=", query.first), ("address <=", query.last)] {
            if let Some(address) = address {
                add(condition, key::<L>(address));
            }
        }
        if let Some(after) = query.after {
            add(if query.reversed { "address <" } else { "address >" }, key::<L>(after));
        }
        sql.push_str(if query.reversed { sql::DESCENDING } else { sql::ASCENDING });
        self.select_where(&sql, values, query.limit, |lease| query.matches(lease))
    }
}

fn failed(error: rusqlite::Error) -> LeaseMgrError {
    LeaseMgrError::Backend(Box::new(error))
}

/// Returns an address as bytes that sort as addresses do.
fn key<L: ManagedLease>(address: L::Address) -> Value {
    L::bits_of(address).to_be_bytes().to_vec().into()
}

/// Returns the values of all columns, in order.
fn values<L: ManagedLease>(lease: &L) -> Vec<Value> {
    let fields = lease.fields();
    let end = lease.end().map(|end| i64::try_from(end).unwrap_or(i64::MAX));
    vec![
        key::<L>(lease.address()),
        fields.state.0.into(),
        fields.valid_lifetime.0.into(),
        fields.cltt.into(),
        end.into(),
        fields.subnet_id.0.into(),
        fields.pool_id.0.into(),
        fields.fqdn_fwd.into(),
        fields.fqdn_rev.into(),
        fields.hostname.to_vec().into(),
        fields.hostname.to_ascii_lowercase().into(),
        fields.user_context.map(str::to_owned).into(),
        fields.hwaddr.map(<[u8]>::to_vec).into(),
        fields.hwtype.0.into(),
        fields.hwaddr_source.0.into(),
        fields.client.map(<[u8]>::to_vec).into(),
        fields.lease_type.0.into(),
        fields.prefix_len.into(),
        fields.iaid.0.into(),
        fields.preferred_lifetime.0.into(),
    ]
}

fn lease<L: ManagedLease>(row: &Row<'_>) -> Result<L, LeaseMgrError> {
    let bytes = |n| -> rusqlite::Result<Option<Vec<u8>>> { row.get(n) };
    let read = || {
        let bits = u128::from_be_bytes(row.get::<_, [u8; 16]>(0)?);
        let address: IpAddr = L::address_of_bits(bits).into();
        Ok((address, bytes(9)?, row.get::<_, Option<String>>(11)?, bytes(12)?, bytes(15)?))
    };
    let (address, hostname, user_context, hwaddr, client) = read().map_err(failed)?;
    let mut fields = Fields::new(address);
    let mut read = || {
        fields.state = LeaseState(row.get(1)?);
        fields.valid_lifetime = Lifetime(row.get(2)?);
        fields.cltt = row.get(3)?;
        fields.subnet_id = SubnetId(row.get(5)?);
        fields.pool_id = PoolId(row.get(6)?);
        (fields.fqdn_fwd, fields.fqdn_rev) = (row.get(7)?, row.get(8)?);
        (fields.hwtype, fields.hwaddr_source) = (HwType(row.get(13)?), HwSource(row.get(14)?));
        (fields.lease_type, fields.prefix_len) = (LeaseType(row.get(16)?), row.get(17)?);
        (fields.iaid, fields.preferred_lifetime) = (Iaid(row.get(18)?), Lifetime(row.get(19)?));
        Ok(())
    };
    read().map_err(failed)?;
    fields.hostname = hostname.as_deref().unwrap_or_default();
    fields.user_context = user_context.as_deref();
    (fields.hwaddr, fields.client) = (hwaddr.as_deref(), client.as_deref());
    L::from_fields(fields).map_err(|error| LeaseMgrError::Backend(Box::new(error)))
}

impl<L: ManagedLease> LeaseMgr<L> for Sqlite<L> {
    fn status(&self) -> Status {
        let mut status = Status::new("sqlite", &self.name);
        let count =
            |connection: &Connection| connection.query_row(sql::COUNT, [], |row| row.get(0)).optional();
        status.leases =
            self.connection.try_lock().ok().and_then(|connection| count(&connection).ok().flatten());
        status
    }

    fn tracking(&self) -> &Tracking<L> {
        &self.tracking
    }

    fn add(&self, lease: &L) -> Result<Added, LeaseMgrError> {
        let _turn = self.turn()?;
        check(lease)?;
        if self.execute(sql::INSERT, values(lease))? == 0 {
            return Ok(Added::AddressTaken);
        }
        self.tracking.notify(&Change::added(lease));
        Ok(Added::Added)
    }

    fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError> {
        Ok(self.select(sql::GET, vec![key::<L>(address)])?.pop())
    }

    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        query.check()?;
        self.search(query)
    }

    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        let limit = if limit == 0 { -1 } else { i64::try_from(limit).unwrap_or(-1) };
        self.select(sql::EXPIRED, vec![seconds_since_epoch(now).into(), limit.into()])
    }

    fn update_expecting(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
        let _turn = self.turn()?;
        check(lease)?;
        let Some(old) = self.get(lease.address())? else {
            return Err(LeaseMgrError::NoSuchLease { address: lease.address().into() });
        };
        unchanged(&old, expected)?;
        self.execute(sql::REPLACE, values(lease))?;
        self.tracking.notify(&Change::updated(&old, lease));
        Ok(())
    }

    fn delete_expecting(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError> {
        let _turn = self.turn()?;
        let Some(old) = self.get(address)? else {
            return Ok(Deleted::NoSuchLease);
        };
        unchanged(&old, expected)?;
        self.execute(sql::DELETE, vec![key::<L>(address)])?;
        self.tracking.notify(&Change::deleted(&old));
        Ok(Deleted::Deleted)
    }
}
