//! Templates: content in which `{{name}}` stands for a value of the offer, or of what is computed for the customer.
//! `{{name|text}}` says what stands there where that has none.

use crate::expr;
use crate::value::Value;

/// A part of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// A value.
    Slot {
        /// Of this field.
        name: &'a str,
        /// What stands for a missing one; nothing unless given.
        fallback: &'a str,
    },
}

/// The parts of a text.
///
/// # Errors
/// Braces that are not closed, or hold no name.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((slot, after)) = after.split_once("}}") else { return Err("{{ is not closed by }}".to_owned()) };
        let (name, fallback) = slot.split_once('|').unwrap_or((slot, ""));
        let name = name.trim();
        if name.is_empty() || name.contains(['{', '}']) {
            return Err(format!("{{{{{slot}}}}} holds no name of a field"));
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Slot { name, fallback });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// How values are written into content, so that they stay values there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As they are.
    None,
    /// As text in HTML and XML, also in attributes.
    Html,
    /// As part of a JSON string.
    Json,
}

impl Escape {
    /// That of a content type.
    pub fn of(content_type: &str) -> Self {
        let content_type = content_type.to_ascii_lowercase();
        if content_type.contains("html") || content_type.contains("xml") {
            Escape::Html
        } else if content_type.contains("json") {
            Escape::Json
        } else {
            Escape::None
        }
    }

    fn write(self, text: &str, into: &mut String) {
        for letter in text.chars() {
            match (self, letter) {
                (Escape::Html, '&') => into.push_str("&amp;"),
                (Escape::Html, '<') => into.push_str("&lt;"),
                (Escape::Html, '>') => into.push_str("&gt;"),
                (Escape::Html, '"') => into.push_str("&quot;"),
                (Escape::Html, '\'') => into.push_str("&#39;"),
                (Escape::Json, '"' | '\\') => into.extend(['\\', letter]),
                (Escape::Json, control) if control < ' ' => into.push_str(&format!("\\u{:04x}", u32::from(control))),
                (Escape::None | Escape::Html | Escape::Json, letter) => into.push(letter),
            }
        }
    }
}

/// Content with every text in it filled: values as `concat` writes them, escaped; fallbacks as they are written. A text that is no
/// template stays as it is. O(content + values).
pub fn fill(content: &Value, escape: Escape, value: &dyn Fn(&str) -> Value) -> Value {
    match content {
        Value::Text(text) => match pieces(text) {
            Ok(pieces) if pieces.iter().any(|piece| matches!(piece, Piece::Slot { .. })) => {
                let mut filled = String::with_capacity(text.len());
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => filled.push_str(text),
                        Piece::Slot { name, fallback } => match expr::readable(&value(name)) {
                            Some(text) => escape.write(&text, &mut filled),
                            None => filled.push_str(fallback),
                        },
                    }
                }
                Value::text(filled)
            }
            Ok(_) | Err(_) => content.clone(),
        },
        Value::List(items) => Value::list(items.iter().map(|item| fill(item, escape, value))),
        Value::Map(members) => Value::map(members.iter().map(|(name, item)| (name, fill(item, escape, value)))),
        Value::Null | Value::Bool(_) | Value::Number(_) => content.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_parted_at_its_slots() {
        let slot = |name, fallback| Piece::Slot { name, fallback };
        assert_eq!(
            pieces("Dear {{ name|you }}, {{rate}}%").unwrap(),
            [Piece::Text("Dear "), slot("name", "you "), Piece::Text(", "), slot("rate", ""), Piece::Text("%")]
        );
        assert_eq!(pieces("plain").unwrap(), [Piece::Text("plain")]);
        assert_eq!(pieces("").unwrap(), []);
        for faulty in ["{{", "a {{b", "{{}}", "{{ |x}}", "{{a{b}}"] {
            assert!(pieces(faulty).is_err(), "{faulty}");
        }
    }

    #[test]
    fn values_are_escaped_by_content_type_and_fallbacks_are_not() {
        let value = |name: &str| match name {
            "who" => Value::text("<Ann \"A\" & 'B'>\n"),
            "rate" => Value::Number(2.5),
            _ => Value::Null,
        };
        let filled = |text: &str, content_type: &str| fill(&Value::text(text), Escape::of(content_type), &value);
        let text = "{{who}} {{rate}} {{none|<b>}}{{none}}";
        assert_eq!(filled(text, "text/html"), Value::text("&lt;Ann &quot;A&quot; &amp; &#39;B&#39;&gt;\n 2.5 <b>"));
        assert_eq!(filled(text, "application/json"), Value::text("<Ann \\\"A\\\" & 'B'>\\u000a 2.5 <b>"));
        assert_eq!(filled(text, "text"), Value::text("<Ann \"A\" & 'B'>\n 2.5 <b>"));
        let nested = Value::map([("a", Value::list([Value::text("{{rate}}"), Value::Bool(true)]))]);
        let expected = Value::map([("a", Value::list([Value::text("2.5"), Value::Bool(true)]))]);
        assert_eq!(fill(&nested, Escape::None, &value), expected);
    }
}
