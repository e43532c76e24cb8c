//! Keys of data connections, and pieces sealed with them. Pure: no sockets, no clock, no random numbers.
//!
//! All keys of a session grow from one secret that both ends of its control connection export from TLS. Each connection has
//! a secret of its own, from the server's challenge and the connection's number; from it come both proofs of the join and a
//! secret for each direction. proto-spec.md has every label. A key is used for one direction of one connection, a nonce for
//! one piece of one frame, and no key for more than [`KEY_BYTES_MAX`].

use crate::limits::{CHALLENGE_LEN, KEY_BYTES_MAX, PROOF_LEN, TAG_LEN};
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of every secret.
pub const SECRET_LEN: usize = 32;
/// The label under which a session's secret is exported from TLS.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-pdcp/1";

const OURS: &str = "HKDF-SHA256 gives up to 8160 bytes, and AES-256-GCM and ChaCha20-Poly1305 take keys of 32";

/// What pieces are sealed with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Cipher {
    /// Where both CPUs have instructions for it.
    Aes256Gcm,
    /// Everywhere else.
    ChaCha20Poly1305,
}

/// What keeps others from what goes over data connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sealing {
    /// It is sealed.
    Sealed(Cipher),
    /// It never leaves the kernel, on which both ends run.
    SameKernel,
    /// Nothing: both ends have `--plaintext`.
    Plaintext,
}

impl Sealing {
    /// What two ends have agreed on that may seal with `cipher`; `None`: neither wants to.
    pub fn agreed(cipher: Option<Cipher>, sealed: bool) -> Self {
        match cipher {
            Some(cipher) if sealed => Self::Sealed(cipher),
            Some(_) => Self::SameKernel,
            None => Self::Plaintext,
        }
    }

    /// Whether both ends are on one host, which have the same address or not. A port that is forwarded has the address of this
    /// host and leads to another: then they have not met in one kernel, and what goes there is sealed.
    pub fn stays_on_host(self, same_address: bool) -> bool {
        same_address && self.cipher().is_none()
    }

    /// The cipher, if there is one.
    pub fn cipher(self) -> Option<Cipher> {
        if let Self::Sealed(cipher) = self { Some(cipher) } else { None }
    }

    /// What it is called, in lines for programs too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sealed(Cipher::Aes256Gcm) => "AES-256-GCM",
            Self::Sealed(Cipher::ChaCha20Poly1305) => "ChaCha20-Poly1305",
            Self::SameKernel => "same kernel",
            Self::Plaintext => "plaintext",
        }
    }
}

/// This CPU has instructions for AES: without them it is slow, and its time tells about the key.
pub fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Which side of the control connection. Only here, where both share a secret, does the plane of data know of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Who dialled.
    Client,
    /// Who accepted.
    Server,
}

/// The bytes of a secret, wiped when nobody needs them any more.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; SECRET_LEN]);

impl Secret {
    /// A session's secret, as exported.
    pub fn new(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    fn expand(&self, label: &[u8], context: &[u8]) -> Self {
        let mut bytes = [0; SECRET_LEN];
        let info = [label, context];
        let prk = Prk::new_less_safe(HKDF_SHA256, &self.0);
        prk.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut bytes)).expect(OURS);
        Self(bytes)
    }

    /// The name of the socket by which two ends find out that they run on one kernel.
    pub fn rendezvous(&self) -> [u8; SECRET_LEN] {
        self.expand(b"pdcp/1 rendezvous", b"").0
    }

    /// What a side says on that socket. `user` is the speaker's user id, which the kernel tells the listener as well: so
    /// nobody else can pass it on from another host.
    pub fn greeting(&self, side: Side, user: u32) -> [u8; PROOF_LEN] {
        let label: &[u8] = match side {
            Side::Client => b"pdcp/1 client greeting",
            Side::Server => b"pdcp/1 server greeting",
        };
        self.expand(label, &user.to_le_bytes()).0
    }

    /// The secrets of connection `number`, which the server has challenged.
    pub fn connection(&self, challenge: &[u8; CHALLENGE_LEN], number: u32) -> ConnectionSecret {
        let mut extracted = [0; SECRET_LEN];
        let prk = Salt::new(HKDF_SHA256, challenge).extract(&self.0);
        prk.expand(&[b"pdcp/1 connection", &number.to_le_bytes()], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut extracted))
            .expect(OURS);
        ConnectionSecret(Self(extracted))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What both ends of one data connection know.
#[derive(Clone, Debug)]
pub struct ConnectionSecret(Secret);

impl ConnectionSecret {
    /// What a side says to prove that it knows it.
    pub fn proof(&self, side: Side) -> [u8; PROOF_LEN] {
        let label: &[u8] = match side {
            Side::Client => b"pdcp/1 client proof",
            Side::Server => b"pdcp/1 server proof",
        };
        self.0.expand(label, b"").0
    }

    /// What seals and opens the frames of this connection for a process on `side`.
    pub fn duplex(&self, side: Side, cipher: Cipher) -> Duplex {
        let (client, server) = (self.seals(Side::Client, cipher), self.seals(Side::Server, cipher));
        match side {
            Side::Client => Duplex { sending: client, receiving: server },
            Side::Server => Duplex { sending: server, receiving: client },
        }
    }

    /// What seals the frames that `side` sends, and opens them.
    fn seals(&self, side: Side, cipher: Cipher) -> Seals {
        let label: &[u8] = match side {
            Side::Client => b"pdcp/1 client frames",
            Side::Server => b"pdcp/1 server frames",
        };
        Seals::new(self.0.expand(label, b""), cipher)
    }
}

/// Whether two proofs are the same, in a time that says nothing about where they differ.
pub fn same_proof(one: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

/// Both directions of one connection.
#[derive(Debug)]
pub struct Duplex {
    /// What this process sends.
    pub sending: Seals,
    /// What it receives.
    pub receiving: Seals,
}

/// A piece is not what its sender has sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forged;

/// What seals, or opens, the frames of one direction of one connection, in their order.
pub struct Seals {
    cipher: Cipher,
    secret: Secret,
    key: LessSafeKey,
    /// Frames begun so far.
    frames: u64,
    /// Bytes under this key.
    bytes: u64,
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seals").field("cipher", &self.cipher).field("frames", &self.frames).finish_non_exhaustive()
    }
}

/// The number of a frame in its direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameNumber(u64);

impl Seals {
    fn new(secret: Secret, cipher: Cipher) -> Self {
        let key = key(&secret, cipher);
        Self { cipher, secret, key, frames: 0, bytes: 0 }
    }

    /// Begins the next frame, in which `bytes` will be sealed. Where they would be too many for the key, the next key
    /// begins with it.
    pub fn next_frame(&mut self, bytes: u64) -> FrameNumber {
        if self.bytes + bytes > KEY_BYTES_MAX {
            self.secret = self.secret.expand(b"pdcp/1 next", b"");
            self.key = key(&self.secret, self.cipher);
            self.bytes = 0;
        }
        self.bytes += bytes;
        let number = FrameNumber(self.frames);
        self.frames += 1; // one a nanosecond for 500 years
        number
    }

    /// Seals piece `piece` of a frame in place. `about` is not hidden, but cannot be changed either.
    pub fn seal(&self, frame: FrameNumber, piece: u32, about: &[u8], bytes: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self.key.seal_in_place_separate_tag(nonce(frame, piece), Aad::from(about), bytes);
        tag.ok().and_then(|tag| tag.as_ref().try_into().ok()).expect("a piece is short")
    }

    /// The same from one place to another of the same length.
    pub fn seal_into(
        &self,
        frame: FrameNumber,
        piece: u32,
        about: &[u8],
        bytes: &[u8],
        into: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let (nonce, mut tag) = (nonce(frame, piece), [0; TAG_LEN]);
        let sealed = self.key.seal_out_of_place_scatter(nonce, Aad::from(about), bytes, into, &[], &mut tag);
        sealed.expect("a piece is short, and as long as its place");
        tag
    }

    /// Opens what [`Self::seal`] has sealed, in place.
    ///
    /// # Errors
    /// Then the bytes are worth nothing.
    pub fn open(
        &self,
        frame: FrameNumber,
        piece: u32,
        about: &[u8],
        tag: &[u8; TAG_LEN],
        bytes: &mut [u8],
    ) -> Result<(), Forged> {
        let opened = self.key.open_in_place_separate_tag(nonce(frame, piece), Aad::from(about), tag, bytes);
        opened.map(drop).map_err(|_| Forged)
    }
}

fn key(secret: &Secret, cipher: Cipher) -> LessSafeKey {
    let algorithm = match cipher {
        Cipher::Aes256Gcm => &AES_256_GCM,
        Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    let key = secret.expand(b"pdcp/1 key", b"");
    LessSafeKey::new(UnboundKey::new(algorithm, &key.0).expect(OURS))
}

fn nonce(frame: FrameNumber, piece: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&frame.0.to_le_bytes());
    nonce[8..].copy_from_slice(&piece.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new([1; SECRET_LEN])
    }

    fn pair(cipher: Cipher) -> (Seals, Seals) {
        let connection = secret().connection(&[2; CHALLENGE_LEN], 3);
        (connection.duplex(Side::Client, cipher).sending, connection.duplex(Side::Server, cipher).receiving)
    }

    /// Trigger: `ssh -L`. Damage: both ends waited for a network that was taken for none, and nothing limited the copy.
    #[test]
    fn behind_a_forwarded_port_is_another_host() {
        let forwarded = Sealing::agreed(Some(Cipher::Aes256Gcm), true);
        let met = Sealing::agreed(Some(Cipher::Aes256Gcm), false);
        for (sealing, same_address, same_host) in
            [(forwarded, true, false), (met, true, true), (Sealing::Plaintext, true, true), (forwarded, false, false)]
        {
            assert_eq!(sealing.stays_on_host(same_address), same_host, "{sealing:?}");
        }
        assert!(!Sealing::Plaintext.stays_on_host(false));
    }

    #[test]
    fn what_is_sealed_opens_only_as_it_was_and_where_it_was() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            #[track_caller]
            fn check(
                cipher: Cipher,
                spoil: impl FnOnce(&mut Vec<u8>, &mut [u8; TAG_LEN], &mut Vec<u8>, &mut [u64; 2]),
                want: bool,
            ) {
                let (mut client, mut server) = pair(cipher);
                let (mut bytes, mut about, mut place) = (b"piece".to_vec(), b"about".to_vec(), [1, 4]);
                client.next_frame(5);
                let number = client.next_frame(5);
                let mut tag = client.seal(number, 4, &about, &mut bytes);
                assert_ne!(bytes, b"piece");
                spoil(&mut bytes, &mut tag, &mut about, &mut place);
                let [frame, piece] = place;
                let mut number = server.next_frame(5);
                for _ in 0..frame {
                    number = server.next_frame(5);
                }
                let opened = server.open(number, u32::try_from(piece).unwrap(), &about, &tag, &mut bytes);
                assert_eq!(opened.is_ok(), want);
                assert!(!want || bytes == b"piece");
            }
            check(cipher, |_, _, _, _| {}, true);
            for bit in 0..8 {
                (0..5).for_each(|at| check(cipher, |bytes, _, _, _| bytes[at] ^= 1 << bit, false));
                (0..TAG_LEN).for_each(|at| check(cipher, |_, tag, _, _| tag[at] ^= 1 << bit, false));
                (0..5).for_each(|at| check(cipher, |_, _, about, _| about[at] ^= 1 << bit, false));
            }
            check(cipher, |bytes, _, _, _| bytes.truncate(4), false);
            check(cipher, |bytes, _, _, _| bytes.push(0), false);
            check(cipher, |_, _, about, _| about.push(0), false);
            check(cipher, |_, _, _, place| place[0] = 0, false);
            check(cipher, |_, _, _, place| place[0] = 2, false);
            check(cipher, |_, _, _, place| place[1] = 3, false);
        }
    }

    #[test]
    fn a_piece_may_be_sealed_where_it_is_or_elsewhere() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let (mut seals, _) = pair(cipher);
            let number = seals.next_frame(9);
            let (mut here, mut there) = (*b"some data", [0; 9]);
            let elsewhere = seals.seal_into(number, 0, b"", b"some data", &mut there);
            assert_eq!(seals.seal(number, 0, b"", &mut here), elsewhere);
            assert_eq!(here, there);
        }
    }

    #[test]
    fn no_two_connections_directions_and_sessions_share_anything() {
        let of = |secret: &Secret, challenge: u8, number: u32| {
            let connection = secret.connection(&[challenge; CHALLENGE_LEN], number);
            let mut all = vec![connection.0.0, connection.proof(Side::Client), connection.proof(Side::Server)];
            let Duplex { sending, receiving } = connection.duplex(Side::Client, Cipher::Aes256Gcm);
            all.extend([sending.secret.0, receiving.secret.0]);
            all
        };
        let mut all = of(&secret(), 2, 3);
        all.extend(of(&secret(), 2, 4));
        all.extend(of(&secret(), 3, 3));
        all.extend(of(&Secret::new([9; SECRET_LEN]), 2, 3));
        all.extend([secret().rendezvous(), secret().greeting(Side::Client, 0), secret().greeting(Side::Client, 1)]);
        all.push(secret().greeting(Side::Server, 0));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_key_is_left_before_it_has_sealed_too_much() {
        let (mut client, mut server) = pair(Cipher::Aes256Gcm);
        let first = client.secret.0;
        client.next_frame(KEY_BYTES_MAX - 5);
        server.next_frame(KEY_BYTES_MAX - 5);
        client.next_frame(5);
        server.next_frame(5);
        assert_eq!(client.secret.0, first);
        let mut bytes = *b"x";
        let number = client.next_frame(1);
        assert_ne!(client.secret.0, first);
        let tag = client.seal(number, 0, b"", &mut bytes);
        let number = server.next_frame(1);
        assert_eq!(server.open(number, 0, b"", &tag, &mut bytes), Ok(()));
        assert_eq!(bytes, *b"x");
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", secret()), "Secret");
        assert!(!format!("{:?}", pair(Cipher::Aes256Gcm)).contains("[1"));
    }
}
