//! One call made of many deeds: answered once, when the last of them is settled.

use std::sync::{Arc, Mutex};

use crate::error::Error;
use crate::shard::ask::Reply;

/// One deed's part in the count of its call.
pub(crate) struct Tally {
    // Shared by the deeds of one call, all of them in one actor's hands: never contended.
    count: Arc<Mutex<Count>>,
    /// Which of the call's deeds.
    index: usize,
}

struct Count {
    asked: usize,
    applied: usize,
    open: usize,
    tries: u32,
    refused: Vec<(usize, Error)>,
    reply: Option<Reply<usize>>,
}

impl Tally {
    /// The parts of a call's `asked` deeds, in order. A call of none is answered at once.
    pub(crate) fn of_each(asked: usize, reply: Reply<usize>) -> impl Iterator<Item = Arc<Self>> {
        let mut count = Count { asked, applied: 0, open: asked, tries: 0, refused: Vec::new(), reply: Some(reply) };
        if asked == 0 {
            count.answer();
        }
        let count = Arc::new(Mutex::new(count));
        (0..asked).map(move |index| Arc::new(Tally { count: Arc::clone(&count), index }))
    }

    pub(crate) fn applied(&self) {
        let mut count = self.count.lock().expect("no holder panics");
        count.applied += 1;
        count.close_one();
    }

    pub(crate) fn refused(&self, error: Error) {
        let mut count = self.count.lock().expect("no holder panics");
        count.refused.push((self.index, error));
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
        let mut refused = std::mem::take(&mut self.refused);
        refused.sort_by_key(|(index, _)| *index);
        let result = match refused.first() {
            None => Ok(self.applied),
            Some((_, cause)) if self.asked > 1 => {
                let cause = Box::new(cause.clone());
                Err(Error::Partial { applied: self.applied, asked: self.asked, refused, cause })
            }
            Some((_, cause)) => Err(cause.clone()),
        };
        reply.send(result);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_call_of_many_deeds_is_answered_once_and_says_which_of_them_were_refused() {
        let (reply, mut answer) = oneshot::channel();
        let deeds: Vec<_> = Tally::of_each(3, Reply::new(reply)).collect();
        let invalid = Error::Invalid("too large".to_owned());
        deeds[2].refused(Error::KeysFull);
        deeds[0].refused(invalid.clone());
        assert!(answer.try_recv().is_err(), "one is open");
        deeds[1].applied();
        let refused = vec![(0, invalid.clone()), (2, Error::KeysFull)];
        let expected = Error::Partial { applied: 1, asked: 3, refused, cause: Box::new(invalid) };
        assert_eq!(answer.try_recv().expect("all are settled"), Err(expected));
    }
}
