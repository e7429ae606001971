//! Any key and any value under the prefix.

use std::collections::BTreeMap;

use super::plain::{Json, Read, Wrong};
use crate::kv::Kv;
use crate::member::{Document, Keyspace, Place};
use crate::note::Note;
use crate::roster::{Rules, Skipped, TypeFilter};

const PREFIX: &str = "pitaya/";
const MAX_VALUE: usize = 1000;
const INSTANCE: &str = "headcount.instance";

/// A key is what its parts say, and is written again the same; a value within its bound is read as
/// Go would, and what was read and is written again reads the same; what is no member is counted
/// and told in one short line.
///
/// The first byte is the length of the key; the rest is the value.
pub fn member(input: &[u8]) {
    let Some((&length, rest)) = input.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(length).min(rest.len()));
    let keys = Keyspace::new(PREFIX);
    let place = keys.place(key);
    assert_eq!(place, plain_place(key));
    let again = match place {
        Place::Member(name) => Some(keys.member(name)),
        Place::Note(name, incarnation) => Some(keys.note(name, incarnation)),
        _ => None,
    };
    if let Some(again) = again {
        assert_eq!(again, key);
        assert!(keys.range_start()[..] <= *key && *key < keys.range_end()[..]);
    }
    let name = match place {
        Place::Member(name) => name,
        _ => "gate/b",
    };
    read(name, key, value, keys);
    note(value);
    document(name, value);
}

fn plain_place(key: &[u8]) -> Place<'_> {
    let Some(rest) = key.strip_prefix(PREFIX.as_bytes()) else {
        return Place::Foreign;
    };
    let parts: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
    let name = |rest: &'_ [u8], parts: &[&[u8]]| {
        let length = parts[1].len() + 1 + parts[2].len();
        let name = &rest[parts[0].len() + 1..][..length];
        let fit = std::str::from_utf8(name).is_ok_and(|name| !name.contains(char::is_control));
        (fit && !parts[1].is_empty() && !parts[2].is_empty()).then_some(length)
    };
    let text = |start: usize, length: usize| {
        std::str::from_utf8(&rest[start..start + length]).expect("it was looked at")
    };
    match (parts[0], parts.len()) {
        (b"servers", 1) => Place::Foreign,
        (b"servers", 3) => match name(rest, &parts) {
            Some(length) => Place::Member(text("servers/".len(), length)),
            None => Place::BadMember,
        },
        (b"servers", _) => Place::BadMember,
        (b"servers-gone", 4) => {
            let digits = parts[3];
            let plain = digits.iter().all(u8::is_ascii_digit) && !digits.starts_with(b"0");
            let incarnation = std::str::from_utf8(digits)
                .ok()
                .and_then(|d| d.parse().ok());
            match (name(rest, &parts), incarnation) {
                (Some(length), Some(incarnation)) if plain => {
                    Place::Note(text("servers-gone/".len(), length), incarnation)
                }
                _ => Place::Foreign,
            }
        }
        _ => Place::Foreign,
    }
}

/// As the roster reads it: counted, if it is no member.
fn read(name: &str, key: &[u8], value: &[u8], keys: Keyspace) {
    let rules = Rules {
        keys,
        filter: TypeFilter::default(),
        max_value_bytes: MAX_VALUE,
        max_members: 10,
    };
    let kv = Kv {
        key: key.into(),
        value: value.into(),
        create_revision: 2,
        mod_revision: 3,
        lease: 4,
    };
    let (mut skipped, mut notices) = (Skipped::default(), Vec::new());
    let member = rules.read(name, &kv, &mut skipped, &mut notices);
    let parsed = Document::parse(name, value).ok();
    let counts = skipped.counts();
    let (large, bad) = (value.len() > MAX_VALUE, parsed.is_none());
    assert_eq!(counts.too_large, u64::from(large));
    assert_eq!(counts.unparsable, u64::from(!large && bad));
    assert_eq!(member.is_some(), !large && !bad);
    if let (Some(member), Some((document, mismatch))) = (member, parsed) {
        assert_eq!(member.document(), &document);
        assert_eq!(format!("{}/{}", member.server_type(), member.id()), name);
        assert_eq!(counts.mismatched, u64::from(mismatch));
        let _ = format!("{member:?} {member}");
    }
    for notice in notices {
        let told = notice.to_string();
        assert!(!told.contains(char::is_control), "{told:?}");
        assert!(told.len() < 4000, "{} bytes", told.len());
    }
}

fn note(value: &[u8]) {
    let note = Note::parse(value);
    assert_eq!(Note::parse(&note.to_json()), note);
}

fn document(name: &str, value: &[u8]) {
    let read = Document::parse(name, value);
    match (&read, plain_document(name, value)) {
        (_, Err(Wrong::Unsure)) => {}
        (Ok(read), Ok(plain)) => assert_eq!(*read, plain),
        (Err(_), Err(Wrong::Refused)) => {}
        (read, plain) => panic!("{read:?} in place of {plain:?}"),
    }
    let Ok((document, _)) = read else { return };
    let written = document.to_json(name);
    assert_eq!(Document::parse(name, &written), Ok((document, false)));
    assert!(!written.iter().any(|byte| b"<>&".contains(byte)));
    let Ok(Json::Map(fields)) = Json::parse(&written) else {
        panic!("an object is written");
    };
    let names: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["id", "type", "metadata", "frontend", "hostname"]);
    let Json::Map(metadata) = &fields[2].1 else {
        panic!("metadata is an object");
    };
    assert!(metadata.is_sorted_by(|(a, _), (b, _)| a < b));
}

/// As Go reads it: in the order in which it comes, the later over the earlier; a map is added to,
/// and `null` empties it, but leaves all else as it is.
fn plain_document(name: &str, value: &[u8]) -> Read<(Document, bool)> {
    let Json::Map(fields) = Json::parse(value)? else {
        return Err(Wrong::Refused);
    };
    let (mut id, mut kind, mut hostname) = (String::new(), String::new(), String::new());
    let (mut metadata, mut frontend) = (BTreeMap::new(), false);
    for (field, value) in fields {
        match (&*field.to_ascii_lowercase(), value) {
            ("id", Json::Text(text)) => id = text,
            ("type", Json::Text(text)) => kind = text,
            ("hostname", Json::Text(text)) => hostname = text,
            ("frontend", Json::Flag(flag)) => frontend = flag,
            ("metadata", Json::Null) => metadata.clear(),
            ("metadata", Json::Map(pairs)) => {
                for (key, value) in pairs {
                    let text = match value {
                        Json::Text(text) => text,
                        Json::Null => String::new(),
                        _ => return Err(Wrong::Refused),
                    };
                    metadata.insert(key, text);
                }
            }
            ("id" | "type" | "hostname" | "frontend", Json::Null) => {}
            ("id" | "type" | "hostname" | "frontend" | "metadata", _) => {
                return Err(Wrong::Refused);
            }
            _ => {}
        }
    }
    let instance = metadata.remove(INSTANCE).map(Into::into);
    let document = Document {
        metadata: metadata.into_iter().collect(),
        frontend,
        hostname: hostname.into(),
        instance,
    };
    Ok((document, format!("{kind}/{id}") != name))
}
