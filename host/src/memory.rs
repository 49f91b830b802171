//! What a model at least takes in memory, before anything of it is built, against what there is: one
//! estimate for runs, timings and checkpoints. Exact where the number of parameters is known; a lower
//! bound elsewhere, so that nothing is refused that would have worked.

use crate::architecture::ModelSize;
use crate::number;
use crate::run::machine::memory_bytes;

/// What is done with a model.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// Sequences are fed to it: values of the parameters.
    Reading,
    /// It is trained: values, gradients, the optimiser's two moments, and what the backward pass needs.
    Training {
        /// Sequences a step, B.
        batch: usize,
        /// Length of the longest of them in tokens, T.
        length: usize,
    },
}

/// What a model at least takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Values of all parameters.
    pub parameters: u64,
    /// Bytes of memory for its purpose.
    pub bytes: u64,
}

/// Bytes of a float32, and of a token id or target.
const WORD: u64 = 4;

/// What a model at least takes. `parameters` is their exact number where it is known (a checkpoint's); else
/// an embedding and one matrix as wide as the model in every layer are counted, which every architecture
/// has that mixes features.
pub fn estimate(size: ModelSize, parameters: Option<u64>, purpose: Purpose) -> Estimate {
    let (vocab, width) = (u64::from(size.vocab), u64::from(size.d_model));
    let layers = u64::from(size.layers);
    let matrices = width.saturating_mul(width).saturating_mul(layers);
    let parameters = parameters.unwrap_or_else(|| matrices.saturating_add(vocab * width));
    let bytes = match purpose {
        Purpose::Reading => parameters.saturating_mul(WORD),
        Purpose::Training { batch, length } => {
            // One sequence at the least goes through all layers, with the stream's values and gradients;
            // the whole batch is held as tokens and targets.
            let stream = width.saturating_mul(layers).saturating_mul(2);
            let positions = length as u64;
            let stream = stream.saturating_mul(positions);
            let batch = (batch as u64).saturating_mul(positions).saturating_mul(2);
            let words = parameters.saturating_mul(4).saturating_add(stream);
            words.saturating_add(batch).saturating_mul(WORD)
        }
    };
    Estimate { parameters, bytes }
}

/// Refuses a model that cannot fit: [`estimate`] against `limit` in bytes, or this machine's memory where
/// that is less or no limit is set. Nothing is refused where the machine does not say what it has.
///
/// # Errors
/// One sentence with the sizes, what they need and what there is.
pub fn check(
    size: ModelSize,
    parameters: Option<u64>,
    purpose: Purpose,
    limit: Option<u64>,
) -> Result<(), String> {
    let here = memory_bytes();
    let there = match (limit, here) {
        (Some(limit), Some(here)) => limit.min(here),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => return Ok(()),
    };
    let needed = estimate(size, parameters, purpose);
    if needed.bytes <= there {
        return Ok(());
    }
    let why = match purpose {
        Purpose::Reading => String::new(),
        Purpose::Training { batch, length } => {
            format!(" for training on {batch} sequences of {length} tokens")
        }
    };
    Err(format!(
        "a model of vocabulary {}, width {} and {} layers has {}{} parameters and needs at least {} of memory{why}; there are {}{}",
        size.vocab,
        size.d_model,
        size.layers,
        if parameters.is_some() {
            ""
        } else {
            "at least "
        },
        needed.parameters,
        number::size(needed.bytes),
        number::size(there),
        if limit == Some(there) {
            " by the limit on it"
        } else {
            " on this machine"
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: ModelSize = ModelSize {
        vocab: 64,
        d_model: 128,
        layers: 2,
        max_train_length: 256,
    };

    #[test]
    fn a_small_model_fits_and_a_huge_one_is_refused_with_what_there_is() {
        let training = Purpose::Training {
            batch: 64,
            length: 256,
        };
        check(SMALL, None, training, None).expect("it fits anywhere");
        let wide = ModelSize {
            d_model: u32::MAX,
            layers: u32::MAX,
            ..SMALL
        };
        let message = check(wide, None, training, None).unwrap_err();
        assert!(
            message.contains("width 4294967295") && message.contains("on this machine"),
            "{message}"
        );
        let message = check(SMALL, None, training, Some(1 << 16)).unwrap_err();
        assert!(
            message.contains("64 sequences of 256 tokens")
                && message.contains("there are 0.1 MiB by the limit on it"),
            "{message}"
        );
        let long = Purpose::Training {
            batch: 1,
            length: usize::MAX,
        };
        assert!(check(SMALL, None, long, None).is_err());
    }

    #[test]
    fn what_is_counted() {
        let reading = estimate(SMALL, Some(1000), Purpose::Reading);
        assert_eq!(
            reading,
            Estimate {
                parameters: 1000,
                bytes: 4000
            }
        );
        let bound = estimate(SMALL, None, Purpose::Reading);
        assert_eq!(bound.parameters, 64 * 128 + 2 * 128 * 128);
        let training = estimate(
            SMALL,
            Some(1000),
            Purpose::Training {
                batch: 3,
                length: 10,
            },
        );
        // Four words a parameter; two a position, layer and feature; a token and a target a position.
        assert_eq!(
            training.bytes,
            4 * (4 * 1000 + 10 * 2 * 128 * 2 + 3 * 10 * 2)
        );
    }
}
