//! The columns of a lease file, and the parsing of a header.

use super::error::{HeaderProblem, excerpt};

/// The columns of a family's lease files.
#[derive(Debug)]
pub struct Schema {
    /// The names of all columns, in order.
    pub columns: &'static [&'static str],
    /// The header line, without its newline.
    pub header: &'static str,
    /// Number of columns in each schema version, oldest first.
    versions: &'static [(usize, &'static str)],
}

macro_rules! schema {
    ([$first:literal $(, $column:literal)*], $versions:expr) => {
        Schema {
            columns: &[$first $(, $column)*],
            header: concat!($first $(, ",", $column)*),
            versions: $versions,
        }
    };
}

/// The columns of a DHCPv4 lease file.
pub(super) static SCHEMA4: Schema = schema!(
    [
        "address",
        "hwaddr",
        "client_id",
        "valid_lifetime",
        "expire",
        "subnet_id",
        "fqdn_fwd",
        "fqdn_rev",
        "hostname",
        "state",
        "user_context",
        "pool_id"
    ],
    &[(9, "1.0"), (10, "2.0"), (11, "2.1"), (12, "3.0")]
);

/// The columns of a DHCPv6 lease file.
pub(super) static SCHEMA6: Schema = schema!(
    [
        "address",
        "duid",
        "valid_lifetime",
        "expire",
        "subnet_id",
        "pref_lifetime",
        "lease_type",
        "iaid",
        "prefix_len",
        "fqdn_fwd",
        "fqdn_rev",
        "hostname",
        "hwaddr",
        "state",
        "user_context",
        "hwtype",
        "hwaddr_source",
        "pool_id"
    ],
    &[(12, "1.0"), (13, "2.0"), (14, "3.0"), (15, "3.1"), (17, "4.0"), (18, "5.0")]
);

/// How rows of a file must be converted to the current schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// The file has the current columns.
    None,
    /// The file is older: missing columns get their defaults.
    Upgrade,
    /// The file is newer: the values of unknown columns are dropped.
    Downgrade,
}

/// The result of parsing a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of known columns in the file.
    pub columns: usize,
    /// The schema version, such as "3.0"; the newest known one for a newer file.
    pub version: &'static str,
    /// How rows are converted.
    pub conversion: Conversion,
}

impl Schema {
    /// Returns the version that is written.
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.version_of(self.columns.len())
    }

    /// Returns the oldest version that has all of the first `columns` columns.
    fn version_of(&self, columns: usize) -> &'static str {
        let at = self.versions.partition_point(|&(count, _)| count < columns);
        self.versions.get(at).map_or("", |&(_, version)| version)
    }

    /// Returns the header that an empty file is read with.
    #[must_use]
    pub fn current(&self) -> Header {
        Header { columns: self.columns.len(), version: self.version(), conversion: Conversion::None }
    }

    /// Reads a header line, given without its newline.
    ///
    /// # Errors
    /// Returns [`HeaderProblem`] if the columns are not the known ones in order, or fewer than the
    /// oldest schema has.
    pub fn parse_header(&self, line: &[u8]) -> Result<Header, HeaderProblem> {
        let mut columns = 0;
        let mut conversion = Conversion::None;
        for found in line.split(|&b| b == b',') {
            match self.columns.get(columns) {
                Some(expected) if found == expected.as_bytes() => columns += 1,
                Some(expected) => {
                    return Err(HeaderProblem::Column {
                        column: columns + 1,
                        found: excerpt(found),
                        expected,
                    });
                }
                None => {
                    conversion = Conversion::Downgrade;
                    break;
                }
            }
        }
        let expected = self.versions.first().map_or(0, |&(count, _)| count);
        if columns < expected {
            return Err(HeaderProblem::TooFewColumns { found: columns, expected });
        }
        if columns < self.columns.len() {
            conversion = Conversion::Upgrade;
        }
        Ok(Header { columns, version: self.version_of(columns), conversion })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn first(schema: &Schema, count: usize) -> String {
        schema.columns[..count].join(",")
    }

    #[rstest]
    #[case(&SCHEMA4, 9, "1.0")]
    #[case(&SCHEMA4, 10, "2.0")]
    #[case(&SCHEMA4, 11, "2.1")]
    #[case(&SCHEMA6, 12, "1.0")]
    #[case(&SCHEMA6, 13, "2.0")]
    #[case(&SCHEMA6, 14, "3.0")]
    #[case(&SCHEMA6, 15, "3.1")]
    #[case(&SCHEMA6, 16, "4.0")]
    #[case(&SCHEMA6, 17, "4.0")]
    fn an_older_header_is_upgraded(
        #[case] schema: &Schema,
        #[case] columns: usize,
        #[case] version: &'static str,
    ) {
        let header = schema.parse_header(first(schema, columns).as_bytes()).unwrap();
        assert_eq!(header, Header { columns, version, conversion: Conversion::Upgrade });
    }

    #[rstest]
    fn the_full_header_is_current_and_a_longer_one_newer(#[values(&SCHEMA4, &SCHEMA6)] schema: &Schema) {
        assert_eq!(schema.parse_header(schema.header.as_bytes()).unwrap(), schema.current());
        for more in [",future", ",", ",a,b"] {
            let header = schema.parse_header(format!("{}{more}", schema.header).as_bytes()).unwrap();
            assert_eq!(header.conversion, Conversion::Downgrade);
            assert_eq!(header.columns, schema.columns.len());
        }
    }

    #[rstest]
    fn another_header_is_refused(#[values(&SCHEMA4, &SCHEMA6)] schema: &Schema) {
        let oldest = schema.versions[0].0;
        for bad in [
            String::new(),
            first(schema, oldest - 1),
            schema.header.to_uppercase(),
            schema.header.replace(',', ", "),
            format!("\u{feff}{}", schema.header),
            format!("{}\r", schema.header),
            format!("{},", first(schema, oldest)),
        ] {
            assert!(schema.parse_header(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
