//! The host's binary, run as a user runs it, and the files it leaves.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::build;

/// Longest that one command of a test may take.
const PATIENCE: Duration = Duration::from_secs(150);

/// What a command left.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Checks the exit code.
    ///
    /// # Panics
    /// When it is another, with everything the command said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "\n-- stdout\n{}\n-- stderr\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Checks that standard error holds each part, in any case.
    ///
    /// # Panics
    /// When one is missing.
    #[track_caller]
    pub fn complains(self, parts: &[&str]) -> Self {
        says(&self.stderr, parts);
        self
    }

    /// Checks that standard output holds each part, in any case.
    ///
    /// # Panics
    /// When one is missing.
    #[track_caller]
    pub fn prints(self, parts: &[&str]) -> Self {
        says(&self.stdout, parts);
        self
    }
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    let folded = text.to_lowercase();
    for part in parts {
        let found = folded.contains(&part.to_lowercase());
        assert!(found, "`{part}` is missing in:\n{text}");
    }
}

/// The binary with arguments, without what the caller's environment says of plugins.
pub fn command<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(build::longhaul());
    command
        .args(arguments)
        .env_remove("LONGHAUL_PLUGIN_PATH")
        .env_remove("LONGHAUL_LOG")
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the binary to its end.
///
/// # Panics
/// When it cannot be started or does not end.
pub fn longhaul<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    finish(command(arguments).spawn().expect("the binary starts"))
}

/// Runs the binary with the words of a text and then these.
///
/// # Panics
/// As [`longhaul`].
pub fn longhaul_with(text: &str, more: &[&OsStr]) -> Ran {
    let mut all: Vec<OsString> = words(text);
    all.extend(more.iter().map(|&word| word.to_owned()));
    longhaul(all)
}

/// Waits for a command and collects what it said.
///
/// # Panics
/// When it does not end within the tests' patience.
pub fn finish(child: Child) -> Ran {
    let id = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(output) => ran(output.expect("its output can be read")),
        Err(_) => {
            signal(id, "KILL");
            panic!("the command did not end within {} s", PATIENCE.as_secs());
        }
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends a signal, by name, to a process this test started.
///
/// # Panics
/// When `kill` cannot be started.
pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .stderr(Stdio::null())
        .status();
    status.expect("kill can be started");
}

/// Waits until something holds.
///
/// # Panics
/// When it does not within the tests' patience.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One row of a CSV file: value by column.
pub type Row = BTreeMap<String, String>;

/// The rows of a CSV file.
///
/// # Panics
/// When it cannot be read, or a row has another number of fields than the header.
pub fn rows(path: &Path) -> Vec<Row> {
    let mut reader =
        csv::Reader::from_path(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    reader
        .deserialize()
        .map(|row| row.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect()
}

/// The folder of a small run, gone with its test.
pub struct Folder {
    kept: tempfile::TempDir,
}

impl Default for Folder {
    fn default() -> Self {
        Self {
            kept: tempfile::tempdir().expect("a temporary folder"),
        }
    }
}

impl Folder {
    /// Where the run writes; it does not exist at first.
    pub fn out(&self) -> PathBuf {
        self.kept.path().join("run")
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.out().join(name)
    }

    /// Rows of the whole cells in `results.csv`.
    pub fn results(&self) -> Vec<Row> {
        let mut all = rows(&self.file("results.csv"));
        all.retain(|row| row["label"].is_empty());
        all
    }

    /// Arguments of a run of `faulty` with each set of options, small enough to take a second: parity, one seed.
    /// `more` stands last; an option there takes the place of the same one here.
    pub fn run(&self, options: &[&str], lengths: &str, more: &[&str]) -> Vec<String> {
        let mut arguments = words("run --task parity --train-length 16 --seeds 1 --lr 1e-3");
        arguments.extend(words(
            "--steps 12 --batch 4 --d-model 8 --layers 1 --samples 20",
        ));
        arguments.extend(words("--device cpu --jobs 2 --threads 1 --lengths"));
        arguments.push(lengths.to_owned());
        for option in options {
            arguments.push("--arch".to_owned());
            arguments.push(match *option {
                "" => "faulty".to_owned(),
                options => format!("faulty:{options}"),
            });
        }
        for (name, path) in [("--plugin", build::faulty()), ("--out", self.out())] {
            arguments.push(name.to_owned());
            arguments.push(path.to_string_lossy().into_owned());
        }
        // Plugins may be several; any other option counts once.
        let single = |word: &&&str| word.starts_with("--") && **word != "--plugin";
        for option in more.iter().filter(single) {
            if let Some(place) = arguments.iter().position(|word| word == option) {
                arguments.drain(place..place + 2);
            }
        }
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        arguments
    }
}

/// The words of a text, as arguments.
pub fn words<T: for<'a> From<&'a str>>(text: &str) -> Vec<T> {
    text.split_whitespace().map(T::from).collect()
}

/// Lines wider than a terminal; one long word, a path or a citation's address, cannot be broken.
pub fn wide_lines(text: &str) -> Vec<&str> {
    let wide = |line: &&str| {
        line.chars().count() > 80
            && line
                .split_whitespace()
                .all(|word| word.chars().count() < 60)
    };
    text.lines().filter(wide).collect()
}

/// Holds a command's output to what reads well in a terminal and in a pipe: no colour, nothing wider than 80 columns.
///
/// # Panics
/// Where it does not.
#[track_caller]
pub fn assert_reads_well(ran: &Ran) {
    assert!(!ran.stdout.trim().is_empty(), "{}", ran.stderr);
    assert!(
        !ran.stdout.contains('\u{1b}'),
        "no colour in a pipe:\n{}",
        ran.stdout
    );
    let wide = wide_lines(&ran.stdout);
    assert!(
        wide.is_empty(),
        "wider than 80 columns:\n{}",
        wide.join("\n")
    );
}
