//! User contexts: a parsed one is canonical, can be read and changed, and is unchanged by writing
//! it to a lease file.
#![no_main]

use leasemgr::lease::{Json, JsonRef, UserContext};
use leasemgr::lease_file::{escape, unescape};
use leasemgr_fuzz::{is_plain, with_memory};
use libfuzzer_sys::fuzz_target;

/// Returns the number of values, including nested ones.
fn count(value: JsonRef<'_>) -> usize {
    let members = value.as_map().into_iter().flatten().map(|(_, value)| count(value)).sum::<usize>();
    let items = value.as_list().into_iter().flatten().map(count).sum::<usize>();
    1 + members + items
}

fuzz_target!(|text: &[u8]| {
    const FIXED: usize = 16 * 1024;
    const FACTOR: usize = 64;
    with_memory(text.len(), FIXED, FACTOR, || {
        let context = match UserContext::parse(text) {
            Ok(context) => context,
            Err(error) => {
                assert!(error.at <= text.len(), "{error}");
                assert!(is_plain(&error.to_string()), "{error}");
                return;
            }
        };
        assert!(context.as_str().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{context}");
        assert_eq!(UserContext::parse(context.as_str().as_bytes()).as_ref(), Ok(&context));
        assert!(count(context.root()) <= text.len());

        let (mut escaped, mut unescaped) = (Vec::new(), Vec::new());
        escape(context.as_str().as_bytes(), &mut escaped);
        assert!(!escaped.contains(&b','));
        unescape(&escaped, &mut unescaped);
        assert_eq!(unescaped, context.as_str().as_bytes());

        let key: &[&[u8]] = &[b"a", &text[..text.len().min(8)]];
        if let Ok(changed) = context.with(key, Json::from(1)) {
            let found = changed.get(key[0]).and_then(|map| map.get(key[1]));
            assert_eq!(found.and_then(JsonRef::as_u64), Some(1));
            assert_eq!(UserContext::parse(changed.as_str().as_bytes()), Ok(changed));
        }
    });
});
