//! Which keys of a config a misfit follows from. A tensor that a file lacks, or has in another shape, is
//! told by its own name; what the user can change is a key. The keys are found by trying: those whose
//! change would change the plugin's place for that tensor.

use longhaul_plugin_api::checkpoint::{
    CONFIG_KEY, CheckpointPlan, OPTION_KEY, TensorPlace, WORDS, values,
};
use longhaul_plugin_api::client::LoadedPlugin;
use serde_json::{Value, json};

use crate::checkpoint::config::Config;

/// Most tensors of a plan that is made again for every change.
const MOST_TENSORS: usize = 20_000;

/// The part of a message that names the keys which decide whether and how the checkpoint has a tensor:
/// `; that follows from a 3 and b true in config.json`. Empty where none does.
pub fn keys_of(
    plugin: &LoadedPlugin,
    config: &Config,
    plan: &CheckpointPlan,
    tensor: &str,
) -> String {
    if plan.tensors.len() > MOST_TENSORS {
        return String::new();
    }
    let place = |plan: &CheckpointPlan| shape_of(plan, tensor);
    let now = place(plan);
    let decides = |key: &&str| {
        let mut changes = changed(config.get(key));
        changes.extend(all_layers(plan, config.get(key)));
        changes.extend(other_words(plan, key));
        changes.extend(known_words(plan, key));
        changes.into_iter().any(|value| {
            let text = config.with(key, value);
            let other = plugin.checkpoint(&config.model_type, &text);
            other.is_some_and(|other| other.is_ok_and(|other| place(&other) != now))
        })
    };
    let inner: Vec<String> = config.inner_keys().collect();
    let named: Vec<String> = values(&plan.extra, CONFIG_KEY)
        .chain(inner.iter().map(String::as_str))
        .filter(decides)
        .map(|key| match config.get(key) {
            Some(value) if value.is_array() || value.is_object() => format!("`{key}`"),
            Some(value) => format!("`{key}` {value}"),
            None => format!("`{key}`, which is absent,"),
        })
        .collect();
    let kind = config.known_by();
    if named.is_empty() {
        return kind.to_owned();
    }
    format!(
        "; that follows from {} in config.json{kind}",
        named.join(" and ")
    )
}

fn shape_of(plan: &CheckpointPlan, tensor: &str) -> Option<Vec<usize>> {
    let places = plan.tensors.iter();
    let place: Option<&TensorPlace> = places.into_iter().find(|place| place.tensor == tensor);
    place.map(TensorPlace::tensor_shape)
}

/// Other values for a key that has this one.
fn changed(value: Option<&Value>) -> Vec<Value> {
    match value {
        None | Some(Value::Null) => vec![
            json!(1),
            json!(2),
            json!(4),
            json!(8),
            json!(true),
            json!(false),
            json!([0]),
        ],
        Some(Value::Bool(yes)) => vec![json!(!yes)],
        Some(Value::Number(number)) => number.as_u64().map_or_else(
            || factors(number),
            |size| {
                let near = [
                    size.saturating_mul(4),
                    size.saturating_mul(2),
                    size / 2,
                    size.saturating_add(1),
                    size.saturating_sub(1),
                    1,
                    0,
                ];
                near.map(Value::from).to_vec()
            },
        ),
        Some(Value::Array(list)) => {
            let reversed = list.iter().rev().cloned().collect();
            let turned = list.iter().cycle().skip(1).take(list.len());
            let lists = [
                Vec::new(),
                reversed,
                turned.cloned().collect(),
                vec![json!(0)],
            ];
            let lists = lists.into_iter().filter(|other| other != list);
            lists.map(Value::Array).collect()
        }
        Some(_) => Vec::new(),
    }
}

/// Other values of a factor.
fn factors(number: &serde_json::Number) -> Vec<Value> {
    let value = number.as_f64().unwrap_or(1.0);
    [2.0 * value, 0.5 * value, 1.0, 2.0]
        .map(Value::from)
        .to_vec()
}

/// The words that this key may have, where it is one of several, each also as a list with a word a layer.
fn known_words(plan: &CheckpointPlan, key: &str) -> Vec<Value> {
    let mut pairs = values(&plan.extra, WORDS).filter_map(|pair| pair.split_once('='));
    let words = pairs.find(|(of, _)| *of == key).map(|(_, words)| words);
    let words = words.into_iter().flat_map(|words| words.split('+'));
    words
        .flat_map(|word| [json!(word), json!(vec![word; plan.layers as usize])])
        .collect()
}

/// The list of all layers, for a key that may be a list of some.
fn all_layers(plan: &CheckpointPlan, value: Option<&Value>) -> Option<Value> {
    let list = value.is_none_or(|value| value.is_null() || value.is_array());
    list.then(|| json!((0..plan.layers).collect::<Vec<_>>()))
}

/// The kinds of layers that an option joins by `+`, in other orders, where this key lists them.
fn other_words(plan: &CheckpointPlan, key: &str) -> Vec<Value> {
    let mut pairs = values(&plan.extra, OPTION_KEY).filter_map(|pair| pair.split_once('='));
    let option = pairs
        .find(|(_, from)| *from == key)
        .map(|(option, _)| option);
    let given = plan
        .options
        .iter()
        .find(|given| option == Some(given.0.as_str()));
    let words: Vec<&str> =
        given.map_or_else(Vec::new, |given| given.1.as_str().split('+').collect());
    let turned = |by| {
        words
            .iter()
            .cycle()
            .skip(by)
            .take(words.len())
            .collect::<Vec<_>>()
    };
    (1..words.len().min(8))
        .map(|by| json!(turned(by)))
        .collect()
}

/// A message about options, with the key of the config that each option in it was read from.
pub fn with_keys(message: &str, plan: &CheckpointPlan) -> String {
    let sizes = [
        ("d_model", "hidden_size"),
        ("layers", "num_hidden_layers"),
        ("vocab", "vocab_size"),
    ];
    let pairs = values(&plan.extra, OPTION_KEY).filter_map(|pair| pair.split_once('='));
    let mut whole = message.to_owned();
    for (option, key) in pairs.chain(sizes) {
        if has_word(message, option) && !has_word(&whole, key) {
            whole.push_str(&format!("; `{option}` is read from `{key}` in config.json"));
        }
    }
    whole
}

/// Whether a text has a name that is not part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(|c| part_of_name(c) && c != '.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole() {
        assert!(has_word("option `heads` is", "heads") && has_word("heads.", "heads"));
        assert!(!has_word("kv_heads", "heads") && !has_word("a.heads", "heads"));
    }

    #[test]
    fn every_type_of_value_has_others() {
        for value in [json!(4), json!(true), json!(["a", "b"]), Value::Null] {
            assert!(
                changed(Some(&value)).iter().all(|other| *other != value),
                "{value}"
            );
        }
    }
}
