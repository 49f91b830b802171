//! What text tasks are made of, from the command line: a tokenizer, documents, questions.

use std::path::PathBuf;

use clap::Args;
use longhaul_tasks::Materials;

use crate::exit::CommandError;
use crate::run::materials::{Stock, Wanted};

/// What text tasks are made of.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Text tasks")]
pub struct MaterialArgs {
    /// Tokenizer: a tokenizer.json, RWKV's vocabulary, a folder with one of them,
    /// or the word bytes [default: a checkpoint's own; without one, bytes]
    #[arg(long, value_name = "PATH|bytes")]
    pub tokenizer: Option<PathBuf>,
    /// Folder of .txt documents that haystacks are taken from
    /// [default: a generated haystack]
    #[arg(long, value_name = "DIR")]
    pub texts: Option<PathBuf>,
    /// Questions: SQuAD's dev-v2.0.json (qa_1), HotpotQA's
    /// hotpot_dev_distractor_v1.json (qa_2); may be given twice. Without them
    /// these tasks are not run
    #[arg(long = "qa", value_name = "FILE")]
    pub questions: Vec<PathBuf>,
}

impl MaterialArgs {
    /// Whether nothing is named.
    pub fn is_none(&self) -> bool {
        self.tokenizer.is_none() && self.texts.is_none() && self.questions.is_empty()
    }

    /// Reads what is named; without a tokenizer, bytes.
    ///
    /// # Errors
    /// A file or folder that cannot be read, or that is of another form; two files of questions of one form.
    pub fn load(&self) -> Result<Materials, CommandError> {
        self.load_with(None)
    }

    /// The same with the chat template of a folder.
    ///
    /// # Errors
    /// As [`MaterialArgs::load`]; a folder without a chat template that can be used.
    pub fn load_with(&self, chat: Option<PathBuf>) -> Result<Materials, CommandError> {
        let stock = Stock::open(&Wanted {
            chat,
            ..Wanted::new(self, None, None)
        });
        Ok(stock.map_err(CommandError::usage)?.materials)
    }
}
