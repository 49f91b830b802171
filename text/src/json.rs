//! tokenizer.json, by the crate of those who defined it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::Model as _;

use crate::error::TextError;
use crate::files;
use crate::special::Special;
use crate::tokenizer::Tokenizer;

/// Largest definition that is read, in bytes; those of today's largest vocabularies have 35 MB.
const MOST: u64 = 256 << 20;

/// A tokenizer that a tokenizer.json defines.
pub(crate) struct Json {
    id: String,
    inner: tokenizers::Tokenizer,
    vocab: usize,
    bos: Option<u32>,
    stops: Vec<u32>,
    /// What stands for the space before a word in what the model itself is given, where a word is given as a whole.
    before_words: Option<&'static str>,
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
        let added = added_in_front(&inner).map_err(not)?;
        Ok(Self {
            id: format!("json-{}", files::sha256_of(&bytes)),
            bos: special.bos(added, id_of, path)?,
            stops: special.stops(id_of, vocab, path)?,
            before_words: before_words(&inner),
            inner,
            vocab,
        })
    }
}

/// The token that the definition itself puts in front of a text.
fn added_in_front(inner: &tokenizers::Tokenizer) -> Result<Option<u32>, String> {
    let empty = catch_unwind(AssertUnwindSafe(|| inner.encode("", true)));
    let Ok(Ok(empty)) = empty else {
        return Err("it cannot encode an empty text".to_owned());
    };
    Ok(empty.get_ids().first().copied())
}

/// The tokens of a word by the model alone.
fn word_tokens(inner: &tokenizers::Tokenizer, before: &str, word: &str) -> Option<Vec<u32>> {
    let tokens = inner
        .get_model()
        .tokenize(&format!("{before}{word}"))
        .ok()?;
    Some(tokens.into_iter().map(|token| token.id).collect())
}

/// What stands for a space before words, if they are then what the whole tokenizer makes of them: tried out on words of
/// random letters, which tokens cut in all ways.
fn before_words(inner: &tokenizers::Tokenizer) -> Option<&'static str> {
    let ids = |text: &str| Some(inner.encode_fast(text, false).ok()?.get_ids().to_vec());
    let same = |before: &&str| {
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
                _ => (0..3 + length % 6).map(letter).collect(),
            };
            let whole = (
                ids("x"),
                ids(&format!("x {word}")),
                word_tokens(inner, before, &word),
            );
            let (Some(mut x), Some(both), Some(own)) = whole else {
                return false;
            };
            x.extend(own);
            x == both
        })
    };
    // As byte-level and as SentencePiece's vocabularies write it.
    ["\u{120}", "\u{2581}"].into_iter().find(same)
}

impl Tokenizer for Json {
    fn id(&self) -> &str {
        &self.id
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            // Only a model without a token for what it does not know refuses a text: that part has no tokens.
            Err(_) => Vec::new(),
        }
    }

    fn count_words(&self, words: &[String]) -> Option<Vec<usize>> {
        let before = self.before_words?;
        let count = |word| Some(word_tokens(&self.inner, before, word)?.len());
        words.iter().map(|word| count(word)).collect()
    }

    fn decode(&self, tokens: &[u32]) -> String {
        self.inner.decode(tokens, true).unwrap_or_default()
    }

    fn bos(&self) -> Option<u32> {
        self.bos
    }

    fn stops(&self) -> &[u32] {
        &self.stops
    }
}
