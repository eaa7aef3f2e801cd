//! Numbers as people see them: rounding and writing go by the shortest decimal that names the number, so that
//! `round(2.675, 2)` is 2.68 although the nearest `f64` lies a little below 2.675.

use std::fmt::{self, Write};
use std::str;

use crate::value::Value;

/// Integers up to here are exact in `f64`, 2^53.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Significant digits that text keeps of a fraction, as the wire does for computed numbers.
const SIGNIFICANT_DIGITS: i32 = 12;

/// The result of arithmetic: null unless finite, and never the negative zero.
pub(super) fn value(number: f64) -> Value {
    if number.is_finite() { Value::Number(number + 0.0) } else { Value::Null }
}

/// Writes `number` so that it reads back to the same bits: plain between 1e-7 and 1e21, with an exponent beyond.
pub(super) fn write_exact(number: f64, out: &mut impl Write) -> fmt::Result {
    let size = number.abs();
    if size == 0.0 {
        out.write_char('0')
    } else if (1e-7..1e21).contains(&size) {
        write!(out, "{number}")
    } else {
        write!(out, "{number:e}")
    }
}

/// Writes `number` for people: integers whole, fractions with twelve significant digits.
pub(super) fn write_readable(number: f64, out: &mut impl Write) -> fmt::Result {
    if number.fract() == 0.0 && number.abs() <= EXACT_INTEGER_MAX {
        return write_exact(number, out);
    }
    let digits = Decimal::of(number).map_or(0, |decimal| SIGNIFICANT_DIGITS - 1 - decimal.exponent);
    write_exact(round(number, digits), out)
}

/// A value as `concat` writes it; `None` for null, lists and objects.
pub fn readable(value: &Value) -> Option<String> {
    match value {
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => {
            let mut text = String::new();
            write_readable(*number, &mut text).ok()?;
            Some(text)
        }
        Value::Text(text) => Some(text.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// Rounds half away from zero to `digits` decimal places; negative places round to tens, hundreds, …
pub(super) fn round(number: f64, digits: i32) -> f64 {
    if digits == 0 {
        return libm::round(number);
    }
    match Decimal::of(number) {
        Some(decimal) => decimal.round(digits).copysign(number),
        None => number,
    }
}

/// The shortest decimal that names one number: `d.ddd × 10^exponent`, without its sign.
struct Decimal {
    digits: Buffer,
    exponent: i32,
    magnitude: f64,
}

impl Decimal {
    /// `None` for zero and for what is not finite.
    fn of(number: f64) -> Option<Self> {
        if number == 0.0 || !number.is_finite() {
            return None;
        }
        let magnitude = number.abs();
        let mut scientific = Buffer::default();
        write!(scientific, "{magnitude:e}").ok()?;
        let (mantissa, exponent) = scientific.text().split_once('e')?;
        let mut digits = Buffer::default();
        mantissa.chars().filter(|character| *character != '.').try_for_each(|digit| digits.write_char(digit)).ok()?;
        Some(Decimal { digits, exponent: exponent.parse().ok()?, magnitude })
    }

    fn round(mut self, places: i32) -> f64 {
        let kept = self.exponent + 1 + places;
        let Ok(kept) = usize::try_from(kept) else { return 0.0 };
        if kept >= self.digits.length {
            return self.magnitude;
        }
        let up = self.digits.bytes[kept] >= b'5';
        self.digits.length = kept;
        let carried = up && self.digits.increment();
        let mut rounded = Buffer::default();
        // A carry out of the first digit, also out of no digits at all, puts a one before them.
        let written = write!(rounded, "{}{}e{}", u8::from(carried), self.digits.text(), -places);
        debug_assert!(written.is_ok(), "18 digits and an exponent fit");
        rounded.text().parse().unwrap_or(self.magnitude)
    }
}

/// A short ASCII text on the stack: rounding allocates nothing.
#[derive(Default)]
struct Buffer {
    bytes: [u8; 32],
    length: usize,
}

impl Buffer {
    fn text(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }

    /// Adds one to the digits; true if a carry left them.
    fn increment(&mut self) -> bool {
        for digit in self.bytes[..self.length].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return false;
            }
            *digit = b'0';
        }
        true
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
