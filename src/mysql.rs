//! Leases in a MySQL or MariaDB database of Kea.
