//! JSON as Kea reads and writes it: converted to canonical text, which is read and changed without
//! building a tree.

mod edit;
mod error;
mod parse;
mod read;

pub use edit::Json;
pub use error::JsonError;
#[cfg(feature = "serde")]
pub(crate) use parse::write_string;
pub use read::{JsonItems, JsonMembers, JsonRef};

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::parse::write_string;

    /// Generates any JSON value, in any spelling, nested up to 4 levels.
    pub(crate) fn json() -> impl Strategy<Value = String> {
        let string = prop_oneof![
            "[a-c]{0,2}",
            prop::collection::vec(any::<u8>(), 0..6)
                .prop_map(|bytes| bytes.into_iter().map(char::from).collect::<String>()),
        ]
        .prop_map(|text| {
            let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
            let mut out = String::new();
            write_string(&mut out, &bytes);
            out
        })
        .boxed();
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            any::<u64>().prop_map(|value| value.to_string()),
            "-?[1-9]{1,3}\\.[0-9]{1,3}([eE][+-]?[0-9])?",
            string.clone(),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let member = (string.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(" ,"))),
                prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }
}
