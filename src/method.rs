//! Methods that blocks can be compared by (`-m`): BLAKE3, XXH3, and those that Python's hashlib guarantees, less shake.
//!
//! A method only chooses the 8 bytes that two blocks are compared by. Stripes and files are proven by BLAKE3 whatever
//! was chosen, so another method costs a second hash of every block that is compared.

use crate::limits::SIGNATURE_LEN;
use Method::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What blocks are compared by. Its number here is its number on the wire: a new method goes to the end.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Method {
    /// The block's own digest; costs nothing more.
    #[default]
    Blake3,
    /// XXH3-64: fast, and no protection against chosen collisions.
    Xxh3,
    /// MD5.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA3-224.
    Sha3_224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
    /// SHA3-512.
    Sha3_512,
    /// BLAKE2b, 64 bytes, no key.
    Blake2b,
    /// BLAKE2s, 32 bytes, no key.
    Blake2s,
}

/// Every method, each in the place of its number.
const METHODS: [Method; 14] =
    [Blake3, Xxh3, Md5, Sha1, Sha224, Sha256, Sha384, Sha512, Sha3_224, Sha3_256, Sha3_384, Sha3_512, Blake2b, Blake2s];

impl Method {
    /// The names of all methods, each in the place of its number; hashlib's where hashlib has the method.
    pub const NAMES: [&'static str; METHODS.len()] = [
        "blake3", "xxh3", "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384",
        "sha3_512", "blake2b", "blake2s",
    ];

    /// The method of that name, exactly as in [`Method::NAMES`].
    pub fn parse(name: &str) -> Option<Method> {
        let number = Self::NAMES.iter().position(|known| *known == name)?;
        Some(METHODS[number])
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The first 8 bytes of the block's hash.
    ///
    /// Blocks compared by [`Method::Blake3`] need not come here: their digest is known already, and its front is their
    /// signature. As a node of the file's tree it is another value than the hash of the block alone, given here.
    pub fn signature(self, block: &[u8]) -> [u8; SIGNATURE_LEN] {
        match self {
            Blake3 => front(blake3::hash(block).as_bytes()),
            Xxh3 => xxhash_rust::xxh3::xxh3_64(block).to_be_bytes(), // canonical: as xxhsum prints it
            Md5 => hash::<md5::Md5>(block),
            Sha1 => sha1(block),
            Sha224 => hash::<sha2::Sha224>(block),
            Sha256 => hash::<sha2::Sha256>(block),
            Sha384 => hash::<sha2::Sha384>(block),
            Sha512 => hash::<sha2::Sha512>(block),
            Sha3_224 => hash::<sha3::Sha3_224>(block),
            Sha3_256 => hash::<sha3::Sha3_256>(block),
            Sha3_384 => hash::<sha3::Sha3_384>(block),
            Sha3_512 => hash::<sha3::Sha3_512>(block),
            Blake2b => hash::<blake2::Blake2b512>(block),
            Blake2s => hash::<blake2::Blake2s256>(block),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number that stands for no method we know: the peer is newer than us, or lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnknownMethod(pub u8);

impl fmt::Display for UnknownMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no method {}", self.0)
    }
}

impl std::error::Error for UnknownMethod {}

impl TryFrom<u8> for Method {
    type Error = UnknownMethod;

    fn try_from(number: u8) -> Result<Self, UnknownMethod> {
        METHODS.get(usize::from(number)).copied().ok_or(UnknownMethod(number))
    }
}

impl From<Method> for u8 {
    fn from(method: Method) -> u8 {
        method as u8
    }
}

fn front(hash: &[u8]) -> [u8; SIGNATURE_LEN] {
    *hash.first_chunk().expect("no hash here is shorter than 16 bytes")
}

fn hash<H: sha2::Digest>(block: &[u8]) -> [u8; SIGNATURE_LEN] {
    front(&H::digest(block))
}

/// SHA-1 by whichever is faster on this CPU: with SHA-NI the `sha1` crate (1.9 GB/s a core), without it hand-written
/// assembly (0.86), which exists for x86 only. ARM's SHA instructions are found by the `sha1` crate; sha1-asm would use
/// them without asking.
fn sha1(block: &[u8]) -> [u8; SIGNATURE_LEN] {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if !assembly::has_sha_ni() {
        return front(&assembly::sha1(block));
    }
    hash::<sha1::Sha1>(block)
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod assembly {
    /// What the `sha1` crate needs to use SHA-NI. The CPU is asked once, std remembers.
    pub(super) fn has_sha_ni() -> bool {
        std::is_x86_feature_detected!("sha")
            && std::is_x86_feature_detected!("ssse3")
            && std::is_x86_feature_detected!("sse4.1")
    }

    /// SHA-1 (FIPS 180-4). sha1-asm is only the compression of whole 64-byte blocks; start and padding are here.
    pub(super) fn sha1(bytes: &[u8]) -> [u8; 20] {
        const BIT_COUNT_LEN: usize = 8;
        let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        let (whole, rest) = bytes.as_chunks::<64>();
        sha1_asm::compress(&mut state, whole);

        // The rest, one bit that is set, zeros, and the number of bits, filling one block or two.
        let mut padded = [0; 128];
        padded[..rest.len()].copy_from_slice(rest);
        padded[rest.len()] = 0x80;
        let padded_len = if rest.len() + 1 + BIT_COUNT_LEN <= 64 { 64 } else { 128 };
        let bit_count = 8 * bytes.len() as u64;
        padded[padded_len - BIT_COUNT_LEN..padded_len].copy_from_slice(&bit_count.to_be_bytes());
        sha1_asm::compress(&mut state, padded[..padded_len].as_chunks().0);

        let mut hash = [0; 20];
        for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(bytes: usize) -> Vec<u8> {
        (0..=250).cycle().take(bytes).collect()
    }

    #[test]
    fn every_method_begins_with_the_bytes_that_python_computes() {
        #[track_caller]
        fn check(name: &str, of_abc: u64, of_16_kib: u64) {
            let method = Method::parse(name).expect("one of ours");
            assert_eq!(u64::from_be_bytes(method.signature(b"abc")), of_abc, "{name} of abc");
            assert_eq!(u64::from_be_bytes(method.signature(&pattern(16 << 10))), of_16_kib, "{name} of 16 KiB");
        }
        // hashlib.new(name, b"abc"), and the same of bytes(i % 251 for i in range(16384))
        check("md5", 0x9001_5098_3cd2_4fb0, 0xe7b1_1e9c_0174_96ec);
        check("sha1", 0xa999_3e36_4706_816a, 0x68f3_b81a_11de_1e16);
        check("sha224", 0x2309_7d22_3405_d822, 0x4c35_021f_df2e_1016);
        check("sha256", 0xba78_16bf_8f01_cfea, 0x4348_e3b9_8e8a_327b);
        check("sha384", 0xcb00_753f_45a3_5e8b, 0x5255_72ce_c4a7_ae28);
        check("sha512", 0xddaf_35a1_9361_7aba, 0x7b44_b9db_91a7_c2fc);
        check("sha3_224", 0xe642_824c_3f8c_f24a, 0xee18_735a_cfa7_5290);
        check("sha3_256", 0x3a98_5da7_4fe2_25b2, 0x8f8e_eb8c_5f4c_7ca7);
        check("sha3_384", 0xec01_4982_8851_6fc9, 0x6cbb_72f2_40f5_9e8a);
        check("sha3_512", 0xb751_850b_1a57_168a, 0x7e94_924b_09f1_31d8);
        check("blake2b", 0xba80_a53f_981c_4d0d, 0xfdaf_9dca_1aaf_9c01);
        check("blake2s", 0x508c_5e8c_327c_14e2, 0xe4d9_f9f7_1089_76a6);
        // The packages xxhash (xxh3_64) and blake3
        check("xxh3", 0x78af_5f94_892f_3950, 0x168f_7fb4_781d_0831);
        check("blake3", 0x6437_b3ac_3846_5133, 0xf875_d664_6de2_8985);
    }

    #[test]
    fn the_names_are_those_that_hashlib_guarantees_without_shake_and_ours() {
        let mut names = Method::NAMES;
        names.sort_unstable();
        let want = [
            "blake2b", "blake2s", "blake3", "md5", "sha1", "sha224", "sha256", "sha384", "sha3_224", "sha3_256",
            "sha3_384", "sha3_512", "sha512", "xxh3",
        ];
        assert_eq!(names, want);
    }

    #[test]
    fn a_method_is_found_by_its_exact_name_only() {
        for (number, name) in Method::NAMES.into_iter().enumerate() {
            let method = Method::parse(name).expect("one of ours");
            assert_eq!(method as usize, number);
            assert_eq!(method.to_string(), name);
        }
        for name in ["", "SHA1", "sha-1", " md5", "shake_128", "crc32"] {
            assert_eq!(Method::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_method_travels_as_its_number_and_an_unknown_number_is_refused() {
        for number in 0..=u8::MAX {
            let received: Result<Method, _> = serde_json::from_str(&number.to_string());
            assert_eq!(received.is_ok(), number < 14, "{number}");
            if let Ok(method) = received {
                assert_eq!(serde_json::to_string(&method).expect("a number"), number.to_string());
            }
        }
        assert_eq!(Method::default(), Method::Blake3);
        assert_eq!(u8::from(Method::Blake3), 0);
    }

    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    #[test]
    fn both_ways_to_sha1_agree_around_every_edge_of_the_padding() {
        use sha2::Digest;
        for bytes in [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 121, 127, 128, 129, 16384] {
            let content = pattern(bytes);
            assert_eq!(assembly::sha1(&content)[..], sha1::Sha1::digest(&content)[..], "{bytes} bytes");
        }
    }
}
