//! Checkpoints of other software in the Hugging Face layout: [`files`] reads a folder, [`load`] brings
//! its values into a plugin's model, [`verify`] holds the model against what other software computed.

pub mod files;
pub mod load;
pub mod verify;
