//! Strings of JSON whose text comes in parts, so that none is held as a whole.

use std::io::{self, Write};

/// Writes a part of a string's inside.
pub fn write_inside(out: &mut impl Write, text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
    {
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
        let text = "a \"quoted\" \\ line\r\n\ttab \u{1}\u{1f}\u{7f} é 漢 \u{2028}";
        let mut out = Vec::new();
        write_string(&mut out, text).unwrap();
        let read: String = serde_json::from_slice(&out).unwrap();
        assert_eq!(read, text);
    }
}
