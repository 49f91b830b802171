//! A sample whose tokens or targets follow from a state that goes from position to position. The state is kept
//! every so often, so that any position is reached after a bounded number of steps.

use crate::task::{Label, Sample};

/// What writes a sequence from its front.
pub trait Steps: Send + Sync {
    /// What a position needs of those before it.
    type State: Clone + Send + Sync;
    /// Tokens of the sequence.
    fn len(&self) -> usize;
    /// Positions between two states that are kept: at least the size of a state, so that all of them together are
    /// no larger than the sequence.
    fn spacing(&self) -> usize {
        512
    }
    /// The state before the first position.
    fn start(&self) -> Self::State;
    /// Writes tokens and targets (-1 where nothing is asked for) of the positions from `from` on, of the state
    /// before them, and leaves the state after them; both slices have the same length.
    fn advance(
        &self,
        state: &mut Self::State,
        from: usize,
        tokens: &mut [u32],
        targets: &mut [i32],
    );
}

/// A sample that is written by steps.
pub struct Stepped<S: Steps> {
    steps: S,
    /// The state before every [`Steps::spacing`]-th position.
    kept: Vec<S::State>,
    labels: Vec<Label>,
}

impl<S: Steps> Stepped<S> {
    /// Goes through the sequence once and keeps states.
    pub fn new(steps: S, labels: Vec<Label>) -> Self {
        let spacing = steps.spacing();
        let (mut tokens, mut targets) = (vec![0; spacing], vec![0; spacing]);
        let mut state = steps.start();
        let mut kept = vec![state.clone()];
        for from in (0..steps.len().saturating_sub(spacing)).step_by(spacing) {
            steps.advance(&mut state, from, &mut tokens, &mut targets);
            kept.push(state.clone());
        }
        Self {
            steps,
            kept,
            labels,
        }
    }
}

impl<S: Steps> Sample for Stepped<S> {
    fn len(&self) -> usize {
        self.steps.len()
    }

    fn labels(&self) -> &[Label] {
        &self.labels
    }

    fn write(&self, start: usize, tokens: &mut [u32], targets: &mut [i32]) {
        assert!(
            start + tokens.len() <= self.len() && targets.len() == tokens.len(),
            "a write past the sample"
        );
        let spacing = self.steps.spacing();
        let index = (start / spacing).min(self.kept.len() - 1);
        let from = index * spacing;
        let mut state = self.kept[index].clone();
        let (mut before, mut unasked) = (vec![0; start - from], vec![0; start - from]);
        self.steps
            .advance(&mut state, from, &mut before, &mut unasked);
        self.steps.advance(&mut state, start, tokens, targets);
    }
}
