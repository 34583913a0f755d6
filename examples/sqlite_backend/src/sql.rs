//! The SQL of the backend. Addresses are stored as 128 bits, which sort as addresses do; a lease
//! ends at `ends`, or never.

pub(crate) const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS lease (
        address BLOB PRIMARY KEY, state INTEGER, valid_lifetime INTEGER, cltt INTEGER, ends INTEGER,
        subnet_id INTEGER, pool_id INTEGER, fqdn_fwd INTEGER, fqdn_rev INTEGER, hostname BLOB, hostname_key BLOB,
        user_context TEXT, hwaddr BLOB, hwtype INTEGER, hwaddr_source INTEGER, client BLOB, lease_type INTEGER,
        prefix_len INTEGER, iaid INTEGER, preferred_lifetime INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS lease_hwaddr ON lease (hwaddr, subnet_id, address);
    CREATE INDEX IF NOT EXISTS lease_client ON lease (client, subnet_id, address);
    CREATE INDEX IF NOT EXISTS lease_hostname ON lease (hostname_key, address);
    CREATE INDEX IF NOT EXISTS lease_subnet ON lease (subnet_id, address);
    CREATE INDEX IF NOT EXISTS lease_state ON lease (state, address);
    CREATE INDEX IF NOT EXISTS lease_ends ON lease (ends, address);
";

pub(crate) const SELECT: &str = "SELECT * FROM lease";
pub(crate) const ASCENDING: &str = " ORDER BY address";
pub(crate) const DESCENDING: &str = " ORDER BY address DESC";
pub(crate) const GET: &str = "SELECT * FROM lease WHERE address = ?";
pub(crate) const COUNT: &str = "SELECT COUNT(*) FROM lease";
pub(crate) const EXPIRED: &str =
    "SELECT * FROM lease WHERE ends <= ? AND state <> 2 ORDER BY ends, address LIMIT ?";
pub(crate) const INSERT: &str = "INSERT INTO lease VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
    ON CONFLICT DO NOTHING";
pub(crate) const REPLACE: &str = "REPLACE INTO lease VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
pub(crate) const DELETE: &str = "DELETE FROM lease WHERE address = ?";
