//! The text of statements, with the values as parameters of a prepared statement or as literals.

use std::fmt::Write;

use ::mysql::Value as Wire;

use super::values::Addresses;
use crate::sql::columns::Kind;

/// Maximum number of rows of a prepared statement, and of a statement that changes rows.
pub(super) const MAX_ROWS: usize = 64;

/// A statement that is being composed.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) sql: String,
    /// The values of the parameters; none if the values are literals.
    pub(super) values: Vec<Wire>,
    /// Whether values are written as literals. Bytes and texts are in hexadecimal, so that no value
    /// can end its literal, whichever mode the server is in.
    literal: bool,
}

impl Statement {
    pub(super) fn new(literal: bool, sql: &str) -> Self {
        Self { sql: sql.to_owned(), values: Vec::new(), literal }
    }

    pub(super) fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    /// Appends a comma or an operator before all but the first of several.
    pub(super) fn separate(&mut self, index: usize, separator: &str) {
        if index > 0 {
            self.push(separator);
        }
    }

    /// Appends a value that is written to a column or compared with it.
    pub(super) fn value(&mut self, kind: Kind, value: Wire) {
        if kind == Kind::Time {
            self.push("FROM_UNIXTIME(");
            self.bare(kind, value);
            self.push(")");
        } else {
            self.bare(kind, value);
        }
    }

    /// Appends a value as bytes.
    pub(super) fn bytes(&mut self, value: Wire) {
        self.push("CAST(");
        self.bare(Kind::Bytes, value);
        self.push(" AS BINARY)");
    }

    /// Appends a value of a derived table. Its type must not depend on the parameter: bytes that are
    /// not UTF-8 do not fit into a column of text, and the primary key must be usable.
    pub(super) fn derived(&mut self, kind: Kind, value: Wire, addresses: &Addresses) {
        match (kind, addresses) {
            (Kind::Address, Addresses::V4) => {
                self.push("CAST(");
                self.bare(kind, value);
                self.push(" AS UNSIGNED)");
            }
            (Kind::Address, Addresses::Text { charset, collation }) => {
                self.push("CONVERT(");
                self.bare(Kind::Text, value);
                self.push(&format!(" USING {charset}) COLLATE {collation}"));
            }
            (Kind::Address, Addresses::V6) | (Kind::Bytes, _) => self.bytes(value),
            _ => self.value(kind, value),
        }
    }

    fn bare(&mut self, kind: Kind, value: Wire) {
        if !self.literal {
            self.push("?");
            self.values.push(value);
            return;
        }
        match value {
            Wire::Int(number) => self.sql.push_str(&number.to_string()),
            Wire::UInt(number) => self.sql.push_str(&number.to_string()),
            Wire::Bytes(bytes) if kind == Kind::Text => {
                self.push("CONVERT(");
                self.hexadecimal(&bytes);
                self.push(" USING utf8mb4)");
            }
            Wire::Bytes(bytes) => self.hexadecimal(&bytes),
            // No value has another type.
            _ => self.push("NULL"),
        }
    }

    fn hexadecimal(&mut self, bytes: &[u8]) {
        self.push("X'");
        for byte in bytes {
            // Writing to a string does not fail.
            let _ = write!(self.sql, "{byte:02x}");
        }
        self.push("'");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(literal: bool) -> Statement {
        let mut statement = Statement::new(literal, "");
        statement.value(Kind::Text, Wire::Bytes(b"a'".to_vec()));
        statement.push(", ");
        statement.value(Kind::Time, Wire::Int(5));
        statement.push(", ");
        statement.derived(Kind::Bytes, Wire::Bytes(vec![0xff]), &Addresses::V4);
        statement.push(", ");
        statement.value(Kind::Bytes, Wire::NULL);
        statement
    }

    #[test]
    fn literals_contain_no_text_of_values() {
        assert_eq!(
            statement(true).sql,
            "CONVERT(X'6127' USING utf8mb4), FROM_UNIXTIME(5), CAST(X'ff' AS BINARY), NULL"
        );
    }

    #[test]
    fn parameters_are_in_the_order_of_the_text() {
        let statement = statement(false);
        assert_eq!(statement.sql, "?, FROM_UNIXTIME(?), CAST(? AS BINARY), ?");
        let values = [Wire::Bytes(b"a'".to_vec()), Wire::Int(5), Wire::Bytes(vec![0xff]), Wire::NULL];
        assert_eq!(statement.values, values);
    }
}
