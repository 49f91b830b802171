//! Holds whole programs, from tokens to losses, on a device against the CPU: what a [`Case`] of one
//! operation has no tokens for. For tests only.
//!
//! [`Case`]: crate::testing::Case

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Device, KernelParams, Ptr};
use crate::cuda::memory::{DeviceArena, Memory, download};
use crate::cuda::run::{Control, CudaRun, Ports};
use crate::cuda::states::DeviceStates;
use crate::cuda::storage::Storage;
use crate::engine::arena::Arena;
use crate::engine::graph::{Graph, Program};
use crate::engine::operation::{LossSums, Outputs, Run, StateRows, Wanted};
use crate::engine::params::Params;
use crate::engine::tensor::Shape;
use crate::ops::token_order::{TOKEN_ORDER, TokenOrder};
use crate::precision::Precision;
use crate::testing::{Bench, compare, tolerance, widen};

/// What parameters' gradients start from on a device, as if others had added to them before.
const INITIAL: f32 = 0.5;

/// A program under test: from an embedding to a head, without state slots.
pub struct Ends<'a> {
    /// B.
    pub rows: usize,
    /// T.
    pub length: usize,
    /// V.
    pub vocab: usize,
    /// Places for wanted positions on the device; a batch may use fewer.
    pub places: usize,
    /// Records the operations.
    pub build: &'a dyn Fn(&mut Graph),
}

/// What a pass is given.
#[derive(Debug, Clone)]
pub struct EndsBatch {
    /// `[B, T]`.
    pub tokens: Vec<u32>,
    /// Positions whose output is wanted, in order. A feed gives the logits of all of them.
    pub wanted: Vec<Wanted>,
    /// Tokens read before; 0 in training.
    pub position: u64,
}

/// What a pass leaves for the wanted positions.
#[derive(Debug)]
pub struct EndsResult {
    /// Negative log likelihoods; 0 where there is no target.
    pub nll: Vec<f32>,
    /// Most likely tokens.
    pub best: Vec<u32>,
    /// `[wanted, V]`; empty in training, and where they were not asked for.
    pub logits: Vec<f32>,
    /// The parameters' gradients; empty in a feed.
    pub grads: Vec<Vec<f32>>,
}

impl EndsBatch {
    fn targets(&self) -> impl Iterator<Item = i32> {
        self.wanted.iter().map(|wanted| wanted.target)
    }

    fn loss_scale(&self) -> f32 {
        1.0 / self.targets().filter(|&target| target >= 0).count().max(1) as f32
    }
}

impl Ends<'_> {
    /// Records a training pass once, replays it for every batch and holds each against the CPU.
    ///
    /// # Panics
    /// With what differs, where and by how much.
    pub fn check_training(&self, device: &Arc<dyn Device>, batches: &[EndsBatch]) {
        let results = self.train_on(device, batches).expect("a training pass");
        if device.storage() != Storage::Float32 {
            // Such a device of the tests holds each launch to the same in float32.
            return;
        }
        let accepted = tolerance(device.precision());
        for (index, (batch, got)) in batches.iter().zip(&results).enumerate() {
            let (sums, grads) = self.train_on_cpu(batch);
            for (place, target) in batch.targets().enumerate() {
                assert!(
                    target >= 0 || got.nll[place] == 0.0,
                    "batch {index}: a loss without a target at place {place}"
                );
            }
            let total: f32 = got.nll.iter().sum();
            let name = format!("batch {index}: loss");
            compare(&name, &[total], &[sums.nll], accepted.forward);
            let hits = batch.targets().zip(&got.best);
            let correct = hits.filter(|(target, best)| *target == **best as i32);
            assert_eq!(correct.count() as u64, sums.correct, "batch {index}: hits");
            for (param, (got, exact)) in got.grads.iter().zip(&grads).enumerate() {
                let name = format!("batch {index}: gradient of parameter {param}");
                compare(&name, got, &widen(exact), accepted.backward);
            }
        }
    }

    /// Holds a feed of each batch against the CPU, with and without logits.
    ///
    /// # Panics
    /// With what differs, where and by how much.
    pub fn check_feed(&self, device: &Arc<dyn Device>, batches: &[EndsBatch]) {
        let accepted = tolerance(device.precision());
        for batch in batches {
            let exact = self.feed_on_cpu(batch).expect("a feed");
            for with_logits in [true, false] {
                let got = self.feed_on(device, batch, with_logits).expect("a feed");
                if device.storage() != Storage::Float32 {
                    continue;
                }
                compare("nll", &got.nll, &widen(&exact.nll), accepted.forward);
                let places = batch.targets().zip(got.best.iter().zip(&exact.best));
                for (place, (target, (got, exact))) in places.enumerate() {
                    // The CPU answers only where there is a target.
                    assert!(target < 0 || got == exact, "most likely token at {place}");
                }
                if with_logits {
                    compare(
                        "logits",
                        &got.logits,
                        &widen(&exact.logits),
                        accepted.forward,
                    );
                }
            }
        }
    }

    /// A training pass on the CPU: sums of losses, and the parameters' gradients.
    fn train_on_cpu(&self, batch: &EndsBatch) -> (LossSums, Vec<Vec<f32>>) {
        let (program, params) = self.record(None);
        // The trainer wants only what has a target.
        let wanted: Vec<Wanted> = batch
            .wanted
            .iter()
            .copied()
            .filter(|w| w.target >= 0)
            .collect();
        let mut arena = Arena::new(&program, true);
        let shape = self.shape(wanted.len());
        arena.prepare(&program, shape, true);
        let zeros = |entry: &crate::engine::params::Entry| vec![0.0; entry.values.len()];
        let grads: Vec<_> = params.entries.iter().map(zeros).map(RefCell::new).collect();
        let run = Run {
            shape,
            position: 0,
            tokens: &batch.tokens,
            wanted: &wanted,
            params: &params,
            arena: &arena,
            grads: Some(&grads),
            states: None,
            started_from: None,
            loss_scale: batch.loss_scale(),
            loss: Cell::new(LossSums::default()),
            outputs: RefCell::new(Outputs::default()),
        };
        for operation in &program.operations {
            operation.forward(&run).expect("forward");
        }
        for operation in program.operations.iter().rev() {
            operation.backward(&run).expect("backward");
        }
        let sums = run.loss.get();
        (sums, grads.into_iter().map(RefCell::into_inner).collect())
    }

    /// A feed on the CPU.
    ///
    /// # Errors
    /// What an operation refuses.
    pub fn feed_on_cpu(&self, batch: &EndsBatch) -> Result<EndsResult> {
        let (program, params) = self.record(None);
        let with_logits = |wanted: &Wanted| Wanted {
            logits: true,
            ..*wanted
        };
        let wanted: Vec<Wanted> = batch.wanted.iter().map(with_logits).collect();
        let mut arena = Arena::for_feeds(&program, true);
        let shape = self.shape(wanted.len());
        arena.prepare(&program, shape, false);
        let states: [RefCell<StateRows>; 0] = [];
        let run = Run {
            shape,
            position: batch.position,
            tokens: &batch.tokens,
            wanted: &wanted,
            params: &params,
            arena: &arena,
            grads: None,
            states: Some(&states),
            started_from: None,
            loss_scale: 1.0,
            loss: Cell::new(LossSums::default()),
            outputs: RefCell::new(Outputs::default()),
        };
        for operation in &program.operations {
            operation.forward(&run)?;
        }
        let outputs = run.outputs.into_inner();
        let (mut nll, mut best) = (vec![0.0; wanted.len()], vec![0; wanted.len()]);
        let scored = (0..wanted.len()).filter(|&place| wanted[place].target >= 0);
        for (index, place) in scored.enumerate() {
            nll[place] = outputs.nll[index];
            best[place] = outputs.predictions[index];
        }
        Ok(EndsResult {
            nll,
            best,
            logits: outputs.logits,
            grads: Vec::new(),
        })
    }

    /// A training pass on a device, recorded once and replayed for every batch.
    ///
    /// # Errors
    /// What an operation refuses; the device's.
    pub fn train_on(
        &self,
        device: &Arc<dyn Device>,
        batches: &[EndsBatch],
    ) -> Result<Vec<EndsResult>> {
        let (program, params) = self.record(Some(device.precision()));
        let shape = self.shape(self.places);
        let bench = EndsBench::new(device, shape, self.length, self.vocab, &program, &params)?;
        let mut arena = DeviceArena::new(device)?;
        arena.prepare(&program, shape, true, true)?;
        let run = bench.run(&program, shape, &arena, true, false);
        let recording = device.record(&mut || {
            arena.begin_pass();
            arena.touch_params();
            for operation in &program.operations {
                operation.cuda_forward(&run)?;
            }
            for operation in program.operations.iter().rev() {
                operation.cuda_backward(&run)?;
            }
            Ok(())
        })?;
        let (mut results, grads) = (Vec::new(), &bench.bench.grads);
        for batch in batches {
            // What the batch before left must not matter.
            let moved = arena.prepare(&program, shape, true, true)?;
            assert!(!moved, "buffers of the same shape moved");
            for (index, entry) in params.entries.iter().enumerate() {
                grads.write(index, &vec![INITIAL; entry.values.len()])?;
            }
            bench.upload(batch)?;
            device.replay(recording.as_ref())?;
            let mut result = bench.results(batch, None)?;
            for index in 0..params.entries.len() {
                let sums = grads.read(index)?;
                let own = sums.iter().map(|sum| sum - INITIAL);
                result.grads.push(own.collect());
            }
            results.push(result);
        }
        Ok(results)
    }

    /// A feed on a device.
    ///
    /// # Errors
    /// What an operation refuses; the device's.
    pub fn feed_on(
        &self,
        device: &Arc<dyn Device>,
        batch: &EndsBatch,
        with_logits: bool,
    ) -> Result<EndsResult> {
        let (program, params) = self.record(Some(device.precision()));
        let shape = self.shape(self.places);
        let bench = EndsBench::new(device, shape, self.length, self.vocab, &program, &params)?;
        let mut arena = DeviceArena::new(device)?;
        arena.prepare(&program, shape, false, true)?;
        bench.upload(batch)?;
        let run = bench.run(&program, shape, &arena, false, with_logits);
        for operation in &program.operations {
            operation.cuda_forward(&run)?;
        }
        bench.results(batch, with_logits.then_some(self.vocab))
    }

    fn record(&self, for_device: Option<Precision>) -> (Program, Params) {
        let mut graph = Graph::new(5);
        if let Some(precision) = for_device {
            graph.want_device(precision);
        }
        (self.build)(&mut graph);
        (graph.program, graph.params)
    }

    fn shape(&self, scored: usize) -> Shape {
        Shape {
            rows: self.rows,
            length: self.length,
            scored,
        }
    }
}

/// The positions of `tokens` in the order of their tokens, as an embedding's backward pass has them sorted.
///
/// # Panics
/// If the device fails.
pub fn token_order_on(device: &Arc<dyn Device>, vocab: usize, tokens: &[u32]) -> Vec<u32> {
    let mut graph = Graph::new(5);
    graph.want_device(device.precision());
    let order = TokenOrder::new(&mut graph, vocab);
    let (program, params) = (graph.program, graph.params);
    let shape = Shape {
        rows: 1,
        length: tokens.len(),
        scored: 0,
    };
    let mut bench = Bench::new(device, &program, &params);
    device
        .load(&[&TOKEN_ORDER])
        .expect("a kernel that compiles");
    let mut arena = DeviceArena::new(device).expect("memory");
    arena.prepare(&program, shape, true, true).expect("memory");
    let memory = Memory::new(device, tokens.len()).expect("memory");
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    device.upload(memory.ptr(), &bytes).expect("an upload");
    bench.ports.tokens = memory.ptr();
    let run = bench.run(&program, shape, &arena, None);
    let order = order.sort(&run).expect("a sort");
    let words = download(device.as_ref(), order, tokens.len()).expect("a download");
    words.iter().map(|word| word.to_bits()).collect()
}

/// Inputs and results of a program on a device, beside its parameters and gradients.
pub(crate) struct EndsBench {
    device: Arc<dyn Device>,
    bench: Bench,
    states: DeviceStates,
    places: usize,
    _memory: Vec<Memory>,
}

impl EndsBench {
    /// Room for the inputs and results of a shape, and for `room` tokens in caches.
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        shape: Shape,
        room: usize,
        vocab: usize,
        program: &Program,
        params: &Params,
    ) -> Result<Self> {
        let mut bench = Bench::new(device, program, params);
        let (tokens, places) = (shape.rows * shape.length, shape.scored);
        let sizes = [tokens, places, places, places, places, places * vocab];
        let memory = sizes.map(|values| Memory::new(device, values));
        let memory = memory.into_iter().collect::<Result<Vec<_>>>()?;
        let [tokens, wanted, targets, nll, best, logits] =
            std::array::from_fn(|index| memory[index].ptr());
        bench.ports = Ports {
            control: bench.ports.control,
            tokens,
            wanted,
            targets,
            nll,
            best,
            logits,
        };
        Ok(Self {
            device: Arc::clone(device),
            bench,
            states: DeviceStates::new(device, program, shape.rows, (0, room))?,
            places,
            _memory: memory,
        })
    }

    pub(crate) fn run<'a>(
        &'a self,
        program: &'a Program,
        shape: Shape,
        arena: &'a DeviceArena,
        training: bool,
        with_logits: bool,
    ) -> CudaRun<'a> {
        let states = (!training).then_some(self.states.slots.as_slice());
        let mut run = self.bench.run(program, shape, arena, states);
        if !with_logits {
            run.ports.logits = Ptr::default();
        }
        run
    }

    /// Writes a batch; unused places get what would show if it were read.
    pub(crate) fn upload(&self, batch: &EndsBatch) -> Result<()> {
        assert!(batch.wanted.len() <= self.places, "more wanted than places");
        let control = Control {
            position: batch.position,
            wanted: batch.wanted.len() as u32,
            loss_scale: batch.loss_scale(),
        };
        let words =
            |words: Vec<u32>| -> Vec<u8> { words.into_iter().flat_map(u32::to_le_bytes).collect() };
        let mut wanted: Vec<u32> = batch.wanted.iter().map(|wanted| wanted.position).collect();
        let mut targets: Vec<u32> = batch.targets().map(|target| target as u32).collect();
        wanted.resize(self.places, u32::MAX);
        targets.resize(self.places, 1);
        let nan = vec![f32::NAN.to_bits(); self.places];
        let (device, ports) = (&self.device, self.bench.ports);
        device.upload(ports.control, control.bytes())?;
        device.upload(ports.tokens, &words(batch.tokens.clone()))?;
        device.upload(ports.wanted, &words(wanted))?;
        device.upload(ports.targets, &words(targets))?;
        device.upload(ports.nll, &words(nan.clone()))?;
        device.upload(ports.best, &words(nan))
    }

    /// Reads what a pass left, with the logits of a vocabulary where that is given.
    fn results(&self, batch: &EndsBatch, vocab: Option<usize>) -> Result<EndsResult> {
        let used = batch.wanted.len();
        let read = |from: Ptr, count: usize| download(self.device.as_ref(), from, count);
        let mut nll = read(self.bench.ports.nll, self.places)?;
        let spare = nll.split_off(used);
        assert!(
            spare.iter().all(|nll| *nll == 0.0),
            "a loss at an unused place: {spare:?}"
        );
        let best = read(self.bench.ports.best, used)?;
        Ok(EndsResult {
            nll,
            best: best.iter().map(|word| word.to_bits()).collect(),
            logits: read(self.bench.ports.logits, used * vocab.unwrap_or(0))?,
            grads: Vec::new(),
        })
    }
}
