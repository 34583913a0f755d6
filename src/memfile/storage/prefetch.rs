//! Loading memory into the cache before it is needed.

#![allow(unsafe_code, reason = "an instruction that changes nothing, and never fails, has an unsafe name")]

/// Starts to load the cache line in which a value begins, without waiting for it.
#[inline(always)]
pub(super) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = value;
    }
}

#[cfg(test)]
mod tests {
    use super::prefetch;

    #[test]
    fn values_of_any_size_and_place_are_left_as_they_are() {
        let bytes: Vec<u8> = (0..=255).collect();
        bytes.iter().for_each(prefetch);
        prefetch(&());
        prefetch(&[0_u64; 100]);
        assert!(bytes.iter().copied().eq(0..=255));
    }
}
