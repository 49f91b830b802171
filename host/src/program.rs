//! From the command line to one command, and from its end to an exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, WorkerJob};
use crate::commands;
use crate::exit::{self, CommandError};
use crate::worker::pipe;
use crate::{catalogue, logging, signals, worker};

/// The program: reads the command line, calls one command, and turns its end into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.verbose, cli.quiet);
    signals::survive_file_limits();
    let ended = match &cli.command {
        Command::Run(args) => commands::run::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::List(args) => commands::list::run(args),
        Command::Tasks(args) => commands::tasks::run(args),
        Command::Show(args) => commands::show::run(args),
        Command::Devices(_) => commands::devices::run(),
        Command::Check(args) => commands::check::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::New(args) => commands::new::run(args),
        Command::Checkpoint(args) => commands::checkpoint::run(args),
        Command::Worker(args) => work(args.job),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("longhaul: {error}");
            ExitCode::from(error.code)
        }
    }
}

/// A worker's life: its job comes on standard input, its answer goes to what was standard output.
/// Whatever a plugin prints goes to standard error, so that it cannot disturb the answer.
fn work(job: WorkerJob) -> Result<u8, CommandError> {
    let text = pipe::open()?;
    pipe::conclude(match job {
        WorkerJob::Train => {
            worker::work(&text);
            return Ok(exit::OK);
        }
        WorkerJob::Describe => pipe::parse::<catalogue::Library>(&text)
            .and_then(|library| catalogue::describe_here(&library.library))
            .map(pipe::answer),
        WorkerJob::Check => pipe::parse(&text)
            .and_then(commands::check::work)
            .map(pipe::answer),
        WorkerJob::Bench => pipe::parse(&text)
            .and_then(|job| commands::bench::work(&job))
            .map(pipe::answer),
        WorkerJob::Checkpoint => pipe::parse(&text)
            .and_then(|job| commands::checkpoint::work(&job))
            .map(pipe::answer),
    });
    Ok(exit::OK)
}
