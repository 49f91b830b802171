//! What is checked: an architecture of a plugin, however it is reached, and how a check ends.

use longhaul_plugin_api::abi_stable::std_types::{RString, Tuple2};
use longhaul_plugin_api::author::{Plugin, guard, model_box};
use longhaul_plugin_api::client::{ClientError, LoadedModel};
use longhaul_plugin_api::data::{
    Batch, Device, DeviceKind, FeedOutput, Logits, ModelConfig, extra,
};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::{
    self, ArchitectureInfo, LibraryInfo, NAIVE, OptionValue, capability,
};

type Build = Box<dyn Fn(&ModelConfig) -> Result<LoadedModel, ClientError>>;

/// One of the suite's checks.
pub struct Check {
    /// Short name.
    pub name: &'static str,
    /// What holds when it passes.
    pub what: &'static str,
    /// Runs it.
    pub run: fn(&Subject) -> Outcome,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Whether it holds.
    pub passed: bool,
    /// Whether there was nothing to hold: it neither holds nor fails.
    pub skipped: bool,
    /// Largest error met, where there is one to measure.
    pub worst: Option<f64>,
    /// Where the worst error was, or what was wrong.
    pub detail: String,
}

impl Outcome {
    /// It holds.
    pub fn pass(worst: Option<f64>, detail: impl Into<String>) -> Self {
        Self {
            passed: true,
            skipped: false,
            worst,
            detail: detail.into(),
        }
    }

    /// There is nothing to hold, for this reason.
    pub fn skip(reason: impl Into<String>) -> Self {
        Self {
            skipped: true,
            ..Self::pass(None, reason)
        }
    }

    /// It does not.
    pub fn fail(worst: Option<f64>, detail: impl Into<String>) -> Self {
        Self {
            passed: false,
            skipped: false,
            worst,
            detail: detail.into(),
        }
    }
}

impl From<Result<Outcome, ClientError>> for Outcome {
    fn from(result: Result<Outcome, ClientError>) -> Self {
        result.unwrap_or_else(|error| Self::fail(None, error.to_string()))
    }
}

/// An architecture under check.
pub struct Subject {
    /// The library.
    pub library: LibraryInfo,
    /// The architecture.
    pub architecture: ArchitectureInfo,
    /// A value for every option.
    pub options: Vec<(String, OptionValue)>,
    device: Device,
    build: Build,
}

/// Token ids of checked models.
pub const VOCAB: usize = 37;

/// Model width of checked models.
pub const WIDTH: u32 = 32;

impl Subject {
    /// Whether the architecture declares a capability.
    pub fn declares(&self, word: &str) -> bool {
        let mut known = self.architecture.capabilities.iter();
        known.any(|known| known == word)
    }

    /// An architecture with options, built by a function.
    pub fn new(
        library: &LibraryInfo,
        architecture: &ArchitectureInfo,
        given: &[(String, OptionValue)],
        build: Build,
    ) -> Self {
        let options = architecture.options.iter().map(|option| {
            let given = given.iter().find(|(name, _)| *name == option.name.as_str());
            let value =
                given.map_or_else(|| option.kind.default_value(), |(_, value)| value.clone());
            (option.name.to_string(), value)
        });
        Self {
            library: library.clone(),
            architecture: architecture.clone(),
            options: options.collect(),
            device: Device {
                kind: DeviceKind::Cpu,
                index: 0,
                threads: 1,
            },
            build,
        }
    }

    /// The same on another device, with the reference form on the CPU as before.
    pub fn on(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// An architecture of a plugin type of this process, at default options.
    pub fn in_process<P: Plugin>(library: &LibraryInfo, architecture: &ArchitectureInfo) -> Self {
        let name = library.name.to_string();
        let build = move |config: &ModelConfig| {
            let model = guard(|| Ok(model_box(P::build(config)?)));
            let model = model.into_result().map_err(|error| ClientError::Plugin {
                plugin: name.clone(),
                call: "build",
                error,
            })?;
            LoadedModel::new(&name, model)
        };
        Self::new(library, architecture, &[], Box::new(build))
    }

    /// A small model's configuration.
    pub fn config(&self, seed: u64, threads: u32) -> ModelConfig {
        let options = self
            .options
            .iter()
            .map(|(name, value)| Tuple2(name.as_str().into(), value.clone()));
        ModelConfig {
            architecture: self.architecture.name.clone(),
            options: options.collect(),
            vocab: VOCAB as u32,
            d_model: WIDTH,
            layers: 2,
            max_train_length: 256,
            seed,
            device: Device {
                threads,
                ..self.device
            },
            extra: vec![pair(extra::POISONED_BUFFERS)].into(),
        }
    }

    /// An operation that has a naive form alone.
    pub fn naive(&self) -> Option<&str> {
        metadata::pair(&self.architecture.extra, NAIVE)
    }

    /// The same configuration in the plugin's reference form; none where it offers none.
    pub fn reference(&self, config: &ModelConfig) -> Option<ModelConfig> {
        self.declares(capability::REFERENCE).then(|| {
            let mut config = config.clone();
            config.device.kind = DeviceKind::Cpu;
            config.extra.push(pair(extra::REFERENCE_FORM));
            config
        })
    }

    /// Builds a model from a configuration.
    ///
    /// # Errors
    /// The plugin's.
    pub fn build(&self, config: &ModelConfig) -> Result<LoadedModel, ClientError> {
        (self.build)(config)
    }

    /// A small model of a seed.
    ///
    /// # Errors
    /// The plugin's.
    pub fn model(&self, seed: u64) -> Result<LoadedModel, ClientError> {
        self.build(&self.config(seed, 1))
    }
}

fn pair(pair: (&str, &str)) -> Tuple2<RString, RString> {
    Tuple2(pair.0.into(), pair.1.into())
}

/// Token sequences with targets, of a fixed pattern.
#[derive(Debug, Clone)]
pub struct Data {
    /// `[rows, length]`.
    pub tokens: Vec<u32>,
    /// `[rows, length]`.
    pub targets: Vec<i32>,
    /// B.
    pub rows: usize,
    /// T.
    pub length: usize,
}

impl Data {
    /// Random tokens; two positions in three are scored.
    pub fn new(rows: usize, length: usize, seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let count = rows * length;
        let tokens = (0..count)
            .map(|_| draw.below(VOCAB as u64) as u32)
            .collect();
        let target = |_| {
            if draw.below(3) == 0 {
                -1
            } else {
                draw.below(VOCAB as u64) as i32
            }
        };
        let mut targets: Vec<i32> = (0..count).map(target).collect();
        targets[count - 1] = 1;
        Self {
            tokens,
            targets,
            rows,
            length,
        }
    }

    /// The batch over it.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.tokens, &self.targets, self.rows, self.length)
    }

    /// Tokens `start..start + count` of every row.
    pub fn cut(&self, start: usize, count: usize) -> Self {
        let rows = 0..self.rows;
        let range = |row: usize| row * self.length + start..row * self.length + start + count;
        Self {
            tokens: rows
                .clone()
                .flat_map(|row| self.tokens[range(row)].to_vec())
                .collect(),
            targets: rows
                .flat_map(|row| self.targets[range(row)].to_vec())
                .collect(),
            rows: self.rows,
            length: count,
        }
    }
}

/// A small generator for check data (SplitMix64).
pub struct Draw {
    state: u64,
}

impl Draw {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// The next number from [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1u64 << 53) as f64
    }
}

/// All logits of feeding a batch in pieces of the given lengths, repeated to the end: `[B, T, V]`.
///
/// # Errors
/// The plugin's.
pub fn feed(model: &LoadedModel, data: &Data, pieces: &[usize]) -> Result<Vec<f32>, ClientError> {
    let mut session = model.new_session(data.rows)?;
    let mut logits = vec![f32::NAN; data.rows * data.length * VOCAB];
    let mut start = 0;
    for &piece in pieces.iter().cycle() {
        let count = piece.min(data.length - start);
        let part = data.cut(start, count);
        let output: FeedOutput = session.feed(part.batch(), Logits::All, VOCAB)?;
        for row in 0..data.rows {
            let to = (row * data.length + start) * VOCAB;
            let from = row * count * VOCAB;
            let values = &output.logits[from..from + count * VOCAB];
            logits[to..to + count * VOCAB].copy_from_slice(values);
        }
        start += count;
        if start == data.length {
            return Ok(logits);
        }
    }
    Err(ClientError::Plugin {
        plugin: String::new(),
        call: "feed",
        error: PluginError::internal("no pieces"),
    })
}
