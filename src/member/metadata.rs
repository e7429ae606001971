//! Metadata of a member: string to string, sorted, compact.

use std::fmt;

/// What a member says about itself: a small sorted map from string to string.
///
/// Kept as one text, because a cluster of 100,000 members holds 100,000 of these: how many pairs
/// there are, then each pair's two lengths and its two texts. So equal maps are equal texts.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata(Box<str>);

impl Metadata {
    /// Of pairs with the same key the last one counts.
    pub(super) fn from_pairs<T: AsRef<str>>(mut pairs: Vec<(T, T)>) -> Self {
        if pairs.is_empty() {
            return Metadata::default();
        }
        pairs.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
        pairs.dedup_by(|later, kept| {
            let same = later.0.as_ref() == kept.0.as_ref();
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let size = |text: &T| width(text.as_ref().len()) + text.as_ref().len();
        let sizes = pairs.iter().map(|(k, v)| size(k) + size(v));
        let mut packed = String::with_capacity(width(pairs.len()) + sizes.sum::<usize>());
        put_number(&mut packed, pairs.len());
        for (key, value) in &pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            put_number(&mut packed, key.len());
            put_number(&mut packed, value.len());
            packed.push_str(key);
            packed.push_str(value);
        }
        Metadata(packed.into())
    }

    fn pairs(&self) -> Pairs<'_> {
        let mut rest = &*self.0;
        let left = match rest.is_empty() {
            true => 0,
            false => take_number(&mut rest),
        };
        Pairs { left, rest }
    }

    /// The value of `key`. Looks through the keys before it, of which there are few.
    pub fn get(&self, key: &str) -> Option<&str> {
        let (found, value) = self.pairs().find(|(k, _)| *k >= key)?;
        (found == key).then_some(value)
    }

    /// All pairs, in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        self.pairs()
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs().left
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

struct Pairs<'a> {
    left: usize,
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let key = take_number(&mut self.rest);
        let value = take_number(&mut self.rest);
        let (key, rest) = self.rest.split_at(key);
        let (value, rest) = rest.split_at(value);
        self.rest = rest;
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Pairs<'_> {}

/// Numbers stand in the text as ASCII, the lowest bits first, so many a character.
const BITS: u32 = 6;
/// Marks the characters that another one follows.
const MORE: u8 = 1 << BITS;

/// How many characters a number takes.
fn width(number: usize) -> usize {
    (usize::BITS - number.leading_zeros()).div_ceil(BITS).max(1) as usize
}

fn put_number(text: &mut String, mut number: usize) {
    loop {
        let low = (number % usize::from(MORE)) as u8;
        number >>= BITS;
        if number == 0 {
            return text.push(char::from(low));
        }
        text.push(char::from(low | MORE));
    }
}

fn take_number(text: &mut &str) -> usize {
    let mut number = 0;
    for (at, byte) in text.bytes().enumerate() {
        number |= usize::from(byte % MORE) << (at as u32 * BITS);
        if byte < MORE {
            *text = &text[at + 1..];
            break;
        }
    }
    number
}

/// Of pairs with the same key the last one counts, as in a Go map read from JSON.
impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(k, v)| (k.into(), v.into()));
        Metadata::from_pairs(pairs.collect::<Vec<(Box<str>, Box<str>)>>())
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_last_wins() {
        let m: Metadata = [("z", "1"), ("a", "2"), ("z", "3")].into_iter().collect();
        assert_eq!(m.iter().collect::<Vec<_>>(), [("a", "2"), ("z", "3")]);
        assert_eq!(m.get("z"), Some("3"));
        assert_eq!(m.get("b"), None);
    }

    #[test]
    fn any_number_and_length_comes_back() {
        let lengths = [0, 1, 63, 64, 65, 4095, 4096, 300_000];
        for length in lengths {
            let mut text = String::new();
            put_number(&mut text, length);
            assert_eq!(text.len(), width(length));
            text.push('x');
            let mut rest = text.as_str();
            assert_eq!((take_number(&mut rest), rest), (length, "x"));
        }
        for count in [0, 1, 63, 64, 5000] {
            let pairs = (0..count).map(|n| {
                let value = "é".repeat(lengths[n % 6]);
                (format!("{n:04}"), value)
            });
            let pairs: Vec<_> = pairs.collect();
            let m: Metadata = pairs.iter().rev().cloned().collect();
            assert_eq!((m.len(), m.is_empty()), (count, count == 0));
            assert_eq!(m.iter().len(), count);
            assert!(m.iter().eq(pairs.iter().map(|(k, v)| (&**k, &**v))));
            assert!(pairs.iter().all(|(k, v)| m.get(k) == Some(v)));
            assert_eq!((m.get(""), m.get("0000x"), m.get("x")), (None, None, None));
        }
    }
}
