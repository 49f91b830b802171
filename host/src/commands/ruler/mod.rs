//! `longhaul ruler`: RULER's samples as files, and the scores of predictions that other software made of them.

mod generate;
mod json;
mod score;

use crate::cli::{RulerArgs, RulerCommand};
use crate::exit::CommandError;

/// Carries out what was asked for.
///
/// # Errors
/// Those of the command.
pub fn run(args: &RulerArgs) -> Result<u8, CommandError> {
    match &args.command {
        RulerCommand::Generate(args) => generate::run(args),
        RulerCommand::Score(args) => score::run(args),
    }
}
