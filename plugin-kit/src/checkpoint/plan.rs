//! A plan as a format makes it.

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::checkpoint::{
    BASE, CheckpointPlan, IGNORED, OPTION_KEY, PART, TIED, TensorPlace,
};
use serde_json::Value;

use super::Config;

/// Most layers, as on the command line.
const MOST_LAYERS: u64 = 1 << 10;

/// Most token ids.
const MOST_VOCAB: u64 = 1 << 24;

/// Longest sequence in tokens.
pub(super) const MOST_LENGTH: u64 = 1 << 40;

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
        let mut plan = Self::by_keys(architecture, config, "hidden_size", "num_hidden_layers")?;
        plan.plan.max_length = max_length;
        Ok(plan)
    }

    /// As [`Plan::new`] of a config that calls width and number of layers by these keys, and states no length.
    ///
    /// # Errors
    /// If a size is absent or too large.
    pub(super) fn by_keys(
        architecture: &str,
        config: &Config,
        d_model: &str,
        layers: &str,
    ) -> Result<Self> {
        Ok(Self {
            plan: CheckpointPlan {
                architecture: architecture.into(),
                options: Vec::new().into(),
                vocab: config.size_to("vocab_size", MOST_VOCAB)? as u32,
                d_model: config.size(d_model)? as u32,
                layers: config.size_to(layers, MOST_LAYERS)? as u32,
                max_length: 0,
                tensors: Vec::new().into(),
                extra: Vec::new().into(),
            },
        })
    }

    /// Rounds V up to a multiple.
    pub(super) fn pad_vocab(&mut self, multiple: usize) {
        self.plan.vocab = self.plan.vocab.next_multiple_of(multiple as u32);
    }

    pub(super) fn into_plan(self) -> CheckpointPlan {
        self.plan
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

    /// A tensor that is a parameter's values from `offset` on.
    pub fn whole_at(&mut self, tensor: &str, shape: &[usize], parameter: &str, offset: usize) {
        self.place(tensor, shape, parameter, offset, 0.0);
    }

    /// Matrices `[rows, cols]` that stand below each other in one tensor, each a parameter.
    pub fn unstacked(&mut self, tensor: &str, cols: usize, parameters: &[(String, usize)]) {
        let all: usize = parameters.iter().map(|(_, rows)| rows).sum();
        let mut start = 0;
        for (parameter, rows) in parameters {
            self.part(tensor, (start, all), &[*rows, cols], parameter, 0);
            start += rows;
        }
    }

    /// Rows of a tensor of `rows`, from row `start` on, `shape` in all, from value `offset` of a parameter on.
    pub fn part(
        &mut self,
        tensor: &str,
        (start, rows): (usize, usize),
        shape: &[usize],
        parameter: &str,
        offset: usize,
    ) {
        self.place(tensor, shape, parameter, offset, 0.0);
        let part = Tuple2(PART.into(), format!("{start} {rows}").into());
        if let Some(place) = self.plan.tensors.last_mut() {
            place.extra.push(part);
        }
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
        let key = "tie_word_embeddings";
        self.ends_by_key(config, (embedding, head), key, tied_by_default)
    }

    /// As [`Plan::ends`] of embedding and head, by this key.
    pub(super) fn ends_by_key(
        &mut self,
        config: &Config,
        (embedding, head): (&str, &str),
        key: &str,
        tied_by_default: bool,
    ) -> Result<()> {
        let (vocab, d_model) = (self.vocab(), self.d_model());
        self.whole(embedding, &[vocab, d_model], "embedding.weight");
        if let Some((base, _)) = embedding.split_once('.') {
            self.say(BASE, &format!("{base}."));
        }
        let tied = config.boolean_or(key, tied_by_default)?;
        self.option_of("tied", key, tied);
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
