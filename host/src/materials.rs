//! What text tasks are made of, from the command line: a tokenizer, documents, questions.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use longhaul_tasks::Materials;
use longhaul_tasks::ruler::Questions;
use longhaul_text::{Texts, tokenizer_of};

use crate::exit::CommandError;

/// What text tasks are made of.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Text tasks")]
pub struct MaterialArgs {
    /// Tokenizer: bytes, a tokenizer.json, RWKV's vocabulary, or a checkpoint's
    /// folder with one
    #[arg(long, value_name = "FILE|DIR|bytes", default_value = "bytes")]
    pub tokenizer: PathBuf,
    /// Folder of .txt documents that haystacks are taken from
    /// [default: a generated haystack]
    #[arg(long, value_name = "DIR")]
    pub texts: Option<PathBuf>,
    /// Questions: SQuAD's dev-v2.0.json (qa_1), HotpotQA's
    /// hotpot_dev_distractor_v1.json (qa_2); may be given twice
    #[arg(long = "qa", value_name = "FILE")]
    pub questions: Vec<PathBuf>,
}

impl MaterialArgs {
    /// Reads what is named.
    ///
    /// # Errors
    /// A file or folder that cannot be read, or that is of another form; two files of questions of one form.
    pub fn load(&self) -> Result<Materials, CommandError> {
        let mut materials = Materials::default();
        if self.tokenizer.as_os_str() != "bytes" {
            materials.tokenizer = tokenizer_of(&self.tokenizer).map_err(CommandError::usage)?;
        }
        if let Some(folder) = &self.texts {
            let texts = Texts::of_folder(folder).map_err(CommandError::usage)?;
            materials.texts = Some(Arc::new(texts));
        }
        for path in &self.questions {
            let questions = Questions::load(path).map_err(CommandError::usage)?;
            if materials.questions(questions.form).is_some() {
                return Err(CommandError::usage(format!(
                    "--qa {}: a file of {} is given before it; leave one of the two",
                    path.display(),
                    questions.form.name()
                )));
            }
            materials.questions.push(Arc::new(questions));
        }
        Ok(materials)
    }
}
