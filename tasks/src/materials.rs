//! What a task that reads text is made of beside its options.

use std::sync::Arc;

use longhaul_text::{Bytes, Texts, Tokenizer};

/// A tokenizer and documents. Tasks of tokens need neither and ignore them; a task that depends on one says
/// which in its options text, so that records tell them apart.
#[derive(Clone)]
pub struct Materials {
    /// Makes tokens of text, and text of answers.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The documents that haystacks and books are taken from; none: haystacks are generated.
    pub texts: Option<Arc<Texts>>,
}

impl Default for Materials {
    fn default() -> Self {
        Self {
            tokenizer: Arc::new(Bytes),
            texts: None,
        }
    }
}
