//! Changes to JSON documents, value by value: a key removed, doubled into its neighbour, or given a value
//! of another size, type or depth.

use serde_json::{Map, Number, Value};

use crate::random::Random;
use crate::text::{AWKWARD, bytes, string};

/// A value that a key was not meant to have; sometimes the old one, changed.
pub fn value(random: &mut Random, old: &Value) -> Value {
    match random.below(10) {
        0 => Value::Null,
        1 => Value::Bool(random.one_in(2)),
        2 => Value::from(*random.choose(&[
            0i64,
            1,
            2,
            3,
            5,
            7,
            16,
            17,
            40,
            1 << 16,
            1 << 31,
            1 << 32,
            i64::MAX,
            -1,
        ])),
        3 => Value::from(*random.choose(&[0.0, 0.5, -1.0, 1e-30, 1e30, 1e300, f64::MIN_POSITIVE])),
        4 => Value::from(*random.choose(AWKWARD)),
        5 => Value::Array((0..random.below(4)).map(|_| value(random, old)).collect()),
        6 => {
            let word = (*random.choose(AWKWARD)).to_owned();
            Value::Object(Map::from_iter([(word, old.clone())]))
        }
        7 => (0..random.below(200)).fold(old.clone(), |inner, _| Value::Array(vec![inner])),
        _ => near(random, old),
    }
}

/// A value of the same type beside the old one.
fn near(random: &mut Random, old: &Value) -> Value {
    match old {
        Value::Number(number) => match number.as_i64() {
            Some(whole) => {
                let change = *random.choose(&[-1, 1, whole, -whole]);
                Value::from(whole.saturating_add(change))
            }
            None => {
                let factor = *random.choose(&[-1.0, 0.0, 10.0, 1e9]);
                let changed = number.as_f64().unwrap_or(1.0) * factor;
                Number::from_f64(changed).map_or(Value::Null, Value::Number)
            }
        },
        Value::String(text) => Value::from(string(random, text)),
        Value::Bool(yes) => Value::Bool(!yes),
        Value::Array(list) => {
            let mut list = list.clone();
            match list.len() {
                0 => list.push(Value::Null),
                count => drop(list.remove(random.below(count))),
            }
            Value::Array(list)
        }
        Value::Object(_) => document(random, old),
        Value::Null => Value::Bool(true),
    }
}

/// A document with one to three keys removed, added or changed, at any depth.
pub fn document(random: &mut Random, from: &Value) -> Value {
    let mut changed = from.clone();
    for _ in 0..=random.below(3) {
        change(random, &mut changed);
    }
    changed
}

fn change(random: &mut Random, place: &mut Value) {
    match place {
        Value::Object(map) if !map.is_empty() && !random.one_in(8) => {
            let key = random
                .choose(&map.keys().cloned().collect::<Vec<_>>())
                .clone();
            match random.below(8) {
                0 => drop(map.remove(&key)),
                1 => {
                    let renamed = string(random, &key);
                    let moved = map.remove(&key).unwrap_or(Value::Null);
                    map.insert(renamed, moved);
                }
                _ => change(random, map.get_mut(&key).expect("a key of the map")),
            }
        }
        Value::Array(list) if !list.is_empty() && !random.one_in(4) => {
            let index = random.below(list.len());
            change(random, &mut list[index]);
        }
        other => *other = value(random, &other.clone()),
    }
}

/// Values as they are written, among them numbers that a parsed document cannot hold.
const RAW: [&str; 16] = [
    "0",
    "-1",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "-5",
    "1e-320",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"\\u001b[2J../../x\"",
    "1e999",
];

/// A document on one line with a value replaced as it is written, so that a program's own numbers meet
/// those that JSON allows; or some values changed, or some bytes.
///
/// # Panics
/// Where `line` is not JSON with a key.
pub fn message(random: &mut Random, line: &str) -> Vec<u8> {
    match random.below(4) {
        0 => bytes(random, line.as_bytes()),
        1 => {
            let parsed = serde_json::from_str(line).expect("the corpus is JSON");
            document(random, &parsed).to_string().into_bytes()
        }
        _ => {
            let colons: Vec<usize> = line.match_indices(':').map(|(place, _)| place).collect();
            let begin = random.choose(&colons) + 1;
            let rest = &line[begin..];
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            [&line[..begin], *random.choose(&RAW), &rest[end..]]
                .concat()
                .into_bytes()
        }
    }
}
