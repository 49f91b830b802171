//! A checkpoint's `config.json` as far as the host reads it: what kind of checkpoint it is. The rest is the
//! plugin's.

use std::path::Path;

use longhaul_plugin_api::checkpoint::standard_json;
use serde_json::{Map, Value};

use crate::checkpoint::files::{FileError, bad, read_text};

/// A `config.json`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its text.
    pub text: String,
    /// Its `model_type`.
    pub model_type: String,
    /// Its keys and values.
    pub keys: Map<String, Value>,
}

impl Config {
    /// Reads the config of a checkpoint's folder.
    ///
    /// # Errors
    /// A file that is no config, or does not say what the checkpoint is.
    pub fn read(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join("config.json");
        let text = read_text(&path)?;
        let value = serde_json::from_str(&standard_json(&text))
            .map_err(|error| bad(&path, format!("it is not JSON: {error}")))?;
        let Value::Object(keys) = value else {
            return Err(bad(&path, "it is not an object of keys and values"));
        };
        let nothing = "so nothing says what the checkpoint is";
        let model_type = match keys.get("model_type") {
            Some(Value::String(word)) if !word.is_empty() => word.clone(),
            Some(_) => {
                return Err(bad(
                    &path,
                    format!("`model_type` in it is no word, {nothing}"),
                ));
            }
            None => match state_spaces(&keys) {
                Some(kind) => kind.to_owned(),
                None => {
                    let what = "no `model_type` in it, and no `d_model` with a whole `n_layer` as \
                                state-spaces' software writes";
                    return Err(bad(&path, format!("{what}, {nothing}")));
                }
            },
        };
        Ok(Self {
            text,
            model_type,
            keys,
        })
    }

    /// The text with another value for a key.
    pub fn with(&self, key: &str, value: Value) -> String {
        let mut keys = self.keys.clone();
        match key.split_once('.') {
            Some((outer, inner)) => {
                let outer = keys.get_mut(outer).and_then(Value::as_object_mut);
                outer.map(|outer| outer.insert(inner.to_owned(), value));
            }
            None => {
                keys.insert(key.to_owned(), value);
            }
        }
        Value::Object(keys).to_string()
    }

    /// The value of a key, `outer.inner` inside an object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match key.split_once('.') {
            Some((outer, inner)) => self.keys.get(outer)?.get(inner),
            None => self.keys.get(key),
        }
    }

    /// The keys inside its objects, `outer.inner`.
    pub fn inner_keys(&self) -> impl Iterator<Item = String> {
        let objects = self.keys.iter();
        let objects = objects.filter_map(|(outer, value)| Some((outer, value.as_object()?)));
        objects
            .flat_map(|(outer, object)| object.keys().map(move |inner| format!("{outer}.{inner}")))
    }

    /// What stands in for a `model_type` that is not there, in words for messages about what the kind asks for.
    pub fn known_by(&self) -> &'static str {
        if self.keys.contains_key("model_type") {
            return "";
        }
        "; what it is follows from `d_model`, `n_layer`, `ssm_cfg` and `attn_layer_idx`"
    }
}

/// What stands in the place of a `model_type` in configs of state-spaces' own software (`mamba_ssm`), which have none:
/// the kinds that it published, by their layers.
fn state_spaces(keys: &Map<String, Value>) -> Option<&'static str> {
    let layers = keys.get("n_layer")?.as_u64()?;
    keys.get("d_model")?;
    let attended = keys.get("attn_layer_idx").and_then(Value::as_array);
    let attended = attended.map_or(0, |list| list.len() as u64);
    let ssm = keys.get("ssm_cfg").and_then(|ssm| ssm.get("layer"));
    Some(match (attended, ssm.and_then(Value::as_str)) {
        (0, Some("Mamba2")) => "mamba_ssm-mamba2",
        (0, _) => "mamba_ssm-mamba",
        (count, _) if count == layers => "mamba_ssm-transformer",
        _ => "mamba_ssm-hybrid",
    })
}
