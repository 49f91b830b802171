//! `longhaul audit`: scores of other tools' result files made again, and what is wrong with those that they state.

use std::path::PathBuf;

use clap::Args;
use longhaul_results::csv_text;
use serde::Serialize;

use crate::audit::{Audited, Score, audit};
use crate::commands::print;
use crate::exit::{self, CommandError};
use crate::table::{columns, counted, width, wrap};
use crate::text::line;

/// `longhaul audit`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Reads RULER's predictions (TASK.jsonl) and summary.csv, lm-evaluation-harness'
results (.json) and samples (.jsonl), BABILong's answers and tables (.csv),
HELMET's .json and LongBench v2's .jsonl. Files of one folder are held against
each other: give a summary with its items. Exits with 1 where something is found.

Examples:
  longhaul audit tests/audit/sound/ruler/4096/pred/qa_1.jsonl
  longhaul audit my-results/*.jsonl my-results/summary.csv --csv")]
pub struct AuditArgs {
    /// Result files
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// All scores as CSV; findings go to the log
    #[arg(long)]
    pub csv: bool,
}

longhaul_results::table_row! {
/// A score as CSV has it.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The file.
    pub file: String,
    /// The tool that writes such files.
    pub tool: String,
    /// The model, where the file names it; else empty.
    pub model: String,
    /// Task, as the tool calls it.
    pub task: String,
    /// Length that the tool states, in tokens.
    pub length: Option<u64>,
    /// Metric, as the tool calls it.
    pub metric: String,
    /// Items that count.
    pub samples: Option<u64>,
    /// Mean over them, made again; what the file says where it has no items.
    pub value: Option<f64>,
    /// Lower end of the 95 % interval.
    pub value_low: Option<f64>,
    /// Upper end of it.
    pub value_high: Option<f64>,
    /// How that was made: `wilson` of shares, `student` of other numbers; empty where there is none.
    pub interval: String,
    /// What a file of the tool says.
    pub stated: Option<f64>,
    /// Findings in the file.
    pub findings: u64,
}
}

/// Reads files and prints their scores and what was found.
///
/// # Errors
/// A file that cannot be read, or is in none of the forms that are known.
pub fn run(args: &AuditArgs) -> Result<u8, CommandError> {
    let files = audit(&args.files)?;
    let found: usize = files.iter().map(|file| file.findings.len()).sum();
    if args.csv {
        let rows: Vec<Row> = files.iter().flat_map(rows).collect();
        for file in &files {
            for finding in &file.findings {
                tracing::warn!("{}: {}", file.path.display(), line(finding));
            }
        }
        print(&csv_text(&rows))?;
    } else {
        let mut text: String = files.iter().map(|file| said(file) + "\n").collect();
        let with = files
            .iter()
            .filter(|file| !file.findings.is_empty())
            .count();
        text.push_str(&match found {
            0 => format!(
                "Scores are in percent. Nothing was found in {}.\n",
                counted(files.len(), "file")
            ),
            _ => format!(
                "Scores are in percent. {} in {with} of {}.\n",
                counted(found, "finding"),
                counted(files.len(), "file")
            ),
        });
        print(&text)?;
    }
    Ok(if found == 0 { exit::OK } else { exit::FAILED })
}

/// The scores of a file.
fn rows(file: &Audited) -> impl Iterator<Item = Row> {
    file.scores.iter().map(|score| Row {
        file: file.path.display().to_string(),
        tool: file.tool.to_owned(),
        model: line(file.model.as_deref().unwrap_or_default()),
        task: line(&score.task),
        length: score.length,
        metric: line(&score.metric),
        samples: score.samples,
        value: score.value,
        value_low: score.interval.map(|(_, (low, _))| low),
        value_high: score.interval.map(|(_, (_, high))| high),
        interval: score
            .interval
            .map_or_else(String::new, |(name, _)| name.to_owned()),
        stated: score.stated,
        findings: file.findings.len() as u64,
    })
}

/// A file in words: its scores, what was found, and what it cannot tell.
fn said(file: &Audited) -> String {
    let mut text = String::new();
    let head = format!("{}: {}", file.path.display(), line(&file.what));
    paragraph(&mut text, "", &head);
    let heads = [
        "  task",
        "len",
        "metric",
        "n",
        "score",
        "stated",
        "95 % interval",
    ];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.extend(file.scores.iter().map(cells));
    if !file.scores.is_empty() {
        text.push_str(&columns(&table));
    }
    for finding in &file.findings {
        paragraph(&mut text, "  ! ", &line(finding));
    }
    paragraph(&mut text, "  ", &format!("Not told here: {}.", file.untold));
    text
}

/// A paragraph whose further lines stand under its words.
fn paragraph(text: &mut String, before: &str, words: &str) {
    let room = width().saturating_sub(before.len()).max(24);
    for (index, part) in wrap(words, room).into_iter().enumerate() {
        let indent = " ".repeat(before.len());
        let before = if index == 0 { before } else { &indent };
        text.push_str(&format!("{before}{part}\n"));
    }
}

fn cells(score: &Score) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let number = |value: f64| match (0.0..=1.0).contains(&value) {
        true => format!("{:.2}", 100.0 * value),
        false => format!("{value:.4} raw"),
    };
    let interval = score
        .interval
        .map(|(_, (low, high))| format!("[{}, {}]", number(low), number(high)));
    vec![
        format!("  {}", line(&score.task)),
        or_dash(score.length.map(|length| length.to_string())),
        line(&score.metric),
        or_dash(score.samples.map(|samples| samples.to_string())),
        or_dash(score.value.map(number)),
        or_dash(score.stated.map(number)),
        or_dash(interval),
    ]
}
