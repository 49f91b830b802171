//! `longhaul watch`: how a run is going, from another terminal. It reads the run's records, takes no lock and writes
//! nothing: the training's recorded steps, one in 64, are what it sees of a training.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use longhaul_results::{Cell, Measurement, Record, TrainingPoint, is_held, read_csv};

use crate::commands::print;
use crate::exit::{self, CommandError};
use crate::run::kept::manifest_of;
use crate::run::manifest::Manifest;
use crate::run::part;
use crate::run::standing::{Said, Standing};
use crate::table::{counted, width};
use crate::text::visible;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two lines of a run that measures nothing meanwhile, where standard output is no terminal.
const PLAIN: u32 = 10;

/// `longhaul watch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
On a terminal the lines are renewed in place; elsewhere a line is printed for each
measurement. It ends when the run does. Exit code 0: every measurement is there
and ok, or not run for a stated reason; 1: some are not, or the run stopped
before its end.

Examples:
  longhaul watch runs/quick")]
pub struct WatchArgs {
    /// Folder of a run
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
}

/// Whether a run goes on, as far as this machine can tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Complete,
    Stopped,
}

/// Follows a run to its end.
///
/// # Errors
/// No run there; records that cannot be read.
pub fn run(args: &WatchArgs) -> Result<u8, CommandError> {
    let manifest = manifest_of(&args.run)?;
    let mut rows = Followed::<Measurement>::new(args.run.join("results.csv"));
    let mut points = Followed::<TrainingPoint>::new(args.run.join("training.csv"));
    let live = std::io::stdout().is_terminal();
    let mut screen = Screen::default();
    let mut plain = Plain::default();
    let title = format!(
        "{}: {}, {}, {} on {}",
        args.run.display(),
        manifest.suite,
        counted(manifest.units.len(), "model"),
        counted(manifest.jobs, "worker"),
        manifest.device
    );
    loop {
        // First, so that what a run writes at its very end is read.
        let held = is_held(&args.run);
        rows.look()?;
        points.look()?;
        let found = Standing::new(
            &manifest.units,
            manifest.jobs,
            &rows.records,
            &points.records,
        );
        let state = match (held, found.is_complete()) {
            (Some(true), _) | (None, false) => State::Running,
            (_, true) => State::Complete,
            (Some(false), false) => State::Stopped,
        };
        let running = state == State::Running;
        let mut lines = vec![title.clone()];
        lines.extend(found.lines(running));
        if live {
            let end = last_word(state, &args.run, &manifest).unwrap_or_default();
            lines.extend(end.lines().map(str::to_owned));
            screen.show(&lines)?;
        } else {
            print(&plain.text(&lines, &found, running))?;
            let end = last_word(state, &args.run, &manifest).map(|words| format!("{words}\n"));
            print(&end.unwrap_or_default())?;
        }
        if !running {
            let good = state == State::Complete && found.not_ok == 0;
            return Ok(if good { exit::OK } else { exit::FAILED });
        }
        std::thread::sleep(LOOK);
    }
}

/// What is said when a run no longer goes on.
fn last_word(state: State, run: &Path, manifest: &Manifest) -> Option<String> {
    // A part's folder may be named from inside the whole run's.
    let folder = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    let whole = manifest.part.and_then(|_| part::whole_of(&folder));
    Some(match (state, whole, manifest.parts) {
        (State::Running, ..) => return None,
        (State::Complete, Some(whole), _) => format!(
            "This part has ended; all parts together:\n{}",
            part::collect_command(whole)
        ),
        (State::Complete, None, _) => format!(
            "The run has ended; its table is {}/table.txt",
            run.display()
        ),
        (State::Stopped, _, Some(count)) if part::is_apart(run, manifest) => format!(
            "The run is in {count} parts, each with a folder of its own to watch, and they are\n\
             not taken together yet. What is left of which:\n{}",
            part::collect_command(run)
        ),
        (State::Stopped, ..) => {
            "The run is not finished, and no process of this machine works in its folder.\n\
             Its command goes on with --resume"
                .to_owned()
        }
    })
}

/// A file of records that another process writes; read again when it has changed.
struct Followed<R> {
    path: PathBuf,
    seen: Option<(u64, SystemTime)>,
    records: Vec<R>,
}

impl<R: Record> Followed<R> {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: None,
            records: Vec::new(),
        }
    }

    /// Reads it if it has changed. A file that is not there yet has no records; a torn last line is being written.
    fn look(&mut self) -> Result<(), CommandError> {
        let Ok(file) = self.path.symlink_metadata() else {
            return Ok(());
        };
        let now = file.modified().ok().map(|time| (file.len(), time));
        if now.is_some() && now == self.seen {
            return Ok(());
        }
        (self.records, _) = read_csv(&self.path).map_err(CommandError::usage)?;
        self.seen = now;
        Ok(())
    }
}

/// What stands in a pipe already.
#[derive(Default)]
struct Plain {
    /// Measurements and how they ended; one that is tried again may end otherwise.
    said: HashSet<(Cell, &'static str)>,
    looks: u32,
}

impl Plain {
    /// At first all lines, then one for each measurement, and the counts at the end.
    fn text(&mut self, lines: &[String], found: &Standing, running: bool) -> String {
        let first = self.said.is_empty() && self.looks == 0;
        let new: Vec<&Said> = found
            .rows
            .iter()
            .filter(|row| self.said.insert((row.cell.clone(), row.status.name())))
            .collect();
        self.looks = if new.is_empty() { self.looks + 1 } else { 1 };
        let mut text = String::new();
        if first {
            lines
                .iter()
                .for_each(|line| text.push_str(&format!("{line}\n")));
            return text;
        }
        new.iter()
            .for_each(|row| text.push_str(&format!("{}\n", row.words)));
        if !running {
            text.push_str(&format!("{}\n", lines[1..3].join("\n")));
        } else if self.looks.is_multiple_of(PLAIN) && !found.at_work.is_empty() {
            text.push_str(&format!("{}\n", found.at_work.join("\n")));
        }
        text
    }
}

/// Lines on a terminal that are written over.
#[derive(Default)]
struct Screen {
    lines: usize,
}

impl Screen {
    /// Shows these lines in the place of those before, each cut to the terminal's width.
    fn show(&mut self, lines: &[String]) -> Result<(), CommandError> {
        let width = width();
        let mut text = String::new();
        if self.lines > 0 {
            text.push_str(&format!("\u{1b}[{}A\u{1b}[J", self.lines));
        }
        for line in lines {
            let shown = visible(line);
            text.extend(shown.chars().filter(|&c| c != '\n').take(width));
            text.push('\n');
        }
        self.lines = lines.len();
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| CommandError::environment(format!("standard output: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use longhaul_results::{Split, Status};

    use super::*;

    #[test]
    fn a_line_is_printed_for_each_measurement() {
        let said = |unit: &str, status| Said {
            cell: Cell {
                unit: unit.to_owned(),
                split: Split::Test,
                eval_length: 16,
            },
            status,
            words: "the same words".to_owned(),
        };
        let mut plain = Plain::default();
        let mut found = Standing::default();
        plain.text(&[], &found, true);
        let mut printed = |rows| {
            found.rows = rows;
            plain.text(&[], &found, true).lines().count()
        };
        let (one, other) = (|| said("u1", Status::Failed), || said("u2", Status::Ok));
        assert_eq!(printed(vec![one(), other()]), 2);
        assert_eq!(printed(vec![other(), one()]), 0, "in another order");
        let again = said("u1", Status::Ok);
        assert_eq!(printed(vec![one(), other(), again]), 1, "tried again");
    }
}
