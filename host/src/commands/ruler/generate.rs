//! `longhaul ruler generate`: samples of a task in RULER's own form, one JSON object a line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use longhaul_tasks::ruler::{Example, Ruler};
use longhaul_tasks::{Coordinates, Sample, Split, Task};

use super::json;
use crate::cli::RulerGenerateArgs;
use crate::commands::print;
use crate::exit::CommandError;

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
    if args.out.exists() {
        return Err(CommandError::usage(format!(
            "{} exists; name another file with --out",
            args.out.display()
        )));
    }
    let begun = Instant::now();
    let mut partial = args.out.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = write_all(args, &ruler, &partial);
    let refused = |path: &Path, error: io::Error| {
        CommandError::environment(format!("{}: {error}", path.display()))
    };
    let longest = match written {
        Ok(longest) => longest,
        Err(error) => {
            // It is not whole, and its name says so; that it cannot be removed changes nothing.
            let _ = std::fs::remove_file(&partial);
            return Err(match error {
                Failed::Task(error) => CommandError::usage(error),
                Failed::File(error) => refused(&partial, error),
            });
        }
    };
    std::fs::rename(&partial, &args.out).map_err(|error| refused(&args.out, error))?;
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

enum Failed {
    Task(longhaul_tasks::TaskError),
    File(io::Error),
}

/// Writes all samples; the length of the longest.
fn write_all(args: &RulerGenerateArgs, ruler: &Ruler, path: &Path) -> Result<usize, Failed> {
    let mut out = None;
    let mut longest = 0;
    for index in 0..args.samples {
        let at = Coordinates {
            split: Split::Test,
            length: args.length,
            seed: args.seed,
            index,
        };
        let example = ruler.example(&at).map_err(Failed::Task)?;
        longest = longest.max(example.length());
        // There is no file before there is a sample.
        let out = match &mut out {
            Some(out) => out,
            none => none.insert(BufWriter::with_capacity(
                1 << 16,
                File::create_new(path).map_err(Failed::File)?,
            )),
        };
        write_line(out, index, &example, args.tokens).map_err(Failed::File)?;
    }
    match out {
        Some(mut out) => out.flush().map_err(Failed::File)?,
        None => drop(File::create_new(path).map_err(Failed::File)?),
    }
    Ok(longest)
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
