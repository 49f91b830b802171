//! Recurrent inference: a state of `[layers, D]` a row, carried from piece to piece. It never trains.

use std::sync::Arc;

use longhaul_plugin_api::author::{Result, Session};
use longhaul_plugin_api::data::{Batch, FeedOutput, Logits};
use longhaul_plugin_api::error::PluginError;

use crate::model::check_tokens;
use crate::native::Sizes;

/// Tokens read at once, whatever the length of a feed: it bounds the trace.
const PIECE: usize = 64;

/// A session over a number of rows.
#[derive(Clone)]
pub struct Reading {
    values: Arc<Vec<f32>>,
    sizes: Sizes,
    position: u64,
    /// `[rows, layers, D]`.
    state: Vec<f32>,
}

impl Reading {
    /// A session at position 0.
    pub fn new(values: Arc<Vec<f32>>, sizes: Sizes, rows: usize) -> Self {
        Self {
            values,
            sizes,
            position: 0,
            state: vec![0.0; rows * sizes.state()],
        }
    }

    fn rows(&self) -> usize {
        self.state.len() / self.sizes.state()
    }
}

impl Session for Reading {
    fn feed(&mut self, batch: &Batch<'_>, wanted: Logits) -> Result<FeedOutput> {
        if batch.rows as usize != self.rows() {
            return Err(PluginError::bad_option(format!(
                "a batch of {} rows came to a session of {}",
                batch.rows,
                self.rows()
            )));
        }
        let sizes = self.sizes;
        check_tokens(batch, sizes.vocab)?;
        let length = batch.length as usize;
        let mut trace = vec![0.0; sizes.trace(PIECE.min(length))];
        let mut logits = vec![0.0; sizes.vocab];
        let mut output = FeedOutput::default();
        let rows = batch.tokens.as_slice().chunks_exact(length);
        for (row, (tokens, state)) in rows.zip(self.state.chunks_mut(sizes.state())).enumerate() {
            for (piece, tokens) in tokens.chunks(PIECE).enumerate() {
                let trace = &mut trace[..sizes.trace(tokens.len())];
                sizes.forward(&self.values, tokens, state, trace);
                let outputs = &trace[trace.len() - tokens.len() * sizes.d_model..];
                for (t, hidden) in outputs.chunks(sizes.d_model).enumerate() {
                    let t = piece * PIECE + t;
                    let target = batch.targets.get(row * length + t);
                    let target = target.and_then(|&target| u32::try_from(target).ok());
                    let last = t + 1 == length;
                    let shown = wanted == Logits::All || (wanted == Logits::Last && last);
                    if !shown && target.is_none() {
                        continue;
                    }
                    sizes.logits(&self.values, hidden, &mut logits);
                    if shown {
                        output.logits.extend_from_slice(&logits);
                    }
                    if let Some(target) = target {
                        let (best, nll) = sizes.score(&logits, target);
                        output.predictions.push(best);
                        output.nll.push(nll);
                    }
                }
            }
        }
        self.position += length as u64;
        Ok(output)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn state_bytes(&self) -> u64 {
        size_of_val(self.state.as_slice()) as u64
    }

    fn reset(&mut self) -> Result<()> {
        self.position = 0;
        self.state.fill(0.0);
        Ok(())
    }

    fn fork(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(self.clone()))
    }

    fn export_state(&self) -> Result<Vec<u8>> {
        let mut bytes = self.position.to_le_bytes().to_vec();
        bytes.extend(self.state.iter().flat_map(|value| value.to_le_bytes()));
        Ok(bytes)
    }

    fn import_state(&mut self, bytes: &[u8]) -> Result<()> {
        let expected = size_of::<u64>() + size_of_val(self.state.as_slice());
        let Some((position, state)) = bytes
            .split_first_chunk::<8>()
            .filter(|_| bytes.len() == expected)
        else {
            return Err(PluginError::bad_option(format!(
                "an exported state of {} bytes came to a session whose states have {expected}; \
                 import it into a session of the same model and rows",
                bytes.len()
            )));
        };
        self.position = u64::from_le_bytes(*position);
        let (values, _) = state.as_chunks::<4>();
        for (value, bytes) in self.state.iter_mut().zip(values) {
            *value = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }
}
