//! What the path is without pdcp: its round trip, and what plain TCP carries over it.

use crate::process::{Error, Result, is_interrupted};
use crate::spaces::{Side, Spaces};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Not pdcp's, so that both can be there at once.
const PORT: u16 = 9001;
/// What one call moves.
const CHUNK_BYTES: usize = 256 << 10;

/// The least of three connects: a SYN there and its answer back.
pub(super) fn round_trip(spaces: &Spaces) -> Result<Duration> {
    let listener = listen(spaces)?;
    let connect = || {
        let began = Instant::now();
        TcpStream::connect((Side::Far.address(), PORT)).map(|_| began.elapsed())
    };
    let tries = (0..3).map(|_| spaces.inside(Side::Near, connect)).collect::<io::Result<Vec<_>>>();
    drop(listener);
    Ok(tries?.into_iter().min().expect("three"))
}

/// How long `bytes` take from near to far over so many plain TCP connections, from the first SYN to the last byte.
pub(super) fn bulk(spaces: &Spaces, connections: u32, bytes: u64) -> Result<Duration> {
    let listener = listen(spaces)?;
    let share = bytes / u64::from(connections);
    let began = Instant::now();
    thread::scope(|scope| {
        let receivers = scope.spawn(|| accept(&listener, connections));
        let send = || spaces.inside(Side::Near, || send(share));
        let senders: Vec<_> = (0..connections).map(|_| scope.spawn(send)).collect();
        senders.into_iter().try_for_each(|sender| sender.join().expect("its panic was told"))?;
        receivers.join().expect("its panic was told")
    })?;
    if is_interrupted() { Err(Error::Interrupted) } else { Ok(began.elapsed()) }
}

fn listen(spaces: &Spaces) -> Result<TcpListener> {
    Ok(spaces.inside(Side::Far, || TcpListener::bind((Side::Far.address(), PORT)))?)
}

fn send(mut bytes: u64) -> io::Result<()> {
    let chunk = vec![0; CHUNK_BYTES];
    let mut socket = TcpStream::connect((Side::Far.address(), PORT))?;
    while bytes > 0 && !is_interrupted() {
        let sent = socket.write(&chunk[..usize::try_from(bytes).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)])?;
        bytes -= sent as u64;
    }
    Ok(())
}

/// Reads so many connections to their ends.
fn accept(listener: &TcpListener, connections: u32) -> io::Result<()> {
    let sockets =
        (0..connections).map(|_| listener.accept().map(|(socket, _)| socket)).collect::<io::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let readers: Vec<_> = sockets.into_iter().map(|socket| scope.spawn(|| drain(socket))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("its panic was told"))
    })
}

fn drain(mut socket: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    while socket.read(&mut chunk)? > 0 {}
    Ok(())
}
