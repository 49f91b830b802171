//! A table's column in little room: each distinct value once, and a place among them for each row.

use std::collections::HashMap;
use std::hash::Hash;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

/// A column. Without places the values stand for themselves, a row each.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Column {
    values: Vec<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    places: Option<Places>,
}

/// Where the value of each row stands.
#[derive(Debug, PartialEq, Serialize)]
struct Places {
    /// Bytes a place: 0 where there is one value, else 1, 2 or 4.
    width: usize,
    /// The places in base64, least byte first.
    base64: String,
}

impl Column {
    /// Of a value a row.
    pub fn new<T: Hash + Eq + Serialize>(rows: impl IntoIterator<Item = T>) -> Self {
        let mut known: HashMap<T, u32> = HashMap::new();
        let mut values = Vec::new();
        let mut place = |value: T| {
            let next = values.len() as u32;
            *known.entry(value).or_insert_with_key(|value| {
                values.push(serde_json::to_value(value).expect("a plain value serialises"));
                next
            })
        };
        let places: Vec<u32> = rows.into_iter().map(&mut place).collect();
        // A place takes up to six characters, a number some nine: of mostly different values places save nothing.
        if values.len() > 1 && values.len() > places.len() / 2 {
            let values = places.iter().map(|&place| values[place as usize].clone());
            return Self {
                values: values.collect(),
                places: None,
            };
        }
        let width = match values.len() {
            0 | 1 => 0,
            2..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        };
        let bytes = places
            .iter()
            .flat_map(|place| place.to_le_bytes().into_iter().take(width));
        let base64 = STANDARD.encode(bytes.collect::<Vec<u8>>());
        Self {
            values,
            places: Some(Places { width, base64 }),
        }
    }
}

/// A number with a fraction as a column's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Real(u64);

impl Real {
    /// In full.
    pub fn whole(value: Option<f64>) -> Option<Self> {
        value.map(|value| Self(value.to_bits()))
    }

    /// To so many digits.
    pub fn digits(value: Option<f64>, digits: usize) -> Option<Self> {
        let short = |value: f64| format!("{value:.*e}", digits - 1).parse().unwrap_or(value);
        Self::whole(value.map(short))
    }
}

impl Serialize for Real {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = f64::from_bits(self.0);
        // Without `.0`, which would be two characters a number.
        if value.fract() == 0.0 && (0.0..1e15).contains(&value) {
            serializer.serialize_u64(value as u64)
        } else {
            serializer.serialize_f64(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(column: &Column) -> String {
        serde_json::to_string(column).expect("plain data")
    }

    #[test]
    fn a_value_stands_once_and_most_different_ones_for_themselves() {
        let constant = Column::new(["a"; 4]);
        assert_eq!(
            json(&constant),
            r#"{"values":["a"],"places":{"width":0,"base64":""}}"#
        );
        let few = Column::new([5, 7, 5, 7, 7, 5]);
        assert_eq!(
            json(&few),
            r#"{"values":[5,7],"places":{"width":1,"base64":"AAEAAQEA"}}"#
        );
        assert_eq!(json(&Column::new([1, 2, 3])), r#"{"values":[1,2,3]}"#);
        let many = Column::new((0..1200).map(|row| row % 300));
        assert_eq!(many.places.expect("places").width, 2);
        assert_eq!(
            json(&Column::new([0_u8; 0])),
            r#"{"values":[],"places":{"width":0,"base64":""}}"#
        );
    }

    #[test]
    fn numbers_are_as_long_as_asked() {
        let text = |value| serde_json::to_string(&value).expect("a number");
        assert_eq!(text(Real::digits(Some(0.123_456_789), 4)), "0.1235");
        assert_eq!(text(Real::digits(Some(123_456.7), 3)), "123000");
        assert_eq!(text(Real::whole(Some(1.0))), "1");
        assert_eq!(text(Real::whole(Some(0.998_046_875))), "0.998046875");
        assert_eq!(text(Real::whole(None)), "null");
    }
}
