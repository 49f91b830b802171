//! All of the `longhaul` program but its `main`: a library, so that tests, fuzzers and reports use the
//! same code. Start at [`program::main`]; ARCHITECTURE.md has the map.

// Errors here are read by people once a command, so their size does not matter.
#![allow(clippy::result_large_err)]

pub mod architecture;
pub mod audit;
pub mod catalogue;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod cuda;
pub mod device;
pub mod exit;
pub mod export;
pub mod find;
pub mod gguf;
pub mod json_lines;
pub mod launch;
pub mod libraries;
pub mod logging;
pub mod machine;
pub mod materials;
pub mod memory;
pub mod number;
pub mod path_text;
pub mod program;
pub mod run;
pub mod signals;
pub mod slurm;
pub mod table;
pub mod text;
pub mod worker;
