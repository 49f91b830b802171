//! Text for tasks: tokenizers and documents. No task and no model is known here.

mod bytes;
mod chat;
mod cuts;
mod error;
mod files;
mod index;
mod json;
pub mod library;
mod open;
mod shape;
mod special;
mod texts;
mod tokenizer;
mod world;

pub use bytes::Bytes;
pub use chat::Chat;
pub use error::TextError;
pub use files::{hex, sha256_of};
pub use index::TokenIndex;
pub use open::{fits, tokenizer_of};
pub use texts::{Document, Texts};
pub use tokenizer::Tokenizer;
