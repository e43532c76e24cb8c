//! Keys: a secret, the two public keys derived from it, and how they are written.
//!
//! 32 secret bytes are all there is to know. HKDF-SHA256 makes of them the seeds of two Ed25519 keys, one for each role, so
//! that what a server has signed never passes for a client's. People exchange both as one line. There is one way only to
//! write a key: what decodes encodes to the same text. Secrets are wiped when they are dropped, and shown by nothing but
//! [`Secret::text`]. proto-spec.md has the labels and an example.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use aws_lc_rs::{digest, hkdf, rand};
use base64ct::{Base64UrlUnpadded, Encoding};
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of a secret, and of each seed made of it.
pub(super) const SECRET_LEN: usize = 32;
/// Bytes of an Ed25519 public key.
const ROLE_KEY_LEN: usize = 32;

/// HKDF's salt: the secret is used for nothing else, this says for what.
const SALT: &[u8] = b"pdcp/1 identity";
/// HKDF's label of the key that a client presents.
const CLIENT_LABEL: &[u8] = b"pdcp/1 client ed25519";
/// HKDF's label of the key that a server presents.
const SERVER_LABEL: &[u8] = b"pdcp/1 server ed25519";

/// What a secret begins with, so that nobody takes it for something to publish.
const SECRET_PREFIX: &str = "pdcp1-secret-";
/// What a public key begins with.
const PUBLIC_PREFIX: &str = "pdcp1-public-";

/// What stands before the key in an Ed25519 SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Bytes of an Ed25519 SubjectPublicKeyInfo.
const SPKI_LEN: usize = SPKI_PREFIX.len() + ROLE_KEY_LEN;
/// What stands before the seed in an Ed25519 PKCS#8 document (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Bytes of an Ed25519 PKCS#8 document.
const PKCS8_LEN: usize = PKCS8_PREFIX.len() + SECRET_LEN;

/// Who presents a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Client,
    Server,
}

/// Why a text is not the key that it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum KeyTextError {
    /// It does not begin as a key does.
    NoKey,
    /// It is a secret, where a public key belongs.
    Secret,
    /// It is a public key, where a secret belongs.
    Public,
    /// It begins as a key does, but something is missing or too much.
    Damaged,
}

impl fmt::Display for KeyTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "is no key",
            Self::Secret => "holds a secret key; here belongs the public one, from 'pdcp --keygen --public'",
            Self::Public => "holds a public key; here belongs a secret one, as 'pdcp --keygen' makes it",
            Self::Damaged => "holds a key that is damaged; was it cut, or wrapped?",
        })
    }
}

/// What a key file holds a line of. Boxed, so that moving it leaves no copies behind.
pub(super) struct Secret(Box<Zeroizing<[u8; SECRET_LEN]>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.public().fingerprint())
    }
}

impl Secret {
    pub(super) fn random() -> Self {
        let mut secret = Self(Box::default());
        rand::fill(&mut secret.0[..]).expect("the kernel has random bytes");
        secret
    }

    /// # Errors
    /// Where it is not a secret's one text.
    pub(super) fn parse(text: &str) -> Result<Self, KeyTextError> {
        let mut secret = Self(Box::default());
        match text.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => decode(encoded, &mut secret.0[..]).map(|()| secret),
            None if text.starts_with(PUBLIC_PREFIX) => Err(KeyTextError::Public),
            None => Err(KeyTextError::NoKey),
        }
    }

    /// The line that a key file has of it.
    pub(super) fn text(&self) -> Zeroizing<String> {
        const ENCODED_LEN: usize = (SECRET_LEN * 8).div_ceil(6);
        let mut encoded = Zeroizing::new([0; ENCODED_LEN]);
        let encoded = Base64UrlUnpadded::encode(&self.0[..], &mut encoded[..]).expect("it has just this length");
        let mut text = Zeroizing::new(String::with_capacity(SECRET_PREFIX.len() + ENCODED_LEN));
        text.push_str(SECRET_PREFIX);
        text.push_str(encoded);
        text
    }

    pub(super) fn public(&self) -> PublicKey {
        let role_key = |role| {
            let pair = Ed25519KeyPair::from_seed_unchecked(&self.seed(role)[..]).expect("any 32 bytes are a seed");
            RoleKey(pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes"))
        };
        PublicKey { client: role_key(Role::Client), server: role_key(Role::Server) }
    }

    /// The private key of one role, as PKCS#8: the form that rustls takes.
    pub(super) fn pkcs8(&self, role: Role) -> Zeroizing<[u8; PKCS8_LEN]> {
        let mut document = Zeroizing::new([0; PKCS8_LEN]);
        let (prefix, seed) = document.split_at_mut(PKCS8_PREFIX.len());
        prefix.copy_from_slice(&PKCS8_PREFIX);
        seed.copy_from_slice(&self.seed(role)[..]);
        document
    }

    fn seed(&self, role: Role) -> Zeroizing<[u8; SECRET_LEN]> {
        let label = match role {
            Role::Client => CLIENT_LABEL,
            Role::Server => SERVER_LABEL,
        };
        let mut seed = Zeroizing::new([0; SECRET_LEN]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
            .extract(&self.0[..])
            .expand(&[label], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut seed[..]))
            .expect("HKDF-SHA256 gives 32 bytes");
        seed
    }
}

/// The Ed25519 public key of somebody in one role: what is presented and pinned in a handshake.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct RoleKey(pub(in crate::control) [u8; ROLE_KEY_LEN]);

impl fmt::Debug for RoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoleKey({})", self.fingerprint())
    }
}

impl RoleKey {
    /// As TLS carries it: a SubjectPublicKeyInfo.
    pub(super) fn spki(&self) -> [u8; SPKI_LEN] {
        let mut spki = [0; SPKI_LEN];
        let (prefix, key) = spki.split_at_mut(SPKI_PREFIX.len());
        prefix.copy_from_slice(&SPKI_PREFIX);
        key.copy_from_slice(&self.0);
        spki
    }

    /// `None` if it is not exactly the SubjectPublicKeyInfo of an Ed25519 key.
    pub(super) fn from_spki(spki: &[u8]) -> Option<Self> {
        spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(Self)
    }

    /// What logs have of it.
    pub fn fingerprint(&self) -> Fingerprint {
        let hash = digest::digest(&digest::SHA256, &self.0);
        Fingerprint(hash.as_ref().first_chunk().copied().expect("SHA-256 has 32 bytes"))
    }
}

/// Somebody's public keys, in both roles. Written as one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PublicKey {
    /// What they present as a client.
    pub client: RoleKey,
    /// What they present as a server.
    pub server: RoleKey,
}

impl PublicKey {
    /// # Errors
    /// Where it is not a public key's one text.
    pub(super) fn parse(text: &str) -> Result<Self, KeyTextError> {
        let mut bytes = [[0; ROLE_KEY_LEN]; 2];
        match text.strip_prefix(PUBLIC_PREFIX) {
            Some(encoded) => decode(encoded, bytes.as_flattened_mut())?,
            None if text.starts_with(SECRET_PREFIX) => return Err(KeyTextError::Secret),
            None => return Err(KeyTextError::NoKey),
        }
        let [client, server] = bytes.map(RoleKey);
        Ok(Self { client, server })
    }

    /// What logs have of it: that of the client's key, which is all that a server sees of a stranger.
    pub fn fingerprint(&self) -> Fingerprint {
        self.client.fingerprint()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut encoded = [0; (2 * ROLE_KEY_LEN * 8).div_ceil(6)];
        let bytes = [self.client.0, self.server.0];
        let encoded = Base64UrlUnpadded::encode(bytes.as_flattened(), &mut encoded).map_err(|_| fmt::Error)?;
        write!(f, "{PUBLIC_PREFIX}{encoded}")
    }
}

/// Enough of a key's SHA-256 to tell people's keys apart: 64 bits, in hex. Nothing is decided by it.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Fingerprint(pub(in crate::control) [u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Fills `bytes` exactly.
fn decode(encoded: &str, bytes: &mut [u8]) -> Result<(), KeyTextError> {
    let wanted = bytes.len();
    let decoded = Base64UrlUnpadded::decode(encoded, bytes).map_err(|_| KeyTextError::Damaged)?;
    if decoded.len() == wanted { Ok(()) } else { Err(KeyTextError::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(bytes: [u8; SECRET_LEN]) -> Secret {
        Secret(Box::new(Zeroizing::new(bytes)))
    }

    /// The bytes 0 to 31: the example of proto-spec.md.
    fn example() -> Secret {
        secret(std::array::from_fn(|index| u8::try_from(index).unwrap()))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Made by Python's hmac and hashlib and by openssl, not by this program.
    #[test]
    fn the_example_of_the_specification_holds() {
        let public = example().public();
        assert_eq!(&*example().text(), "pdcp1-secret-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        assert_eq!(
            hex(&example().seed(Role::Client)[..]),
            "443240ac0fe878d8c8f0cb6034349a9f9afbb56b6c493a4e6ce921cc45ac1e85"
        );
        assert_eq!(
            hex(&example().seed(Role::Server)[..]),
            "80799bbcc72f6b61d1d6d1940a8692b42ca736a97767716dcb3146523bb548f6"
        );
        assert_eq!(hex(&public.client.0), "1cd3e97624e4ba4693f16618bb58d757d48339c065c7f6fa54923eea9cfb2106");
        assert_eq!(hex(&public.server.0), "fcea5883e0d2c9ad57b6ee6b2c4adebd472f0899d5530f044c4d750511b85bbf");
        assert_eq!(
            public.to_string(),
            "pdcp1-public-HNPpdiTkukaT8WYYu1jXV9SDOcBlx_b6VJI-6pz7IQb86liD4NLJrVe27mssSt69Ry8ImdVTDwRMTXUFEbhbvw"
        );
        assert_eq!(public.fingerprint().to_string(), "9eb469aec95e7768");
    }

    #[test]
    fn a_text_that_is_not_exactly_a_key_is_refused_by_its_kind() {
        #[track_caller]
        fn check(text: &str, as_secret: Option<KeyTextError>, as_public: Option<KeyTextError>) {
            assert_eq!(Secret::parse(text).err(), as_secret, "{text}");
            assert_eq!(PublicKey::parse(text).err(), as_public, "{text}");
        }
        use KeyTextError::{Damaged, NoKey, Public, Secret as IsSecret};
        let (secret, public) = (example().text(), example().public().to_string());
        check(&secret, None, Some(IsSecret));
        check(&public, Some(Public), None);
        check("", Some(NoKey), Some(NoKey));
        check("ssh-ed25519 AAAA", Some(NoKey), Some(NoKey));
        check(&secret.to_uppercase(), Some(NoKey), Some(NoKey));
        check(&format!(" {}", *secret), Some(NoKey), Some(NoKey));
        check("pdcp1-secret-", Some(Damaged), Some(IsSecret));
        check("pdcp1-public-", Some(Public), Some(Damaged));
        for end in ["A", "=", " ", "\n", "\0", "\u{e9}"] {
            check(&format!("{}{end}", *secret), Some(Damaged), Some(IsSecret));
            check(&format!("{public}{end}"), Some(Public), Some(Damaged));
        }
        check(&secret[..secret.len() - 1], Some(Damaged), Some(IsSecret));
        check(&public[..public.len() - 1], Some(Public), Some(Damaged));
        // The last letter of each has bits that mean nothing; another letter would be a second way to write the key.
        check(&format!("{}9", &secret[..secret.len() - 1]), Some(Damaged), Some(IsSecret));
        check(&secret.replace("-AAEC", "-+AEC"), Some(Damaged), Some(IsSecret));
    }

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let shown = format!("{:?}", example());
        assert!(!shown.contains("AAECAwQF") && !shown.contains("0, 1, 2, 3") && shown.len() < 40, "{shown}");
    }

    #[test]
    fn only_an_ed25519_key_comes_out_of_an_spki() {
        let key = example().public().client;
        let spki = key.spki();
        assert_eq!(RoleKey::from_spki(&spki), Some(key));
        assert_eq!(RoleKey::from_spki(&[]), None);
        assert_eq!(RoleKey::from_spki(&spki[..SPKI_LEN - 1]), None);
        assert_eq!(RoleKey::from_spki(&[&spki[..], &[0]].concat()), None);
        for index in 0..SPKI_PREFIX.len() {
            let mut wrong = spki;
            wrong[index] ^= 1;
            assert_eq!(RoleKey::from_spki(&wrong), None, "{index}");
        }
    }

    #[test]
    fn roles_and_secrets_have_keys_of_their_own() {
        let (one, other) = (Secret::random().public(), Secret::random().public());
        let mut keys = vec![one.client, one.server, other.client, other.server];
        keys.sort_unstable_by_key(|key| key.0);
        keys.dedup();
        assert_eq!(keys.len(), 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(bytes: [u8; SECRET_LEN]) {
            let secret = secret(bytes);
            prop_assert_eq!(&Secret::parse(&secret.text()).unwrap().0[..], &bytes[..]);
            prop_assert_eq!(PublicKey::parse(&secret.public().to_string()), Ok(secret.public()));
        }
    }
}
