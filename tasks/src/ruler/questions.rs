//! Questions with their documents, from the user's files: SQuAD 2.0's JSON and HotpotQA's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use longhaul_text::sha256_of;
use serde::Deserialize;

/// Most bytes of a file of questions.
const MOST_BYTES: u64 = 1 << 30;

/// Whose form a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"data": [{"paragraphs": [{"context": .., "qas": [..]}]}]}`
    Squad,
    /// `[{"question": .., "answer": .., "context": [[title, [sentence, ..]], ..]}]`
    Hotpot,
}

impl Form {
    /// The data set's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Squad => "SQuAD",
            Self::Hotpot => "HotpotQA",
        }
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub query: String,
    /// The answers that are right.
    pub answers: Vec<String>,
    /// The documents that it is asked of, by index.
    pub documents: Vec<u32>,
    /// Other documents of the same article, which are added first.
    pub more: Vec<u32>,
}

/// The questions of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questions {
    /// Whose form the file had.
    pub form: Form,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// In the order of the file; at least one.
    pub questions: Vec<Question>,
    /// All documents, each once, sorted. White space at their starts is gone.
    pub documents: Vec<String>,
}

/// Why a file of questions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QuestionsError {
    /// It cannot be read.
    #[error("questions {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is longer than such files are.
    #[error("questions {}: {bytes} bytes; at most {MOST_BYTES} are read", path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It has neither form, or one with something amiss.
    #[error(
        "questions {}: {reason}; give SQuAD 2.0's dev-v2.0.json ({{\"data\": [..]}}) or HotpotQA's \
         hotpot_dev_distractor_v1.json ([..])",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is amiss, with its place.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Squad {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

#[derive(Deserialize)]
struct Hop {
    question: String,
    answer: String,
    context: Vec<(String, Vec<String>)>,
}

impl Questions {
    /// Reads a file of either form.
    ///
    /// # Errors
    /// A file that cannot be read, is too long, has neither form, or asks nothing.
    pub fn load(path: &Path) -> Result<Self, QuestionsError> {
        let read = |source| QuestionsError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > MOST_BYTES {
            return Err(QuestionsError::Long {
                path: path.to_owned(),
                bytes,
            });
        }
        let bytes = std::fs::read(path).map_err(read)?;
        Self::parse(&bytes).map_err(|reason| QuestionsError::Form {
            path: path.to_owned(),
            reason,
        })
    }

    /// Questions from the bytes of a file.
    ///
    /// # Errors
    /// What is amiss, with its place.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let sentence = |error: serde_json::Error| error.to_string();
        let (form, raw) = match first {
            Some(b'{') => (
                Form::Squad,
                squad(serde_json::from_slice(bytes).map_err(sentence)?),
            ),
            Some(b'[') => (
                Form::Hotpot,
                hotpot(serde_json::from_slice(bytes).map_err(sentence)?),
            ),
            _ => return Err("it begins with neither `{` nor `[`".to_owned()),
        };
        if raw.is_empty() {
            return Err("it has no question that has an answer and documents".to_owned());
        }
        let texts = raw
            .iter()
            .flat_map(|raw| raw.documents.iter().chain(&raw.more));
        let mut index: BTreeMap<&str, u32> = texts.map(|text| (&**text, 0)).collect();
        (0..)
            .zip(index.values_mut())
            .for_each(|(number, place)| *place = number);
        let places = |texts: &[Rc<str>]| texts.iter().map(|text| index[&**text]).collect();
        let questions = raw.iter().map(|raw| Question {
            query: raw.query.clone(),
            answers: raw.answers.clone(),
            documents: places(&raw.documents),
            more: places(&raw.more),
        });
        Ok(Self {
            form,
            sha256: sha256_of(bytes),
            questions: questions.collect(),
            documents: index.keys().map(|&text| text.to_owned()).collect(),
        })
    }
}

/// A question before its documents have numbers.
struct Raw {
    query: String,
    answers: Vec<String>,
    documents: Vec<Rc<str>>,
    more: Vec<Rc<str>>,
}

fn squad(file: Squad) -> Vec<Raw> {
    let mut all = Vec::new();
    for article in file.data {
        let paragraphs = article.paragraphs.iter();
        let contexts: Vec<Rc<str>> = paragraphs
            .map(|paragraph| paragraph.context.trim_start().into())
            .collect();
        for (paragraph, context) in article.paragraphs.into_iter().zip(&contexts) {
            let asked = paragraph.qas.into_iter();
            for asked in asked.filter(|asked| !asked.is_impossible && !asked.answers.is_empty()) {
                all.push(Raw {
                    query: asked.question,
                    answers: asked
                        .answers
                        .into_iter()
                        .map(|answer| answer.text)
                        .collect(),
                    documents: vec![context.clone()],
                    more: contexts
                        .iter()
                        .filter(|other| *other != context)
                        .cloned()
                        .collect(),
                });
            }
        }
    }
    all
}

fn hotpot(file: Vec<Hop>) -> Vec<Raw> {
    let raw = |hop: Hop| {
        let document = |(title, sentences): (String, Vec<String>)| {
            let text = format!("{title}\n{}", sentences.concat());
            text.trim_start().into()
        };
        Raw {
            query: hop.question,
            answers: vec![hop.answer],
            documents: hop.context.into_iter().map(document).collect(),
            more: Vec::new(),
        }
    };
    let all = file.into_iter().map(raw);
    all.filter(|raw| !raw.documents.is_empty()).collect()
}
