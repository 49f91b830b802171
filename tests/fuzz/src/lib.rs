//! A small fuzzer on stable Rust: inputs made from a seed, a bounded number of them, the same ones on
//! every machine. A target is a file in `tests/` that calls [`driver::fuzz`] with a function that makes an
//! input and one that tries it; `README.md` says how to write and run one.

pub mod answer;
pub mod checkpoints;
pub mod csv;
pub mod driver;
pub mod json;
pub mod random;
pub mod text;
pub mod toml;
