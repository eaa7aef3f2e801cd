//! What clients saw: calls, each with its outcome, one JSON object a line.
//!
//! A call is written down when it is made (*invoke*) and when it is over: *ok* with the answer, *fail* if it certainly had no effect,
//! *unknown* if it may have had one. A call that is never over is unknown. Times are microseconds since the run began, of one clock.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

/// What a client asked for. Offers and customers go by their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Call {
    /// A new offer. Answered with [`Answer::Created`].
    Create {
        /// Limit of its global cap on impressions.
        global: Option<u64>,
        /// Limit of its cap on impressions of each customer.
        per_customer: Option<u64>,
    },
    /// A decision that reserves what it proposes. Answered with [`Answer::Decided`].
    Recommend {
        /// For whom.
        customer: String,
        /// Idempotency key.
        key: Option<String>,
    },
    /// An impression of a proposed offer. Answered with [`Answer::Responded`].
    Respond {
        /// Who saw it.
        customer: String,
        /// What was seen.
        offer: String,
        /// Idempotency key: no other operation has it.
        key: String,
    },
    /// An acknowledged `Respond`, sent once more with its key. Answered with [`Answer::Responded`].
    Repeat {
        /// Id of the operation that is repeated.
        of: u64,
    },
    /// Sets the one number in a customer's profile. Answered with [`Answer::Done`].
    WriteProfile {
        /// Whose.
        customer: String,
        /// The number: no other write of this profile has it.
        value: u64,
    },
    /// Reads that number. Answered with [`Answer::Profile`].
    ReadProfile {
        /// Whose.
        customer: String,
    },
    /// An emergency exclusion, for ever. Answered with [`Answer::Done`].
    Exclude {
        /// Of which offer.
        offer: String,
    },
    /// The accounts of an offer's global cap. Answered with [`Answer::Budget`].
    ReadBudget {
        /// Which offer.
        offer: String,
        /// `spent` is asked for as of one instant.
        linearizable: bool,
        /// Everything was healed long enough ago, and no other call is under way.
        settled: bool,
    },
    /// Sets the one number in an offer's description. Answered with [`Answer::Revised`].
    Edit {
        /// Which offer.
        offer: String,
        /// The number: no other edit of this offer has it.
        value: u64,
    },
    /// Reads that number, of a catalogue that is not older than a revision. Answered with [`Answer::Offer`].
    ReadOffer {
        /// Which offer.
        offer: String,
        /// The least revision.
        least: u64,
    },
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Answer {
    /// To a write that has nothing to tell.
    Done,
    /// The id of what was created.
    Created {
        /// Of the offer.
        offer: String,
    },
    /// Offers in rank order.
    Decided {
        /// Their ids.
        offers: Vec<String>,
    },
    /// What became of an outcome.
    Responded(Responded),
    /// What a profile says.
    Profile {
        /// Its number; none was ever written.
        value: Option<u64>,
    },
    /// One global cap, summed over the shards.
    Budget(Budget),
    /// An edit is in force as of this revision.
    Revised {
        /// Of the catalogue.
        revision: u64,
    },
    /// An offer.
    Offer {
        /// In force when this was answered.
        catalog: u64,
        /// That last changed the offer.
        revision: u64,
        /// The number in its description; none was ever written.
        value: Option<u64>,
    },
}

/// What became of an outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Responded {
    /// It was stored, now or when it first came.
    pub recorded: bool,
    /// It had come before: this is the answer of then.
    pub duplicate: bool,
    /// The reservation had lapsed.
    pub late: bool,
    /// The same outcome had come for this proposition under another key.
    pub repeat: bool,
    /// It was past a limit, and not counted.
    pub over_cap: bool,
}

impl Responded {
    /// Whether it took a unit of the offer's caps.
    pub fn counts(&self) -> bool {
        self.recorded && !self.repeat && !self.over_cap
    }
}

/// One global cap, summed over the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// In force when this was read.
    pub limit: i64,
    /// In the ledger.
    pub pool: i64,
    /// Between ledger and shards.
    pub in_flight: i64,
    /// May be taken.
    pub free: i64,
    /// Held for what was proposed.
    pub reserved: i64,
    /// Confirmed.
    pub spent: i64,
}

/// One call as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// From 0, in the order of the calls.
    pub id: u64,
    /// Who made it: one call at a time.
    pub client: u64,
    /// When it was made, first.
    pub invoked_us: u64,
    /// What was asked for.
    pub call: Call,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok {
        /// When the request that was answered was sent: a call is made again until it is answered.
        sent_us: u64,
        /// When the answer came.
        returned_us: u64,
        /// What it was.
        answer: Answer,
    },
    /// Refused, and certainly without effect.
    Fail,
    /// Nobody knows: it may have happened, may happen yet, or never will.
    Unknown,
}

impl Operation {
    /// The answer, if there was one, and when it came.
    pub fn answered(&self) -> Option<(u64, &Answer)> {
        match &self.outcome {
            Outcome::Ok { returned_us, answer, .. } => Some((*returned_us, answer)),
            Outcome::Fail | Outcome::Unknown => None,
        }
    }

    /// Whether it may have had an effect though nobody said so.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown)
    }
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Line {
    /// A call was made.
    Invoke {
        /// Of the operation.
        id: u64,
        /// Who made it.
        client: u64,
        /// When.
        at_us: u64,
        /// What was asked for.
        #[serde(flatten)]
        call: Call,
    },
    /// It was answered.
    Ok {
        /// Of the operation.
        id: u64,
        /// When.
        at_us: u64,
        /// When the request that was answered was sent.
        sent_us: u64,
        /// What was answered.
        #[serde(flatten)]
        answer: Answer,
    },
    /// It was refused without effect.
    Fail {
        /// Of the operation.
        id: u64,
        /// When.
        at_us: u64,
        /// In words.
        why: String,
    },
    /// It is not known what became of it.
    Unknown {
        /// Of the operation.
        id: u64,
        /// When the client gave up.
        at_us: u64,
        /// In words.
        why: String,
    },
    /// Something was done to the cluster.
    Note {
        /// When.
        at_us: u64,
        /// In words.
        what: String,
    },
}

/// Writes lines as they come.
///
/// # Errors
/// When `to` does not take them.
pub fn write(line: &Line, to: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

/// The operations of a file, in the order of their ids. O(lines).
///
/// # Errors
/// When a line cannot be read, or tells the end of a call that was not made or was over.
pub fn read(from: impl BufRead) -> anyhow::Result<Vec<Operation>> {
    let mut operations = BTreeMap::new();
    let mut open = BTreeMap::new();
    for (number, line) in from.lines().enumerate() {
        let line: Line =
            serde_json::from_str(&line?).map_err(|error| anyhow::anyhow!("line {}: {error}", number + 1))?;
        let (id, outcome) = match line {
            Line::Invoke { id, client, at_us, call } => {
                open.insert(id, ());
                let operation = Operation { id, client, invoked_us: at_us, call, outcome: Outcome::Unknown };
                if operations.insert(id, operation).is_some() {
                    anyhow::bail!("line {}: call {id} is made twice", number + 1);
                }
                continue;
            }
            Line::Ok { id, at_us, sent_us, answer } => (id, Outcome::Ok { sent_us, returned_us: at_us, answer }),
            Line::Fail { id, .. } => (id, Outcome::Fail),
            Line::Unknown { id, .. } => (id, Outcome::Unknown),
            Line::Note { .. } => continue,
        };
        match (open.remove(&id), operations.get_mut(&id)) {
            (Some(()), Some(operation)) => operation.outcome = outcome,
            (_, _) => anyhow::bail!("line {}: call {id} was not under way", number + 1),
        }
    }
    Ok(operations.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[Line]) -> String {
        let mut bytes = Vec::new();
        lines.iter().for_each(|line| write(line, &mut bytes).unwrap());
        String::from_utf8(bytes).unwrap()
    }

    fn invoke(id: u64) -> Line {
        Line::Invoke { id, client: 7, at_us: 10 * id, call: Call::ReadProfile { customer: "c".to_owned() } }
    }

    #[test]
    fn what_is_written_is_read_and_a_call_without_an_end_is_unknown() {
        let answer = Answer::Profile { value: Some(3) };
        let lines = [
            invoke(0),
            invoke(1),
            Line::Note { at_us: 3, what: "n1 is killed".to_owned() },
            Line::Ok { id: 1, at_us: 25, sent_us: 20, answer: answer.clone() },
            invoke(2),
            Line::Fail { id: 2, at_us: 30, why: "no such customer".to_owned() },
            invoke(3),
            Line::Unknown { id: 3, at_us: 60, why: "the connection broke".to_owned() },
        ];
        let read = read(text(&lines).as_bytes()).unwrap();
        let outcomes: Vec<_> = read.iter().map(|operation| operation.outcome.clone()).collect();
        let ok = Outcome::Ok { sent_us: 20, returned_us: 25, answer };
        assert_eq!(outcomes, [Outcome::Unknown, ok, Outcome::Fail, Outcome::Unknown]);
        assert_eq!((read[1].id, read[1].client, read[1].invoked_us), (1, 7, 10));
    }

    #[test]
    fn the_lines_say_what_they_are() {
        let responded = Answer::Responded(Responded { recorded: true, ..Responded::default() });
        let lines = text(&[invoke(4), Line::Ok { id: 4, at_us: 2, sent_us: 1, answer: responded }]);
        let golden = concat!(
            r#"{"type":"invoke","id":4,"client":7,"atUs":40,"call":"readProfile","customer":"c"}"#,
            "\n",
            r#"{"type":"ok","id":4,"atUs":2,"sentUs":1,"answer":"responded","recorded":true,"duplicate":false,"#,
            r#""late":false,"repeat":false,"overCap":false}"#,
            "\n",
        );
        assert_eq!(lines, golden);
    }

    #[test]
    fn a_history_that_contradicts_itself_is_refused() {
        let end = Line::Fail { id: 0, at_us: 1, why: String::new() };
        for lines in [&[end.clone()][..], &[invoke(0), end.clone(), end.clone()], &[invoke(0), invoke(0)]] {
            assert!(read(text(lines).as_bytes()).is_err());
        }
        assert!(read(&b"{}\n"[..]).unwrap_err().to_string().starts_with("line 1: "));
    }
}
