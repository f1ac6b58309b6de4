//! Ending transactions in a log: markers, and what happens when there is no space for one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::builder::SealedBatch;
use crate::batch::header::Outcome;
use crate::error::Result;
use crate::log::transaction_state::AbortedRange;
use crate::log::{Log, LogState, Status};

impl Log {
    /// Ends the transaction of a producer, if it has one here: readers see the outcome from now on. Answers the
    /// offset after the marker, `None` if there was no space for it; then it is written before the next batch.
    pub(crate) fn end_transaction(self: &Arc<Self>, producer_id: i64, outcome: Outcome) -> Option<u64> {
        let mut state = self.state.lock();
        let epoch = state.open.0.get(&producer_id)?.epoch;
        let earlier = self.write_pending_markers(&mut state);
        let mut marker = SealedBatch::marker(producer_id, epoch, outcome, self.now_ms());
        let written = earlier.and_then(|()| self.write(&mut state, &mut marker));
        if let Err(e) = &written {
            tracing::warn!(topic = %self.id.topic, partition = self.id.partition, error = %e,
                "transaction marker not written yet");
            self.decide_without_marker(&mut state, producer_id, outcome);
        }
        let news = self.publish(&state);
        drop(state);
        drop(news);
        written.ok().map(|appended| appended.next)
    }

    fn decide_without_marker(&self, state: &mut LogState, producer_id: i64, outcome: Outcome) {
        let end = state.end;
        let Some(open) = state.open.0.get_mut(&producer_id) else {
            return;
        };
        open.decided = true;
        let (first, epoch) = (open.first.offset, open.epoch);
        if outcome == Outcome::Abort {
            // All batches of the transaction lie before the end; later ones follow the marker.
            let stable = state.open.oldest().map_or(end, |oldest| oldest.offset);
            self.aborted.write().ranges.push(AbortedRange {
                producer_id,
                first,
                last: end - 1,
                stable,
            });
        }
        state.pending_markers.push_back((producer_id, epoch, outcome));
    }

    /// Writes the markers that found no space before; they go before any other batch.
    pub(crate) fn write_pending_markers(self: &Arc<Self>, state: &mut LogState) -> Result<()> {
        while let Some((producer_id, epoch, outcome)) = state.pending_markers.front().copied() {
            self.write(
                state,
                &mut SealedBatch::marker(producer_id, epoch, outcome, self.now_ms()),
            )?;
            state.pending_markers.pop_front();
        }
        Ok(())
    }

    /// Whether the marker of a transaction that began at `first` is durable; `marker` is what
    /// [`end_transaction`](Self::end_transaction) answered.
    pub(crate) fn marker_durable(&self, producer_id: i64, first: u64, marker: Option<u64>) -> bool {
        let state = self.state.lock();
        let durable = state.progress.durable().offset;
        let gone = state.status == Status::Deleted && self.gone.load(Ordering::SeqCst);
        if gone || marker.is_some_and(|next| durable >= next) {
            return true;
        }
        let open = state
            .open
            .0
            .get(&producer_id)
            .is_some_and(|open| open.first.offset == first);
        marker.is_none() && !open && durable == state.end
    }
}
