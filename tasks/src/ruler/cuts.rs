//! Where texts are cut into pieces: a table over the kinds of three characters in a row, so that a text is cut
//! without a branch that depends on it.

/// Where a text may be cut. Each cut stands before the character that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cuts {
    /// A single space between two other characters.
    pub space: bool,
    /// The first space of white space that is longer.
    pub white: bool,
    /// What follows an end of a line and is no white space.
    pub line: bool,
    /// A hyphen after a letter or digit.
    pub hyphen: bool,
    /// A digit after a letter, a letter after a digit, and what is neither after a digit.
    pub kind: bool,
    /// After each so many digits of a row; 0: nowhere in it.
    pub digits: u8,
}

/// Kinds of bytes.
const SPACE: u8 = 0;
const NEWLINE: u8 = 1;
/// Bytes of longer characters are taken as what may be white space: no cut, which is always exact.
const WHITE: u8 = 2;
const DIGIT: u8 = 3;
const LETTER: u8 = 4;
const HYPHEN: u8 = 5;
const OTHER: u8 = 6;
/// What follows a text.
const END: u8 = 7;

/// Bits of a kind.
const BITS: usize = 3;
/// Three kinds in a row.
const ROWS: usize = 1 << (3 * BITS);

/// The kind of each byte.
static KINDS: [u8; 256] = {
    let mut kinds = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b' ' => SPACE,
            b'\n' => NEWLINE,
            b'\t' | 0x0b | 0x0c | b'\r' | 0x80.. => WHITE,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'-' => HYPHEN,
            _ => OTHER,
        };
        byte += 1;
    }
    kinds
};

/// Cuts of texts by the table.
pub struct Cutter {
    /// Whether there is a cut between the first two of three, by their kinds; between digits wherever their row may
    /// be cut.
    table: [bool; ROWS],
    digits: u8,
}

impl Cutter {
    /// Cuts of these kinds.
    pub fn new(cuts: &Cuts) -> Self {
        let kind = |row: usize, back: usize| (row >> (BITS * back)) as u8 & ((1 << BITS) - 1);
        Self {
            table: std::array::from_fn(|row| {
                cuts.between(kind(row, 2), kind(row, 1), kind(row, 0))
            }),
            digits: cuts.digits,
        }
    }

    /// Gives where each piece of a text ends, in turn.
    pub fn each_end(&self, text: &str, give: impl FnMut(usize)) {
        if self.digits > 1 {
            self.scan::<true>(text.as_bytes(), give);
        } else {
            self.scan::<false>(text.as_bytes(), give);
        }
    }

    /// The same; `COUNTED` where a row of digits is cut after several.
    fn scan<const COUNTED: bool>(&self, text: &[u8], mut give: impl FnMut(usize)) {
        const SOME: usize = 64;
        let Some(&first) = text.first() else {
            return;
        };
        let kind = |byte: &u8| usize::from(KINDS[usize::from(*byte)]);
        let end = usize::from(END);
        let mut row = kind(&first) << BITS | text.get(1).map_or(end, kind);
        let mut digits = u8::from(first.is_ascii_digit());
        for start in (1..text.len()).step_by(SOME) {
            let mut ends = [0_u8; SOME];
            let mut count = 0;
            let some = &text[start..text.len().min(start + SOME)];
            let after = text.get(start + some.len()).map_or(end, kind);
            let next = some[1..].iter().map(kind).chain([after]);
            for (at, (here, next)) in some.iter().zip(next).enumerate() {
                row = (row << BITS | next) & (ROWS - 1);
                let mut cut = self.table[row];
                if COUNTED && here.is_ascii_digit() {
                    cut &= digits == 0 || digits == self.digits;
                    digits = 1 + if cut { 0 } else { digits };
                } else if COUNTED {
                    digits = 0;
                }
                ends[count] = at as u8;
                count += usize::from(cut);
            }
            ends[..count]
                .iter()
                .for_each(|&end| give(start + usize::from(end)));
        }
        give(text.len());
    }
}

impl Cuts {
    /// Whether there is a cut before what is `here`, by the kinds of what stands around.
    fn between(&self, before: u8, here: u8, next: u8) -> bool {
        let white = |kind| matches!(kind, SPACE | NEWLINE | WHITE);
        let cut = match next {
            SPACE | NEWLINE => self.white,
            // Nothing is known of what follows.
            WHITE | END => false,
            _ => self.space,
        };
        let word = |kind| matches!(kind, DIGIT | LETTER);
        match (before, here) {
            (_, SPACE) => cut && !white(before),
            (DIGIT | LETTER, HYPHEN) => self.hyphen && word(next),
            (NEWLINE, _) => self.line && !white(here),
            (DIGIT, DIGIT) => self.digits > 0,
            (LETTER, DIGIT) => self.kind,
            (_, DIGIT) => false,
            (DIGIT, _) => self.kind && !white(here),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_it_is_allowed() {
        let all = Cuts {
            space: true,
            line: true,
            white: false,
            hyphen: true,
            kind: true,
            digits: 3,
        };
        let cut = |cuts: Cuts, text: &str| {
            let (mut pieces, mut start) = (Vec::new(), 0);
            Cutter::new(&cuts).each_end(text, |end| {
                pieces.push(text[start..end].to_owned());
                start = end;
            });
            pieces.join("|")
        };
        let text = "One-two 1234567a  é 12 \n\nx- 7.\n-9ab";
        assert_eq!(cut(Cuts::default(), text), text);
        assert_eq!(
            cut(all, text),
            "One|-two| 123|456|7|a  é 12 \n\n|x-| 7|.\n|-9|ab"
        );
        let single = Cuts { digits: 1, ..all };
        assert_eq!(cut(single, "ab12-3 45"), "ab|1|2|-3| 4|5");
        let (digits, line) = (
            Cuts { kind: false, ..all },
            Cuts {
                line: true,
                ..Cuts::default()
            },
        );
        assert_eq!(cut(digits, "a1234b5678"), "a123|4b567|8");
        assert_eq!(cut(line, "a b\nc\n d\ne"), "a b\n|c\n d\n|e");
        let white = Cuts { white: true, ..all };
        assert_eq!(cut(white, "VAR AB \nVAR  = 1 "), "VAR| AB| \n|VAR|  =| 1 ");
        assert_eq!(cut(all, ""), "");
        // Longer than what is looked at together.
        let long = "12345 ".repeat(100);
        assert_eq!(cut(all, &long).replace('|', ""), long);
        assert_eq!(cut(all, &long).matches("|45").count(), 100);
    }
}
