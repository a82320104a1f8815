//! The two identities of the system and the one encoder that makes keys.
//!
//! [`Digest`] names bytes by their content; [`Key`] names one job by everything that decides its result. Both are
//! BLAKE3-256 and are written as 64 lowercase hexadecimal characters everywhere: in files, in errors, on the screen.
//!
//! Invariant: a key depends on the set of its fields only, never on the order in which they were given
//! (`the_order_of_fields_does_not_matter`), and two different sets never encode to the same bytes
//! (`neighbouring_strings_cannot_be_confused`).
//!
//! Invariant: the explanation is what was hashed. [`KeyEncoder`] keeps one list of fields for both, so a
//! field cannot be hashed and left unexplained (`the_explanation_gives_the_key_back`).
//!
//! This module does no I/O and knows nothing of stages, pipelines or the store.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use thiserror::Error;

/// Hexadecimal characters of a full digest or key.
pub const HEX_N: usize = 64;

/// Hexadecimal characters of the short form: 40 bits, unambiguous for people among some 100,000 entries.
pub const SHORT_HEX_N: usize = 10;

/// The BLAKE3-256 digest of some bytes: the name of a blob.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of all that `reader` gives, which is never in memory as a whole.
    pub fn of_reader(reader: impl io::Read) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(reader)?;
        Ok(hasher.finalize().into())
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// The identity of one job: equal keys mean equal results.
///
/// Made by [`KeyEncoder`] only (or read back from its hexadecimal form).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

/// Why a text is not a digest or a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HexError {
    /// The text has another length.
    #[error("read a hash from {found_n} characters: it has {HEX_N} hexadecimal characters")]
    Length {
        /// Characters found.
        found_n: usize,
    },
    /// A character is not a lowercase hexadecimal digit.
    #[error("read a hash: the character {found:?} at position {position} is not one of 0-9 and a-f")]
    Character {
        /// Byte offset of the character, from 0.
        position: usize,
        /// The character.
        found: char,
    },
}

macro_rules! hexadecimal {
    ($name:ident, $noun:literal) => {
        impl $name {
            /// Takes the 32 bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// All 64 hexadecimal characters.
            #[must_use]
            pub fn to_hex(&self) -> String {
                let mut text = [0; HEX_N];
                for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
                }
                str::from_utf8(&text).expect("hexadecimal digits are ASCII").to_owned()
            }

            /// The first [`SHORT_HEX_N`] hexadecimal characters, for people.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = self.to_hex();
                text.truncate(SHORT_HEX_N);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_hex())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Hex;
                impl Visitor<'_> for Hex {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $noun, " of 64 hexadecimal characters"))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Hex)
            }
        }
    };
}

hexadecimal!(Digest, "digest");
hexadecimal!(Key, "key");

/// The version of the key encoding. A new number makes every key new, so every stored result is computed again.
const KEY_FORMAT: u32 = 1;

/// The domain tag, so that a key never equals the digest of some file by construction.
const KEY_TAG: &[u8] = b"ecgpipe job key";

/// One component of a key, as stored with the result: the explanation of a hit or a miss is the difference between
/// two lists of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct KeyField {
    /// What this is: `stage`, `code`, `param.length_n`, `input.signals`, `source.100.dat`, `seed`.
    pub name: String,
    /// Its value, in full: a hit is decided by this text.
    pub value: String,
}

/// Why no key can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Two values were given for one name, so the key would depend on which came last.
    #[error("make a key: the field `{name}` was given twice, as {first:?} and as {second:?}")]
    Duplicate {
        /// The name.
        name: String,
        /// The value given first.
        first: String,
        /// The value given next.
        second: String,
    },
}

/// Collects the fields of one job, then gives its key and its explanation.
///
/// The encoding, with integers in little-endian order: the tag, the format number (u32), the number of fields (u64),
/// then for each field in order of its name the length (u64) and bytes of the name and of the value.
///
/// Fields may be borrowed: a job that is found in the store needs its key only, and [`KeyEncoder::key`] copies none.
#[derive(Debug, Default)]
pub struct KeyEncoder<'a> {
    fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> KeyEncoder<'a> {
    /// An encoder without fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one field. Giving a name twice is a bug in the caller; [`KeyEncoder::finish`] reports it.
    pub fn field(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> &mut Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// The key.
    pub fn key(&mut self) -> Result<Key, KeyError> {
        // Stable, so that of two fields with one name the first stays the first.
        self.fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some([(name, first), (_, second)]) = self.fields.array_windows().find(|[(a, _), (b, _)]| a == b) {
            let [name, first, second] = [name, first, second].map(|text| text.clone().into_owned());
            return Err(KeyError::Duplicate { name, first, second });
        }
        // One buffer: the hasher takes long texts faster than many short ones.
        let text_n: usize = self.fields.iter().map(|(name, value)| 16 + name.len() + value.len()).sum();
        let mut bytes = Vec::with_capacity(KEY_TAG.len() + 12 + text_n);
        bytes.extend_from_slice(KEY_TAG);
        bytes.extend_from_slice(&KEY_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(self.fields.len() as u64).to_le_bytes());
        for text in self.fields.iter().flat_map(|(name, value)| [name, value]) {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        Ok(Key(*blake3::hash(&bytes).as_bytes()))
    }

    /// The key, and the sorted fields that explain it.
    pub fn finish(mut self) -> Result<(Key, Vec<KeyField>), KeyError> {
        let key = self.key()?;
        let field = |(name, value): (Cow<'_, str>, Cow<'_, str>)| KeyField {
            name: name.into_owned(),
            value: value.into_owned(),
        };
        Ok((key, self.fields.into_iter().map(field).collect()))
    }

    /// The key that `fields` make: tells whether a stored explanation belongs to its key.
    pub fn key_of(fields: &'a [KeyField]) -> Result<Key, KeyError> {
        let mut encoder = Self::new();
        for field in fields {
            encoder.field(field.name.as_str(), field.value.as_str());
        }
        encoder.key()
    }
}

fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble & 15)]
}

fn parse_hex(text: &str) -> Result<[u8; 32], HexError> {
    if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        let wrong = text.char_indices().find(|(_, c)| !matches!(c, '0'..='9' | 'a'..='f'));
        let (position, found) = wrong.expect("a byte that is not one of these is part of a character that is not");
        return Err(HexError::Character { position, found });
    }
    if text.len() != HEX_N {
        return Err(HexError::Length { found_n: text.len() });
    }
    let nibble = |character: u8| if character <= b'9' { character - b'0' } else { character - b'a' + 10 };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn key(fields: &[(&str, &str)]) -> Key {
        let mut encoder = KeyEncoder::new();
        for (name, value) in fields {
            encoder.field(*name, *value);
        }
        encoder.finish().unwrap().0
    }

    /// The expected values come from the Python package `blake3` 1.0.11:
    ///
    /// ```text
    /// python3 -c '
    /// import blake3, struct
    /// fields = sorted({"stage": "window", "param.length_n": "187", "seed": "2025"}.items())
    /// text = b"ecgpipe job key" + struct.pack("<I", 1) + struct.pack("<Q", len(fields))
    /// for pair in fields:
    ///     for word in pair: text += struct.pack("<Q", len(word)) + word.encode()
    /// print(blake3.blake3(b"abc").hexdigest()); print(blake3.blake3(text).hexdigest())'
    /// ```
    #[test]
    fn agrees_with_an_independent_encoder() {
        assert_eq!(Digest::of(b"abc").to_hex(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        let key = key(&[("stage", "window"), ("seed", "2025"), ("param.length_n", "187")]);
        assert_eq!(key.to_hex(), "81eaf39243ea9fadb237c77c7f45575ff07a4647e93e47839d71819932609677");
    }

    #[test]
    fn says_what_is_wrong_with_a_text() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_hex().parse(), Ok(digest));
        assert_eq!(digest.short(), "6437b3ac38");
        assert_eq!(format!("{digest:?} {digest}"), format!("Digest(6437b3ac38) {}", digest.to_hex()));
        let check = |text: &str, expected: HexError| assert_eq!(text.parse::<Key>(), Err(expected));
        check("", HexError::Length { found_n: 0 });
        check("6437b3", HexError::Length { found_n: 6 });
        check(&"0".repeat(65), HexError::Length { found_n: 65 });
        check(&"A".repeat(64), HexError::Character { position: 0, found: 'A' });
        check("00é", HexError::Character { position: 2, found: 'é' });
    }

    #[test]
    fn is_a_hexadecimal_string_in_json() {
        let digest = Digest::of(b"abc");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(text, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Digest>(&text).unwrap(), digest);
        let error = serde_json::from_str::<Digest>("\"6437\"").unwrap_err().to_string();
        assert!(error.starts_with("read a hash from 4 characters"), "{error}");
    }

    #[test]
    fn refuses_a_field_given_twice() {
        let mut encoder = KeyEncoder::new();
        encoder.field("seed", "1").field("stage", "window").field("seed", "1");
        let expected = KeyError::Duplicate { name: "seed".into(), first: "1".into(), second: "1".into() };
        assert_eq!(encoder.finish(), Err(expected));
    }

    #[test]
    fn neighbouring_strings_cannot_be_confused() {
        let all = [
            key(&[]),
            key(&[("", "")]),
            key(&[("ab", "c")]),
            key(&[("a", "bc")]),
            key(&[("a", ""), ("bc", "")]),
            key(&[("a", "b"), ("c", "")]),
            key(&[("a", "b\0c")]),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    proptest! {
        #[test]
        fn the_order_of_fields_does_not_matter(
            (sorted, shuffled) in proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..12)
                .prop_map(|fields| fields.into_iter().collect::<Vec<_>>())
                .prop_flat_map(|fields| (Just(fields.clone()), Just(fields).prop_shuffle()))
        ) {
            let encode = |fields: &[(String, String)]| {
                let mut encoder = KeyEncoder::new();
                for (name, value) in fields {
                    encoder.field(name.as_str(), value.as_str());
                }
                encoder.finish().unwrap()
            };
            prop_assert_eq!(encode(&sorted), encode(&shuffled));
        }

        #[test]
        fn the_explanation_gives_the_key_back(fields in proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..12)) {
            let mut encoder = KeyEncoder::new();
            for (name, value) in &fields {
                encoder.field(name.as_str(), value.as_str());
            }
            let (key, explanation) = encoder.finish().unwrap();
            prop_assert!(explanation.is_sorted());
            prop_assert_eq!(explanation.len(), fields.len());
            prop_assert_eq!(KeyEncoder::key_of(&explanation), Ok(key));
        }

        #[test]
        fn hexadecimal_text_round_trips(bytes in any::<[u8; 32]>()) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_hex().parse::<Digest>(), Ok(digest));
            prop_assert_eq!(digest.to_hex(), blake3::Hash::from_bytes(bytes).to_hex().to_string());
        }
    }
}
