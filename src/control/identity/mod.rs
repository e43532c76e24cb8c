//! Who we are, whom we let in, whom we trust: keys, lists of keys, and the handshake's configurations made of them.
//!
//! One user needs no set-up: a server makes a key file if there is none, and a client of the same user reads it. Between
//! hosts that file is copied once. `authorized_keys` and `known_servers`, beside the key file, let others in and know
//! others' servers; both are read at the start, and what is not understood there refuses it. A client never makes a key.
//! What a handshake proves is in `tls`; nothing here talks to a peer.

mod error;
mod file;
mod fuzz;
mod key;
mod lists;
mod tls;

pub use fuzz::{fuzz_authorized_keys, fuzz_key_file, fuzz_known_servers};
pub use key::{Fingerprint, PublicKey, RoleKey};
pub use tls::{HandshakeError, server_name};

use crate::control::access::Access;
use crate::control::audit::Audit;
use crate::control::crew::Plan;
use crate::control::own::Flaw;
use crate::control::user::check_user;
use crate::control::{Listen, ServeConfig};
use crate::failure::{Failure, Kind, printable};
use crate::root::Root;
use file::KeyPlace;
use key::Secret;
use lists::{AUTHORIZED_KEYS, Authorized, Guest, KNOWN_SERVERS, KnownServers};
use rustls::{ClientConfig, CommonState, ServerConfig};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A server's own keys and whom it lets in.
#[derive(Debug)]
pub struct ServerIdentity {
    place: KeyPlace,
    keys: OwnKeys,
    made: bool,
    authorized: Authorized,
}

/// A client's own keys and which servers it knows.
#[derive(Debug)]
pub struct ClientIdentity {
    place: KeyPlace,
    keys: OwnKeys,
    known: KnownServers,
}

/// What an authenticated client may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Whose it is.
    pub key: RoleKey,
    /// The directory that the client sees as `/`, within what the server serves.
    pub root: Option<PathBuf>,
    /// It may write nothing.
    pub read_only: bool,
    /// It may delete nothing.
    pub no_delete: bool,
    /// Most sessions of this key at a time; `None`: as many as the server has.
    pub sessions_max: Option<u32>,
}

/// Why a client may do nothing at all. It is for who runs the server: the client is told no more than that it is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denied {
    /// The key that the client has proved to have.
    pub key: Option<Fingerprint>,
    /// Why, in a sentence about it.
    pub text: String,
}

impl Grant {
    /// The same for whoever opens files.
    pub(super) fn access(&self) -> Access {
        let below = self.root.iter().map(|root| root.as_os_str().as_bytes().to_vec()).collect();
        Access { below, read_only: self.read_only, no_delete: self.no_delete }
    }
}

impl ServerIdentity {
    /// Reads the key file, `asked` or where it usually is, and `authorized_keys`. Makes the key file if there is none.
    ///
    /// # Errors
    /// Where a file is not as it must be: the server is not to start.
    pub fn load(asked: Option<&Path>) -> Result<Self, Failure> {
        let place = KeyPlace::find(asked)?;
        let (secrets, made) = place.load_or_make()?;
        let authorized = Authorized::load(&place)?;
        Ok(Self { place, keys: OwnKeys::new(secrets), made, authorized })
    }

    /// The key file, if it was made just now.
    pub fn made(&self) -> Option<&Path> {
        self.made.then(|| self.place.path())
    }

    /// The key file, and the lists that may be beside it.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        vec![self.place.path().to_owned(), self.place.beside(AUTHORIZED_KEYS), self.place.beside(KNOWN_SERVERS)]
    }

    /// What a control connection is answered with. Lets in who has one of our keys, or one of `authorized_keys`.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let own = self.keys.public.iter().map(|key| key.client);
        let guests = self.authorized.guests().iter().map(|guest| guest.key.client);
        tls::server_config(&self.keys.presented, own.chain(guests).collect())
    }

    /// What the client at the other end may do, its handshake done. `authorized_keys` has the last word, also on keys that
    /// are ours.
    ///
    /// # Errors
    /// Where it may do nothing at all.
    pub fn grant(&self, tls: &CommonState, address: IpAddr) -> Result<Grant, Denied> {
        let key = tls::peer_key(tls).map_err(|error| Denied { key: None, text: error.to_string() })?;
        let fingerprint = key.fingerprint();
        let denied = |text: String| Err(Denied { key: Some(fingerprint), text });
        match self.authorized.find(key) {
            Some(guest) if guest.may_come_from(address) => Ok(guest.grant()),
            Some(_) => denied("its key may not come from this address".into()),
            None if self.keys.public.iter().any(|own| own.client == key) => {
                Ok(Grant { key, root: None, read_only: false, no_delete: false, sessions_max: None })
            }
            None => denied(HandshakeError::Stranger(Some(fingerprint)).to_string()),
        }
    }

    /// Who is let in, a line each, for people.
    pub fn doors(&self) -> Vec<String> {
        doors(&self.place, &self.keys.public, &self.authorized)
    }

    /// Where the paths of those begin who have a directory of their own (`root=`), as [`roots`] has it.
    pub(super) fn roots(&self, served: &Root) -> (Roots, Vec<Failure>) {
        roots(&self.authorized, served)
    }
}

impl ClientIdentity {
    /// Reads the key file, `asked` or where it usually is, and `known_servers`. Makes nothing.
    ///
    /// # Errors
    /// Where a file is missing or not as it must be.
    pub fn load(asked: Option<&Path>) -> Result<Self, Failure> {
        let place = KeyPlace::find(asked)?;
        let keys = OwnKeys::new(place.load()?);
        let known = KnownServers::load(&place)?;
        Ok(Self { place, keys, known })
    }

    /// What a control connection to `host`, as typed, is begun with. Trusts who has one of our keys, or one that
    /// `known_servers` has for this host and port.
    pub fn client_config(&self, host: &str, port: u16) -> Arc<ClientConfig> {
        let own = self.keys.public.iter().map(|key| key.server);
        tls::client_config(&self.keys.presented, own.chain(self.known.keys_of(host, port)).collect())
    }

    /// Whether the handshake that is done was one of ours.
    ///
    /// # Errors
    /// Where it was not.
    pub fn confirm(&self, tls: &CommonState) -> Result<(), HandshakeError> {
        tls::peer_key(tls).map(drop)
    }

    /// A failed handshake, as the user at this end is told it: the likely cause, and what to do. `peer` is `host:port`
    /// together, for people.
    pub fn explain(&self, error: &HandshakeError, host: &str, port: u16, peer: &[u8]) -> Failure {
        let (path, own) = (shown(self.place.path()), self.keys.presented.public().fingerprint());
        let (kind, text) = match error {
            HandshakeError::Stranger(shown_key) if self.known.keys_of(host, port).next().is_some() => {
                let known = shown(&self.place.beside(KNOWN_SERVERS));
                let key = shown_key.map_or_else(String::new, |key| format!(" {key}"));
                let text = format!(
                    "the server's key{key} is not the one that {known} has for it: it was changed there, or somebody is in \
                     between; ask who runs the server, then change the line"
                );
                (Kind::Refused, text)
            }
            HandshakeError::Stranger(_) => {
                let known = shown(&self.place.beside(KNOWN_SERVERS));
                let text = format!(
                    "the server has another key than this user's; a likely cause is that another user started it, as by \
                     'sudo pdcp --serve'; copy that user's key file to {path}, or put '{} PUBLIC-KEY' into {known}, with \
                     what 'pdcp --keygen --public' prints there",
                    printable(peer)
                );
                (Kind::Refused, text)
            }
            HandshakeError::Refused => {
                let text = format!(
                    "the server does not accept this user's key {own}; copy the server's key file to {path}, or put what \
                     'pdcp --keygen --public' prints here into {AUTHORIZED_KEYS} beside it, and start the server again"
                );
                (Kind::Refused, text)
            }
            HandshakeError::Unproven => (Kind::Refused, format!("the server: {error}; is somebody in between?")),
            HandshakeError::Version | HandshakeError::NotTls => (Kind::Protocol, format!("the server: {error}")),
            HandshakeError::Broken(_) => (Kind::ConnectionLost, error.to_string()),
        };
        Failure::about(kind, peer, text)
    }
}

impl Guest {
    fn grant(&self) -> Grant {
        Grant {
            key: self.key.client,
            root: self.root.clone(),
            read_only: self.read_only,
            no_delete: self.no_delete,
            sessions_max: self.sessions_max.map(u32::from),
        }
    }
}

/// The keys of a key file.
#[derive(Debug)]
struct OwnKeys {
    presented: Secret,
    /// All of them, the presented one included.
    public: Vec<PublicKey>,
}

impl OwnKeys {
    fn new(secrets: Vec<Secret>) -> Self {
        let public = secrets.iter().map(Secret::public).collect();
        let presented = secrets.into_iter().next().expect("a key file that was read has a key");
        Self { presented, public }
    }
}

/// `--keygen`: makes the key file and says where; with `public`, makes nothing and gives the line for others' lists.
///
/// # Errors
/// Where there is one already; with `public`, where there is none, or it is not as it must be.
pub fn keygen(asked: Option<&Path>, public: bool) -> Result<String, Failure> {
    let place = KeyPlace::find(asked)?;
    if !public {
        place.make()?;
    }
    let keys = OwnKeys::new(place.load()?);
    let key = keys.presented.public();
    Ok(if public { key.to_string() } else { format!("key {} made: {}", key.fingerprint(), shown(place.path())) })
}

/// `--serve --check`: what a server would serve, and to whom. Makes nothing and listens nowhere.
///
/// # Errors
/// The one that the start would give, or warn of.
pub fn check(config: &ServeConfig) -> Result<String, Failure> {
    Plan::new(&config.workers)?;
    config.run_as.as_deref().map_or(Ok(()), check_user)?;
    let place = KeyPlace::find(config.key_file.as_deref())?;
    let mut lines = vec![match config.listen {
        Listen::At { address: Some(address), port } => {
            format!("would listen at {}", std::net::SocketAddr::new(address, port))
        }
        Listen::At { address: None, port } => format!("would listen at port {port} of all addresses"),
        Listen::Systemd => "would listen at what systemd hands over".into(),
    }];
    lines.push(config.access.start_line(&config.served, config.run_as.as_deref()).replacen(
        "serving",
        "would serve",
        1,
    ));
    if let Some(path) = &config.audit_log {
        Audit::check(path)?;
        lines.push(format!("would append to {}", shown(path)));
    }
    let public = match place.load() {
        Ok(secrets) => OwnKeys::new(secrets).public,
        Err(error) if error.problem == error::Problem::Flaw(Flaw::Missing) => {
            lines.push(format!("would make a key: {}", shown(place.path())));
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    let authorized = Authorized::load(&place)?;
    lines.extend(doors(&place, &public, &authorized));
    let (_, shut) = roots(&authorized, &config.served.open()?);
    shut.into_iter().next().map_or(Ok(lines.join("\n")), Err)
}

/// Directories that guests see as `/`, by what their lines say.
pub(super) type Roots = HashMap<Vec<Vec<u8>>, Root>;

/// Opens them, to be held: afterwards nobody leads a guest elsewhere by moving what is on the way. And which of them cannot be
/// served, and why: whoever has such a key is refused, the others are not.
fn roots(authorized: &Authorized, served: &Root) -> (Roots, Vec<Failure>) {
    let (mut roots, mut shut) = (Roots::new(), Vec::new());
    for guest in authorized.guests() {
        let (access, directory) = (guest.grant().access(), guest.root.as_deref().unwrap_or(Path::new("/")));
        match access.root(served) {
            Ok(root) => _ = roots.insert(access.below, root),
            Err(error) => {
                let text = format!("cannot be served to key {}: {error}", guest.key.fingerprint());
                shut.push(Failure::about(Kind::Usage, directory.as_os_str().as_bytes(), text));
            }
        }
    }
    (roots, shut)
}

fn doors(place: &KeyPlace, own: &[PublicKey], authorized: &Authorized) -> Vec<String> {
    let path = shown(place.path());
    let mut lines: Vec<_> = own.iter().map(|key| format!("key {}: whoever has {path}", key.fingerprint())).collect();
    for guest in authorized.guests() {
        let conditions = guest.conditions();
        let conditions = if conditions.is_empty() { "no conditions".into() } else { conditions.join(" ") };
        lines.push(format!("key {}: {}", guest.key.fingerprint(), printable(conditions.as_bytes())));
    }
    if authorized.guests().is_empty() {
        lines.push(format!("nobody else; others would be in {}", shown(&place.beside(AUTHORIZED_KEYS))));
    }
    lines
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests;
