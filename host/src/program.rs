//! From the command line to one command, and from its end to an exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, WorkerJob};
use crate::commands;
use crate::exit::{self, CommandError};
use crate::{catalogue, logging, machine, worker};

/// The program: reads the command line, calls one command, and turns its end into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.verbose, cli.quiet);
    let ended = match &cli.command {
        Command::Run(args) => commands::run::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::List(args) => commands::list::run(args),
        Command::Tasks(args) => commands::tasks::run(args),
        Command::Suites => commands::suites::run(),
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
    if job == WorkerJob::Train {
        return worker::work();
    }
    let mut answer = machine::private_stdout().map_err(CommandError::environment)?;
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(CommandError::environment)?;
    let text = match job {
        WorkerJob::Describe => {
            #[derive(serde::Deserialize)]
            struct Library {
                library: std::path::PathBuf,
            }
            let Library { library } = parse(&line)?;
            let plugin = catalogue::describe_here(&library)?;
            serde_json::to_string(&plugin).map_err(CommandError::usage)?
        }
        WorkerJob::Check => commands::check::work(parse(&line)?)?,
        WorkerJob::Bench => commands::bench::work(&parse(&line)?)?,
        WorkerJob::Checkpoint => commands::checkpoint::work(&parse(&line)?)?,
        WorkerJob::Train => unreachable!("handled above"),
    };
    use std::io::Write;
    writeln!(answer, "{text}").map_err(CommandError::environment)?;
    Ok(exit::OK)
}

fn parse<T: serde::de::DeserializeOwned>(line: &str) -> Result<T, CommandError> {
    serde_json::from_str(line).map_err(|error| {
        CommandError::usage(format!(
            "`longhaul worker` is started by other commands: {error}"
        ))
    })
}
