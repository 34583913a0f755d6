//! Basic authentication (RFC 7617).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use subtle::{Choice, ConstantTimeEq};

/// Maximum length of a user's name and password together, in bytes.
const MAX_LEN: usize = 1024;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a user cannot be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A file cannot be read.
    #[error("{}: cannot read the file of a user or password", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The name or the password is not possible.
    #[error("expected a user without a colon and a password, of up to 1023 bytes together")]
    Invalid,
}

/// A user's name and password, as they are sent: with a colon between them.
#[derive(Clone)]
pub(super) struct Credentials(String);

impl Credentials {
    pub(super) fn new(user: &str, password: &str) -> Result<Self, AuthError> {
        let is_valid = !user.is_empty() && !user.contains(':') && user.len() + password.len() < MAX_LEN;
        let has_controls = user.chars().chain(password.chars()).any(char::is_control);
        if is_valid && !has_controls {
            Ok(Self(format!("{user}:{password}")))
        } else {
            Err(AuthError::Invalid)
        }
    }

    pub(super) fn user(&self) -> &str {
        self.0.split_once(':').map_or("", |(user, _)| user)
    }

    /// Returns the value of the header `Authorization`.
    pub(super) fn header(&self) -> String {
        format!("Basic {}", BASE64.encode(&self.0))
    }

    /// Compares in a time that depends neither on these credentials nor on the others.
    fn matches(&self, other: &Padded) -> Choice {
        let own = Padded::new(self.0.as_bytes());
        own.text.ct_eq(&other.text) & own.len.ct_eq(&other.len)
    }
}

/// Hides the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.user())
    }
}

/// Text that takes always as long to compare.
struct Padded {
    text: [u8; MAX_LEN],
    len: u64,
}

impl Padded {
    fn new(text: &[u8]) -> Self {
        let mut padded = [0; MAX_LEN];
        padded.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        Self { text: padded, len: text.len() as u64 }
    }
}

/// The users that may send commands.
///
/// ```
/// use leasemgr::control::BasicAuth;
///
/// let users = BasicAuth::new("leases").user("admin", "1234")?;
/// assert!(!format!("{users:?}").contains("1234"));
/// # Ok::<(), leasemgr::control::AuthError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BasicAuth {
    realm: String,
    users: Vec<Credentials>,
}

impl BasicAuth {
    /// Creates a list without users. Clients are told the realm, which is empty in Kea by default;
    /// characters that cannot be in it are left out.
    #[must_use]
    pub fn new(realm: &str) -> Self {
        let is_plain = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        Self { realm: realm.chars().filter(is_plain).collect(), users: Vec::new() }
    }

    /// Adds a user.
    ///
    /// # Errors
    /// Returns [`AuthError::Invalid`] if the name is empty or has a colon, if one of both has
    /// control characters, or if they are longer than 1023 bytes together.
    pub fn user(mut self, user: &str, password: &str) -> Result<Self, AuthError> {
        self.users.push(Credentials::new(user, password)?);
        Ok(self)
    }

    /// Adds a user whose name and password are in two files. A newline at the end is no part of
    /// them.
    ///
    /// # Errors
    /// Returns [`AuthError::File`] if a file cannot be read as UTF-8, and the errors of
    /// [`user`](Self::user).
    pub fn user_files(self, user: &Path, password: &Path) -> Result<Self, AuthError> {
        let (user, password) = (read(user)?, read(password)?);
        self.user(&user, &password)
    }

    /// Adds a user whose name and password are in one file, with a colon between them. A newline
    /// at the end is no part of them.
    ///
    /// # Errors
    /// Returns [`AuthError::File`] if the file cannot be read as UTF-8, [`AuthError::Invalid`] if
    /// there is no colon, and the errors of [`user`](Self::user).
    pub fn user_file(self, file: &Path) -> Result<Self, AuthError> {
        let text = read(file)?;
        let (user, password) = text.split_once(':').ok_or(AuthError::Invalid)?;
        self.user(user, password)
    }

    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    /// Returns the user of a header `Authorization`, if the password is right.
    pub(super) fn authenticate(&self, header: &[u8]) -> Option<String> {
        let (scheme, encoded) = header.split_at_checked("Basic ".len())?;
        let encoded = encoded.trim_ascii();
        if !scheme.eq_ignore_ascii_case(b"Basic ") || encoded.len() > 2 * MAX_LEN {
            return None;
        }
        let decoded = BASE64.decode(encoded).ok()?;
        let given = Padded::new(&decoded);
        let mut found = None;
        // All are compared, so that the time does not tell which user exists.
        for user in &self.users {
            if bool::from(user.matches(&given)) {
                found = Some(user.user().to_owned());
            }
        }
        found
    }
}

fn read(path: &Path) -> Result<String, AuthError> {
    let mut text =
        fs::read_to_string(path).map_err(|source| AuthError::File { path: path.into(), source })?;
    let len =
        text.strip_suffix('\n').map_or(text.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    text.truncate(len);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn users() -> BasicAuth {
        BasicAuth::new("").user("admin", "1234").unwrap().user("ha", "a:b").unwrap().user("none", "").unwrap()
    }

    #[rstest]
    #[case::right("admin:1234", Some("admin"))]
    #[case::a_colon_in_the_password("ha:a:b", Some("ha"))]
    #[case::an_empty_password("none:", Some("none"))]
    #[case::a_wrong_password("admin:1235", None)]
    #[case::a_longer_password("admin:12345", None)]
    #[case::a_shorter_password("admin:123", None)]
    #[case::with_a_zero("admin:1234\0", None)]
    #[case::of_another("ha:1234", None)]
    #[case::no_colon("admin", None)]
    #[case::nothing("", None)]
    fn a_user_is_found_by_name_and_password(#[case] sent: &str, #[case] user: Option<&str>) {
        for header in [
            format!("Basic {}", BASE64.encode(sent)),
            format!("basic  {} ", BASE64.encode(sent).trim_end_matches('=')),
        ] {
            assert_eq!(users().authenticate(header.as_bytes()).as_deref(), user);
        }
    }

    #[rstest]
    #[case("")]
    #[case("Basic")]
    #[case("Basic !!!!")]
    #[case("Bearer YWRtaW46MTIzNA==")]
    fn other_headers_are_no_user(#[case] header: &str) {
        assert_eq!(users().authenticate(header.as_bytes()), None);
        let long = format!("Basic {}", "YWRt".repeat(10_000));
        assert_eq!(users().authenticate(long.as_bytes()), None);
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = format!("{:?} {:?}", users(), BasicAuth::new("").user("a:b", "1234").unwrap_err());
        assert!(shown.contains("admin") && !shown.contains("1234"), "{shown}");
    }

    #[test]
    fn users_are_read_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let users = BasicAuth::new("a\"b\r\n")
            .user_files(&file("user", "admin\n"), &file("password", " x \r\n"))
            .unwrap();
        let users = users.user_file(&file("both", "ha:1:2\n")).unwrap();
        let sent = |text: &str| users.authenticate(format!("Basic {}", BASE64.encode(text)).as_bytes());
        assert_eq!((sent("admin: x ").as_deref(), sent("ha:1:2").as_deref()), (Some("admin"), Some("ha")));
        assert_eq!(users.realm(), "ab");
        assert!(matches!(BasicAuth::new("").user_file(&file("both", "ha")), Err(AuthError::Invalid)));
        let missing = BasicAuth::new("").user_file(&directory.path().join("missing"));
        assert!(matches!(missing, Err(AuthError::File { .. })));
    }
}
