//! The functions that cross the boundary: the root module, the model and session objects, the host
//! object and the probe. Plugin authors implement [`crate::author`] instead and never see these.

// abi_stable's sabi_trait expands to impls inside a const block; the lint is about that expansion.
#![allow(non_local_definitions)]
// Docs of what `sabi_trait` generates beside the traits written here are not ours to give.
#![allow(missing_docs)]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RBox, RResult, RSlice, RSliceMut, RStr, RString, RVec};
use abi_stable::{declare_root_module_statics, sabi_trait};

use crate::checkpoint::CheckpointPlan;
use crate::data::{
    Batch, Device, FeedOutput, Logits, ModelConfig, ParameterInfo, StateSummary, StepReport,
    TrainConfig,
};
use crate::error::PluginError;
use crate::metadata::{LibraryInfo, StateGrowth};

/// Result of a call across the boundary.
pub type AbiResult<T> = RResult<T, PluginError>;

/// A model across the boundary.
pub type ModelBox = ModelAbi_TO<'static, RBox<()>>;

/// A session across the boundary.
pub type SessionBox = SessionAbi_TO<'static, RBox<()>>;

/// Severity of a log event.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something the user must see.
    Error,
    /// Something the user should see.
    Warn,
    /// Progress.
    Info,
    /// Detail.
    Debug,
}

/// What the host offers to a plugin. Handed over once, before anything else is called.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostRef)))]
#[sabi(missing_field(option))]
pub struct Host {
    /// Receives a log event: level and message. May be called from any thread.
    #[sabi(last_prefix_field)]
    pub log: extern "C" fn(LogLevel, RStr<'_>),
}

/// The root module that every plugin exports. New functions are added at its end.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModuleRef)))]
#[sabi(missing_field(option))]
pub struct PluginModule {
    /// Hands over the host's functions.
    pub attach: extern "C" fn(HostRef),
    /// Describes the library. Cheap; opens no device.
    pub describe: extern "C" fn() -> LibraryInfo,
    /// Builds and initialises a model.
    #[sabi(last_prefix_field)]
    pub build: extern "C" fn(ModelConfig) -> AbiResult<ModelBox>,
    /// One line on what the plugin sees of a device, or why it cannot use it. Absent in libraries
    /// that were built before it was added.
    pub device_report: extern "C" fn(Device) -> AbiResult<RString>,
    /// What a checkpoint is, by its `model_type` and the text of its `config.json`. Absent in libraries
    /// that were built before 1.1.
    pub checkpoint: extern "C" fn(RStr<'_>, RStr<'_>) -> AbiResult<CheckpointPlan>,
}

impl RootModule for PluginModuleRef {
    declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "longhaul_plugin";
    const NAME: &'static str = "longhaul_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new(API_VERSION);
}

/// A model: parameters, training and sessions. New methods are added at its end.
#[sabi_trait]
pub trait ModelAbi: Send {
    /// Every parameter, in a fixed order.
    fn parameters(&self) -> RVec<ParameterInfo>;
    /// Copies a parameter's values out; the slice has exactly its length.
    fn read_parameter(&self, index: usize, values: RSliceMut<'_, f32>) -> AbiResult<()>;
    /// Replaces a parameter's values; the slice has exactly its length.
    fn write_parameter(&mut self, index: usize, values: RSlice<'_, f32>) -> AbiResult<()>;
    /// Sets the optimiser and clears its moments.
    fn begin_training(&mut self, config: TrainConfig) -> AbiResult<()>;
    /// One step of gradients and update; `step` counts from 0. Its report may be unread where the training
    /// asked for that, see [`REPORT_EVERY`](crate::data::extra::REPORT_EVERY).
    fn train_step(&mut self, batch: Batch<'_>, step: u64) -> AbiResult<StepReport>;
    /// Gradients of the mean loss without an update; read them by `read_gradient`.
    fn loss_and_gradients(&mut self, batch: Batch<'_>) -> AbiResult<StepReport>;
    /// Copies a parameter's gradient out, after `loss_and_gradients`.
    fn read_gradient(&self, index: usize, values: RSliceMut<'_, f32>) -> AbiResult<()>;
    /// How this model's state grows with length.
    fn state_growth(&self) -> StateGrowth;
    /// Declared bytes of recurrent state a row after `length` tokens.
    fn declared_state_bytes(&self, length: u64) -> u64;
    /// Recurrent inference over a number of rows, all at position 0.
    #[sabi(last_prefix_field)]
    fn new_session(&self, rows: usize) -> AbiResult<SessionBox>;
    /// Notes for the log: variants chosen, sizes. Absent in older libraries.
    fn notes(&self) -> RVec<RString> {
        RVec::new()
    }
    /// [`ModelAbi::train_step`] with every row starting from a given state, as [`SessionAbi::start_from`] takes
    /// it, through which no gradient goes. The states after the last token are written to `last`, which is as
    /// long. Since 1.2.
    fn train_step_from(
        &mut self,
        _batch: Batch<'_>,
        _step: u64,
        _initial: RSlice<'_, f32>,
        _last: RSliceMut<'_, f32>,
    ) -> AbiResult<StepReport> {
        RResult::RErr(PluginError::unsupported(
            "this plugin cannot train from a given state",
        ))
    }
    /// All that the optimiser keeps from step to step, as bytes that `import_training` of the same model takes.
    /// A step that was not finite and not read yet is this call's error. Since 1.3.
    fn export_training(&self) -> AbiResult<RVec<u8>> {
        RResult::RErr(PluginError::unsupported(
            "this plugin's training cannot be exported",
        ))
    }
    /// Replaces what the optimiser keeps, after `begin_training` with the settings of the training that it was
    /// exported from; parameters are written by `write_parameter`. The steps that follow are those that would have
    /// followed there, to the last bit. Since 1.3.
    fn import_training(&mut self, _state: RSlice<'_, u8>) -> AbiResult<()> {
        RResult::RErr(PluginError::unsupported(
            "this plugin's training cannot be imported",
        ))
    }
}

/// Recurrent inference. New methods are added at its end.
#[sabi_trait]
pub trait SessionAbi: Send {
    /// Advances every row by T tokens. A batch's targets may be empty: then nothing is scored.
    fn feed(&mut self, batch: Batch<'_>, logits: Logits) -> AbiResult<FeedOutput>;
    /// Tokens read so far.
    fn position(&self) -> u64;
    /// Bytes of recurrent state over all rows.
    fn state_bytes(&self) -> u64;
    /// Back to position 0.
    #[sabi(last_prefix_field)]
    fn reset(&mut self) -> AbiResult<()>;
    /// An independent copy of the state: one long prefix serves many questions.
    fn fork(&self) -> AbiResult<SessionBox> {
        RResult::RErr(PluginError::unsupported(
            "this plugin's sessions cannot be forked",
        ))
    }
    /// The state as bytes that `import_state` of a session of the same model and rows takes.
    fn export_state(&self) -> AbiResult<RVec<u8>> {
        RResult::RErr(PluginError::unsupported(
            "this plugin's session state cannot be exported",
        ))
    }
    /// Replaces the state by an exported one.
    fn import_state(&mut self, _state: RSlice<'_, u8>) -> AbiResult<()> {
        RResult::RErr(PluginError::unsupported(
            "this plugin's session state cannot be imported",
        ))
    }
    /// What the state is made of and how large it has become, part by part, in a fixed order. Since 1.2.
    fn state_summary(&self) -> AbiResult<RVec<StateSummary>> {
        RResult::RErr(PluginError::unsupported(
            "this plugin's sessions do not describe their state",
        ))
    }
    /// The values of the parts of a fixed size, in the order of the summary, each `[B, values]`. Since 1.2.
    fn read_state(&self) -> AbiResult<RVec<f32>> {
        RResult::RErr(PluginError::unsupported(
            "this plugin's session state cannot be read",
        ))
    }
    /// Back to position 0, with these values in the place of the parts of a fixed size, in the order of
    /// `read_state`; what grows is empty. Since 1.2.
    fn start_from(&mut self, _values: RSlice<'_, f32>) -> AbiResult<()> {
        RResult::RErr(PluginError::unsupported(
            "this plugin's sessions cannot start from a given state",
        ))
    }
}

/// First bytes of a [`Probe`].
pub const PROBE_MAGIC: [u8; 8] = *b"LONGHAUL";

/// Generation of the ABI. It changes only when old plugins can no longer work at all.
pub const ABI_GENERATION: u32 = 1;

/// Name of the plain C function that returns the library's [`Probe`].
pub const PROBE_SYMBOL: &str = "longhaul_plugin_probe";

/// What the host reads by plain C before abi_stable looks at a library. This layout never changes:
/// it is what turns a mismatch into a sentence.
#[repr(C)]
pub struct Probe {
    /// [`PROBE_MAGIC`].
    pub magic: [u8; 8],
    /// [`ABI_GENERATION`] of the plugin's build.
    pub generation: u32,
    /// 0; for later use.
    pub reserved: u32,
    /// Version of `longhaul-plugin-api` the plugin was built with, UTF-8 padded with NUL.
    pub api_version: [u8; 32],
    /// What the plugin is built on: `longhaul-plugin-kit 0.1.0`, or its own word; padded with NUL.
    pub kit: [u8; 64],
    /// Architecture and system the plugin was built for: `x86_64-linux`; padded with NUL.
    pub target: [u8; 32],
}

impl Probe {
    /// The probe of this build of the crate.
    pub const fn new(kit: &str) -> Self {
        Self {
            magic: PROBE_MAGIC,
            generation: ABI_GENERATION,
            reserved: 0,
            api_version: padded(API_VERSION),
            kit: padded(kit),
            target: padded(TARGET),
        }
    }
}

/// Text in a fixed field, cut where it is too long.
const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() && index < N {
        field[index] = bytes[index];
        index += 1;
    }
    field
}

/// Version of this crate, as the probe states it.
pub const API_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Target of this build, as the probe states it.
pub const TARGET: &str = {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        "x86_64-linux"
    }
    #[cfg(all(target_arch = "aarch64", target_os = "linux"))]
    {
        "aarch64-linux"
    }
    #[cfg(not(all(
        any(target_arch = "x86_64", target_arch = "aarch64"),
        target_os = "linux"
    )))]
    {
        "other"
    }
};
