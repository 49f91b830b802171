//! From the vocabulary inside a GGUF to `tokenizer.json` and `tokenizer_config.json`: byte-level BPE (GPT-2's kind)
//! and SentencePiece's BPE (Llama 2's kind).

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::checkpoint::files::FileError;
use crate::gguf::config::{ids, shown};
use crate::gguf::file::Gguf;

/// Longest token in bytes: far over any vocabulary's.
const LONGEST_TOKEN: usize = 1 << 10;

/// llama.cpp's types of tokens.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// What Llama 3 cuts text at (`meta-llama/llama3`, tokenizer.py).
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// What Qwen 2 cuts text at (`QwenLM/Qwen`, tokenization_qwen.py).
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The two files and what the vocabulary is.
pub struct Words {
    /// In words, for the user.
    pub kind: String,
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// `tokenizer_config.json`.
    pub config: Value,
}

/// The vocabulary.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    types: Vec<i64>,
    ids: HashMap<&'a str, usize>,
}

/// Reads the vocabulary; none where the file has none.
///
/// # Errors
/// A kind that is not known; a list that is missing, of another length, or has what cannot be.
pub fn read(gguf: &Gguf, vocab: usize) -> Result<Option<Words>, FileError> {
    let model = match gguf.text("tokenizer.ggml.model")? {
        None | Some("none" | "no_vocab") => return Ok(None),
        Some(model) => model,
    };
    let words = Vocabulary::read(gguf, vocab)?;
    let (kind, mut tokenizer, adds_bos) = match model {
        "gpt2" => {
            let pre = gguf.needed_text("tokenizer.ggml.pre")?;
            let kind = format!("byte-level BPE, pre-tokenizer {pre}");
            (kind, byte_level(gguf, &words, pre)?, pre == "llama-bpe")
        }
        "llama" => (
            "SentencePiece BPE".to_owned(),
            sentence_piece(gguf, &words)?,
            true,
        ),
        other => {
            return Err(gguf.bad(format!(
                "key `tokenizer.ggml.model` is `{}`; gpt2 and llama are converted",
                shown(other)
            )));
        }
    };
    tokenizer["added_tokens"] = words.added();
    tokenizer["post_processor"] = words.ends(gguf, adds_bos)?;
    Ok(Some(Words {
        kind: format!("{} tokens, {kind}", words.tokens.len()),
        tokenizer,
        config: words.config(gguf)?,
    }))
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &Gguf<'a>, vocab: usize) -> Result<Self, FileError> {
        let key = "tokenizer.ggml.tokens";
        let tokens = gguf.texts(key)?;
        if tokens.is_empty() || tokens.len() > vocab {
            return Err(gguf.bad(format!(
                "key `{key}` has {} tokens; tensor `token_embd.weight` has rows for {vocab}",
                tokens.len()
            )));
        }
        let mut ids = HashMap::new();
        for (id, token) in tokens.iter().enumerate() {
            if token.len() > LONGEST_TOKEN {
                let what = format!("key `{key}`: token {id} has over {LONGEST_TOKEN} bytes");
                return Err(gguf.bad(what));
            }
            if let Some(first) = ids.insert(*token, id) {
                return Err(gguf.bad(format!(
                    "key `{key}`: tokens {first} and {id} are both `{}`",
                    shown(token)
                )));
            }
        }
        let types = gguf.wholes("tokenizer.ggml.token_type")?;
        let types = types.unwrap_or_else(|| vec![1; tokens.len()]);
        if types.len() != tokens.len() {
            return Err(gguf.bad(format!(
                "key `tokenizer.ggml.token_type` has {} types for {} tokens",
                types.len(),
                tokens.len()
            )));
        }
        Ok(Self { tokens, types, ids })
    }

    fn vocab(&self) -> Value {
        let entries = self.tokens.iter().enumerate();
        let map: Map<String, Value> = entries
            .map(|(id, token)| ((*token).to_owned(), id.into()))
            .collect();
        Value::Object(map)
    }

    /// Tokens that are found in a text before it is cut.
    fn added(&self) -> Value {
        let typed = self.tokens.iter().zip(&self.types).enumerate();
        let added = typed.filter(|(_, (_, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind));
        let entry = |(id, (token, kind)): (usize, (&&str, &i64))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind != USER_DEFINED,
            })
        };
        added.map(entry).collect()
    }

    /// What is put before and after a text.
    fn ends(&self, gguf: &Gguf, adds_bos: bool) -> Result<Value, FileError> {
        let adds_bos = gguf
            .yes("tokenizer.ggml.add_bos_token")?
            .unwrap_or(adds_bos);
        let adds_eos = gguf.yes("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
        let mut special = Map::new();
        for (adds, name, at) in [(adds_bos, "bos_token_id", 0), (adds_eos, "eos_token_id", 1)] {
            if !adds {
                continue;
            }
            let ids = ids(gguf, self.tokens.len())?;
            let Some((_, id)) = ids.into_iter().find(|(key, _)| *key == name) else {
                return Err(gguf.bad(format!(
                    "it has no key `tokenizer.ggml.{name}`, and its texts begin or end with that token"
                )));
            };
            let token = self.tokens[id as usize];
            let place = if at == 0 { 0 } else { single.len() };
            single.insert(place, json!({"SpecialToken": {"id": token, "type_id": 0}}));
            special.insert(
                token.to_owned(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            );
        }
        if special.is_empty() {
            return Ok(Value::Null);
        }
        let second = single.iter().map(|part| match part.get("Sequence") {
            Some(_) => json!({"Sequence": {"id": "B", "type_id": 1}}),
            None => part.clone(),
        });
        let pair: Vec<Value> = single.iter().cloned().chain(second).collect();
        Ok(json!({
            "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special,
        }))
    }

    fn config(&self, gguf: &Gguf) -> Result<Value, FileError> {
        let mut config = json!({
            "clean_up_tokenization_spaces": false,
            "model_max_length": gguf.size("llama.context_length", 1 << 40)?,
            "tokenizer_class": "PreTrainedTokenizerFast",
        });
        for (key, id) in ids(gguf, self.tokens.len())? {
            config[key.trim_end_matches("_id")] = self.tokens[id as usize].into();
        }
        if let Some(template) = gguf.text("tokenizer.chat_template")? {
            config["chat_template"] = template.into();
        }
        Ok(config)
    }
}

/// A `tokenizer.json` but for what every kind has.
fn whole(normalizer: Value, pre_tokenizer: Value, decoder: Value, model: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "decoder": decoder, "model": model,
    })
}

fn bpe(
    words: &Vocabulary,
    merges: Vec<Value>,
    unknown: Option<&str>,
    is_sentence_piece: bool,
) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": is_sentence_piece, "byte_fallback": is_sentence_piece,
        "ignore_merges": false, "vocab": words.vocab(), "merges": merges,
    })
}

/// Cuts texts at the matches of an expression.
fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn byte_level(gguf: &Gguf, words: &Vocabulary, pre: &str) -> Result<Value, FileError> {
    // As llama.cpp has them by these names (llama-vocab.cpp).
    // The last has GPT-2's own expression inside (`openai/gpt-2`, encoder.py) unless another one cut before.
    let (cut, by_gpt2) = match pre {
        "gpt-2" => (None, true),
        "smollm" | "starcoder" | "refact" | "command-r" => (
            Some(json!({"type": "Digits", "individual_digits": true})),
            true,
        ),
        "llama-bpe" => (Some(split(LLAMA3)), false),
        "qwen2" => (Some(split(QWEN2)), false),
        other => {
            return Err(gguf.bad(format!(
                "key `tokenizer.ggml.pre` is `{}`, a pre-tokenizer that is not known; known are gpt-2, smollm, \
                 starcoder, refact, command-r, llama-bpe, qwen2",
                shown(other)
            )));
        }
    };
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": by_gpt2,
    });
    let cuts: Vec<Value> = cut.into_iter().chain([bytes.clone()]).collect();
    let key = "tokenizer.ggml.merges";
    let mut merges = Vec::new();
    for (index, merge) in gguf.texts(key)?.into_iter().enumerate() {
        let fits = merge.split_once(' ').filter(|(left, right)| {
            let has = |token: &str| words.ids.contains_key(token);
            has(left) && has(right) && has(&format!("{left}{right}"))
        });
        let Some((left, right)) = fits else {
            return Err(gguf.bad(format!(
                "key `{key}`: merge {index} is `{}`, which should be two tokens that make a third",
                shown(merge)
            )));
        };
        merges.push(json!([left, right]));
    }
    let mut model = bpe(words, merges, None, false);
    // Llama 3 takes a word that is a token as it is.
    model["ignore_merges"] = (pre == "llama-bpe").into();
    let cuts = json!({"type": "Sequence", "pretokenizers": cuts});
    Ok(whole(Value::Null, cuts, bytes, model))
}

fn sentence_piece(gguf: &Gguf, words: &Vocabulary) -> Result<Value, FileError> {
    let key = "tokenizer.ggml.scores";
    let scores = gguf.reals(key)?.unwrap_or_default();
    if scores.len() != words.tokens.len() {
        return Err(gguf.bad(format!(
            "key `{key}` has {} scores for {} tokens",
            scores.len(),
            words.tokens.len()
        )));
    }
    let unknown = words.types.iter().position(|&kind| kind == UNKNOWN);
    let unknown = unknown.map(|id| words.tokens[id]);
    let prefix = gguf.yes("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match prefix {
        true => {
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]})
        }
        false => spaces,
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let decoder = json!({"type": "Sequence", "decoders": decoders});
    let model = bpe(words, merges_by_score(words, &scores), unknown, true);
    Ok(whole(normalizer, Value::Null, decoder, model))
}

/// SentencePiece joins the two neighbours whose joint token has the best score, so every way to make a token of two
/// is a merge, in the order of scores.
fn merges_by_score(words: &Vocabulary, scores: &[f64]) -> Vec<Value> {
    let mut merges = Vec::new();
    for (id, token) in words.tokens.iter().enumerate() {
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if let (Some(a), Some(b)) = (words.ids.get(left), words.ids.get(right)) {
                merges.push((scores[id], id, *a, *b, left, right));
            }
        }
    }
    merges.sort_by(|x, y| {
        y.0.total_cmp(&x.0)
            .then((x.1, x.2, x.3).cmp(&(y.1, y.2, y.3)))
    });
    merges
        .iter()
        .map(|merge| json!([merge.4, merge.5]))
        .collect()
}
