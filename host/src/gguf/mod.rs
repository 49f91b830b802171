//! Models in GGUF, the one-file format of ggml and llama.cpp, and their conversion to the Hugging Face layout:
//! [`reader`] and [`mod@file`] read the container, [`blocks`] decodes quantised values, [`config`] and [`tokenizer`] turn the
//! metadata into the layout's JSON files, [`tensors`] gives every tensor its name and order there, [`convert`] writes
//! the folder. It knows no plugin.
//!
//! The container is read here and not by a crate, so that every refusal names the file's key or tensor and no count
//! or offset of a file is trusted; candle-core, which reads it too, brings a tensor library with it. Its formats are
//! facts of ggml (`docs/gguf.md`, `ggml-common.h`); the
//! tests hold the decoded values against ggml's own Python package.

pub mod blocks;
pub mod config;
pub mod convert;
pub mod file;
pub mod reader;
pub mod tensors;
pub mod tokenizer;

#[cfg(test)]
mod tests;
