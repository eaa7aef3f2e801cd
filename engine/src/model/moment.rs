//! Authored instants and times of day, kept as written; what they mean depends on the tenant's zone.

use bincode::{Decode, Encode};

use crate::model::fault::Faults;
use crate::model::record::Field;
use crate::value::Value;

/// An ISO 8601 date or date-time as written, with or without offset. Without one it means the tenant's zone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Moment(pub String);

impl Field for Moment {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let text = String::read(value, faults)?;
        let known = text.parse::<jiff::Timestamp>().is_ok()
            || text.parse::<jiff::civil::DateTime>().is_ok()
            || text.parse::<jiff::civil::Date>().is_ok();
        if !known {
            faults.add("must be an ISO 8601 date or date-time");
        }
        known.then_some(Moment(text))
    }

    fn write(&self) -> Value {
        Value::text(&self.0)
    }
}

/// A time of day `HH:mm`, as minutes since midnight (0–1439).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct MinuteOfDay(pub u16);

impl Field for MinuteOfDay {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let minute = value.as_text().and_then(|text| {
            let (hours, minutes) = text.split_once(':')?;
            let two_digits = |part: &str| {
                (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<u16>().ok())?
            };
            let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
            (hours < 24 && minutes < 60).then_some(MinuteOfDay(hours * 60 + minutes))
        });
        if minute.is_none() {
            faults.add("must be a time of day HH:mm");
        }
        minute
    }

    fn write(&self) -> Value {
        Value::text(format!("{:02}:{:02}", self.0 / 60, self.0 % 60))
    }
}
