//! tokenizer.json, by the crate of those who defined it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::json;
use tokenizers::models::ModelWrapper;
use tokenizers::{Encoding, Model as _, Token};

use crate::cuts::Cuts;
use crate::error::TextError;
use crate::files;
use crate::special::Special;
use crate::tokenizer::Tokenizer;

/// Largest definition that is read, in bytes; those of today's largest vocabularies have 35 MB.
const MOST: u64 = 256 << 20;

/// Characters of a text that are told of one that cannot be encoded.
const SHOWN: usize = 40;

/// Tokens that are told of those that cannot be decoded.
const SHOWN_TOKENS: usize = 8;

/// A tokenizer that a tokenizer.json defines.
pub(crate) struct Json {
    id: String,
    inner: tokenizers::Tokenizer,
    vocab: usize,
    bos: Option<u32>,
    stops: Vec<u32>,
    /// Bytes that it has no tokens for.
    unknown: Vec<u8>,
    cuts: Cuts,
    /// What stands before a word in what the model itself is given, where it is given words as a whole: at the start of a
    /// line, and for a space.
    before_words: [Option<&'static str>; 2],
}

impl Json {
    /// Reads a definition, and what the files beside it say of special tokens.
    pub fn read(path: &Path) -> Result<Self, TextError> {
        let bytes = files::read(path, MOST)?;
        let not = |what: String| TextError::not(path, format!("is no tokenizer.json: {what}"));
        // The crate takes some definitions apart without looking, and panics where they lie.
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            tokenizers::Tokenizer::from_bytes(&bytes)
        }));
        let mut inner = match parsed {
            Ok(Ok(inner)) => inner,
            Ok(Err(error)) => return Err(not(error.to_string())),
            Err(_) => return Err(not("its parts do not go together".to_owned())),
        };
        // A text is never cut or filled up in silence.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| not(error.to_string()))?;
        let ids = inner.get_vocab(true);
        let Some(last) = ids.values().max() else {
            return Err(not("it has no tokens".to_owned()));
        };
        let vocab = *last as usize + 1;
        let special = Special::beside(path)?;
        let id_of = |token: &str| ids.get(token).copied();
        check_model(&inner).map_err(not)?;
        let added = added_in_front(&inner, vocab).map_err(not)?;
        Ok(Self {
            id: format!("json-{}", files::sha256_of(&bytes)),
            bos: special.bos(added, id_of, path)?,
            stops: special.stops(id_of, vocab, path)?,
            unknown: unknown_bytes(&inner),
            cuts: cuts(&inner),
            before_words: [
                before_words(&inner, "x\n", &[""]),
                // As byte-level and as SentencePiece's vocabularies write a space.
                before_words(&inner, "x ", &["\u{120}", "\u{2581}"]),
            ],
            inner,
            vocab,
        })
    }
}

/// The token that the definition itself puts in front of a text: in front of a token that no definition has, so
/// that what it puts behind (an EOS) is told apart.
fn added_in_front(inner: &tokenizers::Tokenizer, vocab: usize) -> Result<Option<u32>, String> {
    const OWN: u32 = u32::MAX;
    let own = Encoding::from_tokens(vec![Token::new(OWN, "x".to_owned(), (0, 1))], 0);
    let whole = catch_unwind(AssertUnwindSafe(|| inner.post_process(own, None, true)));
    let Ok(Ok(whole)) = whole else {
        return Err("its `post_processor` cannot be applied".to_owned());
    };
    let mut front = whole.get_ids().split(|&id| id == OWN);
    match front.next() {
        None | Some([]) => Ok(None),
        Some(&[id]) if (id as usize) < vocab => Ok(Some(id)),
        Some([id]) => Err(format!(
            "its `post_processor` adds the token {id}, and it has {vocab}"
        )),
        Some(several) => Err(format!(
            "its `post_processor` puts {} tokens in front of a text, where one is expected",
            several.len()
        )),
    }
}

/// What a definition must have so that the same text always has the same tokens, and all of its own.
fn check_model(inner: &tokenizers::Tokenizer) -> Result<(), String> {
    let ModelWrapper::BPE(bpe) = inner.get_model() else {
        return Ok(());
    };
    if let Some(dropout) = bpe.dropout.filter(|&dropout| dropout > 0.0) {
        return Err(format!(
            "its `model.dropout` is {dropout}, which makes other tokens of a text each time; set it to null"
        ));
    }
    Ok(())
}

/// The bytes of which a byte-level vocabulary without a token for the unknown has none: the crate leaves them out of a
/// text without a word. Where texts are changed first (`normalizer`) it is not known which they hold then.
fn unknown_bytes(inner: &tokenizers::Tokenizer) -> Vec<u8> {
    let ModelWrapper::BPE(bpe) = inner.get_model() else {
        return Vec::new();
    };
    let splits = serde_json::to_string(&inner.get_pre_tokenizer()).unwrap_or_default();
    let by_bytes = splits.contains("\"ByteLevel\"") && inner.get_normalizer().is_none();
    if !by_bytes || bpe.unk_token.is_some() || bpe.byte_fallback {
        return Vec::new();
    }
    let known = inner.get_vocab(false);
    let unknown = |byte: &u8| !known.contains_key(&letter(*byte));
    (0..=255).filter(unknown).collect()
}

/// Where texts are certainly cut, by the definition as the crate understood it.
fn cuts(inner: &tokenizers::Tokenizer) -> Cuts {
    let added = inner.get_added_tokens_decoder();
    Cuts::of(&json!({
        "normalizer": inner.get_normalizer(),
        "pre_tokenizer": inner.get_pre_tokenizer(),
        "added_tokens": added.values().collect::<Vec<_>>(),
    }))
}

/// The letter that stands for a byte in a byte-level vocabulary (openai/gpt-2, encoder.py, `bytes_to_unicode`): the
/// byte's own where it can be seen, else one from U+0100 on, in their order.
fn letter(byte: u8) -> String {
    let seen = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if seen(&byte) {
        return char::from(byte).to_string();
    }
    let unseen = (0..byte).filter(|byte| !seen(byte)).count() as u32;
    char::from_u32(0x100 + unseen).map_or_else(String::new, String::from)
}

impl Json {
    /// The tokens of a text by one of the crate's ways.
    fn encoding(
        &self,
        text: &str,
        encode: impl FnOnce(&str) -> tokenizers::Result<Encoding>,
    ) -> Result<Encoding, TextError> {
        let refused = |why: String| TextError::Encode {
            tokenizer: self.id.clone(),
            start: text.chars().take(SHOWN).collect(),
            why,
        };
        let unknown = |byte: &&u8| text.as_bytes().contains(byte);
        if let Some(byte) = self.unknown.iter().find(unknown) {
            return Err(refused(format!(
                "it has no token for the byte 0x{byte:02x}"
            )));
        }
        encode(text).map_err(|error| refused(error.to_string()))
    }
}

/// The tokens of a word by the model alone.
fn word_tokens(inner: &tokenizers::Tokenizer, before: &str, word: &str) -> Option<Vec<u32>> {
    let tokens = inner
        .get_model()
        .tokenize(&format!("{before}{word}"))
        .ok()?;
    Some(tokens.into_iter().map(|token| token.id).collect())
}

/// Which of these stands before a word in what the model is given of it behind a text, if its tokens are then those that
/// the whole tokenizer makes: tried out on words of random letters, which tokens cut in all ways.
fn before_words(
    inner: &tokenizers::Tokenizer,
    text: &str,
    known: &[&'static str],
) -> Option<&'static str> {
    let ids = |text: &str| Some(inner.encode_fast(text, false).ok()?.get_ids().to_vec());
    let same = |before: &&&str| {
        let mut state = 1_u32;
        (0..64).all(|length| {
            let letter = |_| {
                // Numerical Recipes' linear congruential generator; any letters serve.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let first = if length % 2 == 0 { b'a' } else { b'A' };
                char::from(first + (state >> 24) as u8 % 26)
            };
            let word: String = match length {
                0 => "...".to_owned(),
                _ => (0..1 + length % 8).map(letter).collect(),
            };
            let whole = (
                ids(text.trim_end_matches(' ')),
                ids(&format!("{text}{word}")),
                word_tokens(inner, before, &word),
            );
            let (Some(mut front), Some(both), Some(own)) = whole else {
                return false;
            };
            front.extend(own);
            front == both
        })
    };
    known.iter().find(same).copied()
}

impl Tokenizer for Json {
    fn id(&self) -> &str {
        &self.id
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = self.encoding(text, |text| self.inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        let encoding = self.encoding(text, |text| self.inner.encode(text, false))?;
        let ends = encoding.get_offsets().iter().map(|&(_, end)| end);
        Ok(encoding.get_ids().iter().copied().zip(ends).collect())
    }

    fn certain(&self, text: &str) -> Result<Option<(Vec<u32>, usize)>, TextError> {
        let Some(cut) = self.cuts.last(text) else {
            return Ok(None);
        };
        Ok(Some((self.encode(&text[..cut])?, cut)))
    }

    fn word(&self, word: &str, spaced: bool) -> Option<Vec<u32>> {
        // A word with a letter of which there is no token is refused, which its tokens do not tell.
        if self.unknown.iter().any(u8::is_ascii_graphic) {
            return None;
        }
        word_tokens(&self.inner, self.before_words[usize::from(spaced)]?, word)
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        // The crate's decoders cut some tokens without looking.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.inner.decode(tokens, true)));
        let why = match decoded {
            Ok(Ok(text)) => return Ok(text),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a token is shorter than what it takes off".to_owned(),
        };
        let first = tokens.iter().take(SHOWN_TOKENS).map(u32::to_string);
        let more = tokens.len() > SHOWN_TOKENS;
        Err(TextError::Decode {
            tokenizer: self.id.clone(),
            count: tokens.len(),
            start: first.collect::<Vec<_>>().join(" ") + if more { " .." } else { "" },
            why,
        })
    }

    fn bos(&self) -> Option<u32> {
        self.bos
    }

    fn stops(&self) -> &[u32] {
        &self.stops
    }
}
