//! Requests and their arguments. Types are strict: `null` has a wrong type, `"1"` is not a number.

use std::borrow::Cow;

use super::CommandError;
use crate::lease::{Json, JsonRef, LeaseError};
use crate::request::Source;

/// A request to make a command.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    command: &'a str,
    arguments: Option<JsonRef<'a>>,
    source: &'a Source,
}

/// Keys that a request may have beside those that are used. By HTTP, `service` names the server for
/// which a control agent passes a request on.
const IGNORED: [&[u8]; 2] = [b"remote-address", b"service"];

impl<'a> Request<'a> {
    /// Reads a request from its JSON.
    pub(super) fn of(json: &'a Json, source: &'a Source, name: &'a mut String) -> Result<Self, CommandError> {
        let root = json.root();
        let members = root.as_map().ok_or(CommandError::NoMap { found: kind_of(root) })?;
        let (mut command, mut arguments) = (None, None);
        for (key, value) in members {
            match &*key {
                b"command" => command = Some(value),
                b"arguments" => arguments = Some(value),
                key if IGNORED.contains(&key) => {}
                _ => return Err(CommandError::UnknownKey { key: key.escape_ascii().to_string() }),
            }
        }
        let (key, expected) = ("command", "the name of a command");
        let command = command.ok_or(CommandError::Missing { key, expected })?;
        let bytes = command.as_bytes().ok_or_else(|| wrong(key, command, expected))?;
        *name = bytes.escape_ascii().to_string();
        Ok(Self { command: name, arguments, source })
    }

    /// Returns the name of the command.
    #[must_use]
    pub fn command(&self) -> &'a str {
        self.command
    }

    /// Returns the arguments, of any type; `None` if the request has no arguments.
    #[must_use]
    pub fn arguments(&self) -> Option<JsonRef<'a>> {
        self.arguments
    }

    /// Returns where the request is from.
    #[must_use]
    pub fn source(&self) -> &'a Source {
        self.source
    }

    /// Returns the arguments as a map; `None` if the request has no arguments.
    pub(super) fn optional_map(&self) -> Result<Option<Arguments<'a>>, CommandError> {
        self.arguments.map(|map| Arguments::of("arguments", map)).transpose()
    }

    /// Returns the arguments as a map.
    pub(super) fn map(&self) -> Result<Arguments<'a>, CommandError> {
        self.optional_map()?.ok_or(CommandError::NoArguments)
    }
}

/// Returns the kind of a value, for errors: the value itself may be long.
fn kind_of(value: JsonRef<'_>) -> &'static str {
    match value.as_json().as_bytes().first() {
        Some(b'{') => "a map",
        Some(b'[') => "a list",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn wrong(key: &'static str, value: JsonRef<'_>, expected: &'static str) -> CommandError {
    let found = match value.as_json() {
        number if number.len() < 24 && number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => number,
        _ => kind_of(value),
    };
    CommandError::Argument { key, found: found.to_owned(), expected }
}

/// A map of arguments.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a>(JsonRef<'a>);

impl<'a> Arguments<'a> {
    /// Returns the map that is the value of `key`.
    pub(super) fn of(key: &'static str, map: JsonRef<'a>) -> Result<Self, CommandError> {
        match map.as_map() {
            Some(_) => Ok(Self(map)),
            None => Err(wrong(key, map, "a map")),
        }
    }

    pub(super) fn get(&self, key: &'static str) -> Option<JsonRef<'a>> {
        self.0.get(key)
    }

    /// Returns an argument as `read` returns it; `None` if it is absent.
    fn read<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        read: impl FnOnce(JsonRef<'a>) -> Option<T>,
    ) -> Result<Option<T>, CommandError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| wrong(key, value, expected))
    }

    /// Returns a text.
    pub(super) fn text(&self, key: &'static str) -> Result<Option<Cow<'a, [u8]>>, CommandError> {
        self.read(key, "a text", JsonRef::as_bytes)
    }

    /// Returns a text that must be there.
    pub(super) fn required_text(&self, key: &'static str) -> Result<Cow<'a, [u8]>, CommandError> {
        self.text(key)?.ok_or(CommandError::Missing { key, expected: "a text" })
    }

    /// Returns a text that is the form of a value.
    pub(super) fn parsed<T: OfText>(&self, key: &'static str) -> Result<Option<T>, CommandError> {
        self.text(key)?.map(|text| parse(key, &text)).transpose()
    }

    pub(super) fn boolean(&self, key: &'static str) -> Result<Option<bool>, CommandError> {
        self.read(key, "true or false", JsonRef::as_bool)
    }

    /// Returns an integer of 64 bits.
    pub(super) fn integer(&self, key: &'static str) -> Result<Option<i64>, CommandError> {
        self.read(key, "an integer", JsonRef::as_i64)
    }

    pub(super) fn u32(&self, key: &'static str) -> Result<Option<u32>, CommandError> {
        let number = |value: JsonRef<'_>| value.as_u64().and_then(|number| u32::try_from(number).ok());
        self.read(key, "an integer from 0 to 4294967295", number)
    }

    pub(super) fn required_u32(&self, key: &'static str) -> Result<u32, CommandError> {
        self.u32(key)?.ok_or(CommandError::Missing { key, expected: "an integer from 0 to 4294967295" })
    }

    pub(super) fn map(&self, key: &'static str) -> Result<Option<JsonRef<'a>>, CommandError> {
        self.read(key, "a map", |value| value.as_map().is_some().then_some(value))
    }

    pub(super) fn list(&self, key: &'static str) -> Result<Option<Vec<JsonRef<'a>>>, CommandError> {
        self.read(key, "a list", |value| Some(value.as_list()?.collect()))
    }

    /// Returns the error of an argument that has another value than it may have.
    pub(super) fn wrong(&self, key: &'static str, expected: &'static str) -> CommandError {
        match self.get(key) {
            Some(value) => wrong(key, value, expected),
            None => CommandError::Missing { key, expected },
        }
    }
}

/// A value with a form as text.
pub(super) trait OfText: Sized {
    fn of_text(text: &str) -> Result<Self, LeaseError>;
}

macro_rules! of_text {
    ($($name:ty),*) => {
        $(impl OfText for $name {
            fn of_text(text: &str) -> Result<Self, LeaseError> {
                Ok(text.parse::<Self>()?)
            }
        })*
    };
}
of_text!(crate::lease::ClientId, crate::lease::Duid, crate::lease::HwAddr);

macro_rules! address_of_text {
    ($($name:ty: $expected:literal),*) => {
        $(impl OfText for $name {
            fn of_text(text: &str) -> Result<Self, LeaseError> {
                text.parse().map_err(|_| LeaseError::Word { expected: $expected })
            }
        })*
    };
}
address_of_text!(std::net::Ipv4Addr: "an IPv4 address", std::net::Ipv6Addr: "an IPv6 address");

/// Parses the text of an argument.
pub(super) fn parse<T: OfText>(key: &'static str, text: &[u8]) -> Result<T, CommandError> {
    // No form has a character that is not ASCII.
    let text = std::str::from_utf8(text).unwrap_or("\u{fffd}");
    T::of_text(text).map_err(|source| CommandError::Value { key, source })
}
