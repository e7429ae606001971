//! JSON read the plain way: a tree that keeps the order of fields and those that come twice.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::kv::Kv;

#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Flag(bool),
    Whole(i128),
    Fraction,
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

/// Why there is nothing to compare with.
#[derive(Debug, PartialEq)]
pub enum Wrong {
    /// It must be refused.
    Refused,
    /// It may be refused, or read in some way: serde takes a list for a struct, and passes over
    /// what is unknown without a closer look.
    Unsure,
}

pub type Read<T> = Result<T, Wrong>;

impl Json {
    pub fn parse(bytes: &[u8]) -> Read<Json> {
        match serde_json::from_slice(bytes) {
            Ok(tree) => Ok(tree),
            Err(_) => match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
                Ok(_) => Err(Wrong::Unsure),
                Err(_) => Err(Wrong::Refused),
            },
        }
    }

    /// A field of an object; twice the same is refused.
    pub fn get(&self, name: &str) -> Read<Option<&Json>> {
        let fields = match self {
            Json::Map(fields) => fields,
            Json::List(_) => return Err(Wrong::Unsure),
            _ => return Err(Wrong::Refused),
        };
        let mut found = fields.iter().filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Wrong::Refused),
            (found, None) => Ok(found.map(|(_, value)| value)),
            (None, Some(_)) => unreachable!(),
        }
    }

    /// As [`get`](Self::get); `null` counts as left out.
    pub fn optional(&self, name: &str) -> Read<Option<&Json>> {
        Ok(self.get(name)?.filter(|value| **value != Json::Null))
    }

    pub fn number<N: TryFrom<i128> + Default>(&self, name: &str) -> Read<N> {
        let wide = match self.get(name)? {
            None => return Ok(N::default()),
            Some(Json::Whole(n)) => *n,
            Some(Json::Text(text)) if text.len() <= 30 => {
                text.parse().map_err(|_| Wrong::Refused)?
            }
            Some(_) => return Err(Wrong::Refused),
        };
        N::try_from(wide).map_err(|_| Wrong::Refused)
    }

    pub fn text(&self, name: &str) -> Read<&str> {
        match self.get(name)? {
            None => Ok(""),
            Some(Json::Text(text)) => Ok(text),
            Some(_) => Err(Wrong::Refused),
        }
    }

    pub fn flag(&self, name: &str) -> Read<bool> {
        match self.get(name)? {
            None => Ok(false),
            Some(Json::Flag(flag)) => Ok(*flag),
            Some(_) => Err(Wrong::Refused),
        }
    }

    pub fn list(&self, name: &str) -> Read<&[Json]> {
        match self.get(name)? {
            None => Ok(&[]),
            Some(Json::List(list)) => Ok(list),
            Some(_) => Err(Wrong::Refused),
        }
    }

    pub fn header(&self) -> Read<Header> {
        match self.get("header")? {
            None => Ok(Header::default()),
            Some(header) => Ok(Header {
                cluster: header.number("cluster_id")?,
                revision: header.number("revision")?,
                term: header.number("raft_term")?,
            }),
        }
    }

    /// A key and its value, still in base64.
    pub fn kv(&self) -> Read<Coded<'_>> {
        if self.get("key")?.is_none() {
            return Err(Wrong::Refused);
        }
        Ok(Coded {
            key: self.text("key")?,
            value: self.text("value")?,
            create_revision: self.number("create_revision")?,
            mod_revision: self.number("mod_revision")?,
            lease: self.number("lease")?,
        })
    }
}

#[derive(Default)]
pub struct Header {
    pub cluster: u64,
    pub revision: i64,
    pub term: u64,
}

pub struct Coded<'a> {
    pub key: &'a str,
    pub value: &'a str,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub lease: i64,
}

impl Coded<'_> {
    pub fn decode(&self) -> Read<Kv> {
        Ok(Kv {
            key: bytes(self.key)?,
            value: bytes(self.value)?,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            lease: self.lease,
        })
    }
}

pub fn bytes(text: &str) -> Read<Vec<u8>> {
    STANDARD.decode(text).map_err(|_| Wrong::Refused)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        struct Tree;
        impl<'de> Visitor<'de> for Tree {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
                Ok(Json::Flag(flag))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Json, E> {
                Ok(Json::Whole(n.into()))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Json, E> {
                Ok(Json::Whole(n.into()))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Fraction)
            }
            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Json::Map(fields))
            }
        }
        deserializer.deserialize_any(Tree)
    }
}
