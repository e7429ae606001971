//! Protobuf's JSON, as leniently as the gateway reads it and as it writes it.

use std::fmt;

use base64::Engine;
use base64::alphabet::{STANDARD as PLAIN, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, general_purpose::PAD};
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
    const LENIENT: GeneralPurposeConfig =
        PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&PLAIN, LENIENT);
    const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
    struct Base64;
    impl Visitor<'_> for Base64 {
        type Value = Box<[u8]>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("base64")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Box<[u8]>, E> {
            let decoded = match text.contains(['-', '_']) {
                true => URL.decode(text),
                false => ENGINE.decode(text),
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

pub(super) fn named_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Names,
{
    struct One<T>(T);
    impl<'de, T: Names> Deserialize<'de> for One<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            named(deserializer).map(One)
        }
    }
    Ok(list::<D, One<T>>(deserializer)?
        .into_iter()
        .map(|one| one.0)
        .collect())
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
