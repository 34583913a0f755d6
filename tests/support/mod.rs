//! Code shared by tests: a server that is killed, and an independent loader of lease files.
//!
//! The loader splits rows at commas and shares no code with the crate's reader, so that a defect of
//! the reader is detected.

#![allow(dead_code, reason = "each test uses a part of it")]

#[cfg(deadlock_detection)]
pub(crate) mod deadlocks;
pub(crate) mod lease_server;
pub(crate) mod leases;
pub(crate) mod logs;
pub(crate) mod wrap_files;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use leasemgr::lease::Family;
use leasemgr::lfc::LfcFiles;

/// Files and their contents.
pub(crate) type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// The newest row of each lease, with all columns.
pub(crate) type Leases = BTreeMap<IpAddr, String>;

const COLUMNS4: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id";
const COLUMNS6: &str = "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,\
     fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source,pool_id";

/// Default values of the columns after `hostname` in older files, for a lease without a hardware
/// address.
const DEFAULTS4: [&str; 3] = ["0", "", "0"];
const DEFAULTS6: [&str; 6] = ["", "0", "", "0", "0", "0"];

/// Returns the header of a lease file, without its newline.
pub(crate) fn header(family: Family) -> &'static str {
    match family {
        Family::V4 => COLUMNS4,
        Family::V6 => COLUMNS6,
    }
}

/// Returns the header of a lease file of the oldest schema, without its newline.
pub(crate) fn oldest_header(family: Family) -> &'static str {
    let header = header(family);
    &header[..header.find("hostname").unwrap() + "hostname".len()]
}

fn defaults(family: Family) -> &'static [&'static str] {
    match family {
        Family::V4 => &DEFAULTS4,
        Family::V6 => &DEFAULTS6,
    }
}

/// Returns the address of the `n`th lease.
pub(crate) fn address(family: Family, n: u32) -> String {
    match family {
        Family::V4 => Ipv4Addr::from(0x0a00_0000 + n).to_string(),
        Family::V6 => Ipv6Addr::from((0x2001_0db8 << 96) + u128::from(n)).to_string(),
    }
}

/// Returns the row of the `n`th lease after its `change`th change, with its newline.
pub(crate) fn row(family: Family, n: u32, change: u32, valid_lifetime: u32) -> String {
    let address = address(family, n);
    let expire = 1_700_000_000 + 100 * u64::from(change) + u64::from(valid_lifetime);
    let [a, b, c, d] = n.to_be_bytes();
    let id = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    match family {
        Family::V4 => {
            format!("{address},02:00:{id},01:{id},{valid_lifetime},{expire},1,0,0,host-{n}-{change},0,,0\n")
        }
        Family::V6 => {
            let preferred = valid_lifetime / 2;
            format!(
                "{address},00:02:{id},{valid_lifetime},{expire},1,{preferred},0,{n},128,0,0,host-{n}-{change},,0,,0,0,0\n"
            )
        }
    }
}

/// Returns a lease file with these rows.
pub(crate) fn lease_file(family: Family, rows: &[String]) -> Vec<u8> {
    format!("{}\n{}", header(family), rows.concat()).into_bytes()
}

/// Returns a lease file of the oldest schema with these rows.
pub(crate) fn oldest_lease_file(family: Family, rows: &[String]) -> Vec<u8> {
    let columns = oldest_header(family).split(',').count();
    let mut text = format!("{}\n", oldest_header(family));
    for row in rows {
        let fields: Vec<_> = row.trim_end().split(',').take(columns).collect();
        text += &fields.join(",");
        text.push('\n');
    }
    text.into_bytes()
}

/// The file names of a server.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The file to which the server appends.
    pub(crate) current: PathBuf,
    /// The files of the cleanup.
    pub(crate) lfc: LfcFiles,
}

impl Names {
    /// Returns the usual names in a directory.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        let name = |suffix: &str| directory.join(format!("leases.csv{suffix}"));
        Self {
            current: name(""),
            lfc: LfcFiles {
                previous: name(".2"),
                input: name(".1"),
                output: name(".output"),
                finish: name(".completed"),
                pid: name(".pid"),
            },
        }
    }

    /// Returns the leases that a server loads from these files at its start.
    pub(crate) fn load(&self, family: Family, contents: &Contents) -> Result<Leases, String> {
        let LfcFiles { previous, input, finish, .. } = &self.lfc;
        let journal = match contents.get(finish) {
            Some(finish_content) if has_header(family, finish_content) => vec![finish],
            _ => vec![previous, input],
        };
        let mut leases = Leases::new();
        for path in journal.into_iter().chain([&self.current]) {
            if let Some(content) = contents.get(path) {
                apply(family, content, &mut leases).map_err(|why| format!("{}: {why}", path.display()))?;
            }
        }
        Ok(leases)
    }

    /// Returns the previous file that a cleanup of these files must write.
    pub(crate) fn cleaned(&self, family: Family, contents: &Contents) -> Result<Vec<u8>, String> {
        let LfcFiles { previous, input, finish, .. } = &self.lfc;
        match contents.get(finish) {
            Some(finish) if has_header(family, finish) => return Ok(finish.clone()),
            _ => {}
        }
        let mut leases = Leases::new();
        for content in [previous, input].into_iter().filter_map(|path| contents.get(path)) {
            apply(family, content, &mut leases)?;
        }
        let rows: Vec<_> = leases.into_values().map(|row| row + "\n").collect();
        Ok(lease_file(family, &rows))
    }
}

/// Returns whether a file starts with a complete header of any schema.
fn has_header(family: Family, content: &[u8]) -> bool {
    let Some(end) = content.iter().position(|&byte| byte == b'\n') else {
        return false;
    };
    let Ok(line) = std::str::from_utf8(&content[..end]) else {
        return false;
    };
    let columns: Vec<_> = header(family).split(',').collect();
    let found: Vec<_> = line.split(',').collect();
    found.len() >= oldest_header(family).split(',').count() && columns.starts_with(&found)
}

/// Applies the rows of a file to the leases of the files before it.
fn apply(family: Family, content: &[u8], leases: &mut Leases) -> Result<(), String> {
    let columns = header(family).split(',').count();
    let oldest = oldest_header(family).split(',').count();
    let valid_lifetime = header(family).split(',').position(|column| column == "valid_lifetime").unwrap();
    if content.is_empty() {
        return Ok(());
    }
    if !has_header(family, content) {
        return Err("no lease file".to_owned());
    }
    let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
    for line in text.lines().skip(1) {
        let mut fields: Vec<_> = line.split(',').collect();
        if fields.len() < oldest || fields.len() > columns {
            return Err(format!("a row of {} columns: {line}", fields.len()));
        }
        fields.extend(&defaults(family)[fields.len() - oldest..]);
        let address: IpAddr = fields[0].parse().map_err(|error| format!("{error}: {line}"))?;
        if fields[valid_lifetime] == "0" {
            leases.remove(&address);
        } else {
            leases.insert(address, fields.join(","));
        }
    }
    Ok(())
}

/// Random numbers that depend on the seed only.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns any number (SplitMix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap()
    }
}
