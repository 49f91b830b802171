//! `longhaul bench`: the speed of a model, timed in a worker of its own; one JSON line.

use std::time::Instant;

use longhaul_plugin_api::client::{ClientError, LoadedModel, LoadedPlugin};
use longhaul_plugin_api::data::{Batch, Logits, TrainConfig};
use longhaul_tasks::{Coordinates, Split, Task, parse_task};
use serde::{Deserialize, Serialize};

use crate::architecture::{ArchSpec, ModelSize};
use crate::catalogue::Catalogue;
use crate::cli::{BenchArgs, BenchMode};
use crate::commands::{devices, print};
use crate::device::{self, Devices};
use crate::exit::{CommandError, FAILED};
use crate::launch::{Limits, ask};
use crate::memory::{self, Purpose};
use crate::run::plan::trainable;
use crate::worker::CHUNK;

/// Fewest timed repetitions.
const REPETITIONS: usize = 3;

/// Training steps on a card from one whose results are read to the next, as in a run: these are timed together.
const STEPS_A_READING: u64 = 16;

/// What a worker is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct BenchJob {
    spec: ArchSpec,
    mode: String,
    batch: usize,
    length: usize,
    prompt: usize,
    size: ModelSize,
    threads: u32,
    device: String,
    task: Option<String>,
    seconds: f64,
}

/// What it answers: the command's one line.
#[derive(Debug, Serialize, Deserialize)]
pub struct BenchResult {
    architecture: String,
    options: String,
    mode: String,
    batch: usize,
    length: usize,
    d_model: u32,
    layers: u32,
    vocab: u32,
    threads: u32,
    device: String,
    task: Option<String>,
    tokens_per_second: f64,
    seconds: f64,
    repetitions: usize,
    parameters: u64,
    state_bytes: Option<u64>,
    peak_memory_bytes: Option<u64>,
}

/// Times a model and prints the line.
///
/// # Errors
/// An unknown architecture or task; a model that cannot be built or run.
pub fn run(args: &BenchArgs) -> Result<u8, CommandError> {
    let device = Devices::parse_one(&args.device).map_err(CommandError::usage)?;
    let mut vocab = args.vocab;
    if let Some(task) = &args.task {
        let task = parse_task(task).map_err(CommandError::usage)?;
        trainable(task.as_ref())?;
        let at = Coordinates {
            split: Split::Train,
            length: args.length,
            seed: 0,
            index: 0,
        };
        task.sample(&at).map_err(CommandError::usage)?;
        vocab = task.vocab() as u32;
    }
    let catalogue = Catalogue::scan(&args.plugins)?;
    let spec = ArchSpec::parse(&args.architecture, &catalogue)?.of_one_model()?;
    devices::require_one(&device)
        .and_then(|()| spec.runs_on(device::kind(&device)))
        .map_err(CommandError::usage)?;
    let size = ModelSize {
        vocab,
        d_model: args.d_model,
        layers: args.layers,
        max_train_length: (args.length + args.prompt) as u64,
    };
    let purpose = match args.mode {
        BenchMode::Train => Purpose::Training {
            batch: args.batch,
            length: args.length,
        },
        BenchMode::Feed | BenchMode::Step => Purpose::Reading,
    };
    if device::kind(&device) == "cpu" {
        let built = ModelSize {
            d_model: spec.d_model.unwrap_or(size.d_model),
            layers: spec.layers.unwrap_or(size.layers),
            ..size
        };
        memory::check(built, None, purpose, None).map_err(CommandError::usage)?;
    }
    let job = BenchJob {
        spec,
        mode: format!("{:?}", args.mode).to_lowercase(),
        batch: args.batch,
        length: args.length,
        prompt: args.prompt,
        size,
        threads: args.threads,
        device,
        task: args.task.clone(),
        seconds: args.seconds,
    };
    let limits = Limits::of_time((600.0 + 20.0 * args.seconds) as u64);
    let result: BenchResult = ask("bench", &job, &limits).map_err(|error| error.or_code(FAILED))?;
    let line = serde_json::to_string(&result).expect("plain data");
    print(&format!("{line}\n")).map(|()| 0)
}

/// The worker's side: builds, warms up, and times.
///
/// # Errors
/// The plugin's.
pub fn work(job: &BenchJob) -> Result<BenchResult, CommandError> {
    let failed = |error: ClientError| CommandError {
        code: FAILED,
        message: error.to_string(),
    };
    let plugin =
        LoadedPlugin::open(&job.spec.library, crate::logging::plugin_log).map_err(failed)?;
    let device = device::named(&job.device, job.threads);
    let config = job.spec.config(job.size, 0, device);
    let mut model = plugin.build(&config).map_err(failed)?;
    let parameters = model.parameter_values();
    let (times, tokens, state_bytes) = match job.mode.as_str() {
        "train" => (
            time_training(&mut model, job)?,
            job.batch * job.length,
            None,
        ),
        "feed" => time_feeding(&model, job).map_err(failed)?,
        _ => time_stepping(&model, job).map_err(failed)?,
    };
    let mut sorted = times.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let options: Vec<String> = job
        .spec
        .options
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    let result = BenchResult {
        architecture: job.spec.architecture.clone(),
        options: options.join(","),
        mode: job.mode.clone(),
        batch: job.batch,
        length: job.length,
        d_model: config.d_model,
        layers: config.layers,
        vocab: job.size.vocab,
        threads: job.threads,
        device: device.to_string(),
        task: job.task.clone(),
        tokens_per_second: (tokens as f64 / median).round(),
        seconds: median,
        repetitions: times.len(),
        parameters,
        state_bytes,
        peak_memory_bytes: crate::machine::peak_memory(),
    };
    Ok(result)
}

/// Calls until both the least time and the fewest repetitions are reached; the seconds that each call says it took.
/// The first call is not counted.
fn repeat<E>(seconds: f64, mut call: impl FnMut() -> Result<f64, E>) -> Result<Vec<f64>, E> {
    call()?;
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < REPETITIONS || start.elapsed().as_secs_f64() < seconds {
        times.push(call()?);
    }
    Ok(times)
}

fn time_training(model: &mut LoadedModel, job: &BenchJob) -> Result<Vec<f64>, CommandError> {
    let failed = |error: ClientError| CommandError {
        code: FAILED,
        message: error.to_string(),
    };
    let task = job
        .task
        .as_deref()
        .map(parse_task)
        .transpose()
        .map_err(CommandError::usage)?;
    let count = job.batch * job.length;
    let mut tokens = random_tokens(count, job.size.vocab);
    // Next-token prediction at every position of random tokens.
    let mut targets: Vec<i32> = (0..count).map(|i| tokens[(i + 1) % count] as i32).collect();
    let together = match device::kind(&job.device) {
        "cpu" => 1,
        _ => STEPS_A_READING,
    };
    let settings = TrainConfig {
        total_steps: 1_000_000,
        ..TrainConfig::default()
    };
    let settings = settings.reported_every(together);
    model.begin_training(&settings).map_err(failed)?;
    let mut step = 0;
    let mut steps = |count| -> Result<(), CommandError> {
        for _ in 0..count {
            if let Some(task) = &task {
                fill(task.as_ref(), job, step, &mut tokens, &mut targets)?;
            }
            let batch = Batch::new(&tokens, &targets, job.batch, job.length);
            model.train_step(batch, step).map_err(failed)?;
            step += 1;
        }
        Ok(())
    };
    // The first step's results are read; so are those of the last of each `together` that follow.
    steps(1)?;
    repeat(job.seconds, || {
        let begin = Instant::now();
        steps(together)?;
        Ok(begin.elapsed().as_secs_f64() / together as f64)
    })
}

/// Makes a step's examples of a task.
fn fill(
    task: &dyn Task,
    job: &BenchJob,
    step: u64,
    tokens: &mut [u32],
    targets: &mut [i32],
) -> Result<(), CommandError> {
    let rows = tokens
        .chunks_exact_mut(job.length)
        .zip(targets.chunks_exact_mut(job.length));
    for (row, (tokens, targets)) in rows.enumerate() {
        let index = step * job.batch as u64 + row as u64;
        let at = Coordinates {
            split: Split::Train,
            length: job.length,
            seed: 0,
            index,
        };
        task.sample(&at)
            .map_err(CommandError::usage)?
            .write(0, tokens, targets);
    }
    Ok(())
}

type Timing = (Vec<f64>, usize, Option<u64>);

/// Tokens of a feed: as many as an evaluation feeds at once. The same ones come again and again, so that
/// memory is the model's and not the length's.
fn chunk_of(job: &BenchJob) -> (usize, Vec<u32>) {
    let chunk = job.length.min(CHUNK);
    (chunk, random_tokens(job.batch * chunk, job.size.vocab))
}

fn time_feeding(model: &LoadedModel, job: &BenchJob) -> Result<Timing, ClientError> {
    let (chunk, tokens) = chunk_of(job);
    let vocab = job.size.vocab as usize;
    let mut session = model.new_session(job.batch)?;
    let mut state = 0;
    let times = repeat::<ClientError>(job.seconds, || {
        session.reset()?;
        let begin = Instant::now();
        let mut left = job.length;
        while left > 0 {
            let length = left.min(chunk);
            left -= length;
            let wanted = if left == 0 {
                Logits::Last
            } else {
                Logits::None
            };
            let tokens = &tokens[..job.batch * length];
            session.feed(Batch::new(tokens, &[], job.batch, length), wanted, vocab)?;
        }
        let time = begin.elapsed().as_secs_f64();
        state = session.state_bytes();
        Ok(time)
    })?;
    Ok((times, job.batch * job.length, Some(state)))
}

fn time_stepping(model: &LoadedModel, job: &BenchJob) -> Result<Timing, ClientError> {
    let vocab = job.size.vocab as usize;
    let prompt = random_tokens(job.batch * job.prompt, job.size.vocab);
    let (_, tokens) = chunk_of(job);
    let mut session = model.new_session(job.batch)?;
    let mut state = 0;
    let times = repeat::<ClientError>(job.seconds, || {
        session.reset()?;
        session.feed(
            Batch::new(&prompt, &[], job.batch, job.prompt),
            Logits::Last,
            vocab,
        )?;
        let begin = Instant::now();
        let steps = tokens.chunks_exact(job.batch).cycle();
        for step in steps.take(job.length) {
            session.feed(Batch::new(step, &[], job.batch, 1), Logits::Last, vocab)?;
        }
        let time = begin.elapsed().as_secs_f64();
        state = session.state_bytes();
        Ok(time)
    })?;
    Ok((times, job.batch * job.length, Some(state)))
}

fn random_tokens(count: usize, vocab: u32) -> Vec<u32> {
    // A linear congruential sequence (Knuth's MMIX constants) is random enough for a clock.
    let mut state = 1u64;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % u64::from(vocab)) as u32
        })
        .collect()
}

impl From<BenchMode> for String {
    fn from(mode: BenchMode) -> Self {
        format!("{mode:?}").to_lowercase()
    }
}
