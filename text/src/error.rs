//! Why a tokenizer or texts cannot be read: each names the file, what is wrong with it, and what to do.

use std::path::{Path, PathBuf};

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The system's refusal.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file or folder that is not what it should be.
    #[error("{}: {what}", path.display())]
    Not {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A text that a tokenizer has no tokens for.
    #[error(
        "tokenizer `{tokenizer}` cannot encode \"{start}\" and what follows: {why}; give texts that it has tokens for, or another tokenizer"
    )]
    Encode {
        /// The tokenizer's id.
        tokenizer: String,
        /// How the text begins.
        start: String,
        /// The reason.
        why: String,
    },
    /// Tokens that a tokenizer makes no text of.
    #[error(
        "tokenizer `{tokenizer}` cannot decode the {count} tokens {start}: {why}; its `decoder` does not fit its \
         vocabulary, so take the definition that was published with the model"
    )]
    Decode {
        /// The tokenizer's id.
        tokenizer: String,
        /// Number of tokens.
        count: usize,
        /// The first of them.
        start: String,
        /// The reason.
        why: String,
    },
    /// A tokenizer of more ids than a model has.
    #[error(
        "tokenizer `{tokenizer}` has {ids} token ids and the model only {vocab}; give the tokenizer that \
         belongs to the model"
    )]
    Vocabulary {
        /// The tokenizer's id.
        tokenizer: String,
        /// Its ids.
        ids: usize,
        /// The model's.
        vocab: usize,
    },
}

impl TextError {
    /// Of a file that is not what it should be.
    pub(crate) fn not(path: &Path, what: impl Into<String>) -> Self {
        Self::Not {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}
