//! The command line, parsed as by getopt(3).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use leasemgr::lease::Family;
use leasemgr::lfc::LfcFiles;
use lexopt::{Arg, Parser};

use crate::log::printable;

/// The usage text.
pub(crate) const USAGE: &str = "\
Usage: kea-lfc -4|-6 -p FILE -x FILE -i FILE -o FILE -f FILE -c FILE [-d]
       kea-lfc -v|-V|-W|-h
Shrinks a DHCP server's lease files to one row for each lease.

  -4       the leases are DHCPv4 leases
  -6       the leases are DHCPv6 leases
  -p FILE  PID file, held while the cleanup runs
  -x FILE  result of the previous cleanup, and of this one in the end
  -i FILE  lease file with the changes since then
  -o FILE  new file while it is being written
  -f FILE  new file once it is complete
  -c FILE  configuration of the server (has no effect)
  -d       log everything to the console, and show the arguments
  -v       print the version
  -V       print the version, and those of the lease file formats
  -W       print how the program was built
  -h       print this text
";

/// The command on the command line.
#[derive(Debug)]
pub(crate) enum Command {
    Clean(Arguments),
    Version,
    Versions,
    BuildReport,
    Help,
}

/// The arguments of a cleanup.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) family: Family,
    pub(crate) files: LfcFiles,
    pub(crate) config: PathBuf,
    pub(crate) debug: bool,
}

/// An error of the command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error(transparent)]
    Option(#[from] lexopt::Error),
    #[error("unexpected argument {}", .0.display())]
    Extra(OsString),
    #[error("neither -4 nor -6 is given")]
    NoFamily,
    #[error("no {what} is given (-{option})")]
    NoFile { option: char, what: &'static str },
}

impl Command {
    /// Parses the command line, which begins with the name of the program.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut parser = Parser::from_iter(Vec::from_iter(args));
        // getopt reads `-p=x` as a file named `=x`.
        parser.set_short_equals(false);
        let mut family = None;
        let mut names = HashMap::new();
        let mut debug = false;
        let mut extra = None;
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Short('4') => family = Some(Family::V4),
                Arg::Short('6') => family = Some(Family::V6),
                Arg::Short(option @ ('p' | 'x' | 'i' | 'o' | 'f' | 'c')) => {
                    names.insert(option, parser.value()?);
                }
                Arg::Short('d') => debug = true,
                Arg::Short('v') => return Ok(Self::Version),
                Arg::Short('V') => return Ok(Self::Versions),
                Arg::Short('W') => return Ok(Self::BuildReport),
                Arg::Short('h') => return Ok(Self::Help),
                // Options may follow, including those that take effect at once.
                Arg::Value(word) => {
                    extra.get_or_insert(word);
                }
                option => return Err(option.unexpected().into()),
            }
        }
        if let Some(word) = extra {
            return Err(UsageError::Extra(word));
        }
        let family = family.ok_or(UsageError::NoFamily)?;
        let mut file = |option, what| match names.remove(&option) {
            Some(name) if !name.is_empty() => Ok(PathBuf::from(name)),
            _ => Err(UsageError::NoFile { option, what }),
        };
        let pid = file('p', "PID file")?;
        let previous = file('x', "previous file")?;
        let input = file('i', "input file")?;
        let output = file('o', "output file")?;
        let finish = file('f', "finish file")?;
        let config = file('c', "configuration file")?;
        let files = LfcFiles { previous, input, output, finish, pid };
        Ok(Self::Clean(Arguments { family, files, config, debug }))
    }
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "leases    {}", self.family)?;
        let LfcFiles { previous, input, output, finish, pid } = &self.files;
        for (name, path) in [
            ("previous", previous),
            ("input", input),
            ("output", output),
            ("finish", finish),
            ("config", &self.config),
            ("pid", pid),
        ] {
            writeln!(f, "{name:<9} {}", printable(path.display()))?;
        }
        Ok(())
    }
}
