//! The text that stands in where no texts are given: documents of made-up words. A fifth of a document's words
//! are its own, from a list that no other document has, so that there is something to learn from far back.

use std::sync::{Arc, LazyLock};

use longhaul_text::{Document, Texts};

use crate::draws::{Draws, Purpose, key};
use crate::task::{Coordinates, Split};

/// What it is called in records, in place of a hash.
pub const GENERATED: &str = "generated";

const DOCUMENTS: u64 = 48;
/// Shortest and longest document, in bytes.
const SIZES: (usize, usize) = (16 << 10, 128 << 10);
/// Words that all documents use, and words of one document's own.
const WORDS: (usize, usize) = (1024, 32);

/// The generated documents, the same everywhere.
pub fn generated() -> Arc<Texts> {
    static TEXTS: LazyLock<Arc<Texts>> = LazyLock::new(|| {
        let mut draws = draws(DOCUMENTS);
        let common: Vec<String> = (0..WORDS.0).map(|_| word(&mut draws)).collect();
        Arc::new(Texts {
            name: GENERATED.to_owned(),
            sha256: GENERATED.to_owned(),
            documents: (0..DOCUMENTS)
                .map(|index| document(index, &common))
                .collect(),
        })
    });
    Arc::clone(&TEXTS)
}

fn draws(index: u64) -> Draws {
    let at = Coordinates {
        split: Split::Train,
        length: 0,
        seed: 0,
        index,
    };
    Draws::new(key(GENERATED, ""), &at, 0, Purpose::Plan)
}

fn document(index: u64, common: &[String]) -> Document {
    let mut draws = draws(index);
    let own: Vec<String> = (0..WORDS.1).map(|_| word(&mut draws)).collect();
    let size = SIZES.0 + draws.below(SIZES.1 - SIZES.0);
    let mut text = String::with_capacity(size + 64);
    while text.len() < size {
        for place in 0..4 + draws.below(12) {
            let words = if draws.below(5) == 0 { &own } else { common };
            // Ranks are log-uniform, so that a word's share falls with its rank as in text (Zipf).
            let rank = (words.len() as f64).powf(draws.unit()) as usize - 1;
            text.push_str(if place > 0 { " " } else { "" });
            text.push_str(&words[rank.min(words.len() - 1)]);
        }
        text.push_str(".\n");
    }
    Document {
        name: format!("{GENERATED}-{index:02}.txt"),
        text,
    }
}

/// Two to four syllables.
fn word(draws: &mut Draws) -> String {
    const FIRST: &[u8] = b"bdfghklmnprstvwz";
    const SECOND: &[u8] = b"aeiou";
    let letters = (0..2 + draws.below(3))
        .flat_map(|_| [FIRST, SECOND].map(|from| char::from(from[draws.below(from.len())])));
    letters.collect()
}
