//! The server's own DUID.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use leasemgr::lease::Duid;

use super::super::server::Outcome;

/// DUID-UUID (RFC 6355): the only type that needs neither a clock nor an interface.
const DUID_UUID: [u8; 2] = [0, 4];

/// Returns the DUID that is stored in a file beside the lease file, with `.server-id` after its
/// name; the first time, a random DUID is created. Leases without a file are gone when the server
/// ends, so its DUID is a new one each time.
///
/// # Errors
/// Returns an error if the file cannot be read or written, or has other content.
pub(crate) fn kept_beside(lease_file: Option<&Path>) -> Outcome<Duid> {
    let Some(lease_file) = lease_file else {
        return random();
    };
    let mut path = lease_file.as_os_str().to_owned();
    path.push(".server-id");
    let path = PathBuf::from(path);
    let kept = || match fs::read_to_string(&path) {
        Ok(text) => parse(text.trim_end()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let duid = random()?;
            write(&path, &duid)?;
            Ok(duid)
        }
        Err(error) => Err(error.into()),
    };
    kept().map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Parses a DUID in hex, with or without colons between its octets.
///
/// # Errors
/// Returns an error if the text is not a DUID of 3 to 130 octets.
pub(crate) fn parse(text: &str) -> Outcome<Duid> {
    const NO_HEX: &str = "a DUID is expected in hex";
    let digits = text.split(':').collect::<String>();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let octets: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(octet).collect();
    Ok(Duid::new(&octets.filter(|_| is_hex).ok_or(NO_HEX)?)?)
}

/// Returns a random UUID (RFC 9562 section 5.4) as a DUID.
fn random() -> Outcome<Duid> {
    let mut uuid = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(Duid::new(&[&DUID_UUID[..], &uuid].concat())?)
}

/// Writes a file atomically: after a power cut, the server must not use another DUID than the one
/// that clients know.
fn write(path: &Path, duid: &Duid) -> Outcome {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
    writeln!(file, "{duid}")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_duid() {
        let directory = tempfile::tempdir().unwrap();
        let leases = directory.path().join("leases6.csv");
        let first = kept_beside(Some(&leases)).unwrap();
        assert_eq!(first.as_bytes().len(), 18);
        assert_eq!(first.as_bytes()[..2], DUID_UUID);
        assert_eq!(kept_beside(Some(&leases)).unwrap(), first);
        let text = fs::read_to_string(directory.path().join("leases6.csv.server-id")).unwrap();
        assert_eq!(text, format!("{first}\n"));
        assert_ne!(kept_beside(Some(&directory.path().join("others.csv"))).unwrap(), first);
        assert_ne!(kept_beside(None).unwrap(), kept_beside(None).unwrap());
    }

    #[test]
    fn a_file_with_other_content_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases6.csv.server-id");
        for text in ["", "00:0", "00:04:zz", "00:01", "+1+2+3"] {
            fs::write(&path, text).unwrap();
            let error = kept_beside(Some(&directory.path().join("leases6.csv"))).unwrap_err().to_string();
            assert!(error.starts_with(path.to_str().unwrap()), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_duid_may_have_colons() {
        let duid = Duid::new(&[0, 3, 0, 1, 0xab]).unwrap();
        assert_eq!(parse("00030001AB").unwrap(), duid);
        assert_eq!(parse("00:03:00:01:ab").unwrap(), duid);
    }
}
