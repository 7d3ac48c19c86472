//! JSON and text that PostgreSQL can hold.
//!
//! Some JSON is valid and still refused by `jsonb`: the character U+0000, half a surrogate pair, numbers beyond `numeric`,
//! and nesting beyond its stack. One such payload must not stop the projector, so what cannot be held is replaced, and
//! the same way every time.

use std::borrow::Cow;

/// Deepest nesting that is stored as it is: PostgreSQL's parser takes some thousands with its default stack of 2 MB.
pub(crate) const DEPTH_MAX: usize = 512;
/// Most characters of a number that is stored as it is. `numeric` ends at 131,072 digits.
pub(crate) const NUMBER_CHARS_MAX: usize = 1_000;
/// Largest exponent that is stored as it is; `numeric` ends at 16,383 digits behind the point.
pub(crate) const EXPONENT_MAX: u32 = 1_000;

/// `json`, one valid JSON value, such that `jsonb` takes it. U+0000 and half surrogate pairs become U+FFFD, over-long
/// numbers become strings, and what nests too deep becomes one string.
pub(crate) fn storable(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut out: Option<String> = None;
    let mut copied = 0;
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    let text = text(json);
                    return Cow::Owned(serde_json::Value::String(text.into_owned()).to_string());
                }
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'"' => at = string(json, at + 1, &mut out, &mut copied),
            b'-' | b'0'..=b'9' => {
                let start = at;
                while bytes
                    .get(at)
                    .is_some_and(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                {
                    at += 1;
                }
                let number = &json[start..at];
                if !number_fits(number) {
                    let out = out.get_or_insert_default();
                    out.push_str(&json[copied..start]);
                    out.push('"');
                    out.push_str(number);
                    out.push('"');
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    match out {
        None => Cow::Borrowed(json),
        Some(mut out) => {
            out.push_str(&json[copied..]);
            Cow::Owned(out)
        }
    }
}

/// From behind the opening quote to behind the closing one.
fn string(json: &str, mut at: usize, out: &mut Option<String>, copied: &mut usize) -> usize {
    let bytes = json.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' if bytes.get(at + 1) == Some(&b'u') => {
                let unit = unit(json, at);
                let length = match unit {
                    Some(0xD800..=0xDBFF)
                        if matches!(self::unit(json, at + 6), Some(0xDC00..=0xDFFF)) =>
                    {
                        12
                    }
                    Some(0 | 0xD800..=0xDFFF) => {
                        let out = out.get_or_insert_default();
                        out.push_str(&json[*copied..at]);
                        out.push('\u{FFFD}');
                        *copied = at + 6;
                        6
                    }
                    _ => 6,
                };
                at += length;
            }
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// The UTF-16 unit of the escape `\uXXXX` at `at`.
fn unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

fn number_fits(number: &str) -> bool {
    if number.len() > NUMBER_CHARS_MAX {
        return false;
    }
    match number.split_once(['e', 'E']) {
        None => true,
        Some((_, exponent)) => exponent
            .trim_start_matches(['+', '-'])
            .parse::<u32>()
            .is_ok_and(|exponent| exponent <= EXPONENT_MAX),
    }
}

/// `text` such that a text column takes it: U+0000 becomes U+FFFD.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The same, cut to the `chars` characters of a `varchar`.
pub(crate) fn clipped(value: &str, chars: usize) -> String {
    let value = text(value);
    match value.char_indices().nth(chars) {
        None => value.into_owned(),
        Some((end, _)) => value[..end].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_json_is_not_even_copied() {
        for json in [
            r#"{"a":[1,-2.5e3,"\u00e9 \ud83d\ude00 \\u0000",null]}"#,
            "0",
            "\"\"",
        ] {
            assert!(
                matches!(storable(json), Cow::Borrowed(same) if same == json),
                "{json}"
            );
        }
    }

    #[test]
    fn what_postgresql_refuses_is_replaced() {
        assert_eq!(
            storable(r#"{"a\u0000":"\ud800x\udc00"}"#),
            "{\"a\u{FFFD}\":\"\u{FFFD}x\u{FFFD}\"}"
        );
        assert_eq!(
            storable(r#"[1e1000,1e1001,-1E-9999999999,"1e9999"]"#),
            r#"[1e1000,"1e1001","-1E-9999999999","1e9999"]"#
        );
        let long = "7".repeat(NUMBER_CHARS_MAX);
        assert_eq!(storable(&long), long);
        assert_eq!(storable(&format!("{long}7")), format!("\"{long}7\""));
    }

    #[test]
    fn nesting_is_kept_up_to_the_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(storable(&nested(DEPTH_MAX)), nested(DEPTH_MAX));
        assert_eq!(
            storable(&nested(DEPTH_MAX + 1)),
            format!("\"{}\"", nested(DEPTH_MAX + 1))
        );
    }

    #[test]
    fn text_is_cut_by_characters() {
        assert_eq!(clipped("äöü\0", 3), "äöü");
        assert_eq!(clipped("ä\0", 3), "ä\u{FFFD}");
    }
}
