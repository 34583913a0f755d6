//! All leases of a table whose addresses are text (DHCPv6 in Kea 2.2).
//!
//! Its primary key has another order than addresses have, by which the database would sort the whole
//! table for each page. So all leases are read in the order of the texts.

use std::net::Ipv6Addr;

use super::{PAGE, Shared};
use crate::lease::Family;
use crate::lease_mgr::{Cursor, LeaseMgrError, ManagedLease, Query};
use crate::sql::columns::{self, Column, Kind, Value};
use crate::sql::driver::{DbError, DbErrorKind, Driver};
use crate::sql::select;

impl<L: ManagedLease, D: Driver<L>> Shared<L, D> {
    /// Returns whether the addresses of the leases are text.
    pub(super) fn has_text_addresses(&self) -> bool {
        L::FAMILY == Family::V6 && self.sessions.schema().has_text_addresses
    }

    /// Returns all leases in the order of their addresses.
    pub(super) fn all_of_text(&self) -> Result<Vec<L>, LeaseMgrError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (page, last) = self.page_of_text(after.as_deref(), PAGE)?;
            all.extend(page);
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        all.sort_by_key(L::address);
        Ok(all)
    }

    /// Returns a page as [`LeaseMgr::scan`](crate::LeaseMgr::scan) does.
    pub(super) fn scan_text(
        &self,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<(Vec<L>, Option<Cursor>), LeaseMgrError> {
        Query::<L>::all().limit(limit).check()?;
        let after = cursor.map(|cursor| {
            str::from_utf8(cursor.as_bytes()).map_err(|_| LeaseMgrError::BadArgument {
                argument: "the cursor",
                value: format!("{:02x?}", cursor.as_bytes()),
                expected: "a cursor that a scan of this manager returned",
            })
        });
        let (leases, last) = self.page_of_text(after.transpose()?, limit)?;
        Ok((leases, last.map(|last| Cursor::new(last.as_bytes()))))
    }

    /// Returns at most `limit` leases after a text, and the text of the last one unless there are no
    /// more. The text of a row that another program has written can be another one than that of the
    /// lease.
    fn page_of_text(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<L>, Option<String>), LeaseMgrError> {
        let of_lease = &self.columns;
        let columns: Vec<_> = [Column::Address].iter().chain(of_lease).copied().collect();
        let kinds: Vec<_> =
            [Kind::Text].into_iter().chain(of_lease.iter().map(|column| column.kind())).collect();
        let rows =
            self.rows(&kinds, |session| select::in_text_order(session, L::FAMILY, &columns, after, limit))?;
        let leases = rows.iter().map(|row| columns::lease(of_lease, row.get(1..).unwrap_or_default()));
        let leases = leases.collect::<Result<Vec<_>, _>>();
        let leases = leases.map_err(|error| self.sessions.failed(DbError::new(DbErrorKind::Other, error)))?;
        let last = rows.last().filter(|_| rows.len() == limit);
        Ok((leases, last.map(|row| self.text_of(row)).transpose()?))
    }

    /// Returns the addresses of all leases in their order; `None` if a row has the text of an address
    /// in another form, by which it is not found.
    pub(super) fn addresses_of_text(&self) -> Result<Option<Vec<L::Address>>, LeaseMgrError> {
        let (mut addresses, mut after) = (Vec::new(), None::<String>);
        loop {
            let rows = self.rows(&[Kind::Text], |session| {
                select::in_text_order(session, L::FAMILY, &[Column::Address], after.as_deref(), PAGE)
            })?;
            for row in &rows {
                let text = self.text_of(row)?;
                match text.parse::<Ipv6Addr>() {
                    Ok(address) if address.to_string() == text => {
                        addresses.push(L::address_of_bits(address.to_bits()));
                        after = Some(text);
                    }
                    _ => return Ok(None),
                }
            }
            if rows.len() < PAGE {
                break;
            }
        }
        addresses.sort_unstable();
        Ok(Some(addresses))
    }

    /// Returns the text of the address of a row, which is its first value.
    fn text_of(&self, row: &[Value<'_>]) -> Result<String, LeaseMgrError> {
        match row.first() {
            Some(Value::Text(text)) => Ok(text.clone().into_owned()),
            other => {
                let error = format!("the address of a row is {other:?}, expected text");
                Err(self.sessions.failed(DbError::new(DbErrorKind::Other, error)))
            }
        }
    }
}
