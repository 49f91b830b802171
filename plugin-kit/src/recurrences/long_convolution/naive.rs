//! The long convolution tap by tap, as it is defined.

use super::{Real, Sequence};

/// The filter `[taps, C]` and x `[C]` of every token; `state` `[taps - 1, C]` is the inputs before, oldest first.
pub(super) fn naive<N: Real>(given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
    let mut y = Vec::new();
    let mut before = state.to_vec();
    for t in 0..given.length {
        let (filter, x) = (given.token(0, t), given.token(1, t));
        before.extend(x);
        // The newest input meets the first tap.
        let inputs = before.rchunks_exact(x.len());
        let mut sums = vec![N::from(0.0); x.len()];
        for (tap, input) in filter.chunks_exact(x.len()).zip(inputs) {
            for ((sum, &tap), &input) in sums.iter_mut().zip(tap).zip(input) {
                *sum += tap * input;
            }
        }
        y.extend(sums);
    }
    state.copy_from_slice(&before[before.len() - state.len()..]);
    y
}
