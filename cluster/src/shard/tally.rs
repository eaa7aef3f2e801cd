//! One call made of many deeds: answered once, when the last of them is settled.

use std::sync::{Arc, Mutex};

use crate::error::Error;
use crate::shard::ask::Reply;

/// Counts a call's deeds.
pub(crate) struct Tally {
    // Shared by the deeds of one call, all of them in one actor's hands: never contended.
    count: Mutex<Count>,
}

struct Count {
    asked: usize,
    applied: usize,
    open: usize,
    tries: u32,
    error: Option<Error>,
    reply: Option<Reply<usize>>,
}

impl Tally {
    /// A call of `asked` deeds. One of none is answered at once.
    pub(crate) fn new(asked: usize, reply: Reply<usize>) -> Arc<Self> {
        let tally = Tally {
            count: Mutex::new(Count { asked, applied: 0, open: asked, tries: 0, error: None, reply: Some(reply) }),
        };
        if asked == 0 {
            tally.count.lock().expect("no holder panics").answer();
        }
        Arc::new(tally)
    }

    pub(crate) fn applied(&self) {
        let mut count = self.count.lock().expect("no holder panics");
        count.applied += 1;
        count.close_one();
    }

    pub(crate) fn refused(&self, error: Error) {
        let mut count = self.count.lock().expect("no holder panics");
        count.error.get_or_insert(error);
        count.close_one();
    }

    /// It is not known what became of one of the deeds; it is tried again.
    pub(crate) fn doubt(&self) {
        if let Some(reply) = &mut self.count.lock().expect("no holder panics").reply {
            reply.doubt();
        }
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.count.lock().expect("no holder panics").reply.as_ref().is_none_or(Reply::is_abandoned)
    }

    /// Counts one more attempt at one of the deeds; says how many there were of each.
    pub(crate) fn count_try(&self) -> u8 {
        let mut count = self.count.lock().expect("no holder panics");
        count.tries += 1;
        let each = count.tries.div_ceil(u32::try_from(count.asked).unwrap_or(u32::MAX).max(1));
        u8::try_from(each).unwrap_or(u8::MAX)
    }
}

impl Count {
    fn close_one(&mut self) {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.answer();
        }
    }

    fn answer(&mut self) {
        let Some(reply) = self.reply.take() else { return };
        let result = match self.error.take() {
            None => Ok(self.applied),
            Some(cause) if self.asked > 1 => {
                Err(Error::Partial { applied: self.applied, asked: self.asked, cause: Box::new(cause) })
            }
            Some(cause) => Err(cause),
        };
        reply.send(result);
    }
}
