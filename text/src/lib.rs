//! Text for tasks: tokenizers and documents. No task and no model is known here.

mod bytes;
mod texts;
mod tokenizer;

pub use bytes::Bytes;
pub use texts::{Document, Texts};
pub use tokenizer::Tokenizer;
