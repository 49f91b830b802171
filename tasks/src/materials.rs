//! What a task that reads text is made of beside its options.

use std::sync::Arc;

use longhaul_text::{Bytes, Chat, Texts, Tokenizer};

use crate::ruler::{Form, Questions};

/// What a text task may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Material {
    /// What makes tokens of its text.
    Tokenizer,
    /// The documents of its haystack.
    Texts,
    /// Questions of a form.
    Questions(Form),
    /// What stands around its prompts; options texts name it only where there is one.
    ChatTemplate,
}

impl Material {
    /// Its name in a task's options text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Texts => "texts",
            Self::Questions(_) => "questions",
            Self::ChatTemplate => "chat_template",
        }
    }
}

/// A tokenizer and documents. Tasks of tokens need neither and ignore them; a task that depends on one says
/// which in its options text, so that records tell them apart.
#[derive(Clone)]
pub struct Materials {
    /// Makes tokens of text, and text of answers.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The documents that haystacks and books are taken from; none: haystacks are generated.
    pub texts: Option<Arc<Texts>>,
    /// Questions with their documents, at most one of each form.
    pub questions: Vec<Arc<Questions>>,
    /// What stands around prompts; none: prompts stand by themselves.
    pub chat: Option<Arc<Chat>>,
}

/// Hexadecimal digits of a hash that name a material in a task's options text.
const DIGITS: usize = 12;

/// Names a material that is not there.
pub(crate) const NONE: &str = "none";

impl Materials {
    /// The questions of a form.
    pub fn questions(&self, form: Form) -> Option<&Arc<Questions>> {
        self.questions
            .iter()
            .find(|questions| questions.form == form)
    }

    /// Which of a kind there is, as options texts have it.
    pub(crate) fn which(&self, material: Material) -> String {
        let digits = |hash: &str| hash.chars().take(DIGITS).collect::<String>();
        match material {
            Material::Tokenizer => match self.tokenizer.id().split_once('-') {
                Some((kind, hash)) => format!("{kind}-{}", digits(hash)),
                None => self.tokenizer.id().to_owned(),
            },
            Material::Texts => match &self.texts {
                Some(texts) => digits(&texts.sha256),
                None => "generated".to_owned(),
            },
            Material::Questions(form) => match self.questions(form) {
                Some(questions) => digits(&questions.sha256),
                None => NONE.to_owned(),
            },
            Material::ChatTemplate => match &self.chat {
                Some(chat) => digits(&chat.sha256),
                None => NONE.to_owned(),
            },
        }
    }
}

impl Default for Materials {
    fn default() -> Self {
        Self {
            tokenizer: Arc::new(Bytes),
            texts: None,
            questions: Vec::new(),
            chat: None,
        }
    }
}
