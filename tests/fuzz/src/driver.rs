//! The main function of a target. Inputs are tried in a child process: a panic, an abort, a lack of
//! memory or an input that takes too long ends the child, and this process says which input it was.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::random::Random;

/// Longest that one input may take. Far more than any needs, since machines that test are busy.
const DEADLINE: Duration = Duration::from_secs(20);

/// Address space of a child in bytes: whoever trusts a number in an input goes past it.
const MEMORY: u64 = 8 << 30;

/// Each answer that a target names must be that of at least one input in so many: else it tries little.
const ONE_IN: u64 = 100;

/// Exit code of a child whose inputs had too few answers of a kind.
const ONE_SIDED: i32 = 102;

/// Says to a process of a target that it is the child.
const CHILD: &str = "LONGHAUL_FUZZ_CHILD";

/// What a target is asked to do.
struct Request {
    inputs: u64,
    seed: u64,
    first: u64,
    file: Option<PathBuf>,
}

/// Tries `inputs` inputs of the target `name`: `make` makes one from its own stream of draws, `attempt`
/// tries it, says which of `answers` it got, and panics where something is wrong. Command-line arguments and what they replace:
/// `--inputs N` (or `LONGHAUL_FUZZ_INPUTS`), `--seed N` (or `LONGHAUL_FUZZ_SEED`), `--first N` to begin
/// later, `--input FILE` for one input from a file.
///
/// # Panics
/// For arguments that it does not know, and when the system starts no process.
pub fn fuzz(
    name: &str,
    inputs: u64,
    answers: &[&'static str],
    make: impl Fn(&mut Random) -> Vec<u8>,
    attempt: impl Fn(&[u8]) -> &'static str,
) {
    let Some(request) = Request::read(name, inputs) else {
        return;
    };
    let current = scratch().join(format!("{name}-{}.input", std::process::id()));
    if let Some(current) = std::env::var_os(CHILD) {
        let counts = work(&request, Path::new(&current), make, attempt);
        check(name, answers, &counts);
        return;
    }
    let began = Instant::now();
    match watch(start(&current), &current) {
        None => {
            let _ = std::fs::remove_file(&current);
            let seconds = began.elapsed().as_secs_f64();
            println!(
                "{name}: {} inputs of seed {} in {seconds:.1} s",
                request.inputs, request.seed
            );
        }
        Some(how) => {
            let input = std::fs::read(&current).unwrap_or_default();
            println!(
                "{name}, seed {}: {how}. The input, also in {}:",
                request.seed,
                current.display()
            );
            println!("{}", input.escape_ascii());
            println!(
                "Again: cargo test --release -p longhaul-fuzz --test {name} -- --input {}",
                current.display()
            );
            std::process::exit(101);
        }
    }
}

impl Request {
    /// The arguments; nothing where a name was given that is not the target's.
    fn read(name: &str, inputs: u64) -> Option<Self> {
        let from_environment = |key| std::env::var(key).ok().map(|text| number(key, &text));
        let mut request = Self {
            inputs: from_environment("LONGHAUL_FUZZ_INPUTS").unwrap_or(inputs),
            seed: from_environment("LONGHAUL_FUZZ_SEED").unwrap_or(1),
            first: 0,
            file: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut next = || {
                words
                    .next()
                    .unwrap_or_else(|| panic!("{word} needs a value"))
            };
            match word.as_str() {
                "--inputs" => request.inputs = number(&word, &next()),
                "--seed" => request.seed = number(&word, &next()),
                "--first" => request.first = number(&word, &next()),
                "--input" => request.file = Some(next().into()),
                // A filter, as for any other test.
                filter if !filter.starts_with('-') && !name.contains(filter) => return None,
                _ => {}
            }
        }
        Some(request)
    }
}

fn number(what: &str, text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{what} is a whole number, not `{text}`"))
}

/// A folder for inputs that failed, inside `target`.
fn scratch() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let target = exe
        .ancestors()
        .nth(3)
        .expect("tests lie in target/PROFILE/deps");
    let folder = target.join("fuzz");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

fn start(current: &Path) -> Child {
    let exe = std::env::current_exe().expect("a test knows its own path");
    Command::new(exe)
        .args(std::env::args().skip(1))
        .env(CHILD, current)
        .spawn()
        .expect("a process can be started")
}

/// Waits for the child; how it failed, if it did.
fn watch(mut child: Child, current: &Path) -> Option<String> {
    let (mut seen, mut since) = (None, Instant::now());
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            if status.code() == Some(ONE_SIDED) {
                let _ = std::fs::remove_file(current);
                std::process::exit(ONE_SIDED);
            }
            return (!status.success()).then(|| ended(status));
        }
        let now = std::fs::metadata(current)
            .and_then(|data| data.modified())
            .ok();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            return Some(format!("an input took more than {} s", DEADLINE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(101) => "panicked or was refused".to_owned(),
        _ => format!("ended by {status}"),
    }
}

/// Says how many inputs were answered how; a target whose inputs are all answered alike has failed.
fn check(name: &str, answers: &[&'static str], counts: &BTreeMap<&'static str, u64>) {
    let total: u64 = counts.values().sum();
    let shown: Vec<String> = counts
        .iter()
        .map(|(answer, count)| format!("{count} {answer}"))
        .collect();
    println!("{name}: {}", shown.join(", "));
    for answer in answers {
        let count = counts.get(answer).copied().unwrap_or(0);
        if count < total / ONE_IN {
            eprintln!(
                "{name}: {count} of {total} inputs were {answer}, fewer than one in {ONE_IN}"
            );
            std::process::exit(ONE_SIDED);
        }
    }
}

/// The child's side: input after input, each written down before it is tried; how many were answered how.
fn work(
    request: &Request,
    current: &Path,
    make: impl Fn(&mut Random) -> Vec<u8>,
    attempt: impl Fn(&[u8]) -> &'static str,
) -> BTreeMap<&'static str, u64> {
    let limit = Rlimit {
        current: Some(MEMORY),
        maximum: Some(MEMORY),
    };
    setrlimit(Resource::As, limit).expect("memory can be limited");
    let mut counts = BTreeMap::new();
    let mut one = |index: u64, input: &[u8]| {
        std::fs::write(current, input).expect("the input can be written");
        match catch_unwind(AssertUnwindSafe(|| attempt(input))) {
            Ok(answer) => *counts.entry(answer).or_default() += 1,
            Err(_) => {
                eprintln!("input {index}");
                std::process::exit(101);
            }
        }
    };
    if let Some(file) = &request.file {
        one(0, &std::fs::read(file).expect("the input can be read"));
        return counts;
    }
    for index in request.first..request.first + request.inputs {
        one(index, &make(&mut Random::new(request.seed, index)));
    }
    counts
}
