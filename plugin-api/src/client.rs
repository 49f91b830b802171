//! The host's side of calls: a library, a model and a session behind safe functions that check what a
//! plugin returns, because a plugin may lie. Lengths, counts, names and finiteness are checked here and
//! nowhere else.

use std::path::Path;

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RResult, RSlice, RSliceMut};

use crate::abi::{AbiResult, Host, LogLevel, ModelBox, PluginModuleRef, SessionBox};
use crate::checkpoint::CheckpointPlan;
use crate::data::{
    Batch, Device, FeedOutput, Logits, ModelConfig, ParameterInfo, Reporting, StateSummary,
    StepReport, TrainConfig,
};
use crate::error::{ErrorKind, PluginError};
use crate::load::{LoadError, ProbeReport, open};
use crate::metadata::{
    DESCRIBING_FAILED, LibraryInfo, OptionKind, OptionValue, RESERVED, StateGrowth, is_option_text,
    pair,
};

/// Why a call into a plugin gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The library could not be opened.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The plugin returned an error.
    #[error("{plugin}: {call}: {error}")]
    Plugin {
        /// The plugin.
        plugin: String,
        /// The call.
        call: &'static str,
        /// Its error.
        error: PluginError,
    },
    /// The plugin returned what cannot be.
    #[error("{plugin}: {call} returned {what}; this is a bug in the plugin")]
    Lie {
        /// The plugin.
        plugin: String,
        /// The call.
        call: &'static str,
        /// What was wrong, with expected and got.
        what: String,
    },
}

impl ClientError {
    /// The kind of the failure, for a status.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Plugin { error, .. } => error.kind,
            Self::Load(_) | Self::Lie { .. } => ErrorKind::Internal,
        }
    }
}

/// Result of a checked call.
pub type Result<T> = std::result::Result<T, ClientError>;

/// An open library.
pub struct LoadedPlugin {
    module: PluginModuleRef,
    probe: ProbeReport,
    info: LibraryInfo,
}

impl LoadedPlugin {
    /// Opens a library, hands it the log function and reads its description.
    ///
    /// # Errors
    /// Whatever opening refuses; a description that cannot be.
    pub fn open(
        path: &Path,
        log: extern "C" fn(LogLevel, abi_stable::std_types::RStr<'_>),
    ) -> Result<Self> {
        let (module, probe) = open(path)?;
        (module.attach())(Host { log }.leak_into_prefix());
        let info = (module.describe())();
        check_description(&info).map_err(|what| ClientError::Lie {
            plugin: path.display().to_string(),
            call: "describe",
            what,
        })?;
        Ok(Self {
            module,
            probe,
            info,
        })
    }

    /// What the library says of itself.
    pub fn info(&self) -> &LibraryInfo {
        &self.info
    }

    /// What its probe said.
    pub fn probe(&self) -> &ProbeReport {
        &self.probe
    }

    /// One line on what the plugin sees of a device, or why it cannot use it; `None` from a library
    /// that is older than the question.
    pub fn device_report(&self, device: Device) -> Option<Result<String>> {
        let report = self.module.device_report()?;
        Some(unwrap(self.info.name.as_str(), "device_report", report(device)).map(Into::into))
    }

    /// What a checkpoint is, by its `model_type` and the text of its `config.json`; `None` from a
    /// library that is older than the question.
    pub fn checkpoint(&self, model_type: &str, config: &str) -> Option<Result<CheckpointPlan>> {
        let checkpoint = self.module.checkpoint()?;
        let plan = checkpoint(model_type.into(), config.into());
        Some(unwrap(self.info.name.as_str(), "checkpoint", plan))
    }

    /// Builds a model.
    ///
    /// # Errors
    /// Whatever the plugin refuses; parameters that cannot be.
    pub fn build(&self, config: &ModelConfig) -> Result<LoadedModel> {
        let name = self.info.name.as_str();
        let model = unwrap(name, "build", (self.module.build())(config.clone()))?;
        LoadedModel::new(name, model)
    }
}

/// A model behind checked calls.
pub struct LoadedModel {
    plugin: String,
    model: ModelBox,
    parameters: Vec<ParameterInfo>,
    /// What the training asked for that was begun last.
    reporting: Reporting,
    /// Its peak learning rate.
    learning_rate: f64,
}

impl LoadedModel {
    /// Wraps a model of a plugin.
    ///
    /// # Errors
    /// Parameters that cannot be: none, two of a name, or an empty shape.
    pub fn new(plugin: &str, model: ModelBox) -> Result<Self> {
        let parameters: Vec<ParameterInfo> = model.parameters().into();
        let lie = |what: String| ClientError::Lie {
            plugin: plugin.to_owned(),
            call: "parameters",
            what,
        };
        if parameters.is_empty() {
            return Err(lie("no parameter".to_owned()));
        }
        let mut names = std::collections::HashSet::new();
        for parameter in &parameters {
            if parameter.is_empty() {
                return Err(lie(format!(
                    "parameter `{}` without values",
                    parameter.name
                )));
            }
            if !names.insert(parameter.name.as_str()) {
                return Err(lie(format!("two parameters named `{}`", parameter.name)));
            }
        }
        Ok(Self {
            plugin: plugin.to_owned(),
            model,
            parameters,
            reporting: Reporting::default(),
            learning_rate: f64::INFINITY,
        })
    }

    /// Every parameter, in order.
    pub fn parameters(&self) -> &[ParameterInfo] {
        &self.parameters
    }

    /// Number of values of all parameters.
    pub fn parameter_values(&self) -> u64 {
        self.parameters
            .iter()
            .map(|parameter| parameter.len() as u64)
            .sum()
    }

    /// A parameter's values.
    ///
    /// # Errors
    /// The plugin's.
    pub fn read_parameter(&self, index: usize) -> Result<Vec<f32>> {
        let mut values = vec![f32::NAN; self.parameters[index].len()];
        let slice = RSliceMut::from_mut_slice(&mut values);
        let done = self.model.read_parameter(index, slice);
        unwrap(&self.plugin, "read_parameter", done)?;
        Ok(values)
    }

    /// Replaces a parameter's values.
    ///
    /// # Errors
    /// The plugin's.
    pub fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()> {
        let done = self
            .model
            .write_parameter(index, RSlice::from_slice(values));
        unwrap(&self.plugin, "write_parameter", done)
    }

    /// Sets the optimiser.
    ///
    /// # Errors
    /// The plugin's.
    pub fn begin_training(&mut self, config: &TrainConfig) -> Result<()> {
        let begun = self.model.begin_training(config.clone());
        unwrap(&self.plugin, "begin_training", begun)?;
        self.reporting = config.reporting();
        self.learning_rate = config.learning_rate;
        Ok(())
    }

    /// One step. Its report may be [unread](StepReport::is_unread) where the training asked for that, see
    /// [`extra::REPORT_EVERY`](crate::data::extra::REPORT_EVERY).
    ///
    /// # Errors
    /// The plugin's; a report that cannot be.
    pub fn train_step(&mut self, batch: Batch<'_>, step: u64) -> Result<StepReport> {
        let report = self.model.train_step(batch, step);
        let report = unwrap(&self.plugin, "train_step", report)?;
        self.check_step(batch, report, step)
    }

    /// [`LoadedModel::train_step`] with every row starting from a given state; `last` becomes the states after
    /// the last token. Both are as [`LoadedSession::read_state`] of as many rows gives them.
    ///
    /// # Errors
    /// As [`LoadedModel::train_step`]; a plugin that cannot; states that are not finite.
    pub fn train_step_from(
        &mut self,
        batch: Batch<'_>,
        step: u64,
        initial: &[f32],
        last: &mut [f32],
    ) -> Result<StepReport> {
        last.fill(f32::NAN);
        let (from, to) = (RSlice::from_slice(initial), RSliceMut::from_mut_slice(last));
        let report = self.model.train_step_from(batch, step, from, to);
        let report = unwrap(&self.plugin, "train_step_from", report)?;
        check_state_values(&self.plugin, "train_step_from", last)?;
        self.check_step(batch, report, step)
    }

    /// All that the optimiser keeps from step to step, for [`LoadedModel::import_training`] of the same model.
    ///
    /// # Errors
    /// The plugin's, also of steps whose results were not read; a plugin that cannot.
    pub fn export_training(&self) -> Result<Vec<u8>> {
        let state = self.model.export_training();
        unwrap(&self.plugin, "export_training", state).map(Into::into)
    }

    /// Goes on with a training, after [`LoadedModel::begin_training`] with its settings.
    ///
    /// # Errors
    /// The plugin's; bytes of another model.
    pub fn import_training(&mut self, state: &[u8]) -> Result<()> {
        let done = self.model.import_training(RSlice::from_slice(state));
        unwrap(&self.plugin, "import_training", done)
    }

    fn check_step(&self, batch: Batch<'_>, report: StepReport, step: u64) -> Result<StepReport> {
        if !self.reporting.allows(step, &report) {
            return Err(ClientError::Lie {
                plugin: self.plugin.clone(),
                call: "train_step",
                what: format!("no results of step {step}, which was to be reported in full"),
            });
        }
        if report.is_unread() {
            return Ok(report);
        }
        self.check_report("train_step", batch, report, Some(step))
    }

    /// Gradients without an update.
    ///
    /// # Errors
    /// The plugin's; a report that cannot be.
    pub fn loss_and_gradients(&mut self, batch: Batch<'_>) -> Result<StepReport> {
        let report = self.model.loss_and_gradients(batch);
        let report = unwrap(&self.plugin, "loss_and_gradients", report)?;
        self.check_report("loss_and_gradients", batch, report, None)
    }

    /// A parameter's gradient.
    ///
    /// # Errors
    /// The plugin's.
    pub fn read_gradient(&self, index: usize) -> Result<Vec<f32>> {
        let mut values = vec![f32::NAN; self.parameters[index].len()];
        let slice = RSliceMut::from_mut_slice(&mut values);
        let done = self.model.read_gradient(index, slice);
        unwrap(&self.plugin, "read_gradient", done)?;
        Ok(values)
    }

    /// How the state grows.
    pub fn state_growth(&self) -> StateGrowth {
        self.model.state_growth()
    }

    /// Declared bytes of state a row after `length` tokens.
    pub fn declared_state_bytes(&self, length: u64) -> u64 {
        self.model.declared_state_bytes(length)
    }

    /// Notes for the log.
    pub fn notes(&self) -> Vec<String> {
        self.model.notes().into_iter().map(Into::into).collect()
    }

    /// A session.
    ///
    /// # Errors
    /// The plugin's.
    pub fn new_session(&self, rows: usize) -> Result<LoadedSession> {
        let session = unwrap(&self.plugin, "new_session", self.model.new_session(rows))?;
        Ok(LoadedSession {
            plugin: self.plugin.clone(),
            rows,
            position: session.position(),
            session,
        })
    }

    fn check_report(
        &self,
        call: &'static str,
        batch: Batch<'_>,
        report: StepReport,
        step: Option<u64>,
    ) -> Result<StepReport> {
        let scored = batch.targets.iter().filter(|&&target| target >= 0).count() as u64;
        let lie = |what: String| ClientError::Lie {
            plugin: self.plugin.clone(),
            call,
            what,
        };
        report
            .check_finite(step)
            .map_err(|error| ClientError::Plugin {
                plugin: self.plugin.clone(),
                call,
                error,
            })?;
        if report.scored != scored || report.correct > report.scored {
            return Err(lie(format!(
                "{} right of {} scored positions; the batch has {scored}",
                report.correct, report.scored
            )));
        }
        if report.loss < -NLL_ROUNDING || report.loss > f64::from(f32::MAX) {
            return Err(lie(format!(
                "a loss of {}, which no mean negative log likelihood can be",
                report.loss
            )));
        }
        // Of gradients alone no learning rate is asked for.
        let most = self.learning_rate * 1.000_001;
        if call == "train_step" && !(0.0..=most).contains(&report.learning_rate) {
            return Err(lie(format!(
                "a learning rate of {} of at most {}",
                report.learning_rate, self.learning_rate
            )));
        }
        Ok(report)
    }
}

/// How far rounding may bring a negative log likelihood beyond its limits, in nats.
const NLL_ROUNDING: f64 = 1e-2;

/// Whether a negative log likelihood can be that of a target where this is the most likely token of so many.
/// The most likely token has at least its equal share, any other at most half.
fn is_likelihood(nll: f32, is_most_likely: bool, vocab: usize) -> bool {
    let nll = f64::from(nll);
    if is_most_likely {
        (-NLL_ROUNDING..=(vocab as f64).ln() + NLL_ROUNDING).contains(&nll)
    } else {
        nll >= std::f64::consts::LN_2 - NLL_ROUNDING
    }
}

/// A session behind checked calls.
pub struct LoadedSession {
    plugin: String,
    rows: usize,
    /// Tokens that it was fed.
    position: u64,
    session: SessionBox,
}

impl LoadedSession {
    /// Advances every row. The vocabulary's size is needed to check the number of logits.
    ///
    /// # Errors
    /// The plugin's; another number of answers than asked for; answers that are not finite.
    pub fn feed(&mut self, batch: Batch<'_>, logits: Logits, vocab: usize) -> Result<FeedOutput> {
        let output = unwrap(&self.plugin, "feed", self.session.feed(batch, logits))?;
        let scored = batch.targets.iter().filter(|&&target| target >= 0).count();
        let positions = match logits {
            Logits::None => 0,
            Logits::Last => batch.rows as usize,
            Logits::All => batch.rows as usize * batch.length as usize,
        };
        let counts = [
            ("predictions", output.predictions.len(), scored),
            ("negative log likelihoods", output.nll.len(), scored),
            ("logits", output.logits.len(), positions * vocab),
        ];
        for (what, got, expected) in counts {
            if got != expected {
                return Err(self.lie(format!("{got} {what} where {expected} were asked for")));
            }
        }
        let odd = output.nll.iter().filter(|nll| !nll.is_finite()).count();
        let odd_logits = output.logits.iter().filter(|logit| logit.is_nan()).count();
        if odd + odd_logits > 0 {
            let message = format!(
                "{odd} of {scored} negative log likelihoods and {odd_logits} logits are not finite: was every output and buffer written?"
            );
            return Err(ClientError::Plugin {
                plugin: self.plugin.clone(),
                call: "feed",
                error: PluginError::new(ErrorKind::Numeric, message),
            });
        }
        if let Some(token) = output
            .predictions
            .iter()
            .find(|&&token| token as usize >= vocab)
        {
            return Err(self.lie(format!("token {token} of a vocabulary of {vocab}")));
        }
        let targets = batch.targets.iter().filter(|&&target| target >= 0);
        let answers = targets.zip(&output.predictions).zip(&output.nll);
        for ((&target, &prediction), &nll) in answers {
            let is_most_likely = i64::from(target) == i64::from(prediction);
            if !is_likelihood(nll, is_most_likely, vocab) {
                return Err(self.lie(format!(
                    "a negative log likelihood of {nll} for target {target} where token {prediction} of {vocab} is the most likely"
                )));
            }
        }
        self.position += u64::from(batch.length);
        if self.session.position() != self.position {
            return Err(self.lie(format!(
                "with its session at position {} after {} tokens",
                self.session.position(),
                self.position
            )));
        }
        Ok(output)
    }

    fn lie(&self, what: String) -> ClientError {
        ClientError::Lie {
            plugin: self.plugin.clone(),
            call: "feed",
            what,
        }
    }

    /// Tokens read so far.
    pub fn position(&self) -> u64 {
        self.session.position()
    }

    /// Bytes of state over all rows.
    pub fn state_bytes(&self) -> u64 {
        self.session.state_bytes()
    }

    /// Back to position 0.
    ///
    /// # Errors
    /// The plugin's.
    pub fn reset(&mut self) -> Result<()> {
        unwrap(&self.plugin, "reset", self.session.reset())?;
        self.position = 0;
        Ok(())
    }

    /// An independent copy.
    ///
    /// # Errors
    /// The plugin's.
    pub fn fork(&self) -> Result<Self> {
        let session = unwrap(&self.plugin, "fork", self.session.fork())?;
        Ok(Self {
            plugin: self.plugin.clone(),
            rows: self.rows,
            position: self.position,
            session,
        })
    }

    /// What the state is made of and how large it has become, in the plugin's order; empty where there is none.
    ///
    /// # Errors
    /// A plugin that does not say; a summary that cannot be.
    pub fn state_summary(&self) -> Result<Vec<StateSummary>> {
        let call = "state_summary";
        let summary: Vec<StateSummary> =
            unwrap(&self.plugin, call, self.session.state_summary())?.into();
        check_summary(&summary, self.rows, self.session.state_bytes()).map_err(|what| {
            ClientError::Lie {
                plugin: self.plugin.clone(),
                call,
                what,
            }
        })?;
        Ok(summary)
    }

    /// The values of the parts of a fixed size, in the order of the summary, each `[B, values]`.
    ///
    /// # Errors
    /// A plugin that does not say; another number of values than the summary's; values that are not finite.
    pub fn read_state(&self) -> Result<Vec<f32>> {
        let values: Vec<f32> =
            unwrap(&self.plugin, "read_state", self.session.read_state())?.into();
        check_state_values(&self.plugin, "read_state", &values)?;
        let summary = self.state_summary()?;
        let fixed = summary.iter().filter(|part| !part.grows);
        let expected = self.rows as u64 * fixed.map(|part| part.values).sum::<u64>();
        if values.len() as u64 != expected {
            return Err(ClientError::Lie {
                plugin: self.plugin.clone(),
                call: "read_state",
                what: format!("{} values where its summary has {expected}", values.len()),
            });
        }
        Ok(values)
    }

    /// Back to position 0, from given values of the parts of a fixed size.
    ///
    /// # Errors
    /// The plugin's.
    pub fn start_from(&mut self, values: &[f32]) -> Result<()> {
        let done = self.session.start_from(RSlice::from_slice(values));
        unwrap(&self.plugin, "start_from", done)?;
        self.position = 0;
        Ok(())
    }

    /// The state as bytes.
    ///
    /// # Errors
    /// The plugin's.
    pub fn export_state(&self) -> Result<Vec<u8>> {
        Ok(unwrap(&self.plugin, "export_state", self.session.export_state())?.into())
    }

    /// Replaces the state.
    ///
    /// # Errors
    /// The plugin's.
    pub fn import_state(&mut self, state: &[u8]) -> Result<()> {
        let done = self.session.import_state(RSlice::from_slice(state));
        unwrap(&self.plugin, "import_state", done)?;
        self.position = self.session.position();
        Ok(())
    }
}

/// Refuses a state that is not finite.
fn check_state_values(plugin: &str, call: &'static str, values: &[f32]) -> Result<()> {
    let odd = values.iter().filter(|value| !value.is_finite()).count();
    if odd == 0 {
        return Ok(());
    }
    let message = format!(
        "{odd} of {} values of the state are not finite",
        values.len()
    );
    Err(ClientError::Plugin {
        plugin: plugin.to_owned(),
        call,
        error: PluginError::new(ErrorKind::Numeric, message),
    })
}

/// What is wrong with a summary of a state of so many bytes, if anything.
fn check_summary(
    summary: &[StateSummary],
    rows: usize,
    state_bytes: u64,
) -> std::result::Result<(), String> {
    let mut names = std::collections::HashSet::new();
    for part in summary {
        check_name("a part of the state", part.name.as_str())?;
        let what = format!("`{}` of layer {}", part.name, part.layer);
        if !names.insert((part.layer, part.name.as_str())) {
            return Err(format!("two parts {what}"));
        }
        if part.norms.len() != rows {
            return Err(format!(
                "{} norms of {what} for {rows} rows",
                part.norms.len()
            ));
        }
        if let Some(norm) = part
            .norms
            .iter()
            .find(|norm| !(norm.is_finite() && **norm >= 0.0))
        {
            return Err(format!("a norm of {norm} of {what}"));
        }
    }
    let values = summary
        .iter()
        .try_fold(0_u64, |sum, part| sum.checked_add(part.values));
    match values.and_then(|values| values.checked_mul(rows as u64)) {
        Some(values) if values.checked_mul(4) == Some(state_bytes) => Ok(()),
        _ => Err(format!(
            "a summary that does not add up to {state_bytes} bytes of state"
        )),
    }
}

fn unwrap<T>(plugin: &str, call: &'static str, result: AbiResult<T>) -> Result<T> {
    match result {
        RResult::ROk(value) => Ok(value),
        RResult::RErr(error) => Err(ClientError::Plugin {
            plugin: plugin.to_owned(),
            call,
            error,
        }),
    }
}

/// What is wrong with a description, if anything.
///
/// # Errors
/// The first thing found, in words.
pub fn check_description(info: &LibraryInfo) -> std::result::Result<(), String> {
    if let Some(why) = pair(&info.extra, DESCRIBING_FAILED) {
        return Err(format!("no description: {why}"));
    }
    if info.name.is_empty() || info.version.is_empty() {
        return Err("a description without name or version".to_owned());
    }
    check_name("a library", info.name.as_str())?;
    // A version may name its build, 1.0.0+abc.
    check_name("a version", &info.version.replace('+', "-"))?;
    if info.architectures.is_empty() {
        return Err("a description without architectures".to_owned());
    }
    for (index, architecture) in info.architectures.iter().enumerate() {
        let name = architecture.name.as_str();
        check_name("an architecture", name)?;
        if info.architectures[..index]
            .iter()
            .any(|other| other.name == name)
        {
            return Err(format!("two architectures named `{name}`"));
        }
        for (place, option) in architecture.options.iter().enumerate() {
            check_option_name(name, option.name.as_str())?;
            if architecture.options[..place]
                .iter()
                .any(|other| other.name == option.name)
            {
                return Err(format!("two options `{}` of `{name}`", option.name));
            }
            if let OptionKind::Choice { choices, .. } = &option.kind {
                choices
                    .iter()
                    .try_for_each(|word| check_name("a word", word))?;
            }
            let default = option.kind.default_value();
            let fits = match (&option.kind, &default) {
                (OptionKind::Text { default }, _) => is_option_text(default),
                (OptionKind::Float { min, max, .. }, OptionValue::Float(value)) => {
                    (min..=max).contains(&value)
                }
                _ => option.parse(&default.to_string()).is_ok(),
            };
            if !fits {
                return Err(format!(
                    "option `{}` of `{name}` with the default {default} outside its own limits ({})",
                    option.name,
                    option.kind.limits()
                ));
            }
        }
    }
    Ok(())
}

/// Refuses a name that could not stand in a file's name, a list of options or a table.
fn check_name(what: &str, name: &str) -> std::result::Result<(), String> {
    const LONGEST: usize = 64;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if begins && name.len() <= LONGEST && name.chars().all(plain) {
        return Ok(());
    }
    let shown: String = name.chars().take(LONGEST).collect();
    Err(format!(
        "{what} named {shown:?}: a name is at most {LONGEST} letters, digits, `-`, `_` and `.`, and begins with a letter or digit"
    ))
}

/// That an option can be written as `name=value` beside others, and means nothing else there.
fn check_option_name(architecture: &str, name: &str) -> std::result::Result<(), String> {
    check_name(&format!("an option of `{architecture}`"), name)?;
    if RESERVED.contains(&name) {
        return Err(format!(
            "an option of `{architecture}` named `{name}`, which every model has of its own; choose another name (reserved are {})",
            RESERVED.join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        for name in ["mamba2", "longhaul-lstm", "my_mixer.v2", &"a".repeat(64)] {
            assert_eq!(check_name("a", name), Ok(()));
        }
        for name in [
            "",
            "a b",
            "a/b",
            "a:b",
            "=a",
            "-a",
            "é",
            "a\u{1b}",
            &"a".repeat(65),
        ] {
            let refused = check_name("an option", name).unwrap_err();
            assert!(refused.starts_with("an option named"), "{refused}");
            assert!(!refused.contains('\u{1b}'));
        }
    }

    #[test]
    fn likelihoods_agree_with_what_is_most_likely() {
        assert!(is_likelihood(0.0, true, 4) && is_likelihood(1.38, true, 4));
        assert!(!is_likelihood(-5.0, true, 4) && !is_likelihood(1.5, true, 4));
        assert!(is_likelihood(0.7, false, 4) && is_likelihood(30.0, false, 4));
        assert!(!is_likelihood(0.0, false, 4) && !is_likelihood(-3e38, false, 4));
    }
}
