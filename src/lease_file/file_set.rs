//! The files that together hold the leases of a server.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MAX_INVALID_ROWS;
use super::error::{LeaseFileError, RowError};
use super::reader::{ReadError, ReadStats, Reader};
use super::row::FileLease;
use super::schema::Conversion;
use crate::fs::{FileSystem, OsFileSystem, ReadFile, read_full};

/// The names of a server's lease files.
///
/// A server appends to the file that its configuration names. The result of the last cleanup is in
/// a file beside it, and so is, during a cleanup, the journal that is being cleaned up: a program
/// that reads the current file alone misses nearly all leases. [`LeaseFileSet::read`] reads all of
/// them, also while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFileSet {
    current: PathBuf,
}

/// The leases that a server had at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSet<L: FileLease> {
    /// The leases, by address.
    pub leases: BTreeMap<L::Address, L>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// Invalid rows, at most the first [`MAX_INVALID_ROWS`].
    pub invalid_rows: Vec<FileRow>,
    /// Numbers of rows that were read, including those that are not listed.
    pub stats: ReadStats,
    /// Whether any of the files has an older or newer schema.
    pub needs_conversion: bool,
    /// The files that end without a newline: the writer of the last line was interrupted, or has
    /// not finished it. The row is read as it is, as when a lease manager loads the file: if it is
    /// truncated within its last column, the lease has the beginning of that value; if it is
    /// truncated earlier, it is an invalid row.
    pub torn: Vec<PathBuf>,
}

/// An invalid row of one of several files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// The file.
    pub path: PathBuf,
    /// The row.
    pub error: RowError,
}

impl LeaseFileSet {
    /// Names the files of a server whose configured lease file is `current`.
    pub fn new(current: impl Into<PathBuf>) -> Self {
        Self { current: current.into() }
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.current.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    /// Returns the file that the server appends to, `F`.
    #[must_use]
    pub fn current_path(&self) -> &Path {
        &self.current
    }

    /// Returns the journal that a cleanup reads, `F.1`.
    #[must_use]
    pub fn input_path(&self) -> PathBuf {
        self.with_suffix(".1")
    }

    /// Returns the result of the last cleanup, `F.2`.
    #[must_use]
    pub fn previous_path(&self) -> PathBuf {
        self.with_suffix(".2")
    }

    /// Returns the file that a cleanup writes, `F.output`.
    #[must_use]
    pub fn output_path(&self) -> PathBuf {
        self.with_suffix(".output")
    }

    /// Returns the complete result of a cleanup that has not replaced the previous file yet,
    /// `F.completed`.
    #[must_use]
    pub fn finish_path(&self) -> PathBuf {
        self.with_suffix(".completed")
    }

    /// Returns the file in which cleanups keep invalid rows, `F.bad`.
    #[must_use]
    pub fn bad_path(&self) -> PathBuf {
        self.with_suffix(".bad")
    }

    /// Returns the file with the number of the process that runs a cleanup, `F.pid`.
    #[must_use]
    pub fn pid_path(&self) -> PathBuf {
        self.with_suffix(".pid")
    }

    /// Returns the lock of the lease manager that owns the files, `F.lock`.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        self.with_suffix(".lock")
    }

    /// Returns the files beside the lease file that the lease manager and the cleanup use.
    pub(crate) fn kept_beside(&self) -> Vec<PathBuf> {
        const SUFFIXES: [&str; 14] = [
            ".1",
            ".2",
            ".output",
            ".completed",
            ".completed.bad",
            ".pid",
            ".pid.lock",
            ".lock",
            ".bad",
            ".next",
            ".part",
            ".1.part",
            ".restored",
            ".replaced",
        ];
        SUFFIXES.map(|suffix| self.with_suffix(suffix)).into()
    }

    /// Reads all leases, as they are at one moment.
    ///
    /// The files are opened, and their names are then checked again: if none was renamed or removed
    /// meanwhile, the files belong together, and stay readable whatever happens to their names. The
    /// leases are those that a lease manager loads from the same files; [`LeaseSet::torn`] lists
    /// files whose last row may be incomplete.
    ///
    /// # Errors
    /// Returns [`LeaseFileError`] if a file cannot be read, or is not a lease file of the family.
    pub fn read<L: FileLease>(&self) -> Result<LeaseSet<L>, LeaseFileError> {
        self.read_with(&OsFileSystem)
    }

    /// Reads all leases with these file operations.
    pub(crate) fn read_with<L: FileLease>(&self, fs: &dyn FileSystem) -> Result<LeaseSet<L>, LeaseFileError> {
        let mut set = LeaseSet {
            leases: BTreeMap::new(),
            files: Vec::new(),
            invalid_rows: Vec::new(),
            stats: ReadStats::default(),
            needs_conversion: false,
            torn: Vec::new(),
        };
        for (file, path) in self.open_for_loading::<L>(fs)? {
            if path == self.current && is_begun::<L>(file.as_ref()).map_err(io_error(&path, "read"))? {
                set.torn.push(path.clone());
                set.files.push(path);
                continue;
            }
            let whole_lines =
                WholeLines::of(file.as_ref(), if path == self.current { END_RETRIES } else { 0 });
            set.add(Reader::with_path(whole_lines, &path)?, path)?;
        }
        Ok(set)
    }

    /// Opens the files that together hold the leases, in the order in which they are to be read.
    pub(crate) fn open_for_loading<L: FileLease>(
        &self,
        fs: &dyn FileSystem,
    ) -> Result<Vec<OpenFile>, LeaseFileError> {
        let [finish, previous, input, current] = self.open_all(fs)?;
        // A finish file without a complete header is not the result of a cleanup.
        let finish = match finish {
            Some((file, path)) if is_finished::<L>(file.as_ref(), &path)? => Some((file, path)),
            _ => None,
        };
        let journal = if finish.is_some() { [finish, None] } else { [previous, input] };
        Ok(journal.into_iter().flatten().chain(current).collect())
    }

    /// Opens finish, previous, input and current, so that they belong together.
    fn open_all(&self, fs: &dyn FileSystem) -> Result<[Option<OpenFile>; 4], LeaseFileError> {
        /// A rename or two may come between; hundreds do not.
        const MAX_ATTEMPTS: usize = 100;
        let paths = [self.finish_path(), self.previous_path(), self.input_path(), self.current.clone()];
        let open = |path: &PathBuf| match fs.open(path) {
            Ok(file) => {
                let identity = file.identity().map_err(io_error(path, "read the attributes of"))?;
                Ok((Some((file, path.clone())), Some(identity)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((None, None)),
            Err(error) => Err(io_error(path, "open")(error)),
        };
        for _ in 0..MAX_ATTEMPTS {
            let [a, b, c, d] = &paths;
            let files = [open(a)?, open(b)?, open(c)?, open(d)?];
            // In reverse order, and finish before previous: current is checked at a time when all
            // names were as they are, unless two cleanups come between the two checks.
            let (current, input, finish, previous) = (open(d)?.1, open(c)?.1, open(a)?.1, open(b)?.1);
            let again = [finish, previous, input, current];
            if files.iter().zip(&again).all(|(file, again)| file.1 == *again) {
                return Ok(files.map(|(file, _)| file));
            }
        }
        Err(LeaseFileError::ModifiedConcurrently { path: self.current.clone() })
    }
}

/// Returns whether a finish file is the result of a cleanup.
fn is_finished<L: FileLease>(file: &dyn ReadFile, path: &Path) -> Result<bool, LeaseFileError> {
    match read_file::<L>(file, path) {
        Ok(reader) => Ok(reader.has_whole_header()),
        Err(LeaseFileError::Header { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file, and the name by which it was opened.
pub(crate) type OpenFile = (Box<dyn ReadFile>, PathBuf);

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> LeaseFileError + use<> {
    let path = path.to_owned();
    move |source| LeaseFileError::Io { path, action, source }
}

impl<L: FileLease> LeaseSet<L> {
    /// Applies the rows of a file.
    fn add(&mut self, mut reader: Reader<L, WholeLines<'_>>, path: PathBuf) -> Result<(), LeaseFileError> {
        self.needs_conversion |= reader.header().conversion != Conversion::None;
        for row in reader.by_ref() {
            match row {
                Ok(parsed) => {
                    self.stats.leases += 1;
                    let address = parsed.lease.address();
                    if parsed.deletes() {
                        self.leases.remove(&address);
                    } else {
                        self.leases.insert(address, parsed.lease);
                    }
                }
                Err(ReadError::Row(error)) => {
                    self.stats.invalid_rows += 1;
                    if self.invalid_rows.len() < MAX_INVALID_ROWS {
                        self.invalid_rows.push(FileRow { path: path.clone(), error });
                    }
                }
                Err(ReadError::File(error)) => return Err(error),
            }
        }
        if reader.is_torn() {
            self.torn.push(path.clone());
        }
        self.files.push(path);
        Ok(())
    }
}

/// Returns whether a current file is only the beginning of a header, possibly with zeros in place
/// of the rest: the process that created it was interrupted. A header truncated after a column
/// would otherwise be read as that of an older file.
pub(crate) fn is_begun<L: FileLease>(file: &dyn ReadFile) -> io::Result<bool> {
    let header = L::SCHEMA.header.as_bytes();
    let mut head = vec![0; header.len() + 2];
    let len = read_full(file, &mut head, 0)?;
    let same = head[..len].iter().zip(header).take_while(|(found, expected)| found == expected).count();
    // With its newline, the header is complete.
    Ok(len > 0 && len <= header.len() + 1 && head[same..len].iter().all(|&byte| byte == 0))
}

/// Reads an open lease file.
pub(crate) fn read_file<'a, L: FileLease>(
    file: &'a dyn ReadFile,
    path: &Path,
) -> Result<Reader<L, FileReader<'a>>, LeaseFileError> {
    Reader::with_path(FileReader::starting_at(file, 0), path)
}

/// Reads a file from an offset to its end.
pub(crate) struct FileReader<'a> {
    file: &'a dyn ReadFile,
    at: u64,
}

impl<'a> FileReader<'a> {
    /// Reads from byte `at` on.
    pub(crate) fn starting_at(file: &'a dyn ReadFile, at: u64) -> Self {
        Self { file, at }
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Number of retries, a millisecond apart, at the end of a file that ends within a line.
const END_RETRIES: u32 = 5;

/// Reads a file from its start to its end. If the file ends within a line, which a server may be
/// writing, the end is read again a few times.
struct WholeLines<'a> {
    file: FileReader<'a>,
    within_a_line: bool,
    retries: u32,
}

impl<'a> WholeLines<'a> {
    fn of(file: &'a dyn ReadFile, retries: u32) -> Self {
        Self { file: FileReader { file, at: 0 }, within_a_line: false, retries }
    }
}

impl Read for WholeLines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.file.read(buffer)?;
            if let Some(last) = buffer[..count].last() {
                self.within_a_line = *last != b'\n';
            }
            if count > 0 || !self.within_a_line || self.retries == 0 {
                return Ok(count);
            }
            self.retries -= 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rstest::rstest;

    use super::*;
    use crate::fs::simulated::{Action, SimulatedDisk, State};
    use crate::lease::Lease4;

    const HEADER: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n";

    fn row(n: u8) -> String {
        format!("192.0.2.{n},02:00:00:00:00:01,,3600,1790003600,1,0,0,,0,,0\n")
    }

    fn put(disk: &SimulatedDisk, path: &Path, rows: &str) {
        disk.create(path).and_then(|file| file.append(format!("{HEADER}{rows}").as_bytes())).unwrap();
    }

    /// Performs a step of a rotation and a cleanup.
    fn step(disk: &SimulatedDisk, files: &LeaseFileSet, with_previous: bool, n: usize) {
        match n {
            0 => disk.rename(files.current_path(), &files.input_path()).unwrap(),
            1 => put(disk, files.current_path(), ""),
            2 => {
                let previous = if with_previous { row(1) } else { String::new() };
                put(disk, &files.finish_path(), &(previous + &row(2)));
            }
            3 => {
                let _ = disk.remove(&files.previous_path());
            }
            4 => disk.remove(&files.input_path()).unwrap(),
            _ => disk.rename(&files.finish_path(), &files.previous_path()).unwrap(),
        }
    }

    /// A file whose last row comes in two parts, the second one after a number of reads at the end.
    #[derive(Debug)]
    struct SlowFile {
        text: Vec<u8>,
        first: u64,
        retries: AtomicUsize,
        complete_after: usize,
    }

    impl ReadFile for SlowFile {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
            let is_complete = self.retries.load(Ordering::SeqCst) >= self.complete_after;
            let end = if is_complete { self.text.len() } else { usize::try_from(self.first).unwrap() };
            let from = usize::try_from(at).unwrap().min(end);
            if from == end {
                self.retries.fetch_add(1, Ordering::SeqCst);
            }
            (&self.text[from..end]).read(buffer)
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.text.len() as u64)
        }
        fn identity(&self) -> io::Result<(u64, u64)> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[rstest]
    #[case::after_one_read(1, false)]
    #[case::at_the_last_retry(END_RETRIES as usize, false)]
    #[case::too_late(1000, true)]
    fn the_rest_of_a_row_that_is_being_written_is_awaited(#[case] complete_after: usize, #[case] torn: bool) {
        let text = format!("{HEADER}{}{}", row(1), row(2)).into_bytes();
        for cut in [1, 5, row(2).len() - 1] {
            let first = (text.len() - cut) as u64;
            let file = SlowFile { text: text.clone(), first, retries: AtomicUsize::new(0), complete_after };
            let mut reader = Reader::<Lease4, _>::new(WholeLines::of(&file, END_RETRIES)).unwrap();
            let rows = reader.by_ref().filter(Result::is_ok).count();
            // A row that lacks only its newline is read.
            assert_eq!((rows, reader.is_torn()), (if torn && cut > 1 { 1 } else { 2 }, torn), "{cut}");
        }
    }

    #[test]
    fn a_rotation_or_cleanup_between_the_opens_hides_no_lease() {
        let mut bad = Vec::new();
        let mut count = 0;
        for with_previous in [true, false] {
            let mut gaps = [0; 6];
            loop {
                count += 1;
                let (disk, files) = (SimulatedDisk::new(State::default()), LeaseFileSet::new("f"));
                if with_previous {
                    put(&disk, &files.previous_path(), &row(1));
                }
                put(&disk, files.current_path(), &row(2));
                let (stepped, set) = (disk.clone(), files.clone());
                let (opens, done) = (AtomicUsize::new(0), Mutex::new(0));
                let disk = disk.before_each(move |_, operation| {
                    if operation.action == Action::Open {
                        let n = opens.fetch_add(1, Ordering::SeqCst);
                        let mut done = done.lock().unwrap();
                        while *done < 6 && gaps[*done] <= n {
                            step(&stepped, &set, with_previous, *done);
                            *done += 1;
                        }
                    }
                });
                let set = files.read_with::<Lease4>(&disk).unwrap();
                let found: Vec<u8> = set.leases.keys().map(|a| a.octets()[3]).collect();
                let wanted: &[u8] = if with_previous { &[1, 2] } else { &[2] };
                if found != wanted {
                    bad.push(format!(
                        "previous {with_previous}, gaps {gaps:?}: found {found:?} in {:?}",
                        set.files.len()
                    ));
                }
                // The next sequence that does not decrease.
                let Some(at) = (0..6).rev().find(|&at| gaps[at] < 9) else { break };
                let next = gaps[at] + 1;
                gaps[at..].fill(next);
            }
        }
        assert!(bad.is_empty(), "{} of {count}: {}", bad.len(), bad.join("\n"));
    }
}
