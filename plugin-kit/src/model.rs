//! A traced model behind the author's traits: checks what comes in, runs it in a thread pool of its
//! own, and hands out sessions. It knows no architecture.

use std::sync::{Arc, RwLock};

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::author::{Model, Plugin, Result, Session};
use longhaul_plugin_api::checkpoint::{CheckpointPlan, MODEL_TYPE};
use longhaul_plugin_api::data::{
    Batch, DeviceKind, FeedOutput, Logits, ModelConfig, ParameterInfo, StateSummary, StepReport,
    TrainConfig, extra,
};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::{LibraryInfo, StateGrowth, WITHOUT_REFERENCE};
use longhaul_plugin_api::variables;

use crate::backbone::{Architecture, trace};
use crate::checkpoint::{self, Format};
use crate::cuda::cards::card;
use crate::cuda::plugin::DeviceKitModel;
use crate::engine::given_state::{fixed, slots_of};
use crate::engine::graph::Program;
use crate::engine::operation::{LossSums, StateRows};
use crate::engine::optimizer::{AdamW, Moments, global_norm};
use crate::engine::params::Params;
use crate::engine::session::SessionState;
use crate::engine::train::Trainer;
use crate::gemm::forms;
use crate::options::Settings;
use crate::precision::Precision;

/// A library of architectures on the kit; [`export!`](crate::export!) turns it into a plugin.
pub trait Library: 'static {
    /// Crate name of the plugin.
    const NAME: &'static str;
    /// Version of the plugin.
    const VERSION: &'static str;
    /// Its licence, an SPDX expression.
    const LICENCE: &'static str;
    /// Its authors as cargo gives them, with colons between.
    const AUTHORS: &'static str;

    /// The architectures inside.
    fn architectures() -> Vec<Architecture>;

    /// The checkpoints it reads.
    fn formats() -> &'static [Format] {
        &[]
    }
}

/// What a plugin on this kit is built on, as its probe says it.
pub const KIT: &str = concat!("longhaul-plugin-kit ", env!("CARGO_PKG_VERSION"));

/// Exports a crate's plugin, so that the host can load its library: `export!(Plugin, architecture())`, the arguments
/// of [`plugin!`](crate::plugin!), declares and exports it at once. The symbols are the same in every library, and
/// no two crates of one may have them: a plugin whose mixers others are to link calls `plugin!` in a crate of its own,
/// and `export!(that_crate::Plugin)` in a cdylib beside it.
#[macro_export]
macro_rules! export {
    ($plugin:path) => {
        $crate::api::export_plugin!($plugin, $crate::model::KIT);
    };
    ($name:ident, $($rest:tt)+) => {
        $crate::plugin!($name, $($rest)+);
        $crate::api::export_plugin!(super::$name, $crate::model::KIT);
    };
}

/// Declares a [`Library`](crate::model::Library) type as this crate's plugin: `plugin!(Plugin, architecture())`, or
/// `plugin!(Plugin, architecture(); FORMATS)` with the checkpoints it reads, a `&'static [Format]`. Name, version,
/// licence and authors are those of the calling crate's Cargo.toml, and stand in every record.
#[macro_export]
macro_rules! plugin {
    ($name:ident, $($architecture:expr),+ $(; $formats:expr)? $(,)?) => {
        /// This crate's plugin.
        pub struct $name;

        impl $crate::model::Library for $name {
            const NAME: &'static str = env!("CARGO_PKG_NAME");
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
            const AUTHORS: &'static str = env!("CARGO_PKG_AUTHORS");

            fn architectures() -> Vec<$crate::Architecture> {
                vec![$($architecture),+]
            }

            $(
                fn formats() -> &'static [$crate::checkpoint::Format] {
                    $formats
                }
            )?
        }

        impl $crate::api::author::Plugin for $name {
            fn describe() -> $crate::api::metadata::LibraryInfo {
                $crate::model::OnKit::<Self>::describe()
            }

            fn build(
                config: &$crate::api::data::ModelConfig,
            ) -> $crate::Result<Box<dyn $crate::api::author::Model>> {
                $crate::model::OnKit::<Self>::build(config)
            }

            fn checkpoint(
                model_type: &str,
                config: &str,
            ) -> $crate::Result<$crate::api::checkpoint::CheckpointPlan> {
                $crate::model::OnKit::<Self>::checkpoint(model_type, config)
            }
        }
    };
}

/// A [`Library`] as a plugin.
pub struct OnKit<L>(std::marker::PhantomData<L>);

impl<L: Library> Plugin for OnKit<L> {
    fn describe() -> LibraryInfo {
        LibraryInfo {
            name: L::NAME.into(),
            version: L::VERSION.into(),
            licence: L::LICENCE.into(),
            authors: L::AUTHORS
                .split(':')
                .filter(|author| !author.is_empty())
                .map(Into::into)
                .collect(),
            architectures: L::architectures().iter().map(Architecture::info).collect(),
            extra: L::formats()
                .iter()
                .map(|format| Tuple2(MODEL_TYPE.into(), format.model_type.into()))
                .collect(),
        }
    }

    fn checkpoint(model_type: &str, config: &str) -> Result<CheckpointPlan> {
        checkpoint::plan(L::formats(), model_type, config)
    }

    fn build(config: &ModelConfig) -> Result<Box<dyn Model>> {
        let architectures = L::architectures();
        let architecture = architectures
            .iter()
            .find(|architecture| architecture.name == config.architecture.as_str())
            .ok_or_else(|| {
                PluginError::bad_option(format!(
                    "{} has no architecture `{}`",
                    L::NAME,
                    config.architecture
                ))
            })?;
        match config.device.kind {
            DeviceKind::Cpu => Ok(Box::new(KitModel::new(architecture, config, false)?)),
            DeviceKind::Cuda => {
                let device = card(config.device.index)?;
                Ok(Box::new(DeviceKitModel::new(
                    architecture,
                    config,
                    &device,
                )?))
            }
        }
    }
}

/// What model and sessions share.
struct Shared {
    program: Program,
    params: RwLock<Params>,
    pool: rayon::ThreadPool,
    vocab: u32,
    poison: bool,
    precision: Precision,
}

/// Refuses more positions than their numbers of 32 bits count.
fn check_positions(rows: u32, length: u32) -> Result<()> {
    let positions = u64::from(rows) * u64::from(length);
    if positions > u64::from(u32::MAX) {
        return Err(PluginError::unsupported(format!(
            "a batch of {rows} sequences of {length} tokens has {positions} positions, and at most {} are \
             numbered: choose smaller batches or feed in pieces",
            u32::MAX
        )));
    }
    Ok(())
}

/// Refuses tokens and targets outside the vocabulary, with their place, and batches too large to number.
pub(crate) fn check_tokens(vocab: u32, batch: &Batch<'_>) -> Result<()> {
    check_positions(batch.rows, batch.length)?;
    let check = |what: &str, index: usize, id: i64| {
        Err(PluginError::bad_option(format!(
            "{what} {id} at row {}, position {} is not below the vocabulary of {vocab}",
            index / batch.length as usize,
            index % batch.length as usize
        )))
    };
    if let Some(index) = batch.tokens.iter().position(|&token| token >= vocab) {
        return check("token", index, i64::from(batch.tokens[index]));
    }
    let limit = vocab as i32;
    if let Some(index) = batch
        .targets
        .iter()
        .position(|&target| target >= limit || target < -1)
    {
        return check("target", index, i64::from(batch.targets[index]));
    }
    Ok(())
}

/// Refuses a model without vocabulary, width or layers.
pub(crate) fn check_size(config: &ModelConfig) -> Result<()> {
    if config.vocab == 0 || config.d_model == 0 || config.layers == 0 {
        return Err(PluginError::bad_option(format!(
            "vocab {}, d_model {} and layers {} must all be at least 1",
            config.vocab, config.d_model, config.layers
        )));
    }
    Ok(())
}

/// Whether every buffer is to start each run full of NaN.
pub(crate) fn poison_wanted(config: &ModelConfig) -> bool {
    let variable = std::env::var(variables::POISON);
    extra::has(&config.extra, extra::POISONED_BUFFERS) || is_set(variable.ok().as_deref())
}

/// Whether a variable of the environment asks for something: one that is empty or 0 does not.
pub(crate) fn is_set(variable: Option<&str>) -> bool {
    !matches!(variable, None | Some("" | "0"))
}

/// A model on the kit.
pub struct KitModel {
    shared: Arc<Shared>,
    trainer: Trainer,
    optimizer: Option<AdamW>,
}

impl KitModel {
    /// Traces and initialises a model on the CPU. With `poison`, every buffer starts each run full of NaN.
    ///
    /// # Errors
    /// A refused option.
    pub fn new(architecture: &Architecture, config: &ModelConfig, poison: bool) -> Result<Self> {
        check_size(config)?;
        let poison = poison || poison_wanted(config);
        let settings = Settings::new(config);
        let mixer = (architecture.mixer)(&settings)?;
        let graph = trace(&settings, mixer.as_ref())?;
        // What others are held against is as exact as it can be.
        let precision = if settings.wants_reference() {
            Precision::Float32
        } else {
            Precision::of_processor()?
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.device.threads.max(1) as usize)
            .start_handler(move |_| precision.hold())
            .build()
            .map_err(|error| PluginError::internal(format!("no thread pool: {error}")))?;
        Ok(Self {
            shared: Arc::new(Shared {
                program: graph.program,
                params: RwLock::new(graph.params),
                pool,
                vocab: config.vocab,
                poison,
                precision,
            }),
            trainer: Trainer::new(mixer.min_rows(), poison),
            optimizer: None,
        })
    }

    fn gradients(
        &mut self,
        batch: &Batch<'_>,
        states: Option<&mut Vec<StateRows>>,
    ) -> Result<LossSums> {
        check_tokens(self.shared.vocab, batch)?;
        let Self {
            shared, trainer, ..
        } = self;
        let guard = shared.params.read().map_err(|_| poisoned())?;
        let params: &Params = &guard;
        shared
            .pool
            .install(|| trainer.gradients(&shared.program, params, batch, states))
    }

    fn step(
        &mut self,
        batch: &Batch<'_>,
        step: u64,
        states: Option<&mut Vec<StateRows>>,
    ) -> Result<StepReport> {
        if self.optimizer.is_none() {
            return Err(not_begun());
        }
        let sums = self.gradients(batch, states)?;
        let Self {
            shared,
            trainer,
            optimizer,
            ..
        } = self;
        let optimizer = optimizer.as_mut().expect("checked above");
        let mut guard = shared.params.write().map_err(|_| poisoned())?;
        let (params, gradients) = (&mut *guard, trainer.all_gradients());
        params.version += 1;
        let (norm, rate) = shared
            .pool
            .install(|| optimizer.step(params, &gradients, step));
        Ok(report(sums, norm, rate))
    }
}

fn poisoned() -> PluginError {
    PluginError::internal("an earlier call panicked while it changed the parameters")
}

fn report(sums: LossSums, gradient_norm: f64, learning_rate: f64) -> StepReport {
    StepReport {
        loss: sums.nll / sums.scored as f64,
        gradient_norm,
        learning_rate,
        scored: sums.scored,
        correct: sums.correct,
    }
}

/// Refuses a training step of a training that was not begun.
pub(crate) fn not_begun() -> PluginError {
    PluginError::bad_option("train_step before begin_training")
}

/// Refuses to read what was not computed.
pub(crate) fn no_gradient(index: usize) -> PluginError {
    PluginError::bad_option(format!(
        "no gradient of parameter {index}: call loss_and_gradients first"
    ))
}

/// Refuses a session for nobody.
pub(crate) fn check_rows(rows: usize) -> Result<()> {
    if rows == 0 {
        return Err(PluginError::bad_option("a session of 0 rows"));
    }
    Ok(())
}

impl Model for KitModel {
    fn parameters(&self) -> Vec<ParameterInfo> {
        self.shared
            .params
            .read()
            .map(|params| params.infos())
            .unwrap_or_default()
    }

    fn read_parameter(&self, index: usize, values: &mut [f32]) -> Result<()> {
        let params = self.shared.params.read().map_err(|_| poisoned())?;
        values.copy_from_slice(&params.checked(index, values.len())?.values);
        Ok(())
    }

    fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()> {
        let mut params = self.shared.params.write().map_err(|_| poisoned())?;
        params.checked(index, values.len())?;
        params.entries[index].values.copy_from_slice(values);
        params.version += 1;
        Ok(())
    }

    fn begin_training(&mut self, config: &TrainConfig) -> Result<()> {
        let params = self.shared.params.read().map_err(|_| poisoned())?;
        self.optimizer = Some(AdamW::new(config, &params));
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>, step: u64) -> Result<StepReport> {
        self.step(batch, step, None)
    }

    fn train_step_from(
        &mut self,
        batch: &Batch<'_>,
        step: u64,
        initial: &[f32],
        last: &mut [f32],
    ) -> Result<StepReport> {
        let shared = Arc::clone(&self.shared);
        shared.program.check_given_state()?;
        let specs = shared.program.states();
        let mut states = slots_of(specs, batch.rows as usize, initial)?;
        if last.len() != initial.len() {
            return Err(PluginError::bad_option(format!(
                "room for {} values of the states that {} become",
                last.len(),
                initial.len()
            )));
        }
        let report = self.step(batch, step, Some(&mut states))?;
        let ended = fixed(specs).flat_map(|slot| states[slot].iter().flatten());
        for (place, &value) in last.iter_mut().zip(ended) {
            *place = value;
        }
        Ok(report)
    }

    fn export_training(&self) -> Result<Vec<u8>> {
        let optimizer = self.optimizer.as_ref().ok_or_else(not_begun)?;
        Ok(optimizer.moments.to_bytes())
    }

    fn import_training(&mut self, state: &[u8]) -> Result<()> {
        let params = self.shared.params.read().map_err(|_| poisoned())?;
        let optimizer = self.optimizer.as_mut().ok_or_else(not_begun)?;
        optimizer.moments = Moments::from_bytes(&params, state)?;
        Ok(())
    }

    fn loss_and_gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        let sums = self.gradients(batch, None)?;
        let Self {
            shared, trainer, ..
        } = self;
        let gradients = trainer.all_gradients();
        let norm = shared.pool.install(|| global_norm(&gradients));
        Ok(report(sums, norm, 0.0))
    }

    fn read_gradient(&self, index: usize, values: &mut [f32]) -> Result<()> {
        let params = self.shared.params.read().map_err(|_| poisoned())?;
        params.checked(index, values.len())?;
        let gradient = self.trainer.gradient(index);
        let gradient = gradient.ok_or_else(|| no_gradient(index))?;
        values.copy_from_slice(&gradient);
        Ok(())
    }

    fn state_growth(&self) -> StateGrowth {
        self.shared.program.state_growth()
    }

    fn declared_state_bytes(&self, length: u64) -> u64 {
        self.shared.program.state_bytes(length)
    }

    fn new_session(&self, rows: usize) -> Result<Box<dyn Session>> {
        check_rows(rows)?;
        let shared = Arc::clone(&self.shared);
        let state = SessionState::new(&shared.program, rows, shared.poison);
        Ok(Box::new(KitSession { shared, state }))
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!("vector level {:?}", crate::simd::level())];
        if self.shared.precision == Precision::Bf16 {
            let form = forms()[0].name();
            notes.push(format!("products of bfloat16 factors, by {form}"));
        }
        let program = &self.shared.program;
        if program.references > 0 && !program.without_reference.is_empty() {
            let names: Vec<&str> = program.without_reference.iter().copied().collect();
            notes.push(format!("{WITHOUT_REFERENCE}{}", names.join(", ")));
        }
        notes
    }
}

/// Parameters and state values read, over a feed's tokens, from which on it runs in the pool. A smaller
/// feed, such as one token through a small model, is done before other threads have woken.
const WORTH_A_POOL: usize = 1 << 21;

struct KitSession {
    shared: Arc<Shared>,
    state: SessionState,
}

impl Session for KitSession {
    fn feed(&mut self, batch: &Batch<'_>, logits: Logits) -> Result<FeedOutput> {
        check_tokens(self.shared.vocab, batch)?;
        let Self { shared, state } = self;
        let guard = shared.params.read().map_err(|_| poisoned())?;
        let params: &Params = &guard;
        let work = batch.tokens.len() * (params.total() + state.values());
        let feed = || state.feed(&shared.program, params, batch, logits);
        if work < WORTH_A_POOL {
            shared.precision.during(feed)
        } else {
            shared.pool.install(feed)
        }
    }

    fn position(&self) -> u64 {
        self.state.position()
    }

    fn state_bytes(&self) -> u64 {
        self.state.state_bytes()
    }

    fn reset(&mut self) -> Result<()> {
        self.state.reset(&self.shared.program);
        Ok(())
    }

    fn fork(&self) -> Result<Box<dyn Session>> {
        let shared = Arc::clone(&self.shared);
        let state = self.state.fork(&shared.program);
        Ok(Box::new(KitSession { shared, state }))
    }

    fn export_state(&self) -> Result<Vec<u8>> {
        Ok(self.state.export())
    }

    fn import_state(&mut self, bytes: &[u8]) -> Result<()> {
        self.state.import(&self.shared.program, bytes)
    }

    fn state_summary(&self) -> Result<Vec<StateSummary>> {
        self.state.summary(&self.shared.program)
    }

    fn read_state(&self) -> Result<Vec<f32>> {
        Ok(self.state.fixed_values(&self.shared.program))
    }

    fn start_from(&mut self, values: &[f32]) -> Result<()> {
        self.state.start_from(&self.shared.program, values)
    }
}

#[cfg(test)]
mod tests {
    use super::{check_positions, is_set};

    #[test]
    fn a_batch_whose_positions_have_no_numbers_is_refused() {
        check_positions(1, u32::MAX).unwrap();
        check_positions(65_535, 65_537).unwrap();
        let refused = check_positions(65_536, 65_536).unwrap_err();
        for word in ["65536 sequences", "4294967296 positions", "4294967295"] {
            assert!(refused.message.contains(word), "{refused}");
        }
    }

    #[test]
    fn a_variable_that_is_0_asks_for_nothing() {
        assert_eq!(
            [None, Some(""), Some("0"), Some("1")].map(is_set),
            [false, false, false, true]
        );
    }
}
