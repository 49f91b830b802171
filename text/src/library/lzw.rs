//! The code of Unix's `compress` (Welch, Computer 17(6), 1984): least significant bits first, codes of 9 to 16 bits,
//! eight of a width at a time.

const FIRST_BITS: usize = 9;
const MOST_BITS: usize = 16;
/// Empties the table.
const CLEAR: usize = 256;

/// What codes stand for, at most so many bytes; nothing where they are damaged.
pub(super) fn decode(codes: &[u8], most: usize) -> Option<Vec<u8>> {
    // Of each code from 257 on, where in the text it stands, and its length.
    let mut table: Vec<(usize, usize)> = Vec::new();
    let mut text = Vec::new();
    // The string of the code before.
    let mut before: Option<(usize, usize)> = None;
    let (mut bits, mut at, mut group) = (FIRST_BITS, 0, 0);
    // What is left of eight codes is not used when their width changes.
    let eight =
        |from: usize, at: usize, bits: usize| from + usize::next_multiple_of(at - from, 8 * bits);
    loop {
        if CLEAR + 1 + table.len() >= 1 << bits && bits < MOST_BITS {
            at = eight(group, at, bits);
            (bits, group) = (bits + 1, at);
        }
        let Some(code) = bits_at(codes, at, bits) else {
            return Some(text);
        };
        at += bits;
        if code == CLEAR {
            table.clear();
            at = eight(group, at, bits);
            (before, bits, group) = (None, FIRST_BITS, at);
            continue;
        }
        // The string before and the byte that follows it, which may be of this one.
        if let Some((start, len)) = before
            && CLEAR + 1 + table.len() < 1 << MOST_BITS
        {
            table.push((start, len + 1));
        }
        let start = text.len();
        match code.checked_sub(CLEAR + 1) {
            Some(index) => {
                let (from, len) = *table.get(index)?;
                (from..from + len).for_each(|place| text.push(text[place]));
            }
            None => text.push(code as u8),
        }
        if text.len() > most {
            return None;
        }
        before = Some((start, text.len() - start));
    }
}

/// So many bits, 16 at most, from a place on; nothing where they go beyond the end.
fn bits_at(bytes: &[u8], at: usize, bits: usize) -> Option<usize> {
    if at + bits > 8 * bytes.len() {
        return None;
    }
    let three = (0..3).rev().fold(0, |all, next| {
        all << 8 | usize::from(bytes.get(at / 8 + next).copied().unwrap_or(0))
    });
    Some(three >> (at % 8) & ((1 << bits) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_compress() {
        // ncompress 4.2.4.6 of this text; a head of three bytes says how many bits there are at most.
        let codes = &include_bytes!("../../tests/fixtures/compress.Z")[3..];
        let text: Vec<u8> = (0..3000_u32)
            .map(|i| ((i * i / 7 + i) % 11) as u8 + b'a')
            .collect();
        assert_eq!(decode(codes, 3000), Some(text));
        assert_eq!(decode(codes, 2999), None, "more than was asked for");
        // The first code after `a` is none that there can be yet.
        assert_eq!(decode(&[0x61, 0xff, 0xff], 3000), None);
        // A code that clears is the end of its eight.
        let cleared = [0x61, 0x00, 0x02, 0, 0, 0, 0, 0, 0, 0x62, 0x00];
        assert_eq!(decode(&cleared, 3000).as_deref(), Some(&b"ab"[..]));
    }
}
