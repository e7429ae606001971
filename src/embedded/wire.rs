//! Protobuf's JSON, as leniently as the gateway reads it and as it writes it.

use std::fmt;

use base64::Engine;
use base64::alphabet::{STANDARD as STANDARD_ALPHABET, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, NO_PAD, STANDARD};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Deserialize as Read, Serialize, Serializer};

use crate::etcd::number;

/// A number, a number in a string, or null for zero.
pub(super) fn int<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Read)]
    struct Number(#[serde(deserialize_with = "number")] i64);
    Ok(Option::<Number>::deserialize(deserializer)?.map_or(0, |n| n.0))
}

pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or_default())
}

/// Base64 of either alphabet, padded or not; null for nothing.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[u8]>, D::Error> {
    const BARE: GeneralPurposeConfig = NO_PAD.with_decode_allow_trailing_bits(true);
    const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD_ALPHABET, BARE);
    const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, BARE);
    struct Base64;
    impl Visitor<'_> for Base64 {
        type Value = Box<[u8]>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("base64")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Box<[u8]>, E> {
            let bare = text.trim_end_matches('=');
            let padding = text.len() - bare.len();
            if padding > 2 || (padding > 0 && text.len() % 4 != 0) {
                return Err(E::custom("base64 with a padding that does not fit"));
            }
            let decoded = match bare.contains(['-', '_']) {
                true => URL.decode(bare),
                false => PLAIN.decode(bare),
            };
            decoded.map(Vec::into).map_err(E::custom)
        }
        fn visit_unit<E: Error>(self) -> Result<Box<[u8]>, E> {
            Ok(Box::default())
        }
    }
    deserializer.deserialize_any(Base64)
}

/// A list, or null for none.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// An enum of protobuf's by its number or its name; null for the first.
pub(super) trait Names: Copy + 'static {
    /// In the order of their numbers.
    const NAMES: &'static [(&'static str, Self)];
}

pub(super) fn named<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Names,
{
    struct Name<T>(std::marker::PhantomData<T>);
    impl<T: Names> Visitor<'_> for Name<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            let names = T::NAMES.iter().map(|(name, _)| *name);
            write!(f, "one of {:?}", names.collect::<Vec<_>>())
        }
        fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
            let known = T::NAMES.iter().find(|(known, _)| *known == name);
            known
                .map(|(_, value)| *value)
                .ok_or_else(|| E::custom(format!("unknown value {name:?}")))
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            let known = usize::try_from(number).ok().and_then(|n| T::NAMES.get(n));
            known
                .map(|(_, value)| *value)
                .ok_or_else(|| E::custom(format!("unknown value {number}")))
        }
        fn visit_unit<E: Error>(self) -> Result<T, E> {
            Ok(T::NAMES[0].1)
        }
    }
    deserializer.deserialize_any(Name(std::marker::PhantomData))
}

/// A list of them, without those that are none.
pub(super) fn known_names<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Names,
{
    #[derive(Read)]
    #[serde(untagged)]
    enum One {
        Number(i64),
        Name(String),
    }
    let all = list::<D, One>(deserializer)?.into_iter();
    let known = all.filter_map(|one| match one {
        One::Number(number) => T::NAMES.get(usize::try_from(number).ok()?),
        One::Name(name) => T::NAMES.iter().find(|(known, _)| *known == name),
    });
    Ok(known.map(|(_, value)| *value).collect())
}

/// A 64-bit number, written as a string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Text(pub i64);

impl Text {
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Bytes, written as base64.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base64<'a>(pub &'a [u8]);

impl Base64<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}
