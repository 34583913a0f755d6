//! The kinds of servers of `scripts/databases`.

/// A database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Postgresql,
    Mariadb,
}

impl Server {
    /// The type in connection strings.
    pub(crate) fn backend(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mysql",
        }
    }
}
