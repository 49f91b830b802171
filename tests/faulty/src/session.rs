//! Recurrent inference over constant state, with faults where the option asks for them.

use std::sync::Arc;

use longhaul_plugin_api::author::{Result, Session};
use longhaul_plugin_api::data::{Batch, FeedOutput, Logits};
use longhaul_plugin_api::error::PluginError;

use crate::fault::{Fault, Schedule};
use crate::model::check_tokens;
use crate::weights::{Weights, score};

/// A session over a number of rows.
#[derive(Clone)]
pub struct Averaging {
    weights: Arc<Weights>,
    schedule: Schedule,
    rows: usize,
    position: u64,
    /// `[rows, layers, D]`.
    state: Vec<f32>,
}

impl Averaging {
    /// A session at position 0.
    pub fn new(weights: Arc<Weights>, schedule: Schedule, rows: usize) -> Self {
        let values = rows * weights.sizes.layers * weights.sizes.d_model;
        Self {
            weights,
            schedule,
            rows,
            position: 0,
            state: vec![0.0; values],
        }
    }

    fn check_rows(&self, rows: u32) -> Result<()> {
        if rows as usize == self.rows {
            return Ok(());
        }
        Err(PluginError::bad_option(format!(
            "a batch of {rows} rows came to a session of {}",
            self.rows
        )))
    }

    /// Answers falsely, where that is asked for and due.
    fn falsify(&self, batch: &Batch<'_>, output: &mut FeedOutput) {
        let now = self.position.saturating_sub(1);
        let scored = batch.targets.iter().filter(|&&target| target >= 0);
        if self.schedule.due(Fault::EchoesTargets, now) {
            let echoed = scored.clone().zip(output.predictions.iter_mut());
            echoed.for_each(|(&target, prediction)| *prediction = target as u32);
            output.nll.iter_mut().for_each(|nll| *nll = 0.0);
        }
        if self.schedule.due(Fault::SureOfAll, now) {
            output.nll.iter_mut().for_each(|nll| *nll = 0.0);
        }
        if self.schedule.due(Fault::RewritesTargets, now) {
            for (target, &prediction) in scored.zip(&output.predictions) {
                let target = std::ptr::from_ref(target).cast_mut();
                // SAFETY: none; it is the host's memory, borrowed for reading only, as the option asked.
                unsafe { target.write_volatile(prediction as i32) };
            }
        }
        if self.schedule.due(Fault::ShortAnswers, now) {
            output.predictions.pop();
            output.nll.pop();
        }
        if self.schedule.due(Fault::ExtraAnswers, now) && !output.nll.is_empty() {
            output.predictions.push(0);
            output.nll.push(0.0);
        }
        if self.schedule.due(Fault::NanInFeed, now) {
            output.nll.iter_mut().for_each(|nll| *nll = f32::NAN);
            output.logits.iter_mut().for_each(|logit| *logit = f32::NAN);
        }
    }
}

impl Session for Averaging {
    fn feed(&mut self, batch: &Batch<'_>, wanted: Logits) -> Result<FeedOutput> {
        self.schedule.in_feed(self.position, batch.length.into())?;
        self.check_rows(batch.rows)?;
        let sizes = self.weights.sizes;
        check_tokens(batch, sizes.vocab)?;
        if self.schedule.fault == Fault::ForgetsBetweenFeeds {
            self.state.fill(0.0);
        }
        let (length, width) = (batch.length as usize, sizes.layers * sizes.d_model);
        let mut hidden = vec![0.0; sizes.d_model];
        let mut logits = vec![0.0; sizes.vocab];
        let mut output = FeedOutput::default();
        for row in 0..self.rows {
            if self.schedule.fault == Fault::MixesRows {
                self.state.copy_within(..width, row * width);
            }
            let state = &mut self.state[row * width..][..width];
            for t in 0..length {
                let at = row * length + t;
                self.weights
                    .advance(batch.tokens[at] as usize, state, &mut hidden);
                let target = batch.targets.get(at).copied().filter(|&target| target >= 0);
                let shown = wanted == Logits::All || (wanted == Logits::Last && t + 1 == length);
                if target.is_none() && !shown {
                    continue;
                }
                self.weights.logits(&hidden, &mut logits);
                if shown {
                    output.logits.extend_from_slice(&logits);
                }
                if let Some(target) = target {
                    let (best, nll) = score(&mut logits, target as usize, false);
                    output.predictions.push(best);
                    output.nll.push(nll);
                }
            }
        }
        self.position += length as u64;
        self.falsify(batch, &mut output);
        Ok(output)
    }

    fn position(&self) -> u64 {
        if self.schedule.fault == Fault::StandsStill {
            return 0;
        }
        self.position
    }

    fn state_bytes(&self) -> u64 {
        if self.schedule.fault == Fault::HugeState {
            return 1 << 62;
        }
        (self.state.len() * size_of::<f32>()) as u64
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
        let expected = 8 + self.state.len() * 4;
        let Some((position, state)) = bytes
            .split_first_chunk::<8>()
            .filter(|_| bytes.len() == expected)
        else {
            return Err(PluginError::bad_option(format!(
                "an exported state of {} bytes came to a session whose states have {expected}",
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
