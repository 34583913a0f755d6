//! Classification of sixteen bytes at a time, as a mask with a bit for each byte.

use wide::i8x16;

/// The bytes of a block that are in a class; bit `i` is byte `i`.
pub(crate) type Mask = u32;

/// Returns the mask of the first `len` bytes, at most 16.
#[inline(always)]
pub(crate) fn first(len: usize) -> Mask {
    if len >= 16 { 0xffff } else { (1 << len) - 1 }
}

/// Sixteen bytes in a register, or the processor's substitute.
///
/// They are compared as signed numbers, for which x86-64 has instructions.
#[derive(Clone, Copy)]
pub(crate) struct Block(i8x16);

impl Block {
    #[inline(always)]
    pub(crate) fn load(bytes: &[u8; 16]) -> Self {
        Self(i8x16::new(bytes.map(u8::cast_signed)))
    }

    #[inline(always)]
    fn eq(self, byte: u8) -> i8x16 {
        self.0.simd_eq(i8x16::splat(byte.cast_signed()))
    }

    /// Returns the bytes from `low` to `high`. They are shifted so that `low` is the least number,
    /// and one comparison is enough.
    #[inline(always)]
    fn within(self, low: u8, high: u8) -> i8x16 {
        let moved = self.0 + i8x16::splat(i8::MIN.wrapping_sub(low.cast_signed()));
        moved.simd_lt(i8x16::splat(i8::MIN.wrapping_add((high - low).cast_signed() + 1)))
    }

    #[inline(always)]
    pub(crate) fn is(self, byte: u8) -> Mask {
        self.eq(byte).to_bitmask()
    }

    #[inline(always)]
    pub(crate) fn is_either(self, one: u8, other: u8) -> Mask {
        (self.eq(one) | self.eq(other)).to_bitmask()
    }

    #[inline(always)]
    pub(crate) fn is_digit(self) -> Mask {
        self.within(b'0', b'9').to_bitmask()
    }

    #[inline(always)]
    pub(crate) fn is_hex(self) -> Mask {
        (self.within(b'0', b'9') | self.within(b'a', b'f')).to_bitmask()
    }

    #[inline(always)]
    pub(crate) fn is_upper(self) -> Mask {
        self.within(b'A', b'Z').to_bitmask()
    }

    #[inline(always)]
    pub(crate) fn is_printable(self) -> Mask {
        self.within(b' ', b'~').to_bitmask()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_byte_of_the_class() {
        let expect = |bytes: &[u8; 16], of: fn(u8) -> bool| {
            bytes.iter().enumerate().fold(0, |mask, (i, &b)| mask | (Mask::from(of(b)) << i))
        };
        for start in (0..=255_u8).step_by(8) {
            let bytes: [u8; 16] = std::array::from_fn(|i| start.wrapping_add(u8::try_from(i).unwrap()));
            let block = Block::load(&bytes);
            assert_eq!(block.is(b','), expect(&bytes, |b| b == b','));
            assert_eq!(block.is_either(b',', b'\n'), expect(&bytes, |b| b == b',' || b == b'\n'));
            assert_eq!(block.is_digit(), expect(&bytes, |b| b.is_ascii_digit()));
            assert_eq!(block.is_hex(), expect(&bytes, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
            assert_eq!(block.is_upper(), expect(&bytes, |b| b.is_ascii_uppercase()));
            assert_eq!(block.is_printable(), expect(&bytes, |b| matches!(b, 0x20..=0x7e)));
        }
    }
}
