//! The commands, one file each: from arguments to output.

pub mod bench;
pub mod check;
pub mod checkpoint;
pub mod checkpoint_eval;
pub mod devices;
pub mod eval;
pub mod list;
pub mod new;
pub mod run;
pub mod show;
pub mod tasks;

use std::io::Write;

use crate::exit::CommandError;

/// Writes a command's result to standard output. A closed pipe ends the process quietly, as a reader
/// that has seen enough expects.
///
/// # Errors
/// Any other refusal of the system.
pub fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CommandError::environment(format!(
            "standard output: {error}"
        ))),
    }
}

/// A device by name: `cpu` or `cuda:N`.
///
/// # Errors
/// Another name.
pub fn parse_device(
    text: &str,
    threads: u32,
) -> Result<longhaul_plugin_api::data::Device, CommandError> {
    use longhaul_plugin_api::data::{Device, DeviceKind};
    let refuse = || CommandError::usage(format!("device `{text}` is neither cpu nor cuda:N"));
    match text.split_once(':') {
        None if text == "cpu" => Ok(Device {
            kind: DeviceKind::Cpu,
            index: 0,
            threads,
        }),
        Some(("cuda", index)) => {
            let index = index.parse().map_err(|_| refuse())?;
            Ok(Device {
                kind: DeviceKind::Cuda,
                index,
                threads,
            })
        }
        _ => Err(refuse()),
    }
}
