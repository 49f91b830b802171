//! `longhaul ruler generate`: samples of a task in RULER's own form, one JSON object a line.

use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use longhaul_results::files;
use longhaul_tasks::ruler::{Example, Ruler};
use longhaul_tasks::{Coordinates, Sample, Split, Task, TaskError};
use tempfile::NamedTempFile;

use super::json;
use crate::cli::RulerGenerateArgs;
use crate::commands::print;
use crate::exit::{self, CommandError};
use crate::run::interrupt::Listener;

/// Writes samples to a file. It has its name when it is whole.
///
/// # Errors
/// A task that is none of RULER's; materials that cannot be read; a length below its least; a file that
/// exists, or that the system refuses.
pub fn run(args: &RulerGenerateArgs) -> Result<u8, CommandError> {
    let beside = args
        .materials
        .tokenizer
        .as_deref()
        .map(|path| match path.is_dir() {
            true => path.to_owned(),
            false => path.with_file_name(""),
        });
    let chat = beside.filter(|_| args.chat_template);
    let materials = args.materials.load_with(chat)?;
    let ruler = Ruler::parse(&args.task, &materials).map_err(CommandError::usage)?;
    if args.out.symlink_metadata().is_ok() {
        return Err(exists(&args.out));
    }
    let begun = Instant::now();
    let refused =
        |error: io::Error| CommandError::environment(format!("{}: {error}", args.out.display()));
    // Dropped before it has its name, it is gone.
    let interrupt = Listener::new().map_err(refused)?;
    let made = write_all(args, &ruler, interrupt.flag());
    let (file, longest) = made.map_err(|failed| match failed {
        Failed::Task(error) => CommandError::usage(error),
        Failed::File(error) => refused(error),
        Failed::Interrupted => CommandError {
            code: exit::INTERRUPTED,
            message: "interrupted; no file was left".to_owned(),
        },
    })?;
    file.persist_noclobber(&args.out)
        .map_err(|error| match error.error.kind() {
            ErrorKind::AlreadyExists => exists(&args.out),
            _ => refused(error.error),
        })?;
    let took = begun.elapsed().as_secs_f64();
    print(&format!(
        "{}: {} samples of {}:{}\nat most {longest} of {} tokens, those to generate included; {:.0} samples a second\n",
        args.out.display(),
        args.samples,
        ruler.spec().name,
        ruler.options_text(),
        args.length,
        args.samples as f64 / took,
    ))
    .map(|()| 0)
}

fn exists(out: &Path) -> CommandError {
    CommandError::usage(format!(
        "{} exists; name another file with --out",
        out.display()
    ))
}

enum Failed {
    Task(TaskError),
    File(io::Error),
    /// Ctrl-C.
    Interrupted,
}

/// Tokens of the samples that a thread makes before the next has its turn.
const TURN: usize = 1 << 16;

/// Bytes of a part, and parts that wait to be written for each thread.
const PART: usize = 1 << 16;
const WAITING: usize = 4;

/// What a thread has made of the file.
enum Part {
    Text(Vec<u8>),
    /// The end of a turn, and the length of its longest sample.
    End(usize),
    Failed(TaskError),
}

/// A part that grows until it is sent.
struct Parts<'a> {
    part: Vec<u8>,
    to: &'a SyncSender<Part>,
}

impl Parts<'_> {
    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(2 * PART));
        let sent = self.to.send(Part::Text(part));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// Writes all samples into an unfinished file; it, and the length of the longest. Threads make them in turns and hand
/// over their text in parts, which are written in order: the file does not depend on the number of threads, and memory
/// not on its size.
fn write_all(
    args: &RulerGenerateArgs,
    ruler: &Ruler,
    interrupt: &AtomicBool,
) -> Result<(NamedTempFile, usize), Failed> {
    let turn = (TURN / args.length.max(1)).max(1) as u64;
    let turns = args.samples.div_ceil(turn);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let threads = threads.min(turns).max(1);
    std::thread::scope(|scope| {
        let start = |thread| {
            let (to, parts) = sync_channel(WAITING);
            scope.spawn(move || {
                let mut own = (thread..turns).step_by(threads as usize);
                own.all(|own| {
                    let indices = own * turn..args.samples.min((own + 1) * turn);
                    let end = make(args, ruler, indices, &to);
                    // Nobody listens any more where another sample failed.
                    end.is_some_and(|end| to.send(end).is_ok())
                })
            });
            parts
        };
        let parts: Vec<Receiver<Part>> = (0..threads).map(start).collect();
        let mut out = None;
        let mut longest = 0;
        for turn in 0..turns {
            let from = &parts[(turn % threads) as usize];
            loop {
                if interrupt.load(Ordering::Relaxed) {
                    return Err(Failed::Interrupted);
                }
                match from.recv().expect("a thread ends its turn") {
                    Part::Text(text) => file(&mut out, &args.out)
                        .and_then(|out| out.as_file_mut().write_all(&text))
                        .map_err(Failed::File)?,
                    Part::Failed(error) => return Err(Failed::Task(error)),
                    Part::End(length) => {
                        longest = longest.max(length);
                        break;
                    }
                }
            }
        }
        let file = match out {
            Some(file) => file,
            None => begin(&args.out).map_err(Failed::File)?,
        };
        Ok((file, longest))
    })
}

/// The file: there is none before there is a sample, nor is its folder made.
fn file<'a>(out: &'a mut Option<NamedTempFile>, path: &Path) -> io::Result<&'a mut NamedTempFile> {
    Ok(match out {
        Some(file) => file,
        none => none.insert(begin(path)?),
    })
}

/// An unfinished file where `path` is to be, with a name that nothing has.
fn begin(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    tempfile::Builder::new()
        .prefix(files::UNFINISHED)
        // The system takes the user's umask from these.
        .permissions(PermissionsExt::from_mode(0o666))
        .tempfile_in(folder)
}

/// Makes samples; how the turn ends, or nothing where nobody listens.
fn make(
    args: &RulerGenerateArgs,
    ruler: &Ruler,
    indices: Range<u64>,
    to: &SyncSender<Part>,
) -> Option<Part> {
    let mut parts = Parts {
        part: Vec::with_capacity(2 * PART),
        to,
    };
    let mut longest = 0;
    for index in indices {
        let at = Coordinates {
            split: Split::Test,
            length: args.length,
            seed: args.seed,
            index,
        };
        let example = match ruler.example(&at) {
            Ok(example) => example,
            Err(error) => return Some(Part::Failed(error)),
        };
        longest = longest.max(example.length());
        write_line(&mut parts, index, &example, args.tokens).ok()?;
    }
    parts.flush().ok()?;
    Some(Part::End(longest))
}

/// A sample as RULER writes it. `index` is the number of the line, from 0; the key of a sample is its line.
fn write_line(
    out: &mut impl Write,
    index: u64,
    example: &Example,
    with_tokens: bool,
) -> io::Result<()> {
    write!(out, "{{\"index\": {index}, \"input\": \"")?;
    let mut written = Ok(());
    example.text(&mut |text| {
        if written.is_ok() {
            written = json::write_inside(out, text);
        }
    });
    written?;
    out.write_all(b"\", \"outputs\": [")?;
    for (place, reference) in example.wanted().references.iter().enumerate() {
        if place > 0 {
            out.write_all(b", ")?;
        }
        json::write_string(out, reference)?;
    }
    let length = example.length();
    write!(
        out,
        "], \"length\": {length}, \"length_w_model_temp\": {length}, \"answer_prefix\": "
    )?;
    json::write_string(out, example.answer_prefix())?;
    if let Some(position) = example.answer_position() {
        write!(out, ", \"token_position_answer\": {position}")?;
    }
    if with_tokens {
        write_tokens(out, example)?;
    }
    out.write_all(b"}\n")
}

fn write_tokens(out: &mut impl Write, example: &Example) -> io::Result<()> {
    const SOME: usize = 512;
    let (mut tokens, mut targets) = ([0; SOME], [0; SOME]);
    out.write_all(b", \"tokens\": [")?;
    for start in (0..example.len()).step_by(SOME) {
        let count = SOME.min(example.len() - start);
        example.write(start, &mut tokens[..count], &mut targets[..count]);
        for (place, token) in tokens[..count].iter().enumerate() {
            let comma = if start + place > 0 { ", " } else { "" };
            write!(out, "{comma}{token}")?;
        }
    }
    out.write_all(b"]")
}
