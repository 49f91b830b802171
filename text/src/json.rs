//! tokenizer.json, by the crate of those who defined it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

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
