//! Choices made by bytes: a fuzzer that changes a byte changes a choice.

/// Choices, as long as there are bytes; afterwards always the first one.
#[derive(Clone, Copy, Debug)]
pub struct Dice<'a>(pub &'a [u8]);

impl<'a> Dice<'a> {
    /// The next byte.
    pub fn roll(&mut self) -> Option<u8> {
        let (front, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*front)
    }

    /// One of so many sides, at most 256.
    pub fn below(&mut self, sides: usize) -> usize {
        usize::from(self.roll().unwrap_or(0)) % sides
    }

    /// Yes or no.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    /// The next two bytes as one number.
    pub fn wide(&mut self) -> u16 {
        u16::from_le_bytes([self.roll().unwrap_or(0), self.roll().unwrap_or(0)])
    }

    /// One of these.
    pub fn among<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// The next bytes, at most so many.
    pub fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        front
    }
}
