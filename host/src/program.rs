//! From the command line to one command, and from its end to an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use longhaul_plugin_api::variables;

use crate::cli::{Cli, Command, WorkerJob};
use crate::commands;
use crate::exit::{self, CommandError};
use crate::worker::pipe;
use crate::{catalogue, logging, signals, text, worker};

/// The program: reads the command line, calls one command, and turns its end into an exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::InvalidUtf8 => return end(Err(not_text())),
        Err(error) => error.exit(),
    };
    end(begin(&cli).and_then(|()| carry_out(&cli.command)))
}

/// The log, and what the environment says.
fn begin(cli: &Cli) -> Result<(), CommandError> {
    logging::start(cli.verbose, cli.quiet).map_err(CommandError::usage)?;
    signals::survive_file_limits();
    variables::check(|name| std::env::var_os(name)).map_err(CommandError::usage)
}

fn carry_out(command: &Command) -> Result<u8, CommandError> {
    match command {
        Command::Run(args) => commands::run::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Submit(args) => commands::submit::run(args),
        Command::Collect(args) => commands::collect::run(args),
        Command::Compare(args) => commands::compare::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Watch(args) => commands::watch::run(args),
        Command::Reproduce(args) => commands::reproduce::run(args),
        Command::Audit(args) => commands::audit::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Cite(args) => commands::cite::run(args),
        Command::Schema(_) => commands::schema::run(),
        Command::List(args) => commands::list::run(args),
        Command::Tasks(args) => commands::tasks::run(args),
        Command::Suites => commands::suites::run(),
        Command::Show(args) => commands::show::run(args),
        Command::Devices(_) => commands::devices::run(),
        Command::Check(args) => commands::check::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::New(args) => commands::new::run(args),
        Command::Data(args) => commands::data::run(args),
        Command::Ruler(args) => commands::ruler::run(args),
        Command::Checkpoint(args) => commands::checkpoint::run(args),
        Command::Completions(args) => commands::manual::completions(args),
        Command::Man(args) => commands::manual::pages(args),
        Command::Worker(args) => work(args.job),
    }
}

/// From a command's end to the process's. Where standard error is closed, the exit code says all that can
/// be said.
fn end(ended: Result<u8, CommandError>) -> ExitCode {
    let error = match ended {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    let message = error.to_string();
    let _ = writeln!(std::io::stderr(), "longhaul: {}", text::block(&message));
    ExitCode::from(error.code)
}

/// An argument that must be text, a name or a number, and is not. Paths may be any bytes.
fn not_text() -> CommandError {
    let bad = std::env::args_os().filter(|argument| argument.to_str().is_none());
    let bad: Vec<String> = bad
        .map(|argument| format!("`{}`", argument.to_string_lossy()))
        .collect();
    CommandError::usage(format!(
        "{} is not UTF-8, which names and numbers must be; options that take a FILE or DIR take any path",
        bad.join(" or ")
    ))
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
        WorkerJob::Convert => pipe::parse(&text)
            .and_then(|job| commands::checkpoint_convert::work(&job))
            .map(pipe::answer),
    });
    Ok(exit::OK)
}
