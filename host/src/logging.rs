//! The log: everything goes to standard error through `tracing`; standard output is for results. A
//! plugin's events arrive here too.

use longhaul_plugin_api::abi::LogLevel;
use longhaul_plugin_api::abi_stable::std_types::RStr;
use tracing_subscriber::EnvFilter;

/// A filter of the log that wins over `-v` and `-q`.
const VARIABLE: &str = "LONGHAUL_LOG";

/// Starts the log.
///
/// # Errors
/// A `LONGHAUL_LOG` that is no filter.
pub fn start(verbose: u8, quiet: bool) -> Result<(), String> {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let own = std::env::var_os(VARIABLE).unwrap_or_default();
    let own = own.to_string_lossy();
    let filter = if own.is_empty() { level } else { &*own };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("{VARIABLE}={own} is no filter ({error}); write error, warn, info, debug or trace")
    })?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    // A second start (a test) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .without_time()
        .try_init();
    Ok(())
}

/// Receives a plugin's log event.
pub extern "C" fn plugin_log(level: LogLevel, message: RStr<'_>) {
    let message = message.as_str();
    match level {
        LogLevel::Error => tracing::error!(plugin = true, "{message}"),
        LogLevel::Warn => tracing::warn!(plugin = true, "{message}"),
        LogLevel::Info => tracing::info!(plugin = true, "{message}"),
        LogLevel::Debug => tracing::debug!(plugin = true, "{message}"),
    }
}
