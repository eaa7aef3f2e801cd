//! Runs a target for a while, and makes what it fails on small.

use std::fmt::Write as _;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::time::Duration;

use fastrand::Rng;

/// How long each target runs, in milliseconds, unless `PROFFER_FUZZ_MS` says otherwise.
pub const BUDGET_MS: u64 = 200;

/// Longest input.
pub const INPUT_BYTES_MAX: usize = 1_024;

/// Tries to make an input smaller.
const SHRINKING_TRIES_MAX: usize = 400;

/// Runs `target` on drawn bytes until its time is over: `PROFFER_FUZZ_MS`, from `PROFFER_FUZZ_SEED`; or once, on `PROFFER_FUZZ_INPUT` in
/// hexadecimal digits.
///
/// # Panics
/// If it does on some input: with that input, made small, and how to run it again.
pub fn run(name: &str, target: impl Fn(&[u8]) + RefUnwindSafe) {
    if let Some(input) = variable("PROFFER_FUZZ_INPUT", read_hex) {
        target(&input);
        return;
    }
    let budget = Duration::from_millis(variable("PROFFER_FUZZ_MS", |ms| ms.parse().ok()).unwrap_or(BUDGET_MS));
    let seed = variable("PROFFER_FUZZ_SEED", |seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    // Told first: what ends the process is not caught.
    eprintln!("{name}: seed {seed}");
    let mut random = Rng::with_seed(seed);
    let fails = |input: &[u8]| catch_unwind(|| target(input)).is_err();
    #[expect(
        clippy::disallowed_methods,
        reason = "how long is searched is real time; nothing that is found depends on it"
    )]
    let begun = std::time::Instant::now();
    let mut inputs = 0_u64;
    while begun.elapsed() < budget {
        let input = draw(&mut random);
        inputs += 1;
        if fails(&input) {
            let small = shrink(input, fails);
            let digits = write_hex(&small);
            panic!(
                "{name} fails after {inputs} inputs from seed {seed}; again: PROFFER_FUZZ_INPUT={digits} cargo test {name}"
            );
        }
    }
    eprintln!("{name}: {inputs} inputs");
}

fn variable<T>(name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let given = std::env::var(name).ok()?;
    Some(read(&given).unwrap_or_else(|| panic!("{name} is {given:?}, which is none")))
}

/// Most are short, some are long; some are of few different bytes.
fn draw(random: &mut Rng) -> Vec<u8> {
    let most = *random.choice(&[16, 64, 256, INPUT_BYTES_MAX]).expect("there are some");
    let length = random.usize(0..=most);
    let below = *random.choice(&[u8::MAX, u8::MAX, 32, 8]).expect("there are some");
    (0..length).map(|_| random.u8(0..=below)).collect()
}

/// A smaller input that still fails: parts are cut out, then bytes made zero.
fn shrink(mut input: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut tries = 0;
    let mut part = input.len().div_ceil(2);
    while part > 0 && tries < SHRINKING_TRIES_MAX {
        let mut at = 0;
        while at < input.len() && tries < SHRINKING_TRIES_MAX {
            tries += 1;
            let mut smaller = input.clone();
            smaller.drain(at..(at + part).min(smaller.len()));
            if fails(&smaller) {
                input = smaller;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    for at in 0..input.len() {
        let mut simpler = input.clone();
        simpler[at] = 0;
        if tries < SHRINKING_TRIES_MAX && simpler != input {
            tries += 1;
            if fails(&simpler) {
                input = simpler;
            }
        }
    }
    input
}

fn write_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a String takes everything");
        digits
    })
}

fn read_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair.filter(|pair| pair.len() == 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_made_small() {
        let fails = |bytes: &[u8]| bytes.contains(&7) && bytes.len() >= 3;
        assert_eq!(shrink((0..200).collect(), fails).iter().filter(|byte| **byte > 0).count(), 1);
        assert_eq!(shrink((0..200).collect(), fails).len(), 3);
        let found = std::panic::catch_unwind(|| run("none", |bytes| assert!(!fails(bytes))));
        let message = found.expect_err("such bytes are drawn").downcast::<String>().expect("it is told in words");
        assert!(message.contains("PROFFER_FUZZ_INPUT=") && message.contains("seed"), "{message}");
    }

    #[test]
    fn digits_are_read_as_they_are_written() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(read_hex(&write_hex(&bytes)), Some(bytes));
        assert_eq!((read_hex("0"), read_hex("zz")), (None, None));
    }
}
