//! Where a text can be cut into pieces that are encoded by themselves, so that its tokens are read by position and
//! never held as a whole.

use std::ops::Range;

use crate::error::TextError;
use crate::tokenizer::Tokenizer;

/// Most bytes of a text that are encoded at once in search of a cut.
const MOST: usize = 1 << 20;

/// The tokens of a text by position: where its pieces begin. The tokens of the pieces one after the other are those of
/// the whole ([`Tokenizer::certain`]). It has 16 bytes a piece.
#[derive(Debug)]
pub struct TokenIndex {
    /// Byte and position of each piece's first token, then those of the end.
    marks: Vec<(usize, usize)>,
}

impl TokenIndex {
    /// Cuts a text into pieces of about so many bytes. None where the tokenizer allows no cut in a megabyte of the
    /// text.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn new(
        tokenizer: &dyn Tokenizer,
        text: &str,
        piece: usize,
    ) -> Result<Option<Self>, TextError> {
        let mut marks = vec![(0, 0)];
        let (mut byte, mut position, mut window) = (0, 0, piece);
        while byte < text.len() {
            let end = text.ceil_char_boundary(byte + window);
            let some = &text[byte..end];
            let (tokens, bytes) = if end == text.len() {
                (tokenizer.encode(some)?, some.len())
            } else if let Some(certain) = tokenizer.certain(some)? {
                certain
            } else if window < MOST {
                window *= 2;
                continue;
            } else {
                return Ok(None);
            };
            (byte, position, window) = (byte + bytes, position + tokens.len(), piece);
            marks.push((byte, position));
        }
        marks.shrink_to_fit();
        Ok(Some(Self { marks }))
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.marks.last().map_or(0, |mark| mark.1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The piece with the token at a position.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn piece(&self, position: usize) -> usize {
        assert!(position < self.len(), "token {position} of {}", self.len());
        self.marks.partition_point(|mark| mark.1 <= position) - 1
    }

    /// A piece's bytes in the text.
    pub fn bytes(&self, piece: usize) -> Range<usize> {
        self.marks[piece].0..self.marks[piece + 1].0
    }

    /// A piece's positions among the tokens.
    pub fn positions(&self, piece: usize) -> Range<usize> {
        self.marks[piece].1..self.marks[piece + 1].1
    }
}
