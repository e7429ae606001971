//! Where things stand under the prefix, and which keys are whose.

/// The names below one prefix.
///
/// One range, `[<prefix>servers-, <prefix>servers0)`, covers the members (`servers/…`) and the
/// gone notes (`servers-gone/…`), so that a transaction which deletes one and writes the other
/// arrives as one watch response. Whatever else lies in that range is skipped: every returned key
/// is checked here.
#[derive(Debug, Clone)]
pub(crate) struct Keyspace {
    prefix: Box<str>,
}

/// Of `type/id`: far more than anybody's names take, and little enough for as many of them as
/// there may be members.
pub(crate) const MAX_NAME_BYTES: usize = 1024;

const MEMBERS: &str = "servers/";
const NOTES: &str = "servers-gone/";

/// What a key in the range is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// A member, by `type/id`.
    Member(&'a str),
    /// Why the given incarnation of `type/id` went.
    Note(&'a str, i64),
    /// Below `servers/`, but not a member's key.
    BadMember,
    /// Nothing of ours.
    Foreign,
}

impl Keyspace {
    pub fn new(prefix: &str) -> Self {
        Keyspace {
            prefix: prefix.into(),
        }
    }

    /// First key of the range.
    pub fn range_start(&self) -> Vec<u8> {
        format!("{}servers-", self.prefix).into_bytes()
    }

    /// First key past the range: `0` is the character after `/`.
    pub fn range_end(&self) -> Vec<u8> {
        format!("{}servers0", self.prefix).into_bytes()
    }

    /// The key of the member `type/id`.
    pub fn member(&self, name: &str) -> Vec<u8> {
        format!("{}{MEMBERS}{name}", self.prefix).into_bytes()
    }

    /// The key of the note that tells why an incarnation of `type/id` went.
    pub fn note(&self, name: &str, incarnation: i64) -> Vec<u8> {
        format!("{}{NOTES}{name}/{incarnation}", self.prefix).into_bytes()
    }

    /// What `key` is about.
    pub fn place<'a>(&self, key: &'a [u8]) -> Place<'a> {
        let Some(rest) = key.strip_prefix(self.prefix.as_bytes()) else {
            return Place::Foreign;
        };
        if let Some(name) = rest.strip_prefix(MEMBERS.as_bytes()) {
            return match std::str::from_utf8(name) {
                Ok(name) if is_name(name) => Place::Member(name),
                _ => Place::BadMember,
            };
        }
        let note = rest
            .strip_prefix(NOTES.as_bytes())
            .and_then(|n| std::str::from_utf8(n).ok());
        match note.and_then(|n| n.rsplit_once('/')) {
            // Written in one way only, so that no two keys are about the same end.
            Some((name, incarnation))
                if is_name(name) && incarnation.starts_with(|c| ('1'..='9').contains(&c)) =>
            {
                match incarnation.parse() {
                    Ok(incarnation) => Place::Note(name, incarnation),
                    Err(_) => Place::Foreign,
                }
            }
            _ => Place::Foreign,
        }
    }
}

/// `type/id`, both non-empty, without a further slash, and fit for a line of a log.
pub(crate) fn is_name(name: &str) -> bool {
    match name.split_once('/') {
        Some((kind, id)) if name.len() <= MAX_NAME_BYTES => {
            let plain = !name.chars().any(char::is_control);
            plain && !kind.is_empty() && !id.is_empty() && !id.contains('/')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g13_every_key_is_checked() {
        let keys = Keyspace::new("pitaya/");
        for (key, place) in [
            (&b"pitaya/servers/gate/1"[..], Place::Member("gate/1")),
            (b"pitaya/servers/gate/", Place::BadMember),
            (b"pitaya/servers//1", Place::BadMember),
            (b"pitaya/servers/gate", Place::BadMember),
            (b"pitaya/servers/gate/a\nb", Place::BadMember),
            (b"pitaya/servers/gate/1/x", Place::BadMember),
            (b"pitaya/servers/gate/\xff", Place::BadMember),
            (b"pitaya/servers2/gate/1", Place::Foreign),
            (b"pitaya/servers-gone/gate/1/77", Place::Note("gate/1", 77)),
            (b"pitaya/servers-gone/gate/1/x", Place::Foreign),
            (b"pitaya/servers-gone/gate/1/+77", Place::Foreign),
            (b"pitaya/servers-gone/gate/1/077", Place::Foreign),
            (b"pitaya/servers-gone/gate/1/-7", Place::Foreign),
            (b"pitaya/servers-gone/gate/77", Place::Foreign),
            (b"pitaya/servers.x", Place::Foreign),
            (b"other/servers/gate/1", Place::Foreign),
            (b"", Place::Foreign),
        ] {
            assert_eq!(keys.place(key), place, "{}", String::from_utf8_lossy(key));
        }
        let longest = format!("gate/{}", "x".repeat(MAX_NAME_BYTES - 5));
        let longer = longest.clone() + "x";
        let at = |name: &str| (keys.member(name), keys.note(name, 7));
        let (member, note) = at(&longest);
        assert_eq!(keys.place(&member), Place::Member(&longest));
        assert_eq!(keys.place(&note), Place::Note(&longest, 7));
        let (member, note) = at(&longer);
        assert_eq!(keys.place(&member), Place::BadMember);
        assert_eq!(keys.place(&note), Place::Foreign);
    }

    #[test]
    fn range_covers_both_and_no_neighbour() {
        let keys = Keyspace::new("pitaya/");
        let (from, to) = (keys.range_start(), keys.range_end());
        let inside = |k: &[u8]| k >= &from[..] && k < &to[..];
        assert!(inside(&keys.member("gate/1")));
        assert!(inside(&keys.note("gate/1", 5)));
        assert!(!inside(b"pitaya/servers2/gate/1"));
        assert!(!inside(b"pitaya/servers0"));
        assert!(!inside(b"pitaya/server/x"));
    }
}
