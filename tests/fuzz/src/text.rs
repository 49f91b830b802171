//! Changes to bytes and words: what files are damaged by, and what options are mistyped as.

use crate::random::Random;

/// Words that programs have stumbled over: numbers at the edges of their types, numbers that are none,
/// separators, paths, control characters and letters of several bytes.
pub const AWKWARD: &[&str] = &[
    "",
    " ",
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "3",
    "255",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e-300",
    "1e300",
    "1e999",
    "-1e999",
    "0.1",
    ".5",
    "5.",
    "1_000",
    "+1",
    "0x10",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "Infinity",
    "true",
    "false",
    "null",
    "none",
    "auto",
    "=",
    ",",
    ":",
    "/",
    "..",
    "../../x",
    "/dev/zero",
    "a=b=c",
    "a,a",
    "\0",
    "\u{1b}[2J",
    "\u{feff}",
    "\r\n",
    "\n",
    "\"",
    "\\",
    "'",
    "{}",
    "[]",
    "模型",
    "\u{202e}x",
    "é",
    "%s%n",
    "=1+1",
    "@x",
    "1..",
    "..8",
    "1..8:0",
    "8..1",
    "1e3..1e9",
    "1,2,,3",
];

/// Changes some bytes: flips, removes, repeats, inserts, cuts, or puts awkward words in.
pub fn bytes(random: &mut Random, from: &[u8]) -> Vec<u8> {
    let mut bytes = from.to_vec();
    for _ in 0..=random.below(3) {
        let place = random.below(bytes.len() + 1);
        let count = 1 + random.below(8);
        let end = (place + count).min(bytes.len());
        match random.below(7) {
            0 if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
            1 if place < bytes.len() => bytes[place] = random.bits() as u8,
            2 => drop(bytes.drain(place..end)),
            3 => {
                let copy = bytes[place..end].to_vec();
                bytes.splice(place..place, copy);
            }
            4 => bytes.truncate(place),
            5 => drop(bytes.splice(place..place, random.bits().to_le_bytes())),
            _ => drop(bytes.splice(place..end, random.choose(AWKWARD).bytes())),
        }
    }
    bytes
}

/// Changes a text; what is no longer UTF-8 is replaced.
pub fn string(random: &mut Random, from: &str) -> String {
    String::from_utf8_lossy(&bytes(random, from.as_bytes())).into_owned()
}

/// An option string, `name:option=value,option=value`, made of known words, some changed.
pub fn options(random: &mut Random, names: &[&str], options: &[&str]) -> String {
    let mut text = (*random.choose(names)).to_owned();
    for index in 0..random.below(4) {
        let separator = if index == 0 { ':' } else { ',' };
        let (option, value) = (random.choose(options), random.choose(AWKWARD));
        text.push_str(&format!("{separator}{option}={value}"));
    }
    if random.one_in(4) {
        string(random, &text)
    } else {
        text
    }
}
