//! What a task asks of a tokenizer.

use crate::error::TextError;

/// From text to token ids and back.
pub trait Tokenizer: Send + Sync {
    /// Its kind, and the SHA-256 of its definition where it has one: `bytes`, `json-<64 hexadecimal digits>`.
    fn id(&self) -> &str;
    /// Number of token ids, all below it.
    fn vocab(&self) -> usize;
    /// The tokens of a text as it stands: nothing is put in front or behind, and what looks like a special
    /// token is one only if the definition says so of plain text.
    ///
    /// # Errors
    /// A text that has no tokens by the definition: tokens that were left out would make another text of it.
    fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let tokens = self.encode_with_ends(text)?.into_iter();
        Ok(tokens.map(|(token, _)| token).collect())
    }
    /// The same, each with where in the text, in bytes, that ends what it stands for. Of tokens that share a
    /// character each may have the character's end.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError>;
    /// The tokens of a beginning of a text that are the same whatever follows the text, and the bytes of that
    /// beginning: what stands behind it, encoded by itself, gives the tokens that it gives in the whole. The text
    /// begins at such a place or is a beginning of the whole. None where nothing is certain, which is always right.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    fn certain(&self, _text: &str) -> Result<Option<(Vec<u32>, usize)>, TextError> {
        Ok(None)
    }
    /// The tokens of a word (ASCII letters of one case, or dots) as it stands behind a space in a text, `spaced`, that
    /// space included; else at the start of a line. None where that is not known without reading it as a text, which
    /// takes much longer.
    fn word(&self, _word: &str, _spaced: bool) -> Option<Vec<u32>> {
        None
    }
    /// The text of these tokens. Bytes that are no UTF-8 become U+FFFD; special tokens are left out.
    ///
    /// # Errors
    /// Tokens that the definition makes no text of.
    fn decode(&self, tokens: &[u32]) -> Result<String, TextError>;
    /// The token that a model expects once in front of every text, where it has one.
    fn bos(&self) -> Option<u32>;
    /// Tokens that end an answer.
    fn stops(&self) -> &[u32];
}
