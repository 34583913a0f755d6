//! Leases in a PostgreSQL database of Kea.
