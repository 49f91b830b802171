//! One key of a checkpoint's config at a time takes every awkward value: the checkpoint is read, or the
//! sentence that refuses it names that key and not an option of ours.

use std::path::Path;

use longhaul_fuzz::checkpoints::{corpus, libraries, read};
use serde_json::{Map, Value, json};

/// Values that no key, one key or every key can have.
fn values(old: &Value) -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(2.5),
        json!(1e300),
        json!(2147483648u64),
        json!(u64::MAX),
        json!("x"),
        json!(""),
        json!([]),
        json!(["x"]),
        json!([9]),
        json!({}),
        json!({"x": 1}),
        json!("NaN"),
        json!("Infinity"),
    ];
    if let Some(number) = old.as_u64() {
        values.extend([json!(number + 1), json!(number * 2), json!(number / 2)]);
    }
    values
}

/// Tries a config; the message where it is refused without the key.
fn unnamed(
    folder: &Path,
    config: &Value,
    key: &str,
    attempt: impl Fn(&Path) -> Result<(), String>,
) -> Option<String> {
    std::fs::write(folder.join("config.json"), config.to_string()).expect("writable");
    let message = attempt(folder).err()?;
    (!message.contains(key)).then_some(message)
}

/// Every place of a key: the config's own, and those inside its objects.
fn places(config: &Map<String, Value>) -> Vec<Vec<String>> {
    let mut places = Vec::new();
    for (key, value) in config {
        places.push(vec![key.clone()]);
        let inner = value.as_object().into_iter().flatten();
        places.extend(inner.map(|(inner, _)| vec![key.clone(), inner.clone()]));
    }
    places
}

#[test]
fn a_refusal_names_the_key() {
    let libraries = libraries();
    let (mut tried, mut failures) = (0, Vec::new());
    for checkpoint in corpus() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        std::fs::write(path.join("model.safetensors"), &checkpoint.weights).expect("writable");
        let config: Map<String, Value> = serde_json::from_str(&checkpoint.config).expect("JSON");
        for place in places(&config) {
            let pointer = format!("/{}", place.join("/"));
            let key = place.last().expect("a key");
            let whole = Value::Object(config.clone());
            let old = whole
                .pointer(&pointer)
                .expect("a place of the config")
                .clone();
            let mut changed: Vec<Value> = values(&old)
                .into_iter()
                .map(|value| {
                    let mut config = whole.clone();
                    *config.pointer_mut(&pointer).expect("a place of the config") = value;
                    config
                })
                .collect();
            if let [key] = place.as_slice() {
                let mut without = config.clone();
                without.remove(key);
                changed.push(Value::Object(without));
            }
            for config in changed {
                tried += 1;
                let message = unnamed(path, &config, key, |path| read(path, &libraries));
                failures.extend(message.map(|message| {
                    format!(
                        "{} {pointer} = {:?}: {message}",
                        checkpoint.name,
                        config.pointer(&pointer)
                    )
                }));
            }
        }
    }
    assert!(tried > 5_000, "{tried} configs");
    assert!(
        failures.is_empty(),
        "{} of {tried} refusals do not name the key:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
