//! Checkpoints of other software in the Hugging Face layout: [`files`] opens a folder, [`config`] says what it
//! is, [`tensors`] maps its weights, [`load`] brings their values into a plugin's model, [`blame`] finds the
//! keys that a misfit follows from, [`verify`] holds the model against what other software computed.

pub mod blame;
pub mod config;
pub mod files;
pub mod load;
pub mod tensors;
pub mod verify;
