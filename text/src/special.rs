//! Special tokens as the files beside a tokenizer.json name them: tokenizer_config.json, generation_config.json
//! and config.json of the same folder, where they are there.

use std::path::Path;

use serde_json::Value;

use crate::error::TextError;
use crate::files;

/// Largest of these files that is read, in bytes; chat templates make some long.
const MOST: u64 = 16 << 20;

/// What they say.
#[derive(Debug, Default)]
pub(crate) struct Special {
    /// tokenizer_config.json.
    tokenizer: Value,
    /// generation_config.json and config.json.
    models: Vec<Value>,
}

impl Special {
    /// Reads the files beside a definition.
    pub fn beside(definition: &Path) -> Result<Self, TextError> {
        let folder = definition.parent().unwrap_or(Path::new("."));
        let read = |name: &str| -> Result<Value, TextError> {
            let path = folder.join(name);
            if !path.exists() {
                return Ok(Value::Null);
            }
            files::json(&path, MOST)
        };
        Ok(Self {
            tokenizer: read("tokenizer_config.json")?,
            models: vec![read("generation_config.json")?, read("config.json")?],
        })
    }

    /// The token in front of every text: as `add_bos_token` says, else what the definition itself adds.
    pub fn bos(
        &self,
        added: Option<u32>,
        id_of: impl Fn(&str) -> Option<u32>,
        path: &Path,
    ) -> Result<Option<u32>, TextError> {
        match self.tokenizer.get("add_bos_token").and_then(Value::as_bool) {
            Some(false) => Ok(None),
            Some(true) => {
                let token = word(self.tokenizer.get("bos_token"));
                let id = token.and_then(&id_of).or(added);
                id.map(Some).ok_or_else(|| {
                    TextError::not(
                        path,
                        "has no token for the `bos_token` that tokenizer_config.json says is added",
                    )
                })
            }
            None => Ok(added),
        }
    }

    /// Tokens that end an answer, ascending.
    pub fn stops(
        &self,
        id_of: impl Fn(&str) -> Option<u32>,
        vocab: usize,
        path: &Path,
    ) -> Result<Vec<u32>, TextError> {
        let named = word(self.tokenizer.get("eos_token")).and_then(id_of);
        let mut stops: Vec<u32> = named.into_iter().collect();
        let numbers = self
            .models
            .iter()
            .filter_map(|file| file.get("eos_token_id"));
        for number in numbers {
            let all = match number {
                Value::Array(all) => all.as_slice(),
                Value::Null => &[],
                one => std::slice::from_ref(one),
            };
            for one in all {
                let id = one.as_u64().filter(|&id| id < vocab as u64);
                let id = id.ok_or_else(|| {
                    TextError::not(
                        path,
                        format!("has {vocab} tokens, and the `eos_token_id` beside it is {one}"),
                    )
                })?;
                stops.push(id as u32);
            }
        }
        stops.sort_unstable();
        stops.dedup();
        Ok(stops)
    }
}

/// A token's text, which stands there as such or inside an object.
pub(crate) fn word(value: Option<&Value>) -> Option<&str> {
    let value = value?;
    value
        .as_str()
        .or_else(|| value.get("content").and_then(Value::as_str))
}
