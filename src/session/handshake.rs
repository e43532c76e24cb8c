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
    /// Most connections the server gives to a session.
    pub connections_max: u32,
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

/// The answer to a Hello that was checked.
pub fn welcome(hello: &Hello, offer: Offer) -> Welcome {
    let source = hello.source.or(offer.source).expect("one of the two has the source");
    let default = hello.workers.max(offer.workers).min(CONNECTIONS_DEFAULT_MAX);
    let asked = if hello.connections == 0 { default } else { hello.connections };
    // The deal only asks for the smaller number of workers, so which side has which does not matter.
    let deal = Deal::new(source.bytes, asked.min(offer.connections_max), hello.workers, offer.workers);
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
    }
}

/// What follows from a Hello and its Welcome, on both sides.
pub fn agree(hello: &Hello, welcome: &Welcome) -> Result<Agreed, ProtocolError> {
    let block = BlockSize::checked(hello.options.block_bytes).ok_or(ProtocolError::Value("block size"))?;
    let layout = Layout::checked(welcome.source.bytes, block, welcome.stripe_bytes);
    let layout = layout.ok_or(ProtocolError::Value("length of file or stripe"))?;
    let connections = welcome.connections;
    let enough = connections >= 1 || layout.stripes() == 0;
    let asked = if hello.connections == 0 { CONNECTIONS_MAX } else { hello.connections };
    if !enough || connections > asked.min(CONNECTIONS_MAX) || u64::from(connections) > layout.stripes() {
        return Err(ProtocolError::Value("number of connections"));
    }
    if !(1..=WORKERS_MAX).contains(&welcome.workers) || welcome.cores.len() > WORKERS_MAX as usize {
        return Err(ProtocolError::Value("number of workers"));
    }
    if welcome.stripe_bytes > Deal::stripe_bytes_max(connections, hello.workers, welcome.workers) {
        return Err(ProtocolError::Value("length of file or stripe"));
    }
    if hello.source.is_some_and(|source| source != welcome.source) {
        return Err(ProtocolError::Value("source"));
    }
    let named = &welcome.taken_name;
    if !named.is_empty() && *named != hello.source_name {
        return Err(ProtocolError::Value("name of the target"));
    }
    let terms = Terms { layout, method: hello.options.method, basis_bytes: 0, dry_run: hello.options.dry_run };
    Ok(Agreed { terms, connections })
}
