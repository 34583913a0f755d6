//! DHCP lease files in ISC Kea's format, and their cleanup.

pub mod fs;
pub mod lease;
pub mod lease_file;
pub mod lfc;
