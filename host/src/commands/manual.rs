//! `longhaul completions` and `longhaul man`: what a shell and `man` know of the command line.

use std::path::Path;

use clap::CommandFactory;
use longhaul_results::files;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::commands::{cannot, print};
use crate::exit::CommandError;

/// Prints the completions of a shell.
///
/// # Errors
/// Standard output that cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "longhaul", &mut script);
    print(&String::from_utf8_lossy(&script)).map(|()| 0)
}

/// Writes a page for the program and one for each command.
///
/// # Errors
/// Files that cannot be written.
pub fn pages(args: &ManArgs) -> Result<u8, CommandError> {
    std::fs::create_dir_all(&args.folder).map_err(cannot("make", &args.folder))?;
    let mut program = Cli::command();
    program.build();
    let count = write(&args.folder, program)?;
    let folder = args.folder.display();
    print(&format!(
        "{count} pages are in {folder}; `man {folder}/longhaul.1` shows the first\n"
    ))
    .map(|()| 0)
}

/// Writes the page of a command and those of its own commands; how many.
fn write(folder: &Path, command: clap::Command) -> Result<usize, CommandError> {
    let inner = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set());
    let inner: Vec<clap::Command> = inner
        .filter(|inner| inner.get_name() != "help")
        .cloned()
        .collect();
    let page = clap_mangen::Man::new(command);
    let path = folder.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text).expect("a vector takes all bytes");
    files::write_whole(&path, &text).map_err(cannot("write", &path))?;
    let counts = inner.into_iter().map(|inner| write(folder, inner));
    Ok(1 + counts.sum::<Result<usize, CommandError>>()?)
}
