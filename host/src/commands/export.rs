//! `longhaul export`: a run's records in the form of another tool.

use std::path::PathBuf;

use clap::Args;
use longhaul_results::{Measurement, files, latest};

use crate::commands::{cannot, print, read_records};
use crate::exit::{self, CommandError};
use crate::export::{Form, Run, export};
use crate::run::manifest::{self, Manifest};
use crate::table::{counted, width, wrap};

/// `longhaul export`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
lm-eval    MODEL/results_DATE.json and MODEL/samples_TASK_DATE.jsonl, as
           lm-evaluation-harness logs them; DATE is when the records were written
ruler      MODEL/synthetic/LENGTH/pred/TASK.jsonl and summary.csv
babilong   all_results.csv, a row a model and task, in percent

lm-eval and ruler are of generated answers, which a run keeps in predictions/.
Prompts above 1,024 tokens are not kept, so these are empty. babilong takes the
accuracies of any run at lengths that are multiples of 1,024.
`longhaul audit` reads what was written.

Examples:
  longhaul export runs/my-ruler --to lm-eval --out runs/my-ruler-lm-eval
  longhaul export results/reference/quick --to babilong --out runs/quick-table")]
pub struct ExportArgs {
    /// Folder of a run
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// The form: lm-eval, ruler or babilong
    #[arg(long, value_name = "FORM", value_enum, hide_possible_values = true)]
    pub to: Form,
    /// Folder to write, new or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Reads the run and writes the files.
///
/// # Errors
/// A run that cannot be read or has nothing of the form; a folder that holds something; the system's refusal.
pub fn run(args: &ExportArgs) -> Result<u8, CommandError> {
    let holds = std::fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some());
    if holds {
        return Err(CommandError::usage(format!(
            "{} is not empty. Give another folder with --out",
            args.out.display()
        )));
    }
    let exported = export(&read(args)?, args.to)?;
    for file in &exported.files {
        let path = args.out.join(&file.path);
        let folder = path.parent().unwrap_or(&args.out);
        std::fs::create_dir_all(folder).map_err(cannot("make", folder))?;
        files::write_whole(&path, &file.bytes).map_err(cannot("write", &path))?;
    }
    let mut text = format!(
        "{}: {}\n",
        args.out.display(),
        counted(exported.files.len(), "file")
    );
    for words in &exported.left_out {
        for part in wrap(&format!("Left out: {words}."), width()) {
            text.push_str(&part);
            text.push('\n');
        }
    }
    print(&text).map(|()| exit::OK)
}

/// The run; what is wrong and does not matter goes to the log.
fn read(args: &ExportArgs) -> Result<Run, CommandError> {
    let (rows, torn) = read_records(&args.run)?;
    if let Some(torn) = torn {
        tracing::warn!("{torn}");
    }
    let manifest = Manifest::read(&args.run).map_err(|error| {
        CommandError::usage(format!(
            "{}: {} cannot be read, so nobody knows which model a record is of ({error})",
            args.run.display(),
            manifest::FILE
        ))
    })?;
    let records = args.run.join("results.csv");
    let written = std::fs::metadata(&records).and_then(|data| data.modified());
    let rows: Vec<Measurement> = latest(rows)
        .into_iter()
        .flat_map(|(_, rows)| rows)
        .collect();
    Ok(Run {
        folder: args.run.clone(),
        manifest,
        rows,
        written: written.map_err(cannot("read", &records))?,
    })
}
