//! Strings of JSON whose text comes in parts, so that none is held as a whole.

use std::io::{self, Write};

/// Writes a part of a string's inside.
pub fn write_inside(out: &mut impl Write, text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while let Some(at) = first_escaped(rest) {
        out.write_all(&rest[..at])?;
        match rest[at] {
            b'\n' => out.write_all(b"\\n")?,
            b'\t' => out.write_all(b"\\t")?,
            b'\r' => out.write_all(b"\\r")?,
            byte @ (b'"' | b'\\') => out.write_all(&[b'\\', byte])?,
            byte => write!(out, "\\u{byte:04x}")?,
        }
        rest = &rest[at + 1..];
    }
    out.write_all(rest)
}

/// Where the first byte stands that is escaped.
fn first_escaped(text: &[u8]) -> Option<usize> {
    let escaped = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    // Whole chunks are looked at without a branch, many bytes at a time.
    let none = |chunk: &&[u8]| !chunk.iter().fold(false, |any, byte| any | escaped(byte));
    let plain = 32 * text.chunks_exact(32).take_while(none).count();
    let rest = text[plain..].iter().position(escaped);
    rest.map(|at| plain + at)
}

/// Writes a string.
pub fn write_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(b"\"")?;
    write_inside(out, text)?;
    out.write_all(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back() {
        let text = &"plain ".repeat(20);
        let text = &format!(
            "{text}{}{text}",
            "a \"quoted\" \\ line\r\n\ttab \u{1}\u{1f}\u{7f} é 漢 \u{2028}"
        );
        let mut out = Vec::new();
        write_string(&mut out, text).unwrap();
        let read: String = serde_json::from_slice(&out).unwrap();
        assert_eq!(&read, text);
    }
}
