//! From a Hugging Face `config.json` to a [`CheckpointPlan`]: what plugins need to say which tensor
//! becomes which parameter. It reads no tensor.
//!
//! **Every key is accounted for.** A key that a format reads is honoured, or its value refused by name. Of the
//! others, `HARMLESS` and the format's own harmless keys say nothing about what is computed;
//! `MEANINGFUL` ones do in other families or other software, and are refused unless their value changes
//! nothing; all that remain are named in a warning, since refusing every note that a trainer left in a
//! config would refuse most checkpoints.

use std::cell::RefCell;
use std::collections::BTreeSet;

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::checkpoint::{
    BASE, CONFIG_KEY, CheckpointPlan, IGNORED, OPTION_KEY, TIED, TensorPlace, WARNING,
    standard_json,
};
use longhaul_plugin_api::error::PluginError;
use serde_json::Value;

/// Largest size that is read from a config: far over any model's, and products of three still fit a word.
const MOST_SIZE: u64 = 1 << 20;

/// Most layers, as on the command line.
const MOST_LAYERS: u64 = 1 << 10;

/// Most token ids.
const MOST_VOCAB: u64 = 1 << 24;

/// Longest sequence in tokens.
const MOST_LENGTH: u64 = 1 << 40;

/// Longest text of a wrong value in a message, in characters.
const SHOWN: usize = 60;

/// Keys of any config that say nothing about what a model computes from tokens: where it comes from, how it
/// was initialised and regularised, how text is made of its answers, how it is stored and run.
const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "begin_suppress_tokens",
    "bos_token_id",
    "classifier_dropout",
    "decoder_start_token_id",
    "do_sample",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "label2id",
    "license",
    "max_length",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "transformers_version",
    "unk_token_id",
    "unsloth_version",
    "use_cache",
];

/// The value of a meaningful key that changes nothing, beside null, false and empty.
#[derive(Clone, Copy, PartialEq)]
enum Neutral {
    /// None.
    Nothing,
    /// Zero: caps and counts that are switched off.
    Zero,
    /// One: factors and shares.
    One,
}

/// Keys that change what is computed in sister families or in other software that reads the same files.
const MEANINGFUL: &[(&str, Neutral)] = &[
    ("alibi", Neutral::Nothing),
    ("attention_bias", Neutral::Nothing),
    ("attention_chunk_size", Neutral::Nothing),
    ("attention_multiplier", Neutral::Nothing),
    ("attn_logit_softcapping", Neutral::Zero),
    ("clip_qkv", Neutral::Nothing),
    ("embedding_multiplier", Neutral::One),
    ("embedding_scale", Neutral::One),
    ("final_logit_softcapping", Neutral::Zero),
    ("layer_types", Neutral::Nothing),
    ("layers_block_type", Neutral::Nothing),
    ("logit_scale", Neutral::One),
    ("logits_scaling", Neutral::One),
    ("max_window_layers", Neutral::Nothing),
    ("mlp_bias", Neutral::Nothing),
    ("moe_intermediate_size", Neutral::Nothing),
    ("no_rope_layers", Neutral::Nothing),
    ("norm_before_gate", Neutral::Nothing),
    ("num_experts", Neutral::Zero),
    ("num_local_experts", Neutral::Zero),
    ("parallel_attn", Neutral::Nothing),
    ("partial_rotary_factor", Neutral::One),
    ("qk_norm", Neutral::Nothing),
    ("quantization_config", Neutral::Nothing),
    ("query_pre_attn_scalar", Neutral::Nothing),
    ("residual_multiplier", Neutral::One),
    ("rope_interleaved", Neutral::Nothing),
    ("rotary_dim", Neutral::Nothing),
    ("rotary_pct", Neutral::One),
    ("scale_embeddings", Neutral::Nothing),
    ("sliding_window", Neutral::Nothing),
    ("sliding_window_pattern", Neutral::Nothing),
    ("use_parallel_residual", Neutral::Nothing),
    ("use_qk_norm", Neutral::Nothing),
    ("use_sliding_window", Neutral::Nothing),
];

/// A kind of checkpoint that a library reads.
pub struct Format {
    /// `model_type` of the `config.json`.
    pub model_type: &'static str,
    /// Keys of this format, beside those of every format, that say nothing about what is computed.
    pub harmless: &'static [&'static str],
    /// Turns a config into a plan.
    pub read: fn(&Config) -> Result<Plan>,
}

/// The plan of a checkpoint by the format of its `model_type`.
///
/// # Errors
/// No such format; a config that is not JSON, or not what the format needs; a key with a meaning that the
/// format does not honour.
pub fn plan(formats: &[Format], model_type: &str, config: &str) -> Result<CheckpointPlan> {
    let format = formats
        .iter()
        .find(|format| format.model_type == model_type)
        .ok_or_else(|| {
            PluginError::unsupported(format!(
                "this plugin reads no checkpoints of model_type `{model_type}`"
            ))
        })?;
    let config = Config::parse(config)?;
    let mut plan = (format.read)(&config)?.plan;
    let mut say = |name: &str, text: &str| plan.extra.push(Tuple2(name.into(), text.into()));
    let unknown = config.unknown_keys(format)?;
    if !unknown.is_empty() {
        say(
            WARNING,
            &format!(
                "config.json has keys that a {model_type} is not known to have, and nothing was made of them: {}",
                unknown.join(", ")
            ),
        );
    }
    let used = config.used.borrow();
    used.iter().for_each(|key| say(CONFIG_KEY, key));
    Ok(plan)
}

/// A `config.json`, which notes the keys that are asked for.
pub struct Config {
    value: Value,
    used: RefCell<BTreeSet<String>>,
    /// Keys inside objects that were read and have no part in what they say.
    beside: RefCell<Vec<String>>,
}

/// Whether a value says nothing: null, false, or empty.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        let number = match self {
            Self::Nothing => None,
            Self::Zero => Some(0.0),
            Self::One => Some(1.0),
        };
        says_nothing(value) || (number.is_some() && value.as_f64() == number)
    }
}

impl Config {
    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(&standard_json(text)).map_err(|error| {
            PluginError::bad_option(format!("config.json is not JSON: {error}"))
        })?;
        if !value.is_object() {
            return Err(PluginError::bad_option(
                "config.json is not an object of keys and values",
            ));
        }
        Ok(Self {
            value,
            used: RefCell::default(),
            beside: RefCell::default(),
        })
    }

    /// Names of the keys that nothing is known of and that say something.
    fn unknown_keys(&self, format: &Format) -> Result<Vec<String>> {
        let mut unknown = self.beside.borrow().clone();
        let used = self.used.borrow().clone();
        for (key, value) in self.value.as_object().into_iter().flatten() {
            let key = key.as_str();
            if used.contains(key) || HARMLESS.contains(&key) || format.harmless.contains(&key) {
                continue;
            }
            match MEANINGFUL.iter().find(|(known, _)| *known == key) {
                Some((_, neutral)) if neutral.is(value) => {}
                Some(_) => {
                    let expected = format!(
                        "absent, since this plugin computes a {} without it",
                        format.model_type
                    );
                    return Err(self.wrong(key, &expected));
                }
                None if says_nothing(value) => {}
                None => unknown.push(key.to_owned()),
            }
        }
        Ok(unknown)
    }

    /// A value by its key, or by keys joined with dots.
    fn get(&self, key: &str) -> Option<&Value> {
        let top = key.split('.').next().unwrap_or(key);
        self.used.borrow_mut().insert(top.to_owned());
        key.split('.')
            .try_fold(&self.value, |value, part| value.get(part))
    }

    /// A value that is neither absent nor null.
    fn find(&self, key: &str) -> Option<&Value> {
        self.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> PluginError {
        PluginError::bad_option(match self.get(key) {
            Some(value) => {
                let mut text = value.to_string();
                if let Some((end, _)) = text.char_indices().nth(SHOWN) {
                    text.truncate(end);
                    text.push_str("..");
                }
                format!("`{key}` in config.json is {text}; it should be {expected}")
            }
            None => format!("config.json has no `{key}`, which should be {expected}"),
        })
    }

    /// Whether a key has a value other than null.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// What `read` makes of a key, or the default where the key is absent. Null is a value like others.
    fn or<T>(&self, key: &str, default: T, read: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.get(key) {
            None => Ok(default),
            Some(_) => read(),
        }
    }

    /// A size of at least 1, and at most 2^20.
    ///
    /// # Errors
    /// If it is absent or no such number.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_to(key, MOST_SIZE)
    }

    /// A size from 1 to `most`.
    fn size_to(&self, key: &str, most: u64) -> Result<usize> {
        let size = self.get(key).and_then(Value::as_u64);
        size.filter(|size| (1..=most).contains(size))
            .map(|size| size as usize)
            .ok_or_else(|| self.wrong(key, &format!("a whole number from 1 to {most}")))
    }

    /// A size, or a default where it is absent.
    ///
    /// # Errors
    /// If it is no size.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.or(key, default, || self.size(key))
    }

    /// A size that may be null; where it is absent, what `absent` says. Absent and null are not the same:
    /// an absent key is the default of the format's own library.
    ///
    /// # Errors
    /// If it is neither a size nor null.
    pub fn optional_size(&self, key: &str, absent: Option<usize>) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(absent),
            Some(Value::Null) => Ok(None),
            Some(_) => self.size(key).map(Some),
        }
    }

    /// A number, or a default where it is absent.
    ///
    /// # Errors
    /// If it is no number.
    pub fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        self.or(key, default, || {
            let number = self.get(key).and_then(Value::as_f64);
            number.ok_or_else(|| self.wrong(key, "a number"))
        })
    }

    /// A number above 0, or a default where it is absent.
    ///
    /// # Errors
    /// If it is no such number.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        let number = self.float_or(key, default)?;
        let fits = number.is_finite() && number > 0.0;
        self.expect(key, fits, "a number above 0")?;
        Ok(number)
    }

    /// Yes or no, or a default where it is absent.
    ///
    /// # Errors
    /// If it is neither.
    pub fn boolean_or(&self, key: &str, default: bool) -> Result<bool> {
        self.or(key, default, || {
            let word = self.get(key).and_then(Value::as_bool);
            word.ok_or_else(|| self.wrong(key, "true or false"))
        })
    }

    /// A list of at least one of these words.
    ///
    /// # Errors
    /// If it is absent, no list, empty, or has another word.
    pub fn words(&self, key: &str, known: &[&str]) -> Result<Vec<&str>> {
        let list = self.get(key).and_then(Value::as_array);
        let words: Option<Vec<&str>> =
            list.and_then(|list| list.iter().map(Value::as_str).collect());
        words
            .filter(|words| !words.is_empty() && words.iter().all(|word| known.contains(word)))
            .ok_or_else(|| self.wrong(key, &format!("a list of {}", known.join(" and "))))
    }

    /// A list of indices below `end`; empty where it is absent or null.
    ///
    /// # Errors
    /// If it is no such list.
    pub fn indices(&self, key: &str, end: usize) -> Result<Vec<usize>> {
        let Some(value) = self.find(key) else {
            return Ok(Vec::new());
        };
        let index = |value: &Value| value.as_u64().filter(|&index| index < end as u64);
        let list = value.as_array().map(|list| list.iter().map(index));
        let list: Option<Vec<u64>> = list.and_then(Iterator::collect);
        let list =
            list.ok_or_else(|| self.wrong(key, &format!("a list of indices below {end}")))?;
        Ok(list.into_iter().map(|index| index as usize).collect())
    }

    /// Refuses a word that is not one of those supported; absent is allowed.
    ///
    /// # Errors
    /// If it is another.
    pub fn expect_word(&self, key: &str, supported: &[&str]) -> Result<()> {
        let word = self.get(key).map(Value::as_str);
        let fits = word.is_none_or(|word| word.is_some_and(|word| supported.contains(&word)));
        self.expect(key, fits, &supported.join(" or "))
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
        let key = "time_step_limit";
        let Some(limits) = self.get(key) else {
            return Ok(());
        };
        let limit = |index: usize| limits.as_array().filter(|list| list.len() == 2)?.get(index);
        let low = limit(0).and_then(Value::as_f64) == Some(0.0);
        // Written as Infinity, which JSON has not, in one of several ways.
        let high = limit(1).is_some_and(|limit| {
            let word = limit.get("__float__").unwrap_or(limit);
            word.as_str() == Some("Infinity") || limit.as_f64().is_some_and(|limit| limit > 1e30)
        });
        self.expect(key, low && high, "0 to infinity")
    }

    /// Refuses `layer_types` unless it says `kind` of every layer.
    ///
    /// # Errors
    /// Another kind; more or fewer layers than there are.
    pub fn expect_layers(&self, kind: &str, layers: usize) -> Result<()> {
        let key = "layer_types";
        if !self.has(key) {
            return Ok(());
        }
        let fits = self
            .words(key, &[kind])
            .is_ok_and(|words| words.len() == layers);
        self.expect(key, fits, &format!("{kind} for each of {layers} layers"))
    }

    /// The rotary embedding. Its base and share may stand in `rope_parameters`, in the older `rope_scaling`,
    /// or in keys of the config itself; the first two win over the last.
    ///
    /// # Errors
    /// A scaled or otherwise changed rotary embedding; two objects that differ; another type.
    pub fn rotary(&self, default: Rotary) -> Result<Rotary> {
        let mut found = "";
        for name in ["rope_parameters", "rope_scaling"] {
            let Some(value) = self.find(name) else {
                continue;
            };
            self.expect(name, value.is_object(), "an object")?;
            if says_nothing(value) {
                continue;
            }
            let differs = !found.is_empty() && self.find(found) != Some(value);
            self.expect(name, !differs, "the same as rope_parameters, or absent")?;
            found = name;
        }
        let share = "partial_rotary_factor";
        let mut rotary = Rotary {
            base: self.positive_or("rope_theta", default.base)?,
            share: self.positive_or(share, default.share)?,
        };
        if !found.is_empty() {
            for key in ["rope_type", "type"] {
                self.expect_word(&format!("{found}.{key}"), &["default"])?;
            }
            let known = ["rope_type", "type", "rope_theta", share];
            let inside = self.find(found).and_then(Value::as_object);
            for (key, value) in inside.into_iter().flatten() {
                let key = format!("{found}.{key}");
                self.expect(&key, !value.is_object(), "the same for all layers")?;
                if !known.iter().any(|known| key.ends_with(known)) && !says_nothing(value) {
                    self.beside.borrow_mut().push(key);
                }
            }
            rotary.base = self.positive_or(&format!("{found}.rope_theta"), rotary.base)?;
            rotary.share = self.positive_or(&format!("{found}.{share}"), rotary.share)?;
        }
        Ok(rotary)
    }

    /// The rotary embedding of a family that fixes the share of a head that is rotated.
    ///
    /// # Errors
    /// What [`Config::rotary`] refuses; another share.
    pub fn rotary_of_share(&self, default: Rotary) -> Result<Rotary> {
        for place in ["", "rope_parameters.", "rope_scaling."] {
            let key = format!("{place}partial_rotary_factor");
            let share = self.float_or(&key, default.share)?;
            self.expect(&key, share == default.share, &default.share.to_string())?;
        }
        self.rotary(default)
    }
}

/// A rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// Base of the frequencies.
    pub base: f64,
    /// Share of a head that is rotated.
    pub share: f64,
}

/// A plan on its way: sizes first, then options and places.
pub struct Plan {
    plan: CheckpointPlan,
}

impl Plan {
    /// A plan without options and places. `hidden_size`, `num_hidden_layers`, `vocab_size` and the longest
    /// sequence, `max_position_embeddings` or `context_length`, are read from the config.
    ///
    /// # Errors
    /// If a size is absent or too large.
    pub fn new(architecture: &str, config: &Config) -> Result<Self> {
        let mut max_length = 0;
        for key in ["max_position_embeddings", "context_length"] {
            if config.has(key) {
                max_length = config.size_to(key, MOST_LENGTH)? as u64;
            }
        }
        Ok(Self {
            plan: CheckpointPlan {
                architecture: architecture.into(),
                options: Vec::new().into(),
                vocab: config.size_to("vocab_size", MOST_VOCAB)? as u32,
                d_model: config.size("hidden_size")? as u32,
                layers: config.size_to("num_hidden_layers", MOST_LAYERS)? as u32,
                max_length,
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

    /// Sets an option that was read from a key of the config.
    pub fn option_of(&mut self, name: &str, key: &str, value: impl ToString) {
        self.say(OPTION_KEY, &format!("{name}={key}"));
        self.option(name, value);
    }

    fn say(&mut self, name: &str, text: &str) {
        self.plan.extra.push(Tuple2(name.into(), text.into()));
    }

    /// Sets an option that the format fixes.
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
        self.say(IGNORED, tensor);
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
        if let Some((base, _)) = embedding.split_once('.') {
            self.say(BASE, &format!("{base}."));
        }
        let tied = config.boolean_or("tie_word_embeddings", tied_by_default)?;
        self.option_of("tied", "tie_word_embeddings", tied);
        if tied {
            self.ignore(head);
            self.say(TIED, &format!("{head} {embedding}"));
        } else {
            self.whole(head, &[vocab, d_model], "head.weight");
        }
        Ok(())
    }

    /// The option `padding_token` from `pad_token_id`, for models whose embedding treats it apart; `absent`
    /// is the token of a config without the key. Negative ones count from the end, as in PyTorch.
    ///
    /// # Errors
    /// If it is no token of the vocabulary.
    pub fn padding(&mut self, config: &Config, absent: Option<i64>) -> Result<()> {
        let key = "pad_token_id";
        let vocab = self.vocab() as i64;
        let token = match config.get(key) {
            None => absent,
            Some(Value::Null) => None,
            Some(value) => {
                let token = value
                    .as_i64()
                    .filter(|token| (-vocab..vocab).contains(token));
                let expected = format!("null or a token id below vocab_size, {vocab}");
                Some(token.ok_or_else(|| config.wrong(key, &expected))?)
            }
        };
        if let Some(token) = token {
            self.option_of("padding_token", key, token.rem_euclid(vocab));
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
#[path = "checkpoint_tests.rs"]
mod tests;
