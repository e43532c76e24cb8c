//! Reading and writing primitives on byte slices, little-endian. "Ran out" is the only way reading can fail.

use std::fmt;

/// Why bytes from the peer are no frame and no message. Always the peer's fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DecodeError {
    /// Shorter than what it claims to be needs.
    TooShort,
    /// Longer than allowed, or than what it claims to be needs; refused before any memory is set aside.
    TooLong { bytes: u32 },
    /// A frame of a kind that is not known.
    UnknownKind(u8),
    /// More entries than a frame may have, or none.
    Count(u16),
    /// Something that has to be zero is not.
    NotZero,
    /// The first bytes are no greeting of pdcp's.
    NotPdcp,
    /// A control message that cannot be read.
    Message,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => write!(f, "a frame is shorter than its kind needs"),
            Self::TooLong { bytes } => write!(f, "a frame of {bytes} bytes is too long"),
            Self::UnknownKind(kind) => write!(f, "frame of unknown kind {kind}"),
            Self::Count(count) => write!(f, "a frame with {count} entries"),
            Self::NotZero => write!(f, "reserved bytes of a frame are not zero"),
            Self::NotPdcp => write!(f, "it does not speak pdcp's protocol"),
            Self::Message => write!(f, "a control message cannot be read"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Takes values off the front of a slice.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::TooShort)?;
        self.0 = rest;
        Ok(*front)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.bytes().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// `N` bytes that have to be zero.
    pub(super) fn zeros<const N: usize>(&mut self) -> Result<(), DecodeError> {
        if self.bytes::<N>()? == [0; N] { Ok(()) } else { Err(DecodeError::NotZero) }
    }
}

/// Appends values to a slice that is long enough: its length was decided from our own numbers.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    into: &'a mut [u8],
    used: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(into: &'a mut [u8]) -> Self {
        Self { into, used: 0 }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        assert!(end <= self.into.len(), "the caller made room");
        self.into[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian_and_written_as_they_are_read() {
        let mut bytes = [0xee; 15];
        let mut writer = Writer::new(&mut bytes);
        writer.u16(0x0102);
        writer.u32(0x0304_0506);
        writer.u64(0x0708_090a_0b0c_0d0e);
        assert_eq!(writer.used(), 14);
        assert_eq!(bytes, [2, 1, 6, 5, 4, 3, 14, 13, 12, 11, 10, 9, 8, 7, 0xee]);
        let mut reader = Reader(&bytes);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u32(), Ok(0x0304_0506));
        assert_eq!(reader.u64(), Ok(0x0708_090a_0b0c_0d0e));
        assert_eq!(reader.u8(), Ok(0xee));
        assert_eq!(reader.u8(), Err(DecodeError::TooShort));
    }

    #[test]
    fn reading_fails_only_for_want_of_bytes_and_then_takes_none() {
        let mut reader = Reader(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(DecodeError::TooShort));
        assert_eq!(reader.u64(), Err(DecodeError::TooShort));
        assert_eq!(reader.zeros::<4>(), Err(DecodeError::TooShort));
        assert_eq!(reader.bytes(), Ok([1, 2, 3]));
        assert_eq!(reader.bytes(), Ok([]));
    }

    #[test]
    fn zeros_are_zeros() {
        assert_eq!(Reader(&[0, 0]).zeros::<2>(), Ok(()));
        assert_eq!(Reader(&[0, 1]).zeros::<2>(), Err(DecodeError::NotZero));
        assert_eq!(Reader(&[0, 1]).zeros::<1>(), Ok(()));
    }

    #[test]
    #[should_panic(expected = "the caller made room")]
    fn writing_beyond_the_room_is_our_own_mistake() {
        Writer::new(&mut [0; 3]).u32(0);
    }

    #[test]
    fn a_person_is_told_what_was_wrong() {
        #[track_caller]
        fn check(error: DecodeError, want: &str) {
            assert_eq!(error.to_string(), want);
        }
        check(DecodeError::TooShort, "a frame is shorter than its kind needs");
        check(DecodeError::TooLong { bytes: 9 }, "a frame of 9 bytes is too long");
        check(DecodeError::UnknownKind(9), "frame of unknown kind 9");
        check(DecodeError::Count(9), "a frame with 9 entries");
        check(DecodeError::NotZero, "reserved bytes of a frame are not zero");
        check(DecodeError::NotPdcp, "it does not speak pdcp's protocol");
        check(DecodeError::Message, "a control message cannot be read");
    }
}
