//! RWKV's world vocabulary (BlinkDL/RWKV-LM, rwkv_vocab_v20230424.txt): a line a token, `ID REPR BYTES`; a text is
//! cut into its longest tokens from left to right.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rwkv_tokenizer::WorldTokenizer;

use crate::error::TextError;
use crate::files;
use crate::tokenizer::Tokenizer;

/// Largest vocabulary that is read, in bytes; the one there is has 1 MB.
const MOST: u64 = 16 << 20;

/// The id that no line has; it ends a text.
const END: u32 = 0;

/// A tokenizer of this form.
pub(crate) struct World {
    id: String,
    inner: WorldTokenizer,
    vocab: usize,
    /// Bytes of each token.
    bytes: Vec<u32>,
}

impl World {
    /// Reads a vocabulary.
    pub fn read(path: &Path) -> Result<Self, TextError> {
        let bytes = files::read(path, MOST)?;
        let not = |what: &str| TextError::not(path, format!("is no world vocabulary: {what}"));
        let text = std::str::from_utf8(&bytes).map_err(|_| not("it is no UTF-8"))?;
        let (mut vocab, mut missing, mut lengths) = (1, vec![true; 256], vec![0]);
        for (number, line) in text.lines().enumerate() {
            let Some(length) = token_bytes(line, vocab) else {
                return Err(not(&format!(
                    "line {} is not `{vocab} 'TEXT' BYTES`",
                    number + 1
                )));
            };
            lengths.push(length);
            if let Some(byte) = single_byte(line) {
                missing[usize::from(byte)] = false;
            }
            vocab += 1;
        }
        if vocab == 1 || vocab > usize::from(u16::MAX) + 1 {
            return Err(not(&format!("it has {} tokens", vocab - 1)));
        }
        // The crate ends a text, without a word, where no token goes on.
        if let Some(byte) = missing.iter().position(|&missing| missing) {
            return Err(not(&format!(
                "no line is of the byte 0x{byte:02x} alone, so texts with it have no tokens"
            )));
        }
        let name = path.to_str().ok_or_else(|| not("its path is no UTF-8"))?;
        // The crate panics where a line does not say what it means.
        let inner = catch_unwind(AssertUnwindSafe(|| WorldTokenizer::new(Some(name))));
        let Ok(Ok(inner)) = inner else {
            return Err(not("a token has not as many bytes as its line says"));
        };
        Ok(Self {
            id: format!("world-{}", files::sha256_of(&bytes)),
            inner,
            vocab,
            bytes: lengths,
        })
    }
}

/// The bytes of the token with this id, if that is what a line is of.
fn token_bytes(line: &str, id: usize) -> Option<u32> {
    let (first, rest) = line.split_once(' ')?;
    let (_, bytes) = line.rsplit_once(' ')?;
    let quoted = rest.trim_start_matches('b').starts_with(['\'', '"']);
    let bytes = bytes.parse().ok().filter(|&bytes| bytes > 0)?;
    (first.parse() == Ok(id) && quoted).then_some(bytes)
}

/// The byte that a line's token is, if it is one: it stands there as it is, as `\xNN`, or by a name of C's.
fn single_byte(line: &str) -> Option<u8> {
    let (_, rest) = line.split_once(' ')?;
    let quoted = rest.strip_suffix(" 1")?.trim_start_matches('b');
    let text = quoted.get(1..quoted.len().checked_sub(1)?)?;
    match text.as_bytes() {
        &[byte] => Some(byte),
        [b'\\', b'x', ..] => u8::from_str_radix(&text[2..], 16).ok(),
        [b'\\', b't'] => Some(b'\t'),
        [b'\\', b'n'] => Some(b'\n'),
        [b'\\', b'r'] => Some(b'\r'),
        &[b'\\', byte] => Some(byte),
        _ => None,
    }
}

impl Tokenizer for World {
    fn id(&self) -> &str {
        &self.id
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        let mut end = 0;
        let tokens = self.inner.encode(text).into_iter();
        let with_end = tokens.map(|token| {
            end += self.bytes[usize::from(token)] as usize;
            (u32::from(token), end)
        });
        Ok(with_end.collect())
    }

    /// Each token is the longest there, so one is certain when the longest of all would have fitted.
    fn certain(&self, text: &str) -> Result<Option<(Vec<u32>, usize)>, TextError> {
        let longest = self.bytes.iter().max().map_or(0, |&bytes| bytes as usize);
        let (mut tokens, ends): (Vec<u32>, Vec<usize>) =
            self.encode_with_ends(text)?.into_iter().unzip();
        let (mut start, mut certain) = (0, (0, 0));
        for (count, end) in (1..).zip(ends) {
            if start + longest > text.len() {
                break;
            }
            if text.is_char_boundary(end) {
                certain = (count, end);
            }
            start = end;
        }
        tokens.truncate(certain.0);
        Ok((certain.1 > 0).then_some((tokens, certain.1)))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        let known = |token: &u32| *token != END && (*token as usize) < self.vocab;
        let tokens: Vec<u16> = tokens
            .iter()
            .filter(|token| known(token))
            .map(|&token| token as u16)
            .collect();
        if let Ok(text) = self.inner.decode(tokens.clone()) {
            return Ok(text);
        }
        // Tokens that are parts of characters: the longest runs that are text, else U+FFFD.
        let mut text = String::new();
        let mut from = 0;
        while from < tokens.len() {
            let ends = (from + 1..=tokens.len().min(from + 8)).rev();
            let found = ends
                .filter_map(|end| Some((end, self.inner.decode(tokens[from..end].to_vec()).ok()?)))
                .next();
            match found {
                Some((end, part)) => {
                    text.push_str(&part);
                    from = end;
                }
                None => {
                    text.push('\u{fffd}');
                    from += 1;
                }
            }
        }
        Ok(text)
    }

    fn bos(&self) -> Option<u32> {
        None
    }

    fn stops(&self) -> &[u32] {
        &[END]
    }
}
