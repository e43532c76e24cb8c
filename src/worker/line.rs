//! One data connection's socket, as the hub uses it: frames going out one send at a time, bytes coming in one receive at a
//! time, a payload straight into the buffer it is written from.
//!
//! The receive for small frames is always posted unless a payload is on its way, so the reverse direction never stands
//! still; a payload's receive is posted only when bytes of it are there and a buffer is free: that is the back-pressure.
//!
//! Between hosts everything is sealed here, last before it is sent, and opened first after it came. A piece is sealed from
//! the extent that the source holds into a buffer of its own, so that the extent is free at once.

use crate::completion::{Completions, Operation, Part, SocketId, Tag};
use crate::extent::Run;
use crate::limits::{FRAME_LEN_MAX, LINE_PARTS_MAX, PAYLOAD_BYTES_MAX, PIECES_MAX};
use crate::seal::{Duplex, Forged};
use crate::wire::{
    DecodeError, Frame, Header, clear_tags, encode, header, open_data, open_frame, seal_data, seal_frame,
};
use std::ops::Range;

/// Why a line has nothing more to say that makes sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LineError {
    /// The peer has sent what is no frame.
    Decode(DecodeError),
    /// Somebody on the way has sent or changed it.
    Forged,
}

impl From<DecodeError> for LineError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<Forged> for LineError {
    fn from(_: Forged) -> Self {
        Self::Forged
    }
}

/// What is being put together for the next send.
#[derive(Debug)]
enum Segment<S> {
    /// Bytes of the frame buffer.
    Frames(Range<u32>),
    /// Bytes of a held extent.
    Bytes(Part<S>),
}

/// A data frame whose payload is on its way.
#[derive(Debug)]
pub(super) struct Arriving<B> {
    /// Its pieces, in order.
    pub(super) pieces: Vec<Run>,
    /// Bytes of all pieces.
    pub(super) bytes: u32,
    /// Bytes that are there.
    got: u32,
    /// When it got its buffer.
    since_ms: u64,
    /// Where to; `None` until one is free.
    pub(super) buffer: Option<B>,
}

/// One socket.
#[derive(Debug)]
pub(super) struct Line<C: Completions> {
    pub(super) socket: SocketId,
    seals: Option<Duplex>,
    /// The last data frame without its payload, as it came: its tags are needed when the payload is there.
    sealed_head: Vec<u8>,
    outgoing: Option<C::Buffer>,
    outgoing_bytes: u32,
    segments: Vec<Segment<C::Shared>>,
    payload_bytes: u32,
    /// The list of parts, between sends.
    parts: Option<Vec<Part<C::Shared>>>,
    incoming: Option<C::Buffer>,
    start: usize,
    end: usize,
    receiving: bool,
    pub(super) arriving: Option<Arriving<C::Buffer>>,
    /// The peer will send no more.
    pub(super) ended: bool,
}

impl<C: Completions> Line<C> {
    /// Begins with a frame buffer to receive into.
    pub(super) fn new(socket: SocketId, seals: Option<Duplex>, incoming: C::Buffer) -> Self {
        Self {
            socket,
            sealed_head: Vec::with_capacity(if seals.is_some() { FRAME_LEN_MAX } else { 0 }),
            seals,
            outgoing: None,
            outgoing_bytes: 0,
            segments: Vec::with_capacity(LINE_PARTS_MAX),
            payload_bytes: 0,
            parts: Some(Vec::with_capacity(LINE_PARTS_MAX)),
            incoming: Some(incoming),
            start: 0,
            end: 0,
            receiving: false,
            arriving: None,
            ended: false,
        }
    }

    // --- going out ---

    /// Whether one more frame, of any kind, can be taken.
    pub(super) fn takes_frame(&self) -> bool {
        self.parts.is_some()
            && self.outgoing_bytes as usize + FRAME_LEN_MAX <= crate::limits::FRAME_BUFFER_BYTES
            && self.segments.len() + PIECES_MAX < LINE_PARTS_MAX
            && self.payload_bytes < if self.is_sealed() { 1 } else { PAYLOAD_BYTES_MAX }
    }

    /// Whether a data frame needs a buffer to be sealed into.
    pub(super) fn is_sealed(&self) -> bool {
        self.seals.is_some()
    }

    /// Whether a buffer for outgoing frames is needed first.
    pub(super) fn needs_buffer(&self) -> bool {
        self.outgoing.is_none()
    }

    /// Gives it one.
    pub(super) fn give_buffer(&mut self, buffer: C::Buffer) {
        self.outgoing = Some(buffer);
    }

    /// Appends a frame that has no payload. Call only where [`Self::takes_frame`].
    pub(super) fn frame(&mut self, frame: &Frame<'_>) {
        let range = self.encode(frame);
        if let (Some(seals), Some(buffer)) = (&mut self.seals, &mut self.outgoing) {
            seal_frame(&mut seals.sending, &mut buffer[range]);
        }
    }

    /// Appends a data frame and the bytes of its pieces. Call only where [`Self::takes_frame`]; where [`Self::is_sealed`],
    /// they are sealed into `payload`.
    pub(super) fn data(&mut self, frame: &Frame<'_>, parts: Vec<Part<C::Shared>>, payload: Option<C::Buffer>) {
        let range = self.encode(frame);
        let bytes = parts.iter().map(|part| part.until - part.from).sum();
        self.payload_bytes += bytes;
        let Some(seals) = &mut self.seals else {
            self.segments.extend(parts.into_iter().map(Segment::Bytes));
            return;
        };
        let head = &mut self.outgoing.as_mut().expect("given before")[range];
        let mut payload = payload.expect("leased before");
        let pieces = parts.iter().map(|part| &part.data[part.from as usize..part.until as usize]);
        seal_data(&mut seals.sending, head, pieces, &mut payload[..bytes as usize]);
        self.segments.push(Segment::Bytes(Part { data: C::share(payload), from: 0, until: bytes }));
    }

    /// Where in the outgoing buffer it lies.
    fn encode(&mut self, frame: &Frame<'_>) -> Range<usize> {
        let buffer = self.outgoing.as_mut().expect("given before");
        let from = self.outgoing_bytes;
        let used = encode(frame, &mut buffer[from as usize..]).expect("room for the longest frame");
        self.outgoing_bytes += u32::try_from(used).expect("a frame is short");
        match self.segments.last_mut() {
            Some(Segment::Frames(range)) if range.end == from => range.end = self.outgoing_bytes,
            _ => self.segments.push(Segment::Frames(from..self.outgoing_bytes)),
        }
        from as usize..self.outgoing_bytes as usize
    }

    /// The send of all that was appended, if there is something and nothing is in flight.
    pub(super) fn flush(&mut self) -> Option<Operation<C::Buffer, C::Shared>> {
        if self.segments.is_empty() {
            return None;
        }
        let mut parts = self.parts.take()?;
        let frames = C::share(self.outgoing.take().expect("frames were appended"));
        for segment in self.segments.drain(..) {
            parts.push(match segment {
                Segment::Frames(range) => Part { data: frames.clone(), from: range.start, until: range.end },
                Segment::Bytes(part) => part,
            });
        }
        self.outgoing_bytes = 0;
        self.payload_bytes = 0;
        Some(Operation::Send { socket: self.socket, parts, skip: 0 })
    }

    /// A send moved `sent` bytes more. The rest of it, if it was short.
    pub(super) fn sent(
        &mut self,
        mut parts: Vec<Part<C::Shared>>,
        skip: u32,
        sent: u32,
    ) -> Option<Operation<C::Buffer, C::Shared>> {
        let all: u32 = parts.iter().map(|part| part.until - part.from).sum();
        let skip = skip + sent;
        assert!(skip <= all);
        if skip < all {
            return Some(Operation::Send { socket: self.socket, parts, skip });
        }
        parts.clear();
        self.parts = Some(parts);
        None
    }

    // --- coming in ---

    /// The receive to post now, if any: of a payload that has a buffer, else of small frames.
    pub(super) fn receive(&mut self) -> Option<Operation<C::Buffer, C::Shared>> {
        if self.receiving || self.ended {
            return None;
        }
        let operation = if let Some(arriving) = &mut self.arriving {
            let buffer = arriving.buffer.take()?;
            let (from, until) = (arriving.got, arriving.bytes);
            Operation::Receive { socket: self.socket, buffer, from, until, whole: true }
        } else {
            let mut buffer = self.incoming.take()?;
            buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let (from, until) = (self.end, buffer.len());
            assert!(from < until, "the longest frame fits");
            let narrow = |bytes: usize| u32::try_from(bytes).expect("a frame buffer is small");
            let (from, until) = (narrow(from), narrow(until));
            Operation::Receive { socket: self.socket, buffer, from, until, whole: false }
        };
        self.receiving = true;
        Some(operation)
    }

    /// A receive came back with its buffer; `received` is 0 at the end. `true`: a payload is complete.
    pub(super) fn received(&mut self, buffer: C::Buffer, received: u32) -> bool {
        self.receiving = false;
        self.ended |= received == 0;
        let Some(arriving) = &mut self.arriving else {
            self.incoming = Some(buffer);
            self.end += received as usize;
            return false;
        };
        arriving.got += received;
        arriving.buffer = Some(buffer);
        arriving.got == arriving.bytes
    }

    /// The next frame that is all there: its header and where its bytes are, see [`Self::bytes`]. Opened, but for a data
    /// frame, whose tags are tried when its payload is there.
    pub(super) fn next(&mut self) -> Result<Option<(Header, Range<usize>)>, LineError> {
        let Some(incoming) = self.incoming.as_mut().filter(|_| self.arriving.is_none()) else { return Ok(None) };
        let header = match header(&incoming[self.start..self.end]) {
            Err(_) if self.seals.is_some() => return Err(LineError::Forged), // or the peer's lie: it is not known who says it
            header => header?,
        };
        let Some(header) = header else { return Ok(None) };
        let range = self.start..self.start + header.frame_bytes();
        if range.end > self.end {
            return Ok(None);
        }
        self.start = range.end;
        if let Some(seals) = &mut self.seals {
            let frame = &mut incoming[range.clone()];
            if header.has_payload() {
                self.sealed_head.clear();
                self.sealed_head.extend_from_slice(frame);
                clear_tags(frame);
            } else {
                open_frame(&mut seals.receiving, frame)?;
            }
        }
        Ok(Some((header, range)))
    }

    /// Bytes of a frame that [`Self::next`] found.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.incoming.as_ref().expect("held while frames are taken from it")[range]
    }

    /// Some bytes of a frame are there, but not all.
    pub(super) fn mid_frame(&self) -> bool {
        self.start < self.end || self.arriving.is_some()
    }

    /// A data frame came: its payload follows.
    pub(super) fn announce(&mut self, pieces: Vec<Run>, bytes: u32) {
        assert!(self.arriving.is_none());
        self.arriving = Some(Arriving { pieces, bytes, got: 0, since_ms: 0, buffer: None });
    }

    /// A payload waits for its buffer.
    pub(super) fn wants_payload_buffer(&self) -> bool {
        !self.receiving && self.arriving.as_ref().is_some_and(|arriving| arriving.buffer.is_none())
    }

    /// Gives the payload its buffer, with those of its bytes that came along with the frame: the one copy on the way of
    /// the data, of less than a frame buffer. `true`: the payload is complete.
    pub(super) fn give_payload_buffer(&mut self, mut buffer: C::Buffer, now_ms: u64) -> bool {
        let arriving = self.arriving.as_mut().expect("announced");
        let incoming = self.incoming.as_ref().expect("not receiving");
        let along = (self.end - self.start).min(arriving.bytes as usize);
        buffer[..along].copy_from_slice(&incoming[self.start..self.start + along]);
        self.start += along;
        arriving.since_ms = now_ms;
        arriving.got = u32::try_from(along).expect("less than a frame buffer");
        arriving.buffer = Some(buffer);
        arriving.got == arriving.bytes
    }

    /// A payload's receive is posted: whatever is missing of it is on its way.
    pub(super) fn is_filling(&self) -> bool {
        self.receiving && self.arriving.is_some()
    }

    /// Since when a payload has a buffer and is not complete.
    pub(super) fn filling_since_ms(&self) -> Option<u64> {
        let arriving = self.arriving.as_ref()?;
        (self.receiving || arriving.buffer.is_some()).then_some(arriving.since_ms)
    }

    /// The complete payload, opened. `piece_bytes` says how long a piece is.
    pub(super) fn take_payload(
        &mut self,
        piece_bytes: impl Fn(Run) -> Option<u64>,
    ) -> Result<(Vec<Run>, u32, C::Buffer), LineError> {
        let Arriving { pieces, bytes, buffer, .. } = self.arriving.take().expect("complete");
        let mut buffer = buffer.expect("complete");
        if let Some(seals) = &mut self.seals {
            let lengths = pieces.iter().map_while(|run| piece_bytes(*run));
            open_data(&mut seals.receiving, &self.sealed_head, lengths, &mut buffer[..bytes as usize])?;
        }
        Ok((pieces, bytes, buffer))
    }
}

/// Tag of an operation of connection `index` of the guest in `slot`.
pub(super) fn tag(slot: usize, index: usize, what: What, about: u64) -> Tag {
    Tag { owner: (slot as u64) << 40 | (index as u64) << 8 | what as u64, about }
}

/// What an operation was pushed for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum What {
    /// An extent of the source, which `about` is the first block of.
    ReadSource,
    /// An extent of the basis.
    ReadBasis,
    /// A piece.
    Write,
    /// A receive.
    Receive,
    /// A send.
    Send,
}

impl What {
    /// How many kinds there are.
    pub(super) const COUNT: usize = Self::Send as usize + 1;
}

/// Guest's slot, connection's index, and what it was.
pub(super) fn untag(tag: Tag) -> (usize, usize, What) {
    let what = match tag.owner & 0xff {
        0 => What::ReadSource,
        1 => What::ReadBasis,
        2 => What::Write,
        3 => What::Receive,
        _ => What::Send,
    };
    let part = |shift: u32| usize::try_from(tag.owner >> shift).expect("made from a usize");
    (part(40), part(8) & 0xffff_ffff, what)
}
