//! From a Hugging Face `config.json` to a [`CheckpointPlan`]: what plugins need to say which tensor
//! becomes which parameter. It reads no tensor.

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::checkpoint::{CheckpointPlan, IGNORED, TensorPlace};
use longhaul_plugin_api::error::PluginError;
use serde_json::Value;

/// Largest size that is read from a config: far over any model's, and products of three still fit a word.
const MOST_SIZE: u64 = 1 << 20;

/// Most layers, as on the command line.
const MOST_LAYERS: u64 = 1 << 10;

/// Most token ids.
const MOST_VOCAB: u64 = 1 << 24;

/// A kind of checkpoint that a library reads.
pub struct Format {
    /// `model_type` of the `config.json`.
    pub model_type: &'static str,
    /// Turns a config into a plan.
    pub read: fn(&Config) -> Result<Plan>,
}

/// The plan of a checkpoint by the format of its `model_type`.
///
/// # Errors
/// No such format; a config that is not JSON, or not what the format needs.
pub fn plan(formats: &[Format], model_type: &str, config: &str) -> Result<CheckpointPlan> {
    let format = formats
        .iter()
        .find(|format| format.model_type == model_type)
        .ok_or_else(|| {
            PluginError::unsupported(format!(
                "this plugin reads no checkpoints of model_type `{model_type}`"
            ))
        })?;
    let value = serde_json::from_str(&without_bare_infinities(config))
        .map_err(|error| PluginError::bad_option(format!("config.json is not JSON: {error}")))?;
    Ok((format.read)(&Config { value })?.plan)
}

/// The text with `Infinity`, `-Infinity` and `NaN` outside strings quoted: Python writes them bare,
/// which JSON does not allow.
fn without_bare_infinities(text: &str) -> String {
    let quoted = |part: &str| {
        let part = part.replace("-Infinity", "\"minus infinity\"");
        let part = part.replace("Infinity", "\"Infinity\"");
        part.replace("NaN", "\"NaN\"")
    };
    // Parts between quotation marks that are not escaped: every second one is a string.
    let (mut parts, mut start) = (Vec::new(), 0);
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'\\' => escaped = !escaped,
            b'"' if !escaped => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => escaped = false,
        }
    }
    parts.push(&text[start..]);
    let parts = parts.into_iter().enumerate();
    let parts = parts.map(|(index, part)| match index % 2 {
        0 => quoted(part),
        _ => format!("\"{part}\""),
    });
    parts.collect()
}

/// A `config.json`.
pub struct Config {
    value: Value,
}

impl Config {
    /// A value by its key, or by keys joined with dots; absent and null are the same.
    fn find(&self, key: &str) -> Option<&Value> {
        let found = key
            .split('.')
            .try_fold(&self.value, |value, part| value.get(part));
        found.filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> PluginError {
        PluginError::bad_option(match self.find(key) {
            Some(value) => format!("`{key}` in config.json is {value}; it should be {expected}"),
            None => format!("config.json has no `{key}`, which should be {expected}"),
        })
    }

    /// Whether a key has a value.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// A size of at least 1, and at most [`MOST_SIZE`].
    ///
    /// # Errors
    /// If it is absent or no such number.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_to(key, MOST_SIZE)
    }

    /// A size from 1 to `most`.
    fn size_to(&self, key: &str, most: u64) -> Result<usize> {
        let size = self.find(key).and_then(Value::as_u64);
        size.filter(|size| (1..=most).contains(size))
            .map(|size| size as usize)
            .ok_or_else(|| self.wrong(key, &format!("a whole number from 1 to {most}")))
    }

    /// A token id.
    ///
    /// # Errors
    /// If it is absent or no such number.
    pub fn token(&self, key: &str) -> Result<u64> {
        let token = self.find(key).and_then(Value::as_u64);
        token.ok_or_else(|| self.wrong(key, "a token id"))
    }

    /// A size, or a default where it is absent.
    ///
    /// # Errors
    /// If it is no size.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.has(key) {
            self.size(key)
        } else {
            Ok(default)
        }
    }

    /// A number, or a default where it is absent.
    ///
    /// # Errors
    /// If it is no number.
    pub fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.find(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    /// Yes or no, or a default where it is absent.
    ///
    /// # Errors
    /// If it is neither.
    pub fn boolean_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.find(key) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A list of words.
    ///
    /// # Errors
    /// If it is absent or no such list.
    pub fn words(&self, key: &str) -> Result<Vec<&str>> {
        let list = self.find(key).and_then(Value::as_array);
        list.and_then(|list| list.iter().map(Value::as_str).collect())
            .ok_or_else(|| self.wrong(key, "a list of words"))
    }

    /// A list of sizes from 0.
    ///
    /// # Errors
    /// If it is absent or no such list.
    pub fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let list = self.find(key).and_then(Value::as_array);
        list.and_then(|list| {
            let sizes = list
                .iter()
                .map(|size| size.as_u64().map(|size| size as usize));
            sizes.collect()
        })
        .ok_or_else(|| self.wrong(key, "a list of whole numbers"))
    }

    /// Refuses a word that is not one of those supported; absent is allowed.
    ///
    /// # Errors
    /// If it is another.
    pub fn expect_word(&self, key: &str, supported: &[&str]) -> Result<()> {
        match self.find(key).map(Value::as_str) {
            None => Ok(()),
            Some(Some(word)) if supported.contains(&word) => Ok(()),
            Some(_) => Err(self.wrong(key, &supported.join(" or "))),
        }
    }

    /// Refuses a value that would need what is not supported.
    ///
    /// # Errors
    /// With the key and what is supported, unless `supported` says yes.
    pub fn expect(&self, key: &str, supported: bool, expected: &str) -> Result<()> {
        if supported {
            Ok(())
        } else {
            Err(self.wrong(key, expected))
        }
    }

    /// Refuses step sizes that are clamped: `time_step_limit` other than 0 to infinity.
    ///
    /// # Errors
    /// For such a limit.
    pub fn expect_free_time_step(&self) -> Result<()> {
        let Some(limits) = self.find("time_step_limit").and_then(Value::as_array) else {
            return Ok(());
        };
        let low = limits.first().and_then(Value::as_f64) == Some(0.0);
        // Written as Infinity, which JSON has not, in one of several ways.
        let high = limits.get(1).is_some_and(|limit| {
            let word = limit.get("__float__").unwrap_or(limit);
            word.as_str() == Some("Infinity") || limit.as_f64().is_some_and(|limit| limit > 1e30)
        });
        self.expect("time_step_limit", low && high, "0 to infinity")
    }

    /// Base of rotary frequencies and the share of a head that is rotated, from `rope_parameters` or,
    /// in older files, keys of the config itself.
    ///
    /// # Errors
    /// A scaled or otherwise changed rotary embedding.
    pub fn rotary(&self, base: f64, share: f64) -> Result<(f64, f64)> {
        for key in [
            "rope_parameters.rope_type",
            "rope_scaling.rope_type",
            "rope_scaling.type",
        ] {
            self.expect_word(key, &["default"])?;
        }
        let base = self.float_or("rope_theta", base)?;
        let share = self.float_or("partial_rotary_factor", share)?;
        Ok((
            self.float_or("rope_parameters.rope_theta", base)?,
            self.float_or("rope_parameters.partial_rotary_factor", share)?,
        ))
    }
}

/// A plan on its way: sizes first, then options and places.
pub struct Plan {
    plan: CheckpointPlan,
}

impl Plan {
    /// A plan without options and places. `hidden_size`, `num_hidden_layers`, `vocab_size` and
    /// `max_position_embeddings` are read from the config.
    ///
    /// # Errors
    /// If a size is absent.
    pub fn new(architecture: &str, config: &Config) -> Result<Self> {
        Ok(Self {
            plan: CheckpointPlan {
                architecture: architecture.into(),
                options: Vec::new().into(),
                vocab: config.size_to("vocab_size", MOST_VOCAB)? as u32,
                d_model: config.size("hidden_size")? as u32,
                layers: config.size_to("num_hidden_layers", MOST_LAYERS)? as u32,
                max_length: config.size_or("max_position_embeddings", 0)? as u64,
                tensors: Vec::new().into(),
                extra: Vec::new().into(),
            },
        })
    }

    /// V.
    pub fn vocab(&self) -> usize {
        self.plan.vocab as usize
    }

    /// D.
    pub fn d_model(&self) -> usize {
        self.plan.d_model as usize
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.plan.layers as usize
    }

    /// Sets an option.
    pub fn option(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        self.plan
            .options
            .push(Tuple2(name.into(), value.as_str().into()));
    }

    /// A tensor that is a whole parameter.
    pub fn whole(&mut self, tensor: &str, shape: &[usize], parameter: &str) {
        self.place(tensor, shape, parameter, 0, 0.0);
    }

    /// A tensor that is a whole parameter once 1 is added: a norm's weight stored as `w - 1`.
    pub fn one_more(&mut self, tensor: &str, shape: &[usize], parameter: &str) {
        self.place(tensor, shape, parameter, 0, 1.0);
    }

    /// A tensor, or the end of tensors' names, that may be there and has no place.
    pub fn ignore(&mut self, tensor: &str) {
        self.plan.extra.push(Tuple2(IGNORED.into(), tensor.into()));
    }

    /// Matrices `[rows, cols]` that stand below each other in one parameter.
    pub fn stacked(&mut self, tensors: &[(String, usize)], cols: usize, parameter: &str) {
        let mut row = 0;
        for (tensor, rows) in tensors {
            self.place(tensor, &[*rows, cols], parameter, row * cols, 0.0);
            row += rows;
        }
    }

    /// Vectors that follow each other in one parameter.
    pub fn joined(&mut self, tensors: &[(String, usize)], parameter: &str) {
        let mut start = 0;
        for (tensor, values) in tensors {
            self.place(tensor, &[*values], parameter, start, 0.0);
            start += values;
        }
    }

    fn place(&mut self, tensor: &str, shape: &[usize], parameter: &str, offset: usize, add: f32) {
        self.plan.tensors.push(TensorPlace {
            tensor: tensor.into(),
            shape: shape.iter().map(|&size| size as u64).collect(),
            parameter: parameter.into(),
            offset: offset as u64,
            add,
            extra: Vec::new().into(),
        });
    }

    /// Embedding, final norm and head under their checkpoint names, and the option `tied`. A tied
    /// head has no tensor of its own.
    ///
    /// # Errors
    /// If `tie_word_embeddings` is neither true nor false.
    pub fn ends(
        &mut self,
        config: &Config,
        embedding: &str,
        head: &str,
        tied_by_default: bool,
    ) -> Result<()> {
        let (vocab, d_model) = (self.vocab(), self.d_model());
        self.whole(embedding, &[vocab, d_model], "embedding.weight");
        let tied = config.boolean_or("tie_word_embeddings", tied_by_default)?;
        self.option("tied", tied);
        if tied {
            self.ignore(head);
        } else {
            self.whole(head, &[vocab, d_model], "head.weight");
        }
        Ok(())
    }

    /// The option `padding_token` from `pad_token_id`, for models whose embedding treats it apart.
    ///
    /// # Errors
    /// If it is no token.
    pub fn padding(&mut self, config: &Config) -> Result<()> {
        if config.has("pad_token_id") {
            self.option("padding_token", config.token("pad_token_id")?);
        }
        Ok(())
    }

    /// A gated MLP of `hidden` with its three matrices, in layer `layer`, from `prefix` followed by
    /// `gate_proj`, `up_proj` and `down_proj`.
    pub fn gated_mlp(&mut self, prefix: &str, layer: usize, hidden: usize, bias: bool) {
        let d_model = self.d_model();
        for (theirs, ours, shape) in [
            ("gate_proj", "gate", [hidden, d_model]),
            ("up_proj", "up", [hidden, d_model]),
            ("down_proj", "down", [d_model, hidden]),
        ] {
            let parameter = format!("layers.{layer}.mlp.{ours}");
            self.whole(
                &format!("{prefix}.{theirs}.weight"),
                &shape,
                &format!("{parameter}.weight"),
            );
            if bias {
                self.whole(
                    &format!("{prefix}.{theirs}.bias"),
                    &shape[..1],
                    &format!("{parameter}.bias"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config {
            value: serde_json::from_str(&without_bare_infinities(text)).expect("JSON"),
        }
    }

    #[test]
    fn reads_what_python_writes() {
        let config = config(r#"{"a": [0.0, Infinity], "b": "to \" Infinity", "c": NaN}"#);
        assert_eq!(config.value["a"][1], "Infinity");
        assert_eq!(config.value["b"], "to \" Infinity");
        assert_eq!(config.value["c"], "NaN");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_should_be() {
        let config = config(r#"{"heads": 0, "scaling": {"kind": "yarn"}, "none": null}"#);
        let message = config.size("heads").unwrap_err().to_string();
        assert!(
            message.contains("`heads`") && message.contains("from 1 to"),
            "{message}"
        );
        let message = config.size("width").unwrap_err().to_string();
        assert!(message.contains("no `width`"), "{message}");
        let message = config
            .expect_word("scaling.kind", &["default"])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("yarn") && message.contains("default"),
            "{message}"
        );
        assert_eq!(config.size_or("none", 7).unwrap(), 7);
    }

    #[test]
    fn an_unlimited_time_step_is_the_only_one() {
        for text in [
            "{}",
            r#"{"time_step_limit": [0.0, Infinity]}"#,
            r#"{"time_step_limit": [0.0, {"__float__": "Infinity"}]}"#,
        ] {
            config(text).expect_free_time_step().unwrap();
        }
        let limited = config(r#"{"time_step_limit": [0.001, 0.1]}"#);
        assert!(limited.expect_free_time_step().is_err());
    }
}
