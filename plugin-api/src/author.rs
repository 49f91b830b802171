//! The plugin author's side: plain Rust traits, and the one place where panics and lengths are
//! handled at the boundary. An author writes no unsafe code and calls [`crate::export_plugin!`] once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RSlice, RSliceMut, RStr, RString, RVec, Tuple2};
use abi_stable::type_level::downcasting::TD_Opaque;

use crate::abi::{
    AbiResult, HostRef, LogLevel, ModelAbi, ModelAbi_TO, ModelBox, PluginModule, PluginModuleRef,
    SessionAbi, SessionAbi_TO, SessionBox,
};
use crate::checkpoint::CheckpointPlan;
use crate::data::{
    Batch, Device, FeedOutput, Logits, ModelConfig, ParameterInfo, Reporting, StateSummary,
    StepReport, TrainConfig,
};
use crate::error::PluginError;
use crate::metadata::{DESCRIBING_FAILED, LibraryInfo, StateGrowth};
use crate::panics::caught;

/// Result of an author's function.
pub type Result<T> = std::result::Result<T, PluginError>;

/// A library of architectures.
pub trait Plugin: 'static {
    /// Describes the library. Cheap; opens no device.
    fn describe() -> LibraryInfo;

    /// Builds and initialises a model.
    ///
    /// # Errors
    /// A refused option or shape, a device that cannot be opened, memory.
    fn build(config: &ModelConfig) -> Result<Box<dyn Model>>;

    /// One line on what the plugin sees of a device.
    ///
    /// # Errors
    /// Why it cannot use it.
    fn device_report(device: &Device) -> Result<String> {
        Ok(device.to_string())
    }

    /// What a checkpoint is, by its `model_type` and the text of its `config.json`. A library that
    /// reads any declares each `model_type`, see [`crate::checkpoint::MODEL_TYPE`].
    ///
    /// # Errors
    /// A `model_type` it does not read; a config that is not what it should be, by key.
    fn checkpoint(model_type: &str, _config: &str) -> Result<CheckpointPlan> {
        Err(PluginError::unsupported(format!(
            "this plugin reads no checkpoints of model_type `{model_type}`"
        )))
    }
}

/// A model. See [`ModelAbi`] for what each method means; lengths are checked before a call arrives.
#[allow(missing_docs)] // documented once, on ModelAbi
pub trait Model: Send {
    fn parameters(&self) -> Vec<ParameterInfo>;
    fn read_parameter(&self, index: usize, values: &mut [f32]) -> Result<()>;
    fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()>;
    fn begin_training(&mut self, config: &TrainConfig) -> Result<()>;
    fn train_step(&mut self, batch: &Batch<'_>, step: u64) -> Result<StepReport>;
    fn loss_and_gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport>;
    fn read_gradient(&self, index: usize, values: &mut [f32]) -> Result<()>;
    fn state_growth(&self) -> StateGrowth;
    fn declared_state_bytes(&self, length: u64) -> u64;
    fn new_session(&self, rows: usize) -> Result<Box<dyn Session>>;
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    fn train_step_from(
        &mut self,
        _batch: &Batch<'_>,
        _step: u64,
        _initial: &[f32],
        _last: &mut [f32],
    ) -> Result<StepReport> {
        Err(PluginError::unsupported(
            "this plugin cannot train from a given state",
        ))
    }
    fn export_training(&self) -> Result<Vec<u8>> {
        Err(PluginError::unsupported(
            "this plugin's training cannot be exported",
        ))
    }
    fn import_training(&mut self, _state: &[u8]) -> Result<()> {
        Err(PluginError::unsupported(
            "this plugin's training cannot be imported",
        ))
    }
}

/// A session. See [`SessionAbi`] for what each method means; lengths are checked before a call arrives.
#[allow(missing_docs)] // documented once, on SessionAbi
pub trait Session: Send {
    fn feed(&mut self, batch: &Batch<'_>, logits: Logits) -> Result<FeedOutput>;
    fn position(&self) -> u64;
    fn state_bytes(&self) -> u64;
    fn reset(&mut self) -> Result<()>;
    fn fork(&self) -> Result<Box<dyn Session>> {
        Err(PluginError::unsupported(
            "this plugin's sessions cannot be forked",
        ))
    }
    fn export_state(&self) -> Result<Vec<u8>> {
        Err(PluginError::unsupported(
            "this plugin's session state cannot be exported",
        ))
    }
    fn import_state(&mut self, _state: &[u8]) -> Result<()> {
        Err(PluginError::unsupported(
            "this plugin's session state cannot be imported",
        ))
    }
    fn state_summary(&self) -> Result<Vec<StateSummary>> {
        Err(PluginError::unsupported(
            "this plugin's sessions do not describe their state",
        ))
    }
    fn read_state(&self) -> Result<Vec<f32>> {
        Err(PluginError::unsupported(
            "this plugin's session state cannot be read",
        ))
    }
    fn start_from(&mut self, _values: &[f32]) -> Result<()> {
        Err(PluginError::unsupported(
            "this plugin's sessions cannot start from a given state",
        ))
    }
}

static HOST: OnceLock<HostRef> = OnceLock::new();

/// Keeps the host's functions for [`log`]. Called by the export macro.
pub fn attach(host: HostRef) {
    let _ = HOST.set(host);
}

/// Sends a log event to the host; without a host (a unit test) it is dropped.
pub fn log(level: LogLevel, message: &str) {
    if let Some(host) = HOST.get() {
        (host.log())(level, message.into());
    }
}

/// Runs an author's function for the boundary; a panic becomes an error that says where it happened.
pub fn guard<T>(call: impl FnOnce() -> Result<T>) -> AbiResult<T> {
    caught(call).into()
}

/// A library's description; a panic while describing becomes an empty description that says where it
/// happened, which the host refuses with these words.
pub fn guarded_description(describe: fn() -> LibraryInfo) -> LibraryInfo {
    caught(|| Ok(describe())).unwrap_or_else(|error| LibraryInfo {
        name: RString::new(),
        version: RString::new(),
        licence: RString::new(),
        authors: RVec::new(),
        architectures: RVec::new(),
        extra: vec![Tuple2(DESCRIBING_FAILED.into(), error.message)].into(),
    })
}

/// Puts the exported functions into a root module.
pub fn root_module(
    attach: extern "C" fn(HostRef),
    describe: extern "C" fn() -> LibraryInfo,
    build: extern "C" fn(ModelConfig) -> AbiResult<ModelBox>,
    device_report: extern "C" fn(Device) -> AbiResult<RString>,
    checkpoint: extern "C" fn(RStr<'_>, RStr<'_>) -> AbiResult<CheckpointPlan>,
) -> PluginModuleRef {
    PluginModule {
        attach,
        describe,
        build,
        device_report,
        checkpoint,
    }
    .leak_into_prefix()
}

/// Wraps an author's model for the boundary.
pub fn model_box(model: Box<dyn Model>) -> ModelBox {
    let guard = ModelGuard {
        model,
        reporting: Reporting::default(),
    };
    ModelAbi_TO::from_value(guard, TD_Opaque)
}

/// Wraps an author's session for the boundary.
pub fn session_box(session: Box<dyn Session>) -> SessionBox {
    SessionAbi_TO::from_value(SessionGuard { session }, TD_Opaque)
}

/// Checks a batch against its own shape and returns it.
fn check_batch(batch: &Batch<'_>, targets_required: bool) -> Result<()> {
    let values = batch.rows as usize * batch.length as usize;
    let targets_fit =
        batch.targets.len() == values || (!targets_required && batch.targets.is_empty());
    if values == 0 || batch.tokens.len() != values || !targets_fit {
        return Err(PluginError::bad_option(format!(
            "a batch of {} rows and {} tokens a row came with {} tokens and {} targets",
            batch.rows,
            batch.length,
            batch.tokens.len(),
            batch.targets.len()
        )));
    }
    Ok(())
}

/// Checks the report of a step, see [`Reporting`].
fn check_step(report: StepReport, reporting: Reporting, step: u64) -> Result<StepReport> {
    if !reporting.allows(step, &report) {
        return Err(PluginError::internal(format!(
            "training step {step} was not read, and it was to be reported in full; answer unread only where \
             `report_every` allows it"
        )));
    }
    if !report.is_unread() {
        report.check_finite(Some(step))?;
    }
    Ok(report)
}

struct ModelGuard {
    model: Box<dyn Model>,
    /// What the training asked for that was begun last.
    reporting: Reporting,
}

impl ModelAbi for ModelGuard {
    fn parameters(&self) -> RVec<ParameterInfo> {
        catch_unwind(AssertUnwindSafe(|| self.model.parameters()))
            .unwrap_or_default()
            .into()
    }

    fn read_parameter(&self, index: usize, mut values: RSliceMut<'_, f32>) -> AbiResult<()> {
        guard(|| self.model.read_parameter(index, values.as_mut_slice()))
    }

    fn write_parameter(&mut self, index: usize, values: RSlice<'_, f32>) -> AbiResult<()> {
        guard(|| self.model.write_parameter(index, values.as_slice()))
    }

    fn begin_training(&mut self, config: TrainConfig) -> AbiResult<()> {
        guard(|| {
            self.model.begin_training(&config)?;
            self.reporting = config.reporting();
            Ok(())
        })
    }

    fn train_step(&mut self, batch: Batch<'_>, step: u64) -> AbiResult<StepReport> {
        guard(|| {
            check_batch(&batch, true)?;
            check_step(self.model.train_step(&batch, step)?, self.reporting, step)
        })
    }

    fn loss_and_gradients(&mut self, batch: Batch<'_>) -> AbiResult<StepReport> {
        guard(|| {
            check_batch(&batch, true)?;
            let report = self.model.loss_and_gradients(&batch)?;
            report.check_finite(None)?;
            Ok(report)
        })
    }

    fn read_gradient(&self, index: usize, mut values: RSliceMut<'_, f32>) -> AbiResult<()> {
        guard(|| self.model.read_gradient(index, values.as_mut_slice()))
    }

    fn state_growth(&self) -> StateGrowth {
        self.model.state_growth()
    }

    fn declared_state_bytes(&self, length: u64) -> u64 {
        catch_unwind(AssertUnwindSafe(|| self.model.declared_state_bytes(length))).unwrap_or(0)
    }

    fn new_session(&self, rows: usize) -> AbiResult<SessionBox> {
        guard(|| Ok(session_box(self.model.new_session(rows)?)))
    }

    fn notes(&self) -> RVec<RString> {
        self.model.notes().into_iter().map(RString::from).collect()
    }

    fn train_step_from(
        &mut self,
        batch: Batch<'_>,
        step: u64,
        initial: RSlice<'_, f32>,
        mut last: RSliceMut<'_, f32>,
    ) -> AbiResult<StepReport> {
        guard(|| {
            check_batch(&batch, true)?;
            let (initial, last) = (initial.as_slice(), last.as_mut_slice());
            let report = self.model.train_step_from(&batch, step, initial, last)?;
            check_step(report, self.reporting, step)
        })
    }

    fn export_training(&self) -> AbiResult<RVec<u8>> {
        guard(|| Ok(self.model.export_training()?.into()))
    }

    fn import_training(&mut self, state: RSlice<'_, u8>) -> AbiResult<()> {
        guard(|| self.model.import_training(state.as_slice()))
    }
}

struct SessionGuard {
    session: Box<dyn Session>,
}

impl SessionAbi for SessionGuard {
    fn feed(&mut self, batch: Batch<'_>, logits: Logits) -> AbiResult<FeedOutput> {
        guard(|| {
            check_batch(&batch, false)?;
            self.session.feed(&batch, logits)
        })
    }

    fn position(&self) -> u64 {
        self.session.position()
    }

    fn state_bytes(&self) -> u64 {
        self.session.state_bytes()
    }

    fn reset(&mut self) -> AbiResult<()> {
        guard(|| self.session.reset())
    }

    fn fork(&self) -> AbiResult<SessionBox> {
        guard(|| Ok(session_box(self.session.fork()?)))
    }

    fn export_state(&self) -> AbiResult<RVec<u8>> {
        guard(|| Ok(self.session.export_state()?.into()))
    }

    fn import_state(&mut self, state: RSlice<'_, u8>) -> AbiResult<()> {
        guard(|| self.session.import_state(state.as_slice()))
    }

    fn state_summary(&self) -> AbiResult<RVec<StateSummary>> {
        guard(|| Ok(self.session.state_summary()?.into()))
    }

    fn read_state(&self) -> AbiResult<RVec<f32>> {
        guard(|| Ok(self.session.read_state()?.into()))
    }

    fn start_from(&mut self, values: RSlice<'_, f32>) -> AbiResult<()> {
        guard(|| self.session.start_from(values.as_slice()))
    }
}

/// Exports a type that implements [`Plugin`](crate::author::Plugin) as this library's plugin: the
/// root module and the probe. `$kit` is what the plugin is built on, a constant string.
///
/// Called once, at the top level of the plugin's `lib.rs`. The symbols are the same in every plugin: one that others
/// link as an rlib is exported by a cdylib crate of its own.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty, $kit:expr) => {
        mod longhaul_plugin_export {
            use $crate::author::Plugin as _;

            type Exported = $plugin;

            extern "C" fn attach(host: $crate::abi::HostRef) {
                $crate::author::attach(host);
            }

            extern "C" fn describe() -> $crate::metadata::LibraryInfo {
                $crate::author::guarded_description(Exported::describe)
            }

            extern "C" fn build(
                config: $crate::data::ModelConfig,
            ) -> $crate::abi::AbiResult<$crate::abi::ModelBox> {
                $crate::author::guard(|| Ok($crate::author::model_box(Exported::build(&config)?)))
            }

            extern "C" fn device_report(
                device: $crate::data::Device,
            ) -> $crate::abi::AbiResult<$crate::abi_stable::std_types::RString> {
                $crate::author::guard(|| Ok(Exported::device_report(&device)?.into()))
            }

            extern "C" fn checkpoint(
                model_type: $crate::abi_stable::std_types::RStr<'_>,
                config: $crate::abi_stable::std_types::RStr<'_>,
            ) -> $crate::abi::AbiResult<$crate::checkpoint::CheckpointPlan> {
                $crate::author::guard(|| Exported::checkpoint(model_type.as_str(), config.as_str()))
            }

            fn root_module() -> $crate::abi::PluginModuleRef {
                $crate::author::root_module(attach, describe, build, device_report, checkpoint)
            }

            extern "C" fn erased_root_module() -> $crate::abi_stable::library::RootModuleResult {
                $crate::abi_stable::library::__call_root_module_loader(root_module)
            }

            // What `#[export_root_module]` writes, with paths that need no dependency on abi_stable
            // in the plugin's own manifest.
            // SAFETY: `erased_root_module` erases a `PluginModuleRef`, the type named here.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static LIB_HEADER: $crate::abi_stable::library::LibHeader = unsafe {
                $crate::abi_stable::library::LibHeader::from_constructor::<
                    $crate::abi::PluginModuleRef,
                >(
                    erased_root_module,
                    $crate::abi_stable::library::CheckTypeLayout::Yes,
                )
            };

            static PROBE: $crate::abi::Probe = $crate::abi::Probe::new($kit);

            #[unsafe(no_mangle)]
            extern "C" fn longhaul_plugin_probe() -> *const $crate::abi::Probe {
                &PROBE
            }
        }
    };
}
