//! Recurrent inference: a state of `[B, H]` a layer, carried from piece to piece. It never trains.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use longhaul_plugin_api::author::{Result, Session};
use longhaul_plugin_api::data::{Batch, FeedOutput, Logits};
use longhaul_plugin_api::error::PluginError;
use rayon::ThreadPool;

use crate::model::check_tokens;
use crate::network::Network;
use crate::options::Settings;
use crate::refused;

/// Tokens read at once, whatever the length of a feed: it bounds the memory of the activations.
const PIECE: usize = 256;

/// A session over a number of rows.
#[derive(Clone)]
pub struct Reading {
    /// The parameters as they were when the session was opened.
    values: Arc<Vec<Tensor>>,
    pool: Arc<ThreadPool>,
    vocab: usize,
    hidden: usize,
    rows: usize,
    position: u64,
    /// `[layers, rows, H]`.
    state: Vec<f32>,
}

impl Reading {
    /// A session at position 0.
    pub fn new(
        values: Vec<Tensor>,
        pool: Arc<ThreadPool>,
        settings: &Settings,
        rows: usize,
    ) -> Self {
        Self {
            values: Arc::new(values),
            pool,
            vocab: settings.vocab,
            hidden: settings.hidden,
            rows,
            position: 0,
            state: vec![0.0; settings.layers * rows * settings.hidden],
        }
    }

    /// Reads tokens `first..first + count` of every row; appends each row's answers to its own.
    fn read(
        &mut self,
        batch: &Batch<'_>,
        first: usize,
        count: usize,
        wanted: Logits,
        answers: &mut [FeedOutput],
    ) -> candle_core::Result<()> {
        let cpu = &Device::Cpu;
        let length = batch.length as usize;
        let network = Network {
            values: &self.values,
        };
        let rows = batch.tokens.as_slice().chunks_exact(length);
        let tokens: Vec<u32> = rows
            .flat_map(|row| row[first..first + count].iter().copied())
            .collect();
        let tokens = Tensor::from_vec(tokens, (self.rows, count), cpu)?;
        let layers = self.state.chunks_exact(self.rows * self.hidden);
        let state = layers
            .map(|layer| Tensor::from_slice(layer, (self.rows, self.hidden), cpu))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let (hidden, state) = network.read(&tokens, Some(&state))?;
        let layers = self.state.chunks_exact_mut(self.rows * self.hidden);
        for (layer, state) in layers.zip(&state) {
            layer.copy_from_slice(&state.flatten_all()?.to_vec1::<f32>()?);
        }
        // The head is for those positions only that somebody asked for.
        let mut asked = Vec::new();
        for row in 0..self.rows {
            for t in 0..count {
                let target = batch.targets.get(row * length + first + t).copied();
                let target = target.filter(|&target| target >= 0);
                let last = first + t + 1 == length;
                let shown = wanted == Logits::All || (wanted == Logits::Last && last);
                if shown || target.is_some() {
                    asked.push((row, t, target, shown));
                }
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let places: Vec<u32> = asked
            .iter()
            .map(|(row, t, _, _)| (row * count + t) as u32)
            .collect();
        let places = Tensor::from_vec(places, asked.len(), cpu)?;
        let logits = network.logits(&hidden.index_select(&places, 0)?)?;
        let logits = logits.flatten_all()?.to_vec1::<f32>()?;
        for ((row, _, target, shown), logits) in asked.into_iter().zip(logits.chunks(self.vocab)) {
            let answer = &mut answers[row];
            if shown {
                answer.logits.extend_from_slice(logits);
            }
            if let Some(target) = target {
                let (best, nll) = score(logits, target as usize);
                answer.predictions.push(best);
                answer.nll.push(nll);
            }
        }
        Ok(())
    }
}

/// The most likely token, and the negative log likelihood of `target` in nats.
fn score(logits: &[f32], target: usize) -> (u32, f32) {
    let (mut best, mut top) = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > top {
            (best, top) = (token, logit);
        }
    }
    let total: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    (best as u32, total.ln() + top - logits[target])
}

impl Session for Reading {
    fn feed(&mut self, batch: &Batch<'_>, wanted: Logits) -> Result<FeedOutput> {
        if batch.rows as usize != self.rows {
            return Err(PluginError::bad_option(format!(
                "a batch of {} rows came to a session of {}",
                batch.rows, self.rows
            )));
        }
        check_tokens(batch, self.vocab)?;
        let length = batch.length as usize;
        let mut answers = vec![FeedOutput::default(); self.rows];
        let pool = Arc::clone(&self.pool);
        pool.install(|| {
            (0..length).step_by(PIECE).try_for_each(|first| {
                let count = PIECE.min(length - first);
                self.read(batch, first, count, wanted, &mut answers)
            })
        })
        .map_err(refused)?;
        self.position += length as u64;
        let mut output = FeedOutput::default();
        for answer in answers {
            output.predictions.extend_from_slice(&answer.predictions);
            output.nll.extend_from_slice(&answer.nll);
            output.logits.extend_from_slice(&answer.logits);
        }
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
