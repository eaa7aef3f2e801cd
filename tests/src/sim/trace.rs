//! All that can be seen of a run, folded into one number as it happens, and told to whoever wants the story.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use xxhash_rust::xxh3::Xxh3;

/// What is kept of the story of a run; beyond, the beginning is dropped.
const LINES_MAX: usize = 400_000;

/// Bytes of a piece that are shown.
const BYTES_SHOWN_MAX: usize = 1_000;

#[derive(Default)]
struct Told {
    hash: Xxh3,
    now_ms: u64,
    events: u64,
    lines: Option<Vec<String>>,
    with_bytes: bool,
}

/// How much is kept of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Its hash.
    Hash,
    /// What was told.
    Story,
    /// Also each piece that crossed the network.
    Bytes,
}

/// A run's trace. Clones share it.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Told>>);

impl Trace {
    /// Of nothing yet.
    pub fn new(keep: Keep) -> Self {
        let lines = (keep != Keep::Hash).then(Vec::new);
        Trace(Arc::new(Mutex::new(Told { lines, with_bytes: keep == Keep::Bytes, ..Told::default() })))
    }

    /// What follows happens now.
    pub fn set_now(&self, now_ms: u64) {
        self.lock().now_ms = now_ms;
    }

    /// Bytes that somebody saw.
    pub fn saw(&self, from: usize, to: usize, bytes: &[u8]) {
        let mut told = self.lock();
        let now = told.now_ms;
        told.hash.update(&now.to_le_bytes());
        told.hash.update(&[from.to_le_bytes()[0], to.to_le_bytes()[0]]);
        told.hash.update(bytes);
        told.events += 1;
        if told.with_bytes {
            let mut line = format!("{now} h{from} -> h{to}: {} bytes ", bytes.len());
            for byte in bytes.iter().take(BYTES_SHOWN_MAX) {
                let _ = write!(line, "{byte:02x}");
            }
            told.lines.get_or_insert_default().push(line);
        }
    }

    /// A line of the story.
    pub fn tell(&self, line: std::fmt::Arguments<'_>) {
        let mut told = self.lock();
        let mut text = String::new();
        let _ = write!(text, "{:>7.3} {line}", told.now_ms as f64 / 1e3);
        told.hash.update(text.as_bytes());
        told.events += 1;
        if let Some(lines) = &mut told.lines {
            if lines.len() >= LINES_MAX {
                lines.drain(..LINES_MAX / 2);
            }
            lines.push(text);
        }
    }

    /// The number that two runs of one seed share.
    pub fn hash(&self) -> u64 {
        self.lock().hash.digest()
    }

    /// How much was seen.
    pub fn events(&self) -> u64 {
        self.lock().events
    }

    /// The story, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().expect("no holder panics")
    }
}
