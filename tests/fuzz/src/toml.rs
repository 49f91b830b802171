//! Changes to TOML documents: the JSON ones, written as TOML where TOML has such a value.

use serde_json::Value;

use crate::random::Random;
use crate::{json, text};

/// Values as TOML writes them, among them those that JSON has not.
const RAW: [&str; 24] = [
    "{}",
    "{ a = 1 }",
    "[]",
    "[[]]",
    "[{}]",
    "''",
    "'x'",
    "true",
    "0",
    "-1",
    "1e-300",
    "1e300",
    "nan",
    "inf",
    "-inf",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "0.5",
    "1979-05-27",
    "\"\u{e9}\"",
    "'mqar:pairs=4096'",
    "[0]",
    "[nan]",
];

/// A document with one to three values changed; one in eight has changed bytes instead, and of the rest
/// one in two has changed lines.
///
/// # Panics
/// Where `from` is not TOML.
pub fn document(random: &mut Random, from: &str) -> String {
    if random.one_in(8) {
        return text::string(random, from);
    }
    if random.one_in(2) {
        return lines(random, from);
    }
    let parsed: toml::Table = toml::from_str(from).expect("the corpus is TOML");
    let parsed = serde_json::to_value(parsed).expect("TOML's values are JSON's");
    let changed = without_nulls(json::document(random, &parsed));
    toml::to_string(&changed).unwrap_or_else(|_| text::string(random, from))
}

/// Some values, as they are written, replaced; some lines doubled, reversed or cut.
fn lines(random: &mut Random, from: &str) -> String {
    let mut lines: Vec<String> = from.lines().map(str::to_owned).collect();
    for _ in 0..=random.below(3) {
        let place = random.below(lines.len());
        let line = lines[place].clone();
        match random.below(5) {
            0 | 1 => {
                let key = line.split('=').next().unwrap_or("").trim();
                lines[place] = format!("{key} = {}", random.choose(&RAW));
            }
            2 => lines.insert(place, line),
            3 => lines[place] = line.chars().rev().collect(),
            _ => {
                let cut = random.below(line.chars().count() + 1);
                lines[place] = line.chars().take(cut).collect();
            }
        }
    }
    lines.join("\n")
}

/// TOML has no null: what would be one is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(list) => list
            .into_iter()
            .filter(|value| !value.is_null())
            .map(without_nulls)
            .collect(),
        other => other,
    }
}
