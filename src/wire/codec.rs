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
    /// Both ends know the protocol, but no common version of it; the peer's lowest and highest.
    NoCommonVersion(u8, u8),
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
            Self::NoCommonVersion(min, max) => {
                write!(f, "it speaks versions {min} to {max} of the protocol, this pdcp only {}", super::VERSION)
            }
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
