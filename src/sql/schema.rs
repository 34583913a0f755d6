//! The statements that make Kea's tables in an empty database.
//!
//! The backends have them as texts of SQL for all versions. A line `-- @` ends a statement, and a
//! line that ends in `-- @` and a version belongs to the schema of this version alone.
//!
//! Kea's servers need no other table for leases and hosts; those of its configuration backend are
//! not made. Neither `kea-admin db-upgrade` to a later version nor the shared queue of free leases
//! works with them.

/// A database whose schema can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SchemaText {
    /// The versions that can be made, the oldest first: those of Kea 2.2 and 3.3.
    pub(crate) versions: [u32; 2],
    parts: [&'static str; 6],
}

/// Statements for PostgreSQL.
#[cfg(feature = "postgresql")]
pub(crate) const POSTGRESQL: SchemaText = SchemaText {
    versions: [13, 34],
    parts: [
        include_str!("../postgresql/schema/leases.sql"),
        include_str!("../postgresql/schema/statistics.sql"),
        include_str!("../postgresql/schema/functions.sql"),
        include_str!("../postgresql/schema/hosts.sql"),
        include_str!("../postgresql/schema/queues.sql"),
        include_str!("../postgresql/schema/version.sql"),
    ],
};

/// Statements for MySQL 8.0 or later, and MariaDB 10.6 or later.
#[cfg(feature = "mysql")]
pub(crate) const MYSQL: SchemaText = SchemaText {
    versions: [14, 35],
    parts: [
        include_str!("../mysql/schema/leases.sql"),
        include_str!("../mysql/schema/statistics.sql"),
        include_str!("../mysql/schema/functions.sql"),
        include_str!("../mysql/schema/hosts.sql"),
        include_str!("../mysql/schema/queues.sql"),
        include_str!("../mysql/schema/version.sql"),
    ],
};

impl SchemaText {
    /// Returns the statements that make the schema of a version, in their order, or `None` if it is
    /// not one of [`SchemaText::versions`]. The last one writes the version: until it has been
    /// executed the schema is not complete.
    pub(crate) fn statements(&self, version: u32) -> Option<Vec<String>> {
        if !self.versions.contains(&version) {
            return None;
        }
        let version = version.to_string();
        let mut statements = Vec::new();
        for part in self.parts {
            let mut statement = String::new();
            for line in part.lines() {
                match line.rsplit_once("-- @") {
                    Some(("", "")) => finish(&mut statements, &mut statement),
                    Some((line, of)) if of == version => add(&mut statement, line.trim_end()),
                    Some(_) => {}
                    None => add(&mut statement, line),
                }
            }
            finish(&mut statements, &mut statement);
        }
        Some(statements)
    }
}

/// Adds a line to a statement, unless it is a comment or empty.
fn add(statement: &mut String, line: &str) {
    if !line.is_empty() && !line.trim_start().starts_with("--") {
        statement.push_str(line);
        statement.push('\n');
    }
}

/// Adds a statement to those before it, unless it is of other versions alone.
fn finish(statements: &mut Vec<String>, statement: &mut String) {
    if !statement.is_empty() {
        statements.push(std::mem::take(statement));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "postgresql")]
    #[test]
    fn each_version_of_postgresql_has_its_own_statements() {
        check(POSTGRESQL);
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn each_version_of_mysql_has_its_own_statements() {
        check(MYSQL);
    }

    #[track_caller]
    fn check(text: SchemaText) {
        for version in text.versions {
            let statements = text.statements(version).unwrap();
            let last = statements.last().unwrap();
            assert!(last.contains(&format!("({version}, 0)")) && last.matches(", 0)").count() == 1, "{last}");
            for statement in &statements {
                assert!(!statement.contains('@'), "{statement}");
                let first = statement.split(' ').next().unwrap();
                assert!(["create", "insert"].contains(&first), "{statement}");
            }
            assert_eq!(
                statements.iter().any(|statement| statement.contains("lease4_pool_stat")),
                version > 20
            );
        }
        assert_eq!(text.statements(20), None);
    }
}
