//! From the metadata of a llama to its `config.json`. A key of the architecture that is not known is refused: each of
//! them says something about what is computed.

use std::f64::consts::PI;

use serde_json::{Map, Value, json};

use crate::checkpoint::files::FileError;
use crate::gguf::file::Gguf;

/// Largest size that is read: far over any model's.
const MOST_SIZE: u64 = 1 << 24;
/// Most layers, as on the command line.
const MOST_LAYERS: u64 = 1 << 10;
/// Longest sequence in tokens.
const MOST_LENGTH: u64 = 1 << 40;
/// Longest text of a wrong value in a message, in bytes.
const SHOWN: usize = 60;

/// Keys `llama.*` that are read here or say nothing about what is computed.
const KNOWN: &[&str] = &[
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "vocab_size",
];

/// A llama's sizes.
#[derive(Debug, Clone, Copy)]
pub struct Llama {
    /// V, the rows of the embedding.
    pub vocab: usize,
    /// D.
    pub d_model: usize,
    /// Width of the gated layer.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether there is no head but the embedding.
    pub tied: bool,
    /// Whether projections of attention, and of the gated layer, have biases.
    pub biases: [bool; 2],
}

impl Llama {
    /// Reads the sizes.
    ///
    /// # Errors
    /// Another architecture; a key that is missing, wrong or unknown.
    pub fn read(gguf: &Gguf) -> Result<Self, FileError> {
        let architecture = gguf.needed_text("general.architecture")?;
        if architecture != "llama" {
            return Err(gguf.bad(format!(
                "key `general.architecture` is `{}`; only llama is converted",
                shown(architecture)
            )));
        }
        for key in gguf.keys().filter_map(|key| key.strip_prefix("llama.")) {
            if !KNOWN.contains(&key) {
                return Err(gguf.bad(format!(
                    "key `llama.{}` is not known, and may change what is computed",
                    shown(key)
                )));
            }
        }
        if gguf.whole("split.count", MOST_SIZE)?.unwrap_or(1) > 1 {
            return Err(gguf.bad(
                "key `split.count` says that it is one of several files; join them first (llama-gguf-split --merge)",
            ));
        }
        if gguf.whole("llama.expert_count", MOST_SIZE)?.unwrap_or(0) > 0 {
            return Err(gguf.bad("key `llama.expert_count`: mixtures of experts are not converted"));
        }
        let size = |key: &str| Ok(gguf.size(key, MOST_SIZE)? as usize);
        let size_or = |key: &str, default: usize| match gguf.has(key) {
            true => size(key),
            false => Ok::<_, FileError>(default),
        };
        let (d_model, heads) = (
            size("llama.embedding_length")?,
            size("llama.attention.head_count")?,
        );
        let head_dim = size_or("llama.attention.key_length", d_model / heads)?;
        let llama = Self {
            vocab: gguf
                .tensors
                .get("token_embd.weight")
                .map_or(0, |tensor| tensor.shape[0]),
            d_model,
            hidden: size("llama.feed_forward_length")?,
            layers: gguf.size("llama.block_count", MOST_LAYERS)? as usize,
            heads,
            kv_heads: size_or("llama.attention.head_count_kv", heads)?,
            head_dim,
            tied: !gguf.tensors.contains_key("output.weight"),
            biases: ["blk.0.attn_output.bias", "blk.0.ffn_down.bias"]
                .map(|name| gguf.tensors.contains_key(name)),
        };
        for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
            if size_or(key, head_dim)? != head_dim {
                return Err(gguf.bad(format!(
                    "key `{key}` should be {head_dim}, the width of a head, as a llama has it"
                )));
            }
        }
        let fits =
            head_dim > 0 && head_dim.is_multiple_of(2) && heads.is_multiple_of(llama.kv_heads);
        if !fits || heads.max(head_dim) > 1 << 16 {
            return Err(gguf.bad(format!(
                "keys `llama.attention.*` say {heads} heads and {} of keys, {head_dim} wide, which cannot be",
                llama.kv_heads
            )));
        }
        Ok(llama)
    }

    /// The `config.json`. `dtype` is the type of the stored values.
    ///
    /// # Errors
    /// A key that is missing or wrong; a scaling of positions that is not known.
    pub fn config(&self, gguf: &Gguf, dtype: &str) -> Result<Value, FileError> {
        let base = gguf.real("llama.rope.freq_base")?.unwrap_or(10_000.0);
        let epsilon = gguf.real("llama.attention.layer_norm_rms_epsilon")?;
        let epsilon = epsilon.filter(|epsilon| *epsilon > 0.0).ok_or_else(|| {
            gguf.bad("key `llama.attention.layer_norm_rms_epsilon` should be a number above 0")
        })?;
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": self.biases[0],
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.d_model,
            "intermediate_size": self.hidden,
            "max_position_embeddings": gguf.size("llama.context_length", MOST_LENGTH)?,
            "mlp_bias": self.biases[1],
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": epsilon,
            "rope_scaling": self.scaling(gguf, base)?,
            "rope_theta": base,
            "tie_word_embeddings": self.tied,
            "torch_dtype": dtype,
            "vocab_size": self.vocab,
        });
        for (key, id) in ids(gguf, self.vocab)? {
            config[key] = id.into();
        }
        Ok(config)
    }

    /// The `rope_scaling`, or null.
    fn scaling(&self, gguf: &Gguf, base: f64) -> Result<Value, FileError> {
        let real = |key: &str| gguf.real(&format!("llama.rope.{key}"));
        let mut scaling = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                scaling.insert(key.to_owned(), value);
            }
        };
        let kind = gguf.text("llama.rope.scaling.type")?;
        let factor = match real("scaling.factor")? {
            None => real("scale_linear")?,
            factor => factor,
        };
        match kind {
            None | Some("none" | "") if factor.is_none_or(|factor| factor == 1.0) => {
                return self.frequencies(gguf, base);
            }
            None | Some("linear") => put("rope_type", Some("linear".into())),
            Some("yarn") => {
                put("rope_type", Some("yarn".into()));
                let length = "llama.rope.scaling.original_context_length";
                let length = gguf.whole(length, MOST_LENGTH)?;
                put("original_max_position_embeddings", length.map(Value::from));
                put(
                    "attention_factor",
                    real("scaling.attn_factor")?.map(Value::from),
                );
                put(
                    "beta_fast",
                    real("scaling.yarn_beta_fast")?.map(Value::from),
                );
                put(
                    "beta_slow",
                    real("scaling.yarn_beta_slow")?.map(Value::from),
                );
            }
            Some(kind) => {
                return Err(gguf.bad(format!(
                    "key `llama.rope.scaling.type` is `{}`; linear and yarn are converted",
                    shown(kind)
                )));
            }
        }
        let factor = factor.ok_or_else(|| {
            gguf.bad("it has no key `llama.rope.scaling.factor`, which its scaling needs")
        })?;
        put("factor", Some(factor.into()));
        if gguf.tensors.contains_key(FREQUENCIES) {
            let what = "tensor `rope_freqs.weight` scales positions beside `llama.rope.scaling.*`";
            return Err(gguf.bad(what));
        }
        Ok(Value::Object(scaling))
    }

    /// Llama 3's scaling, which GGUF has as a divisor for each frequency; null where there is none. Its parameters are
    /// found again among those that Meta published for its models, or the file is refused.
    fn frequencies(&self, gguf: &Gguf, base: f64) -> Result<Value, FileError> {
        let Some(tensor) = gguf.tensors.get(FREQUENCIES) else {
            return Ok(Value::Null);
        };
        let half = self.head_dim / 2;
        if tensor.shape != [half] {
            return Err(gguf.bad(format!(
                "tensor `{FREQUENCIES}` is of shape {:?}; expected [{half}]",
                tensor.shape
            )));
        }
        let mut divisors = vec![0.0; half];
        tensor.block.decode(tensor.bytes, &mut divisors);
        // Llama 3.1 and Llama 3.2.
        let published = [8.0, 32.0].into_iter().find(|&factor| {
            divisors.iter().enumerate().all(|(index, &divisor)| {
                let frequency = base.powf(-(index as f64) / half as f64);
                let expected = llama3_divisor(2.0 * PI / frequency, factor);
                (f64::from(divisor) - expected).abs() <= 1e-4 * expected
            })
        });
        let factor = published.ok_or_else(|| {
            gguf.bad(format!(
                "tensor `{FREQUENCIES}` has divisors that are not those of Llama 3.1 or 3.2, and a config has no \
                 place for others"
            ))
        })?;
        Ok(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": LLAMA3_LENGTH as u64,
        }))
    }
}

/// The tensor of Llama 3's divisors.
pub const FREQUENCIES: &str = "rope_freqs.weight";

/// Length that Llama 3's scaling starts from, in tokens.
const LLAMA3_LENGTH: f64 = 8192.0;

/// What Llama 3 divides the frequency of a wavelength by.
fn llama3_divisor(wavelength: f64, factor: f64) -> f64 {
    let turns = LLAMA3_LENGTH / wavelength;
    if turns > 4.0 {
        1.0
    } else if turns < 1.0 {
        factor
    } else {
        let smooth = (turns - 1.0) / 3.0;
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}

/// Ids of tokens with a part of their own, by their key in a config.
///
/// # Errors
/// One that is no token.
pub fn ids(gguf: &Gguf, vocab: usize) -> Result<Vec<(&'static str, u64)>, FileError> {
    let keys = [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
        ("unk_token_id", "tokenizer.ggml.unknown_token_id"),
    ];
    let mut ids = Vec::new();
    for (name, key) in keys {
        if let Some(id) = gguf.whole(key, vocab.saturating_sub(1) as u64)? {
            ids.push((name, id));
        }
    }
    Ok(ids)
}

/// The start of a text of the file, for a message.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}..", &text[..end]),
    }
}
