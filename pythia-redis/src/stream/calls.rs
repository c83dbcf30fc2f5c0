//! Which calls a settler has made, and what they came to.
//!
//! A call that got no answer may have been carried out; the connection sends it again, and the runtime repeats the whole
//! batch, or parts of it. So each call has a number under which Redis keeps its answer, and a repeat leaves out what was
//! answered before: what the first try has done is never taken for something that was lost to others.

use std::collections::HashSet;

use bytestring::ByteString;
use pythia_core::Receipt;

/// The calls of one script, one at a time.
#[derive(Debug)]
pub(super) struct Calls {
    /// Where Redis keeps the answer to the last one.
    pub(super) answer: ByteString,
    last: u64,
    /// What the last one was about, if it got no answer.
    unanswered: Vec<Receipt>,
    /// What was answered of the batch that is being settled, and how much of it was stale.
    answered: Vec<Receipt>,
    stale: u64,
    /// What was answered of batches that were not settled as a whole.
    kept: HashSet<Receipt>,
}

impl Calls {
    pub(super) fn new(answer: ByteString) -> Self {
        Self {
            answer,
            last: 0,
            unanswered: Vec::new(),
            answered: Vec::new(),
            stale: 0,
            kept: HashSet::new(),
        }
    }

    /// The number of the call about these. Before it is made, because the caller may give it up.
    pub(super) fn begin(&mut self, receipts: impl Iterator<Item = Receipt> + Clone) -> u64 {
        let repeated =
            !self.unanswered.is_empty() && receipts.clone().eq(self.unanswered.iter().copied());
        if !repeated {
            self.last += 1;
            self.unanswered.clear();
            self.unanswered.extend(receipts);
        }
        self.last
    }

    /// Notes the answer to the call that was begun.
    pub(super) fn end(&mut self, stale: u64) {
        self.answered.append(&mut self.unanswered);
        self.stale += stale;
    }

    /// What was answered in earlier tries, so that nobody need ask again.
    pub(super) fn answered_before(&mut self) -> &HashSet<Receipt> {
        // The try before was given up, or one of its calls failed.
        self.kept.extend(self.answered.drain(..));
        &self.kept
    }

    /// The batch is settled: how much of it, and of tries for it, was stale.
    pub(super) fn settled(&mut self, batch: impl Iterator<Item = Receipt>) -> u64 {
        self.answered.clear();
        if !self.kept.is_empty() {
            for receipt in batch {
                self.kept.remove(&receipt);
            }
        }
        std::mem::take(&mut self.stale)
    }
}
