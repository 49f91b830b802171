//! Changes to TOML documents: the JSON ones, written as TOML where TOML has such a value.

use serde_json::Value;

use crate::random::Random;
use crate::{json, text};

/// A document with one to three values changed; one in eight has changed bytes instead.
///
/// # Panics
/// Where `from` is not TOML.
pub fn document(random: &mut Random, from: &str) -> String {
    if random.one_in(8) {
        return text::string(random, from);
    }
    let parsed: toml::Table = toml::from_str(from).expect("the corpus is TOML");
    let parsed = serde_json::to_value(parsed).expect("TOML's values are JSON's");
    let changed = without_nulls(json::document(random, &parsed));
    toml::to_string(&changed).unwrap_or_else(|_| text::string(random, from))
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
