//! Whom a server lets in beside its own key's holders, and which servers a client knows beside its own key's.
//!
//! `authorized_keys`: a line for each public key, with its conditions before or behind it, blanks between them:
//! `root=DIR` `ro` `nodelete` `from=CIDR[,CIDR]...` `max-sessions=N`. `known_servers`: `HOST:PORT PUBLIC-KEY`, or
//! `[IPV6]:PORT PUBLIC-KEY`. `#` begins a comment.
//! What is not understood refuses the whole file: half a list would let in the wrong people. No names of hosts in
//! `from=`: who answers for a name would answer for the access.

use super::error::{IdentityError, LineError, Problem};
use super::file::{KeyPlace, lines, read};
use super::key::{PublicKey, RoleKey};
use crate::control::own::{Flaw, Rights};
use crate::limits::KEY_LIST_BYTES_MAX;
use ipnet::{IpNet, Ipv4Net};
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::{Component, Path, PathBuf};

/// The file beside the key file that says who else may come in.
pub(super) const AUTHORIZED_KEYS: &str = "authorized_keys";
/// The file beside the key file that says whose servers are trusted.
pub(super) const KNOWN_SERVERS: &str = "known_servers";

/// A public key that may come in, and what it may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Guest {
    pub(super) key: PublicKey,
    /// The directory that it sees as `/`.
    pub(super) root: Option<PathBuf>,
    pub(super) read_only: bool,
    pub(super) no_delete: bool,
    /// Networks that it may come from; none: all.
    pub(super) from: Vec<IpNet>,
    pub(super) sessions_max: Option<NonZeroU32>,
}

impl Guest {
    pub(super) fn may_come_from(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.from.is_empty() || self.from.iter().any(|network| network.contains(&address))
    }

    fn parse(words: &[&str]) -> Result<Self, LineError> {
        let mut key = None;
        let mut options = Options::default();
        for word in words {
            // Anything with the mark of our keys is meant as one, whatever is wrong with it.
            if word.starts_with("pdcp1-") {
                let parsed = PublicKey::parse(word).map_err(LineError::Key)?;
                once(&mut key, parsed, LineError::TwoKeys)?;
            } else {
                options.take(word)?;
            }
        }
        Ok(Self {
            key: key.ok_or(LineError::NoKey)?,
            root: options.root,
            read_only: options.read_only.is_some(),
            no_delete: options.no_delete.is_some(),
            from: options.from.unwrap_or_default(),
            sessions_max: options.sessions_max,
        })
    }
}

/// A line's conditions as they are found, each at most once.
#[derive(Default)]
struct Options {
    root: Option<PathBuf>,
    read_only: Option<()>,
    no_delete: Option<()>,
    from: Option<Vec<IpNet>>,
    sessions_max: Option<NonZeroU32>,
}

impl Options {
    fn take(&mut self, word: &str) -> Result<(), LineError> {
        match word.split_once('=') {
            None if word == "ro" => once(&mut self.read_only, (), LineError::OptionTwice("ro")),
            None if word == "nodelete" => once(&mut self.no_delete, (), LineError::OptionTwice("nodelete")),
            Some(("root", value)) => once(&mut self.root, directory(value)?, LineError::OptionTwice("root=")),
            Some(("from", value)) => {
                let networks = value.split(',').map(network).collect::<Result<_, _>>()?;
                once(&mut self.from, networks, LineError::OptionTwice("from="))
            }
            Some(("max-sessions", value)) => {
                let most = number(value).and_then(NonZeroU32::new).ok_or(LineError::MaxSessions)?;
                once(&mut self.sessions_max, most, LineError::OptionTwice("max-sessions="))
            }
            _ => Err(LineError::UnknownOption),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T, twice: LineError) -> Result<(), LineError> {
    if slot.replace(value).is_some() { Err(twice) } else { Ok(()) }
}

fn directory(value: &str) -> Result<PathBuf, LineError> {
    let path = Path::new(value);
    let plain = path.components().all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain { Ok(path.to_owned()) } else { Err(LineError::Root) }
}

fn network(text: &str) -> Result<IpNet, LineError> {
    // A plain address is a network of one.
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|_| LineError::From)?,
    };
    if network.trunc() != network {
        return Err(LineError::FromBits);
    }
    Ok(canonical(network))
}

/// IPv4 networks in IPv6 clothes (`::ffff:10.0.0.0/104`) as what they are: peers are compared so too.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(six) = network else { return network };
    let four = six.addr().to_ipv4_mapped().zip(six.prefix_len().checked_sub(MAPPED_BITS));
    four.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
}

fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    // parse() would take "+3".
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        self.conditions().iter().try_for_each(|condition| write!(f, " {condition}"))
    }
}

impl Guest {
    /// As they are written in the file.
    pub(super) fn conditions(&self) -> Vec<String> {
        let from = || self.from.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        [
            self.root.as_ref().map(|root| format!("root={}", root.display())),
            self.read_only.then(|| "ro".into()),
            self.no_delete.then(|| "nodelete".into()),
            (!self.from.is_empty()).then(|| format!("from={}", from())),
            self.sessions_max.map(|most| format!("max-sessions={most}")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// `authorized_keys`: no key twice.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Authorized(Vec<Guest>);

impl Authorized {
    /// # Errors
    /// Where there is a file that others could have written, or that is not understood. None at all is an empty list.
    pub(super) fn load(place: &KeyPlace) -> Result<Self, IdentityError> {
        load(&place.beside(AUTHORIZED_KEYS), Self::parse)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let mut guests = Vec::new();
        // Either half makes a key the same: a guest is known by the one, a server by the other.
        let mut seen = HashSet::new();
        for line in lines(bytes) {
            let (number, words) = line?;
            let guest = Guest::parse(&words).map_err(|error| Problem::Line(number, error))?;
            if !seen.insert(guest.key.client) || !seen.insert(guest.key.server) {
                return Err(Problem::Line(number, LineError::KeyTwice));
            }
            guests.push(guest);
        }
        Ok(Self(guests))
    }

    pub(super) fn guests(&self) -> &[Guest] {
        &self.0
    }

    pub(super) fn find(&self, key: RoleKey) -> Option<&Guest> {
        self.0.iter().find(|guest| guest.key.client == key)
    }
}

impl fmt::Display for Authorized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|guest| writeln!(f, "{guest}"))
    }
}

/// A server's name and port as they are compared: addresses in their one form, names without case.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Address {
    host: String,
    port: u16,
}

impl Address {
    fn new(host: &str, port: u16) -> Self {
        let host = match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().to_string(),
            Err(_) => host.to_ascii_lowercase(),
        };
        Self { host, port }
    }

    /// `HOST:PORT`, `[IPV6]:PORT`.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = number(port).filter(|&port| port != 0)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|address| address.parse::<Ipv6Addr>().is_ok()),
            None => Some(host).filter(|name| !name.is_empty() && name.bytes().all(plain)),
        };
        host.map(|host| Self::new(host, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `known_servers`: no line twice; a server may have several keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct KnownServers(Vec<(Address, PublicKey)>);

impl KnownServers {
    /// # Errors
    /// Where there is a file that others could have written, or that is not understood. None at all is an empty list.
    pub(super) fn load(place: &KeyPlace) -> Result<Self, IdentityError> {
        load(&place.beside(KNOWN_SERVERS), Self::parse)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let mut servers = Vec::new();
        let mut seen = HashSet::new();
        for line in lines(bytes) {
            let (number, words) = line?;
            let wrong = |error| Problem::Line(number, error);
            let [address, key] = words[..] else { return Err(wrong(LineError::Server)) };
            let address = Address::parse(address).ok_or_else(|| wrong(LineError::Server))?;
            let key = PublicKey::parse(key).map_err(|error| wrong(LineError::Key(error)))?;
            if !seen.insert((address.clone(), key.server)) {
                return Err(wrong(LineError::KeyTwice));
            }
            servers.push((address, key));
        }
        Ok(Self(servers))
    }

    /// The keys of one server.
    pub(super) fn keys_of(&self, host: &str, port: u16) -> impl Iterator<Item = RoleKey> {
        let wanted = Address::new(host, port);
        self.0.iter().filter(move |(address, _)| *address == wanted).map(|(_, key)| key.server)
    }
}

impl fmt::Display for KnownServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(address, key)| writeln!(f, "{address} {key}"))
    }
}

fn load<T: Default>(path: &Path, parse: fn(&[u8]) -> Result<T, Problem>) -> Result<T, IdentityError> {
    match read(path, Rights::List, KEY_LIST_BYTES_MAX) {
        Ok(bytes) => parse(&bytes).map_err(|problem| problem.about(path)),
        Err(IdentityError { problem: Problem::Flaw(Flaw::Missing), .. }) => Ok(T::default()),
        Err(error) => Err(error),
    }
}
