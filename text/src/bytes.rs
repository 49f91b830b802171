//! The tokenizer that needs no file: a token is a byte.

use crate::error::TextError;
use crate::tokenizer::Tokenizer;

/// Token `b` is the byte `b` of UTF-8; there are 256, and none is special.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes;

impl Tokenizer for Bytes {
    fn id(&self) -> &str {
        "bytes"
    }

    fn vocab(&self) -> usize {
        256
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        Ok(text.bytes().map(u32::from).zip(1..).collect())
    }

    fn certain(&self, text: &str) -> Result<Option<(Vec<u32>, usize)>, TextError> {
        Ok(Some((self.encode(text)?, text.len())))
    }

    /// Tokens from 256 on stand for no byte and are left out.
    fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        let bytes: Vec<u8> = tokens
            .iter()
            .filter_map(|&token| u8::try_from(token).ok())
            .collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn bos(&self) -> Option<u32> {
        None
    }

    fn stops(&self) -> &[u32] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let text = "naïve – 🦀\n";
        let tokens = Bytes.encode(text).expect("bytes");
        assert_eq!(tokens.len(), text.len());
        assert_eq!(Bytes.decode(&tokens).expect("a text"), text);
        // Half a character, and a token that no byte has.
        assert_eq!(
            Bytes.decode(&[0xc3, 300, 0x61]).expect("a text"),
            "\u{fffd}a"
        );
    }
}
