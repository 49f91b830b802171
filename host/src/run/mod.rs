//! Runs: from a suite to a validated plan, workers that carry it out, records that survive a kill, and
//! the tables and plots at the end. No plugin is loaded in this process.

pub mod calibrate;
pub mod child;
pub mod collect;
pub mod command;
pub mod conversation;
pub mod error;
pub mod execute;
pub mod finish;
pub mod folder;
pub mod forecast;
pub mod interrupt;
pub mod kept;
pub mod lengths;
pub mod machine;
pub mod manifest;
pub mod materials;
pub mod part;
pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod predictions;
pub mod preview;
pub mod progress;
pub mod queue;
pub mod records;
pub mod session;
pub mod standing;
pub mod targets;
pub mod unit;
