//! How a session starts: what a client's Hello and a server's Welcome have to be, and what both follow from them.
//!
//! Pure functions: one question, one answer. The server deals the file out and the client checks that it could be so; after
//! that both know the same [`Agreed`].

use super::{ProtocolError, Terms};
use crate::entry::Metadata;
use crate::extent::{BlockSize, Deal, Layout};
use crate::limits::{
    CONNECTIONS_DEFAULT_MAX, CONNECTIONS_MAX, FILE_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, TEXT_BYTES_MAX,
    WORKERS_MAX,
};
use crate::seal::Cipher;
use crate::wire::{Hello, SessionId, Welcome};

/// What both ends have agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// How the file is cut up and compared; `basis_bytes` is 0 here, its owner sets it.
    pub terms: Terms,
    /// Data connections.
    pub connections: u32,
}

/// What a server knows when it answers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Names the session.
    pub session: SessionId,
    /// Pull: what the server's source is.
    pub source: Option<Metadata>,
    /// Push: bytes of the server's basis.
    pub basis_bytes: Option<u64>,
    /// Push: the name that was appended to the path.
    pub taken_name: Vec<u8>,
    /// Workers of the server.
    pub workers: u32,
    /// The client has the server's own address.
    pub same_address: bool,
    /// Most connections the server gives to a session.
    pub connections_max: u32,
    /// The server's CPU has instructions for AES.
    pub aes: bool,
    /// The server's user wants nothing sealed.
    pub plaintext: bool,
    /// Cores of those workers, in the order in which this session uses them; empty where they are not pinned.
    pub cores: Vec<u32>,
}

/// Whether a Hello can be meant seriously.
pub fn check_hello(hello: &Hello) -> Result<(), ProtocolError> {
    let allowed = |yes: bool, what| if yes { Ok(()) } else { Err(ProtocolError::Value(what)) };
    let path = &hello.path;
    let name = &hello.source_name;
    allowed(hello.program.len() <= TEXT_BYTES_MAX, "program's name")?;
    allowed(!path.is_empty() && path.len() <= PATH_BYTES_MAX && !path.contains(&0), "path")?;
    allowed(name.len() <= NAME_BYTES_MAX && !name.contains(&0) && !name.contains(&b'/'), "source's name")?;
    allowed(hello.source.is_none_or(|source| source.bytes <= FILE_BYTES_MAX), "source's length")?;
    allowed(hello.connections <= CONNECTIONS_MAX, "number of connections")?;
    allowed((1..=WORKERS_MAX).contains(&hello.workers), "number of workers")?;
    BlockSize::checked(hello.options.block_bytes).map(drop).ok_or(ProtocolError::Value("block size"))
}

/// How many connections a client wants from a server with so many workers.
pub fn wanted_connections(hello: &Hello, workers: u32) -> u32 {
    if hello.connections == 0 { hello.workers.max(workers).min(CONNECTIONS_DEFAULT_MAX) } else { hello.connections }
}

/// The answer to a Hello that was checked.
pub fn welcome(hello: &Hello, offer: Offer) -> Welcome {
    let source = hello.source.or(offer.source).expect("one of the two has the source");
    let asked = wanted_connections(hello, offer.workers);
    // The deal only asks for the smaller and the larger number of workers, so which side has which does not matter.
    let asked = asked.min(offer.connections_max);
    let deal = Deal::new(source.bytes, asked, hello.workers, offer.workers, offer.same_address);
    let cipher = if hello.aes && offer.aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
    Welcome {
        program: super::PROGRAM.into(),
        session: offer.session,
        source,
        basis_bytes: offer.basis_bytes,
        taken_name: offer.taken_name,
        connections: deal.connections,
        stripe_bytes: deal.stripe_bytes,
        cores: offer.cores,
        workers: offer.workers,
        cipher: (!(hello.plaintext && offer.plaintext)).then_some(cipher),
    }
}

/// What follows from a Hello and its Welcome, on both sides.
pub fn agree(hello: &Hello, welcome: &Welcome) -> Result<Agreed, ProtocolError> {
    if welcome.program.len() > TEXT_BYTES_MAX {
        return Err(ProtocolError::Value("program's name"));
    }
    let block = BlockSize::checked(hello.options.block_bytes).ok_or(ProtocolError::Value("block size"))?;
    let layout = Layout::checked(welcome.source.bytes, block, welcome.stripe_bytes);
    let layout = layout.ok_or(ProtocolError::Value("length of file or stripe"))?;
    let connections = welcome.connections;
    let enough = connections >= 1 || layout.stripes() == 0;
    // A server may give fewer than were asked for, never more.
    let asked = if hello.connections == 0 { CONNECTIONS_MAX } else { hello.connections };
    if !enough || connections > asked.min(CONNECTIONS_MAX) || u64::from(connections) > layout.stripes() {
        return Err(ProtocolError::Value("number of connections"));
    }
    if !(1..=WORKERS_MAX).contains(&welcome.workers) {
        return Err(ProtocolError::Value("number of workers"));
    }
    if !welcome.cores.is_empty() && welcome.cores.len() != welcome.workers as usize {
        return Err(ProtocolError::Value("list of cores"));
    }
    if welcome.stripe_bytes > Deal::stripe_bytes_max(connections, hello.workers, welcome.workers) {
        return Err(ProtocolError::Value("length of file or stripe"));
    }
    if hello.source.is_some_and(|source| source != welcome.source) {
        return Err(ProtocolError::Value("source"));
    }
    let basis_bytes = welcome.basis_bytes.unwrap_or(0);
    if basis_bytes > FILE_BYTES_MAX || (hello.source.is_none() && welcome.basis_bytes.is_some()) {
        return Err(ProtocolError::Value("length of the basis"));
    }
    let good = match welcome.cipher {
        None => hello.plaintext, // never because somebody else says so
        Some(Cipher::Aes256Gcm) => hello.aes,
        Some(Cipher::ChaCha20Poly1305) => true,
    };
    if !good {
        return Err(ProtocolError::Value("cipher"));
    }
    let named = &welcome.taken_name;
    if !named.is_empty() && *named != hello.source_name {
        return Err(ProtocolError::Value("name of the target"));
    }
    let terms = Terms { layout, method: hello.options.method, basis_bytes: 0, dry_run: hello.options.dry_run };
    Ok(Agreed { terms, connections })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::DirectPolicy;
    use crate::method::Method;
    use crate::wire::Options;

    const MIB: u64 = 1 << 20;

    fn hello() -> Hello {
        let options = Options {
            block_bytes: 16384,
            method: Method::Blake3,
            whole_file: false,
            dry_run: false,
            verify: false,
            inplace: false,
            fsync: true,
            direct: DirectPolicy::Auto,
        };
        Hello {
            program: "pdcp".into(),
            source: Some(Metadata { bytes: 100 * MIB, ..Metadata::default() }),
            path: b"/srv/".into(),
            source_name: b"file".into(),
            options,
            connections: 16,
            workers: 2,
            aes: true,
            plaintext: false,
            former: None,
        }
    }

    fn offer() -> Offer {
        Offer {
            session: [7; 16],
            source: None,
            basis_bytes: None,
            taken_name: b"file".into(),
            workers: 2,
            same_address: false,
            connections_max: CONNECTIONS_MAX,
            cores: vec![0, 1],
            aes: true,
            plaintext: false,
        }
    }

    #[test]
    fn within_one_host_more_connections_do_not_shorten_stripes() {
        #[track_caller]
        fn check(same_address: bool, want: u64) {
            let source = Some(Metadata { bytes: 1900 * MIB, ..Metadata::default() });
            let welcome = welcome(&Hello { connections: 16, source, ..hello() }, Offer { same_address, ..offer() });
            assert_eq!((welcome.connections, welcome.stripe_bytes), (16, want));
        }
        check(false, 2 * MIB);
        check(true, 4 * MIB);
    }

    #[test]
    fn a_hello_out_of_bounds_is_refused() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut Hello), want: Result<(), &'static str>) {
            let mut hello = hello();
            change(&mut hello);
            assert_eq!(check_hello(&hello), want.map_err(ProtocolError::Value));
        }
        check(|_| {}, Ok(()));
        check(|hello| hello.source = None, Ok(()));
        check(|hello| hello.program = "p".repeat(TEXT_BYTES_MAX), Ok(()));
        check(|hello| hello.program = "p".repeat(TEXT_BYTES_MAX + 1), Err("program's name"));
        check(|hello| hello.path.clear(), Err("path"));
        check(|hello| hello.path = vec![b'a'; PATH_BYTES_MAX], Ok(()));
        check(|hello| hello.path = vec![b'a'; PATH_BYTES_MAX + 1], Err("path"));
        check(|hello| hello.path.push(0), Err("path"));
        check(|hello| hello.source_name.clear(), Ok(()));
        check(|hello| hello.source_name = vec![b'a'; NAME_BYTES_MAX], Ok(()));
        check(|hello| hello.source_name = vec![b'a'; NAME_BYTES_MAX + 1], Err("source's name"));
        check(|hello| hello.source_name = b"a/b".into(), Err("source's name"));
        check(|hello| hello.source_name = b"a\0b".into(), Err("source's name"));
        let source = |bytes| move |hello: &mut Hello| hello.source = Some(Metadata { bytes, ..Metadata::default() });
        check(source(FILE_BYTES_MAX), Ok(()));
        check(source(FILE_BYTES_MAX + 1), Err("source's length"));
        check(|hello| hello.connections = 0, Ok(()));
        check(|hello| hello.connections = CONNECTIONS_MAX, Ok(()));
        check(|hello| hello.connections = CONNECTIONS_MAX + 1, Err("number of connections"));
        check(|hello| hello.workers = 0, Err("number of workers"));
        check(|hello| hello.workers = WORKERS_MAX, Ok(()));
        check(|hello| hello.workers = WORKERS_MAX + 1, Err("number of workers"));
        for block_bytes in [0, 2048, 4097, 2 << 20] {
            check(|hello| hello.options.block_bytes = block_bytes, Err("block size"));
        }
    }

    #[test]
    fn a_welcome_that_does_not_fit_its_hello_is_refused() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut Hello, &mut Welcome), want: Result<u32, &'static str>) {
            let mut hello = hello();
            let mut welcome = welcome(&hello, offer());
            change(&mut hello, &mut welcome);
            let agreed = agree(&hello, &welcome).map(|agreed| agreed.connections);
            assert_eq!(agreed, want.map_err(ProtocolError::Value));
        }
        check(|_, _| {}, Ok(16));
        check(|_, welcome| welcome.connections = 1, Ok(1));
        check(|_, welcome| welcome.connections = 0, Err("number of connections"));
        check(|_, welcome| welcome.connections = 17, Err("number of connections"));
        let unasked = |connections| {
            move |hello: &mut Hello, welcome: &mut Welcome| (hello.connections, welcome.connections) = (0, connections)
        };
        check(unasked(100), Ok(100)); // as many as there are stripes
        check(unasked(101), Err("number of connections"));
        for stripe_bytes in [0, MIB / 2, MIB + 1, 64 * MIB] {
            check(|_, welcome| welcome.stripe_bytes = stripe_bytes, Err("length of file or stripe"));
        }
        check(|_, welcome| welcome.workers = 0, Err("number of workers"));
        check(|_, welcome| (welcome.workers, welcome.cores) = (WORKERS_MAX, vec![]), Ok(16));
        check(|_, welcome| welcome.workers = WORKERS_MAX + 1, Err("number of workers"));
        check(|_, welcome| welcome.cores = vec![0], Err("list of cores"));
        check(|_, welcome| welcome.source.bytes += 1, Err("source"));
        check(|_, welcome| welcome.source.mode ^= 1, Err("source"));
        check(|_, welcome| welcome.taken_name = b"other".into(), Err("name of the target"));
        check(|_, welcome| welcome.taken_name.clear(), Ok(16));
        let pull = |bytes| {
            move |hello: &mut Hello, welcome: &mut Welcome| {
                (hello.source, welcome.source.bytes) = (None, bytes);
                welcome.connections = 0;
            }
        };
        check(pull(0), Ok(0)); // nothing to connect for
        check(pull(1), Err("number of connections"));
        check(pull(FILE_BYTES_MAX + 1), Err("length of file or stripe"));
        check(|_, welcome| welcome.program = "p".repeat(TEXT_BYTES_MAX + 1), Err("program's name"));
        check(|_, welcome| welcome.basis_bytes = Some(FILE_BYTES_MAX), Ok(16));
        check(|_, welcome| welcome.basis_bytes = Some(FILE_BYTES_MAX + 1), Err("length of the basis"));
        let based = |hello: &mut Hello, welcome: &mut Welcome| {
            pull(0)(hello, welcome);
            welcome.basis_bytes = Some(0);
        };
        check(based, Err("length of the basis"));
    }

    #[test]
    fn a_server_gives_what_was_asked_for_within_its_limit() {
        #[track_caller]
        fn check(asked: u32, limit: u32, workers: (u32, u32), want: u32) {
            let hello = Hello { connections: asked, workers: workers.0, ..hello() };
            let offer = Offer { connections_max: limit, workers: workers.1, cores: vec![], ..offer() };
            assert_eq!(welcome(&hello, offer).connections, want);
        }
        check(5, 128, (2, 2), 5);
        check(5, 4, (2, 2), 4);
        check(0, 128, (3, 2), 3);
        check(0, 128, (2, 3), 3);
        check(0, 128, (64, 3), 32);
        check(0, 8, (64, 3), 8);
        check(128, 128, (2, 2), 100); // a stripe each
    }
}
