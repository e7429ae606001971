//! The JSON value of a member's key, as Pitaya's Go servers write and read it.

use std::borrow::Cow;
use std::fmt;
use std::io;

use memchr::memchr;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::Metadata;

/// Metadata key of the random token of the registering process. Kept out of [`Metadata`]: users
/// see what they wrote, and a token in every print helps nobody.
const INSTANCE: &str = "headcount.instance";
/// Metadata keys that start so are Headcount's own.
pub(crate) const RESERVED: &str = "headcount.";

/// What a member says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub metadata: Metadata,
    pub frontend: bool,
    pub hostname: Box<str>,
    pub instance: Option<Box<str>>,
}

/// Why a value is not a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadValue {
    /// Not a JSON object with the right kinds of fields.
    Unparsable,
}

impl Document {
    /// Reads a value as Go's `encoding/json` would: field names in any case, unknown fields
    /// passed over, `null` for "left out". The second answer says whether the value names another
    /// (type, id) than its key; the key counts.
    pub fn parse(name: &str, value: &[u8]) -> Result<(Document, bool), BadValue> {
        let raw = match Raw::usual(value) {
            Some(raw) => raw,
            None => serde_json::from_slice(value).map_err(|_| BadValue::Unparsable)?,
        };
        let rest = name.strip_prefix(&*raw.kind);
        let id = rest.and_then(|rest| rest.strip_prefix('/'));
        let mismatch = id != Some(&*raw.id);
        let mut metadata = raw.metadata;
        let mut instance = None;
        // In order: of what comes twice the last counts, here, too.
        metadata.retain_mut(|(key, value)| {
            let own = key == INSTANCE;
            if own {
                instance = Some(std::mem::take(value));
            }
            !own
        });
        Ok((
            Document {
                metadata: Metadata::from_pairs(metadata),
                frontend: raw.frontend,
                hostname: raw.hostname.into(),
                instance: instance.map(Into::into),
            },
            mismatch,
        ))
    }

    /// Writes the five fields in Go's order with Go's escapes; metadata sorted, never `null`.
    pub fn to_json(&self, name: &str) -> Vec<u8> {
        let (kind, id) = name.split_once('/').expect("a member's name is type/id");
        let mut out = Vec::with_capacity(160);
        let value = Written {
            id,
            kind,
            metadata: Pairs(self),
            frontend: self.frontend,
            hostname: &self.hostname,
        };
        value
            .serialize(&mut serde_json::Serializer::with_formatter(
                &mut out, GoEscapes,
            ))
            .expect("strings and booleans always serialize");
        out
    }
}

#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    metadata: Pairs<'a>,
    frontend: bool,
    hostname: &'a str,
}

/// Metadata with the instance token put in where it sorts.
struct Pairs<'a>(&'a Document);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut instance = self.0.instance.as_deref();
        for (key, value) in self.0.metadata.iter() {
            if key > INSTANCE {
                if let Some(token) = instance.take() {
                    map.serialize_entry(INSTANCE, token)?;
                }
            }
            map.serialize_entry(key, value)?;
        }
        if let Some(token) = instance {
            map.serialize_entry(INSTANCE, token)?;
        }
        map.end()
    }
}

/// Go escapes what could end a script or a line in HTML.
struct GoEscapes;

impl serde_json::ser::Formatter for GoEscapes {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            let character = special.chars().next().expect("found by find");
            write!(writer, "{plain}\\u{:04x}", character as u32)?;
            rest = &special[character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// A text, borrowed from the value where nothing in it is escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Debug, Default, PartialEq)]
struct Raw<'a> {
    id: Cow<'a, str>,
    kind: Cow<'a, str>,
    metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    frontend: bool,
    hostname: Cow<'a, str>,
}

impl<'a> Raw<'a> {
    /// The quick way, for values that are written as Go's servers and Headcount write theirs, and in
    /// which nothing is escaped. `None`: whether it is one, and what it says, is serde's to find out.
    fn usual(value: &'a [u8]) -> Option<Self> {
        let unusual = |byte| byte < b' ' || byte == b'\\';
        // Without an early end, several bytes are looked at at once.
        if value.iter().fold(false, |any, byte| any | unusual(*byte)) {
            return None;
        }
        let mut rest = std::str::from_utf8(value).ok()?;
        let id = quoted(&mut rest, r#"{"id":""#)?;
        let kind = quoted(&mut rest, r#","type":""#)?;
        let mut metadata = Vec::new();
        if let Some(none) = rest.strip_prefix(r#","metadata":{}"#) {
            rest = none;
        } else {
            let mut before = r#","metadata":{""#;
            loop {
                let key = quoted(&mut rest, before)?;
                metadata.push((key, quoted(&mut rest, r#":""#)?));
                if let Some(after) = rest.strip_prefix('}') {
                    rest = after;
                    break;
                }
                before = r#",""#;
            }
        }
        let yes = rest.strip_prefix(r#","frontend":true"#);
        let no = || rest.strip_prefix(r#","frontend":false"#);
        rest = yes.or_else(no)?;
        let hostname = quoted(&mut rest, r#","hostname":""#)?;
        (rest == "}").then_some(Raw {
            id,
            kind,
            metadata,
            frontend: yes.is_some(),
            hostname,
        })
    }
}

/// The text between `before`, which `rest` begins with, and the next quote.
fn quoted<'a>(rest: &mut &'a str, before: &str) -> Option<Cow<'a, str>> {
    let found = rest.strip_prefix(before)?;
    let end = memchr(b'"', found.as_bytes())?;
    *rest = &found[end + 1..];
    Some(found[..end].into())
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Raw<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a server's JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
                let mut raw = Raw::default();
                while let Some(Text(key)) = map.next_key()? {
                    let is = |name: &str| key.eq_ignore_ascii_case(name);
                    // `null` leaves a field as it is, but empties a map; a map that comes twice
                    // is added to.
                    if is("id") {
                        set_text(&mut raw.id, map.next_value()?);
                    } else if is("type") {
                        set_text(&mut raw.kind, map.next_value()?);
                    } else if is("metadata") {
                        match map.next_value::<Option<Dictionary>>()? {
                            Some(first) if raw.metadata.is_empty() => raw.metadata = first.0,
                            Some(more) => raw.metadata.extend(more.0),
                            None => raw.metadata.clear(),
                        }
                    } else if is("frontend") {
                        set(&mut raw.frontend, map.next_value()?);
                    } else if is("hostname") {
                        set_text(&mut raw.hostname, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn set_text<'a>(field: &mut Cow<'a, str>, value: Option<Text<'a>>) {
    set(field, value.map(|Text(text)| text));
}

struct Dictionary<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de> Deserialize<'de> for Dictionary<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Dictionary<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dictionary<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), value)) = map.next_entry::<_, Option<Text>>()? {
                    // A `null` value is Go's empty string.
                    pairs.push((key, value.map(|Text(text)| text).unwrap_or_default()));
                }
                Ok(Dictionary(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(metadata: &[(&str, &str)]) -> Document {
        Document {
            metadata: metadata.iter().copied().collect(),
            hostname: "vm".into(),
            ..Document::default()
        }
    }

    fn text(d: &Document) -> String {
        String::from_utf8(d.to_json("gate/b")).unwrap()
    }

    #[test]
    fn pitaya_json_is_canonical_for_map_and_empty() {
        assert_eq!(
            text(&document(&[("zeta", "1"), ("alpha", "<&>")])),
            r#"{"id":"b","type":"gate","metadata":{"alpha":"\u003c\u0026\u003e","zeta":"1"},"frontend":false,"hostname":"vm"}"#
        );
        assert_eq!(
            text(&document(&[])),
            r#"{"id":"b","type":"gate","metadata":{},"frontend":false,"hostname":"vm"}"#
        );
    }

    #[test]
    fn instance_sorts_in_and_comes_back() {
        for pairs in [
            &[][..],
            &[("a", "1")],
            &[("z", "1")],
            &[("a", "1"), ("z", "\u{2028}")],
        ] {
            let d = Document {
                instance: Some("t0k".into()),
                ..document(pairs)
            };
            let json = text(&d);
            let keys: Vec<String> =
                serde_json::from_str::<serde_json::Value>(&json).unwrap()["metadata"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .cloned()
                    .collect();
            assert!(
                keys.is_sorted() && keys.contains(&INSTANCE.to_owned()),
                "{json}"
            );
            assert_eq!(Document::parse("gate/b", json.as_bytes()), Ok((d, false)));
        }
    }

    #[test]
    fn reads_what_go_reads() {
        let full = document(&[("a", "1")]);
        for json in [
            r#"{"id":"b","type":"gate","metadata":{"a":"1"},"frontend":false,"hostname":"vm"}"#,
            r#"{"HOSTNAME":"vm","Metadata":{"a":"1"},"iD":"b","Type":"gate"}"#,
            r#" {"hostname":"x","hostname":"vm","new":[{}],"id":"b","type":"gate","metadata":{"a":"0","a":"1"},"frontend":null} "#,
        ] {
            assert_eq!(
                Document::parse("gate/b", json.as_bytes()),
                Ok((full.clone(), false))
            );
        }
        for metadata in ["null", "{}"] {
            let json =
                format!(r#"{{"id":"b","type":"gate","metadata":{metadata},"hostname":"vm"}}"#);
            assert_eq!(
                Document::parse("gate/b", json.as_bytes()),
                Ok((document(&[]), false))
            );
        }
    }

    #[test]
    fn pitaya_metadata_that_comes_twice() {
        for (metadata, wanted) in [
            (
                r#"{"a":"1","b":"1"},"metadata":{"a":"2","c":"2"}"#,
                document(&[("a", "2"), ("b", "1"), ("c", "2")]),
            ),
            (r#"{"a":"1"},"Metadata":null"#, document(&[])),
            // The token's own place among them makes no difference.
            (
                r#"{"headcount.instance":"1","a":"1","a":"2","headcount.instance":"2"}"#,
                Document {
                    instance: Some("2".into()),
                    ..document(&[("a", "2")])
                },
            ),
        ] {
            let json =
                format!(r#"{{"id":"b","type":"gate","hostname":"vm","metadata":{metadata}}}"#);
            assert_eq!(
                Document::parse("gate/b", json.as_bytes()),
                Ok((wanted, false)),
                "{json}"
            );
        }
    }

    /// Written the usual way, changed by a character or two, and in other forms: where the quick
    /// way gives anything, it is what serde reads.
    #[test]
    fn pitaya_the_quick_way_reads_what_serde_reads() {
        let metadata = [
            "{}",
            "null",
            r#"{"":""}"#,
            r#"{"a":"1"}"#,
            r#"{"a":"1","é":"2","a":"3"}"#,
        ];
        let written = metadata.map(|metadata| {
            format!(
                r#"{{"id":"b","type":"gate","metadata":{metadata},"frontend":true,"hostname":"vm"}}"#
            )
        });
        let mut quick = 0;
        let mut check = |value: &[u8]| {
            if let Some(raw) = Raw::usual(value) {
                let text = String::from_utf8_lossy(value);
                assert_eq!(serde_json::from_slice(value).ok(), Some(raw), "{text}");
                quick += 1;
            }
        };
        for value in &written {
            check(value.as_bytes());
            for at in 0..value.len() {
                for new in [
                    "", "\"", "\\", ",", ":", "{", "}", "\n", "x", "\u{7f}", "\"\"",
                ] {
                    for skip in [0, 1, 2] {
                        let end = (at + skip).min(value.len());
                        let (start, end) = (&value.as_bytes()[..at], &value.as_bytes()[end..]);
                        check(&[start, new.as_bytes(), end].concat());
                    }
                }
            }
        }
        // A part left out, and whatever may stand for it.
        let whole = &written[3];
        for part in [
            r#","metadata":{"a":"1"}"#,
            r#""a":"1""#,
            r#":"1""#,
            r#","frontend":true"#,
        ] {
            for new in ["", "}", "{", "{}", ",", r#""""#] {
                check(whole.replacen(part, new, 1).as_bytes());
            }
        }
        assert!(quick > 100, "{quick}");
        let usual = |value: &str| Raw::usual(value.as_bytes()).is_some();
        assert_eq!(
            written.map(|value| usual(&value)),
            [true, false, true, true, true]
        );
    }

    #[test]
    fn key_wins_over_value() {
        let (_, mismatch) = Document::parse("gate/b", br#"{"id":"c","type":"gate"}"#).unwrap();
        assert!(mismatch);
    }

    #[test]
    fn g13_bad_values_are_errors() {
        let deep = "[".repeat(100_000);
        for json in [
            "",
            "null",
            "[]",
            "7",
            "\"x\"",
            "{",
            "{}x",
            "\u{0}",
            r#"{"id":7}"#,
            r#"{"metadata":{"a":1}}"#,
            r#"{"metadata":[]}"#,
            r#"{"frontend":"yes"}"#,
            deep.as_str(),
        ] {
            assert_eq!(
                Document::parse("gate/b", json.as_bytes()),
                Err(BadValue::Unparsable),
                "{}",
                &json[..json.len().min(40)]
            );
        }
        assert!(Document::parse("gate/b", b"{\"id\":\"\xff\"}").is_err());
    }
}
