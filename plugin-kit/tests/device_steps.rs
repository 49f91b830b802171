//! Training steps and feeds of a whole model on the emulated device: what they ask of the device, what is read
//! back and when, and that the results are the CPU's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use longhaul_plugin_kit::api::author::Model;
use longhaul_plugin_kit::api::data::{Batch, Logits, ModelConfig, StepReport, TrainConfig};
use longhaul_plugin_kit::api::error::ErrorKind;
use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::cuda::device::{
    Device, Kernel, KernelSource, Launch, Product, Ptr, Recording,
};
use longhaul_plugin_kit::cuda::plugin::DeviceKitModel;
use longhaul_plugin_kit::model::KitModel;
use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::testing::config;
use longhaul_plugin_kit::{Architecture, Block, Mixer, Result, Tensor};

const VOCAB: usize = 37;

/// A gated short convolution.
struct Convolving;

impl Mixer for Convolving {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let mixed = graph.short_convolution("conv", x, 3, true, Activation::Silu);
        graph.linear("proj", mixed, x.cols(), false)
    }
}

fn architecture() -> Architecture {
    Architecture {
        name: "convolving",
        title: "a short convolution",
        family: Family::Convolution,
        citation: "",
        options: Vec::new(),
        default_mlp: "none",
        mixer: |_| Ok(Box::new(Convolving)),
    }
}

/// What a device was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    allocations: usize,
    uploads: usize,
    downloads: usize,
    downloaded_bytes: usize,
    recordings: usize,
    replays: usize,
}

/// The emulated device, and what it was asked for.
struct Counting {
    inner: Arc<dyn Device>,
    counts: [AtomicUsize; 6],
    /// Bytes by address.
    held: Mutex<HashMap<u64, usize>>,
}

impl Counting {
    fn count(&self, place: usize, by: usize) {
        self.counts[place].fetch_add(by, Ordering::Relaxed);
    }

    /// Bytes that are allocated now.
    fn held_bytes(&self) -> usize {
        self.held.lock().unwrap().values().sum()
    }

    /// What it was asked for since this was called last.
    fn asked(&self) -> Asked {
        let [
            allocations,
            uploads,
            downloads,
            downloaded_bytes,
            recordings,
            replays,
        ] = std::array::from_fn(|place| self.counts[place].swap(0, Ordering::Relaxed));
        Asked {
            allocations,
            uploads,
            downloads,
            downloaded_bytes,
            recordings,
            replays,
        }
    }
}

impl Device for Counting {
    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        self.count(0, 1);
        let memory = self.inner.allocate(bytes)?;
        self.held.lock().unwrap().insert(memory.0, bytes);
        Ok(memory)
    }

    fn free(&self, memory: Ptr) {
        self.held.lock().unwrap().remove(&memory.0);
        self.inner.free(memory);
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        self.count(1, 1);
        self.inner.upload(to, bytes)
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        self.count(2, 1);
        self.count(3, bytes.len());
        self.inner.download(from, bytes)
    }

    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        self.inner.copy(to, from, bytes)
    }

    fn fill(&self, to: Ptr, word: u32, count: usize) -> Result<()> {
        self.inner.fill(to, word, count)
    }

    fn fill_rows(&self, to: Ptr, word: u32, sizes: [usize; 3]) -> Result<()> {
        self.inner.fill_rows(to, word, sizes)
    }

    fn load(&self, sources: &[&'static KernelSource]) -> Result<()> {
        self.inner.load(sources)
    }

    fn launch(&self, kernel: Kernel, launch: Launch, params: &[u8]) -> Result<()> {
        self.inner.launch(kernel, launch, params)
    }

    fn product(&self, product: Product) -> Result<()> {
        self.inner.product(product)
    }

    fn takes(&self, product: &Product) -> Result<bool> {
        self.inner.takes(product)
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Recording>> {
        self.count(4, 1);
        self.inner.record(work)
    }

    fn replay(&self, recording: &dyn Recording) -> Result<()> {
        self.count(5, 1);
        self.inner.replay(recording)
    }

    fn synchronize(&self) -> Result<()> {
        self.inner.synchronize()
    }
}

/// A poisoned model of two layers on each of the emulator's two devices.
fn models() -> impl Iterator<Item = (DeviceKitModel, Arc<Counting>)> {
    longhaul_emulator::orders(Precision::Float32)
        .into_iter()
        .map(|inner| on_counting(inner, &architecture()))
}

fn on_counting(
    inner: Arc<dyn Device>,
    architecture: &Architecture,
) -> (DeviceKitModel, Arc<Counting>) {
    let counting = Arc::new(Counting {
        inner,
        counts: Default::default(),
        held: Mutex::default(),
    });
    let device: Arc<dyn Device> = counting.clone();
    let config = poisoned(architecture);
    let model = DeviceKitModel::new(architecture, &config, &device).expect("a model");
    (model, counting)
}

fn poisoned(architecture: &Architecture) -> ModelConfig {
    use longhaul_plugin_kit::api::abi_stable::std_types::Tuple2;
    use longhaul_plugin_kit::api::data::extra::POISONED_BUFFERS;
    let mut config = config(architecture, &[], 24, 2);
    let (name, value) = POISONED_BUFFERS;
    config.extra.push(Tuple2(name.into(), value.into()));
    config
}

/// Tokens and targets, of which about one in `every` is scored.
struct Data {
    tokens: Vec<u32>,
    targets: Vec<i32>,
    rows: usize,
    length: usize,
}

impl Data {
    fn new(rows: usize, length: usize, every: usize, seed: usize) -> Self {
        let count = rows * length;
        let token = |i: usize| ((i * 7 + i / 5 + seed * 11) % VOCAB) as u32;
        let target = |i: usize| match (i + seed) % every {
            0 => ((i * 3 + seed) % VOCAB) as i32,
            _ => -1,
        };
        Self {
            tokens: (0..count).map(token).collect(),
            targets: (0..count).map(target).collect(),
            rows,
            length,
        }
    }

    fn batch(&self) -> Batch<'_> {
        Batch::new(&self.tokens, &self.targets, self.rows, self.length)
    }

    fn scored(&self) -> u64 {
        self.targets.iter().filter(|target| **target >= 0).count() as u64
    }
}

/// The batch of a step: two shapes take turns, and the number of scored positions varies.
fn data(step: u64) -> Data {
    let seed = step as usize;
    match step % 3 {
        2 => Data::new(2, 33, 2, seed),
        _ => Data::new(3, 17, 2 + seed % 3, seed),
    }
}

fn training(steps: u64) -> TrainConfig {
    TrainConfig {
        learning_rate: 0.02,
        warmup_steps: 3,
        total_steps: steps,
        clip_norm: 0.5,
        weight_decay: 0.3,
        ..TrainConfig::default()
    }
}

fn parameters(model: &dyn Model) -> Vec<Vec<f32>> {
    let infos = model.parameters();
    let read = |(index, values): (usize, usize)| {
        let mut values = vec![0.0; values];
        let read = model.read_parameter(index, &mut values);
        read.expect("a parameter");
        values
    };
    let sizes = infos.iter().map(|info| info.len()).enumerate();
    sizes.map(read).collect()
}

fn train(model: &mut dyn Model, config: &TrainConfig, steps: u64) -> Vec<StepReport> {
    model.begin_training(config).expect("a training");
    let step = |step| model.train_step(&data(step).batch(), step);
    (0..steps)
        .map(step)
        .map(|done| done.expect("a step"))
        .collect()
}

#[track_caller]
fn assert_close(got: f64, exact: f64, tolerance: f64) {
    let error = (got - exact).abs() / exact.abs().max(1e-3);
    assert!(error <= tolerance, "{got} against {exact}");
}

#[test]
fn a_training_is_that_on_the_cpu() {
    let mut cpu =
        KitModel::new(&architecture(), &poisoned(&architecture()), true).expect("a model");
    let exact = train(&mut cpu, &training(12), 12);
    let clipped = exact.iter().filter(|report| report.gradient_norm > 0.5);
    assert!(clipped.count() > 2, "{exact:?}");
    for (mut model, _) in models() {
        let got = train(&mut model, &training(12), 12);
        for (got, exact) in got.iter().zip(&exact) {
            assert_close(got.loss, exact.loss, 1e-4);
            assert_close(got.gradient_norm, exact.gradient_norm, 1e-3);
            assert_eq!(got.learning_rate, exact.learning_rate);
            assert_eq!((got.scored, got.correct), (exact.scored, exact.correct));
        }
        for (got, exact) in parameters(&model).iter().zip(&parameters(&cpu)) {
            for (got, exact) in got.iter().zip(exact) {
                let error = (got - exact).abs();
                assert!(error < 1e-3, "{got} against {exact}");
            }
        }
        // A batch of its own shape after a training, without an update.
        let before = parameters(&model);
        let data = Data::new(2, 40, 1, 5);
        let got = model.loss_and_gradients(&data.batch()).expect("gradients");
        let exact = cpu.loss_and_gradients(&data.batch()).expect("gradients");
        assert_close(got.loss, exact.loss, 1e-3);
        assert_close(got.gradient_norm, exact.gradient_norm, 1e-2);
        assert_eq!(parameters(&model), before);
    }
}

/// More scored positions and more parameters than one block adds up.
#[test]
fn sums_of_several_blocks_are_those_on_the_cpu() {
    let config = config(&architecture(), &[], 80, 1);
    let data = Data::new(13, 320, 1, 2);
    assert!(data.scored() > 4096);
    let mut cpu = KitModel::new(&architecture(), &config, true).expect("a model");
    assert!(parameters(&cpu).iter().flatten().count() > 2 * 4096);
    let exact = cpu.loss_and_gradients(&data.batch()).expect("gradients");
    for device in longhaul_emulator::orders(Precision::Float32) {
        let mut model = DeviceKitModel::new(&architecture(), &config, &device).expect("a model");
        let got = model.loss_and_gradients(&data.batch()).expect("gradients");
        assert_close(got.loss, exact.loss, 1e-6);
        assert_close(got.gradient_norm, exact.gradient_norm, 1e-5);
        assert_eq!((got.scored, got.correct), (exact.scored, exact.correct));
        assert!(got.correct > 0);
    }
}

#[test]
fn a_known_shape_asks_for_one_upload_and_one_replay() {
    for (mut model, device) in models() {
        let config = training(64).reported_every(8);
        let first = train(&mut model, &config, 4);
        assert!(!first[0].is_unread() && first[1].is_unread() && first[2].is_unread());
        // Two shapes, the numbers of scored positions rounded up; the second moved the buffers of the first.
        let asked = device.asked();
        assert_eq!((asked.recordings, asked.replays), (3, 4), "{asked:?}");
        for step in 4..20 {
            let report = model.train_step(&data(step).batch(), step).expect("a step");
            let asked = device.asked();
            let due = step % 8 == 0;
            assert_eq!(report.is_unread(), !due, "step {step}");
            let expected = Asked {
                allocations: 0,
                uploads: 1,
                downloads: usize::from(due),
                downloaded_bytes: if due { 48 } else { 0 },
                recordings: 0,
                replays: 1,
            };
            assert_eq!(asked, expected, "step {step}");
            assert_eq!(report.scored, if due { data(step).scored() } else { 0 });
        }
        // The gradients alone are recorded apart, and a new training records anew.
        let data = data(3);
        for recordings in [1, 0] {
            model.loss_and_gradients(&data.batch()).expect("gradients");
            let asked = device.asked();
            assert_eq!((asked.recordings, asked.downloads), (recordings, 1));
        }
        train(&mut model, &config, 1);
        assert_eq!(device.asked().recordings, 1);
        model.loss_and_gradients(&data.batch()).expect("gradients");
        assert_eq!(device.asked().recordings, 0);
    }
}

#[test]
fn what_is_read_does_not_change_what_is_done() {
    for ((mut one, _), (mut other, _)) in models().zip(models()) {
        let read = train(&mut one, &training(20), 20);
        let unread = train(&mut other, &training(20).reported_every(8), 20);
        assert_eq!(parameters(&one), parameters(&other));
        for (step, (full, sparse)) in read.iter().zip(&unread).enumerate() {
            if [0, 8, 16, 19].contains(&step) {
                assert_eq!(full, sparse, "step {step}");
            } else {
                assert!(sparse.is_unread(), "step {step}: {sparse:?}");
                assert_eq!(full.learning_rate, sparse.learning_rate);
            }
        }
    }
}

/// A training step with a parameter full of NaN, which is as it was afterwards.
fn bad_step(model: &mut dyn Model, step: u64) -> Result<StepReport> {
    let good = parameters(model).remove(0);
    let bad = vec![f32::NAN; good.len()];
    model.write_parameter(0, &bad).expect("a parameter");
    let report = model.train_step(&data(step).batch(), step);
    model.write_parameter(0, &good).expect("a parameter");
    report
}

#[test]
fn a_step_that_was_not_finite_shows_at_the_next_due_one() {
    for (mut model, _) in models() {
        let config = training(16).reported_every(4);
        train(&mut model, &config, 5);
        for step in [5, 6] {
            let report = bad_step(&mut model, step).expect("not read");
            assert!(report.is_unread(), "{report:?}");
        }
        let mut step = |step| model.train_step(&data(step).batch(), step);
        assert!(step(7).expect("not read").is_unread());
        let error = step(8).expect_err("step 5 was not finite");
        assert_eq!(error.kind, ErrorKind::Numeric);
        for words in ["training step 5", "loss NaN", "learning rate"] {
            assert!(error.message.contains(words), "{error}");
        }
        // It was said once.
        assert!(step(12).expect("a step").loss.is_finite());
        // A step that is read says it of itself, and no other one does.
        let report = bad_step(&mut model, 15).expect("a report");
        assert!(report.loss.is_nan() && report.gradient_norm.is_nan());
        let report = model.train_step(&data(16).batch(), 16);
        assert!(report.expect("a step").loss.is_finite());
        // Nor is it carried into another training.
        bad_step(&mut model, 13).expect("not read");
        train(&mut model, &config, 1);
    }
}

/// As on the CPU, the corrections of the moments' bias count updates and not steps.
#[test]
fn a_step_that_was_not_finite_updates_nothing() {
    for ((mut model, _), (mut other, _)) in models().zip(models()) {
        train(&mut model, &training(16), 2);
        let report = bad_step(&mut model, 9).expect("a report");
        assert!(report.loss.is_nan());
        train(&mut other, &training(16), 2);
        for model in [&mut model, &mut other] {
            for step in 2..5 {
                let report = model.train_step(&data(step).batch(), step);
                report.expect("a step");
            }
        }
        assert_eq!(parameters(&model), parameters(&other));
    }
}

#[test]
fn feeds_of_known_shapes_are_not_recorded_again() {
    let cpu = KitModel::new(&architecture(), &poisoned(&architecture()), true).expect("a model");
    for (model, device) in models() {
        let mut session = model.new_session(2).expect("a session");
        let mut exact = cpu.new_session(2).expect("a session");
        // The longest first; room for the second one's logits voids it, and then nothing moves any more.
        let chunks = [31, 1, 31, 7, 1, 31, 7, 1, 31];
        device.asked();
        for (index, &length) in chunks.iter().enumerate() {
            // Of the short ones nothing is wanted; of the others another number each time.
            let every = if length == 7 {
                usize::MAX
            } else {
                2 + index % 3
            };
            let mut data = Data::new(2, length, every, 1);
            if length == 1 {
                data.targets = vec![3, 4];
            }
            let wants = if length == 1 {
                Logits::Last
            } else {
                Logits::None
            };
            let got = session.feed(&data.batch(), wants).expect("a feed");
            let asked = device.asked();
            let exact = exact.feed(&data.batch(), wants).expect("a feed");
            assert_eq!(got.predictions, exact.predictions);
            for (got, exact) in got.nll.iter().zip(&exact.nll) {
                assert_close(f64::from(*got), f64::from(*exact), 1e-4);
            }
            assert_eq!(got.nll.len(), exact.nll.len());
            assert_eq!(got.logits.len(), exact.logits.len());
            let downloads = match length {
                1 => 2,
                7 => 0,
                _ => 1,
            };
            assert_eq!(asked.downloads, downloads, "feed {index}");
            assert_eq!((asked.uploads, asked.replays), (1, 1), "feed {index}");
            assert_eq!(asked.recordings, usize::from(index < 4), "feed {index}");
        }
        // A larger shape moves the buffers: the known ones are recorded anew, and are still right.
        for length in [63, 31] {
            let data = Data::new(2, length, 2, 3);
            let got = session.feed(&data.batch(), Logits::All).expect("a feed");
            let exact = exact.feed(&data.batch(), Logits::All).expect("a feed");
            assert_eq!(device.asked().recordings, 1);
            for (got, exact) in got.logits.iter().zip(&exact.logits) {
                assert!((got - exact).abs() < 1e-3, "{got} against {exact}");
            }
        }
    }
}

/// Attention over the last 40 tokens in the first layer, over all in the second.
struct Attending;

impl Mixer for Attending {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let spec = AttentionSpec {
            heads: 1,
            kv_heads: 1,
            head_dim: x.cols(),
            window: (block.layer == 0).then_some(40),
            bias: PositionBias::None,
            scale: 0.2,
        };
        block.graph.attention(x, x, x, spec)
    }
}

/// What a window does not keep takes no memory, whatever the other layers keep. Fed in pieces that wrap
/// around the window's places, it answers as on the CPU.
#[test]
fn a_cache_with_a_window_does_not_grow_with_the_length() {
    let attending = Architecture {
        mixer: |_| Ok(Box::new(Attending)),
        ..architecture()
    };
    let on_cpu = KitModel::new(&attending, &poisoned(&attending), true).expect("a model");
    for inner in longhaul_emulator::orders(Precision::Float32) {
        let (model, device) = on_counting(inner, &attending);
        let mut session = model.new_session(2).expect("a session");
        let mut exact = on_cpu.new_session(2).expect("a session");
        let mut held = Vec::new();
        for feed in 0..11 {
            let data = Data::new(2, 30, 1, feed);
            let got = session.feed(&data.batch(), Logits::None).expect("a feed");
            let exact = exact.feed(&data.batch(), Logits::None).expect("a feed");
            for (got, exact) in got.nll.iter().zip(&exact.nll) {
                assert!((got - exact).abs() < 1e-4, "feed {feed}: {got} and {exact}");
            }
            held.push(device.held_bytes());
        }
        // From 120 tokens on there are places for 128 of each row, then for 256 and 512: of one layer.
        let layer = 2 * 2 * 24 * size_of::<f32>();
        let growth = |from: usize, to: usize| held[to] - held[from];
        assert_eq!(growth(3, 4), 128 * layer, "{held:?}");
        assert_eq!(growth(4, 10), 256 * layer, "{held:?}");
    }
}
