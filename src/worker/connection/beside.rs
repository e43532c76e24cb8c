//! Both ends here, source and target machine side by side: blocks of the basis that equal those which the source holds have
//! the same digests, and those that do not have others, so they are compared and not hashed again. A hole of the source's is
//! held too, as zeros.
//!
//! For that the source goes ahead, by one extent. Past the page cache both read as far ahead as they can instead, since
//! there the disk is what is waited for; what happens to be held by then is compared all the same.

use super::{Connection, Context, Guest, OpenFile, WorkerError, bytes_of, part_of};
use crate::completion::{Completions, Mode};
use crate::digest::{Digest, is_zeros};
use crate::extent::Run;

impl<C: Completions> Connection<C> {
    /// Whether the target's next read is put off until the source has hashed the same blocks. Not where the source has taken
    /// all buffers but the target's, as it may wait for the signatures of what it holds: between holes extents are short, and
    /// many go by before a batch is signed.
    pub(super) fn awaits_source(&self, guest: &Guest<C>) -> bool {
        let (Some(source), Some(target)) = (&self.source, &self.target) else { return false };
        let is_direct = |file: &OpenFile| file.mode == Mode::Direct;
        let reads_ahead = [&guest.source, &guest.target].into_iter().flatten().any(is_direct);
        !reads_ahead && !self.starved && target.0.next_read().is_some_and(|block| !source.0.has_hashed(block))
    }

    /// Puts digests and signatures of these bytes of the basis onto the bench, if the source holds the same blocks. Of one that
    /// differs both are made up: it will be sent, and nobody asks what it was.
    ///
    /// # Errors
    /// Only where a machine panics.
    pub(super) fn take_from_source(
        &mut self,
        run: Run,
        bytes: &[u8],
        guest: &Guest<C>,
        cx: &mut Context<'_, C>,
    ) -> Result<bool, WorkerError> {
        let Some(source) = &mut self.source else { return Ok(false) };
        let part = if self.held.iter().any(|(held, _)| held.contains(run)) {
            Some(part_of(guest, &self.held, run))
        } else if source.0.holds_hole(run) {
            None
        } else {
            return Ok(false);
        };
        let held = part.as_ref().map(|part| &part.data[part.from as usize..part.until as usize]);
        let basis = &bytes[..bytes_of(guest, run) as usize];
        *cx.quantum_bytes = cx.quantum_bytes.saturating_sub(bytes_of(guest, run));
        let (digests, signatures) = source.call(|source| source.hashes(run))?;
        cx.bench.digests.clear();
        cx.bench.signatures.clear();
        let mut from = 0;
        let blocks = basis.chunks(guest.terms.layout.block().bytes() as usize);
        for (basis, (digest, signature)) in blocks.zip(digests.iter().zip(signatures)) {
            let is_equal = held.map_or_else(|| is_zeros(basis), |held| held[from..].starts_with(basis));
            from += basis.len();
            cx.bench.digests.push(if is_equal { *digest } else { Digest::default() });
            cx.bench.signatures.push(if is_equal { *signature } else { signature.other() });
        }
        Ok(true)
    }
}
