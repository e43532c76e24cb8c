//! Methods that blocks can be compared by (`-m`).

/// What blocks are compared by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Method {
    /// The block's own digest; costs nothing more.
    #[default]
    Blake3,
    /// XXH3.
    Xxh3,
}
impl Method {
    /// Eight bytes.
    pub fn signature(self, block: &[u8]) -> [u8; 8] {
        let _ = block;
        [0; 8]
    }
}
