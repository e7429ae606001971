//! Numbers and bytes as the gateway's JSON has them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serializer};
use std::borrow::Cow;

use crate::error::Error;
use crate::kv::Kv;

/// Writes bytes as base64.
pub(super) fn as_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// Reads JSON. UTF-8 is checked far faster all at once than string by string.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        // What matters in it may be sound.
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Reads base64 that is borrowed from the reply where it can be.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, Error> {
    STANDARD.decode(text).map_err(|e| Error::Protocol {
        reason: format!("bad base64 in a reply: {e}"),
    })
}

/// 64-bit numbers come as strings, 32-bit ones as numbers, and zeros not at all; either form is
/// taken for either.
pub(crate) fn number<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<i128>,
{
    struct Number;
    impl Visitor<'_> for Number {
        type Value = i128;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an integer, or one in a string")
        }
        fn visit_u64<E>(self, v: u64) -> Result<i128, E> {
            Ok(v.into())
        }
        fn visit_i64<E>(self, v: i64) -> Result<i128, E> {
            Ok(v.into())
        }
        fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<i128, E> {
            // Far fewer digits than overflow an i128 are far more than etcd has.
            if v.len() > 30 {
                return Err(E::custom("not a 64-bit integer"));
            }
            // Nearly all fit into an i64, which is read far faster.
            let usual = v.parse::<i64>().map(i128::from);
            let any = usual.or_else(|_| v.parse());
            any.map_err(|_| E::custom("not an integer"))
        }
    }
    let wide = deserializer.deserialize_any(Number)?;
    N::try_from(wide).map_err(|_| serde::de::Error::custom("an integer out of range"))
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub revision: i64,
    #[serde(deserialize_with = "number")]
    pub raft_term: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireKv<'a> {
    /// Never empty, so never left out.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    #[serde(default, borrow)]
    pub value: Cow<'a, str>,
    #[serde(default, deserialize_with = "number")]
    pub create_revision: i64,
    #[serde(default, deserialize_with = "number")]
    pub mod_revision: i64,
    #[serde(default, deserialize_with = "number")]
    pub lease: i64,
}

impl WireKv<'_> {
    pub fn decode(&self) -> Result<Kv, Error> {
        Ok(Kv {
            key: bytes(&self.key)?,
            value: bytes(&self.value)?,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            lease: self.lease,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct One {
        #[serde(default, deserialize_with = "number")]
        n: i64,
    }

    #[derive(Deserialize)]
    struct Unsigned {
        #[serde(deserialize_with = "number")]
        n: u64,
    }

    #[test]
    fn cluster_ids_use_all_64_bits() {
        let read = |json: &str| serde_json::from_str::<Unsigned>(json).map(|one| one.n);
        assert_eq!(read(r#"{"n":"18446744073709551615"}"#).unwrap(), u64::MAX);
        assert!(read(r#"{"n":"18446744073709551616"}"#).is_err());
        assert!(read(r#"{"n":"-1"}"#).is_err());
    }

    #[test]
    fn numbers_come_as_strings_or_numbers_or_not_at_all() {
        let read = |json: &str| serde_json::from_str::<One>(json).map(|one| one.n);
        assert_eq!(read(r#"{"n":"-7"}"#).unwrap(), -7);
        assert_eq!(read(r#"{"n":7}"#).unwrap(), 7);
        assert_eq!(read("{}").unwrap(), 0);
        assert_eq!(read(r#"{"n":"+007"}"#).unwrap(), 7);
        assert_eq!(read(r#"{"n":"9223372036854775807"}"#).unwrap(), i64::MAX);
        assert_eq!(read(r#"{"n":"-9223372036854775808"}"#).unwrap(), i64::MIN);
        // Longer than any i64, and one all the same.
        let padded = r#"{"n":"000000000000000000000000000007"}"#;
        assert_eq!(read(padded).unwrap(), 7);
        for bad in [
            r#"{"n":""}"#,
            r#"{"n":"9223372036854775808"}"#,
            r#"{"n":" 7"}"#,
            r#"{"n":"7x"}"#,
            r#"{"n":"99999999999999999999999999999999999999999999"}"#,
            r#"{"n":1.5}"#,
            r#"{"n":null}"#,
            r#"{"n":[]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
