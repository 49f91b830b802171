//! Which split an example belongs to, by its tokens alone. Every split draws from the same law and
//! keeps only what falls into its own part of all examples, so nothing that is measured was trained on.

use crate::task::{Sample, Split};

/// Attempts to find an example of a split. One in eight belongs to test, so that none is found in as
/// many by chance is less likely than 1e-14; where a length has too few examples to give every split
/// one, splits share them.
pub const ATTEMPTS: u64 = 256;

/// Tokens hashed at a time.
const BLOCK: usize = 4096;

/// The split that an example's tokens belong to: three quarters to train, an eighth to each other.
pub fn split_of(sample: &dyn Sample) -> Split {
    let (mut tokens, mut targets) = ([0; BLOCK], [0; BLOCK]);
    // FNV-1a over words; the product's upper bits are the mixed ones.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for start in (0..sample.len()).step_by(BLOCK) {
        let len = BLOCK.min(sample.len() - start);
        sample.write(start, &mut tokens[..len], &mut targets[..len]);
        for &token in &tokens[..len] {
            hash = (hash ^ u64::from(token)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    match hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 {
        0 => Split::Test,
        1 => Split::Validation,
        _ => Split::Train,
    }
}
