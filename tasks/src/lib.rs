//! The shared long-context tasks. A task is a pure function of its options, a split, a length, a seed
//! and an index: any worker makes any example, nothing is stored, and every architecture sees the
//! same ones. A sample is small whatever its length, and is written piece by piece.
//!
//! No task knows an architecture, and nothing here trains or scores.

// Errors here are read by people once a run, so their size does not matter.
#![allow(clippy::result_large_err)]

mod automaton;
pub mod bounds;
mod chance;
mod corpus;
mod draws;
mod encoded;
mod error;
mod generated;
mod group;
mod materials;
mod named;
mod options;
mod parts;
mod permutation;
pub mod ruler;
mod sequence;
mod sources;
mod steps;
mod suite;
mod task;
mod tasks;
mod tree;

pub use error::{SuiteError, TaskError};
pub use materials::{Material, Materials};
pub use named::{Named, NamedError};
pub use options::{Allowed, OptionSpec, OptionValue};
pub use sources::citations;
pub use suite::{
    AboveEntry, ArchitectureEntry, Evaluation, InitialState, Limits, ModelSize, Suite,
    SuiteMaterials, TargetEntry, TaskEntry, TrainDistribution, Training, suites,
};
pub use task::{
    Coordinates, Label, Metric, Request, Sample, Split, Task, TaskSpec, build, parse_task,
    parse_task_of, recorded_task, recorded_task_of, registry, spec_of,
};
