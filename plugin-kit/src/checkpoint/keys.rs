//! Keys of configs by what they say, of every format.

use serde_json::Value;

/// Keys of any config that say nothing about what a model computes from tokens: where it comes from, how it
/// was initialised and regularised, how text is made of its answers, how it is stored and run.
pub(super) const HARMLESS: &[&str] = &[
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
pub(super) enum Neutral {
    /// None.
    Nothing,
    /// Zero: caps and counts that are switched off.
    Zero,
    /// One: factors and shares.
    One,
}

/// Keys that change what is computed in sister families or in other software that reads the same files.
pub(super) const MEANINGFUL: &[(&str, Neutral)] = &[
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

/// Whether a value says nothing: null, false, or empty.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

impl Neutral {
    pub(super) fn is(self, value: &Value) -> bool {
        let number = match self {
            Self::Nothing => None,
            Self::Zero => Some(0.0),
            Self::One => Some(1.0),
        };
        says_nothing(value) || (number.is_some() && value.as_f64() == number)
    }
}
