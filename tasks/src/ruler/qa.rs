//! Questions about documents among others: qa_1 (SQuAD), qa_2 (HotpotQA).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::draws::{Draws, Purpose};
use crate::permutation::Permutation;
use crate::ruler::data::{PROMPTS, fill};
use crate::ruler::pieces::Pieces;
use crate::ruler::prompt::Prompt;
use crate::ruler::questions::{Question, Questions};
use crate::ruler::units::Source;
use crate::ruler::{Draft, Family, Setting};

/// Questions of which the smallest decides the least length.
const SMALLEST_OF: usize = 64;

/// The questions of a file, in its order: an example's index is that of a question whose documents fit.
pub struct Qa {
    questions: Arc<Questions>,
    /// Tokens of each document, counted when it is first wanted.
    tokens: Vec<OnceLock<u32>>,
    /// By length: the questions that fit, and how many have been looked at.
    fitting: Mutex<HashMap<usize, (Vec<u32>, usize)>>,
}

impl Qa {
    pub fn new(questions: Arc<Questions>) -> Self {
        Self {
            tokens: vec![OnceLock::new(); questions.documents.len()],
            fitting: Mutex::default(),
            questions,
        }
    }

    /// Tokens of a document with the empty line after it.
    fn document_tokens(&self, document: u32, pieces: &Pieces) -> usize {
        let known = &self.tokens[document as usize];
        if let Some(&count) = known.get() {
            return count as usize;
        }
        let text = format!("{}\n\n", self.questions.documents[document as usize]);
        let count = pieces.count(&text, false);
        if count > 0 {
            known.get_or_init(|| count as u32);
        }
        count
    }

    /// Whether a question's own documents fit.
    fn fits(&self, question: &Question, setting: &Setting) -> bool {
        let documents = question.documents.iter();
        let tokens: usize = documents
            .map(|&document| self.document_tokens(document, &setting.pieces))
            .sum();
        // Most that do not fit are seen by their documents alone.
        tokens < setting.room && {
            let draft = self.draft_of(question, setting);
            setting
                .prompt(&draft, draft.fewest())
                .count(&setting.pieces)
                <= setting.room
        }
    }

    /// The question of an example: of those that fit the one with its index, and from the first again after
    /// the last. None where none fits.
    fn question(&self, setting: &Setting) -> Option<&Question> {
        let mut all = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        let (fitting, seen) = all.entry(setting.at.length).or_default();
        while fitting.len() as u64 <= setting.at.index && *seen < self.questions.questions.len() {
            if self.fits(&self.questions.questions[*seen], setting) {
                fitting.push(*seen as u32);
            }
            *seen += 1;
        }
        let place = setting.at.index.checked_rem(fitting.len() as u64)?;
        Some(&self.questions.questions[fitting[place as usize] as usize])
    }

    fn draft_of<'a>(&'a self, question: &'a Question, setting: &Setting) -> QaDraft<'a> {
        let mut draws = setting.draws(Purpose::Plan);
        QaDraft {
            qa: self,
            question,
            setting: setting.clone(),
            more: Permutation::new(question.more.len().max(1), &mut draws),
            others: Permutation::new(self.questions.documents.len(), &mut draws),
            chosen: Mutex::new(Chosen::default()),
            order: setting.draws(Purpose::Order),
        }
    }
}

impl Family for Qa {
    /// What the smallest of the first questions takes.
    fn need(&self, setting: &Setting) -> usize {
        let some = self.questions.questions.iter().take(SMALLEST_OF);
        let need = |question| {
            let draft = self.draft_of(question, setting);
            setting
                .prompt(&draft, draft.fewest())
                .count(&setting.pieces)
        };
        some.map(need).min().unwrap_or(usize::MAX)
    }

    fn draft<'a>(&'a self, setting: &Setting) -> Box<dyn Draft + 'a> {
        // Where no question fits, the first one's size says so.
        let question = self
            .question(setting)
            .unwrap_or(&self.questions.questions[0]);
        Box::new(self.draft_of(question, setting))
    }
}

struct QaDraft<'a> {
    qa: &'a Qa,
    question: &'a Question,
    setting: Setting,
    /// Orders in which documents are added to the question's own.
    more: Permutation,
    others: Permutation,
    chosen: Mutex<Chosen>,
    order: Draws,
}

/// Documents in the order in which they are added.
#[derive(Default)]
struct Chosen {
    documents: Vec<u32>,
    /// Tokens of the documents up to each, itself included.
    tokens: Vec<usize>,
    /// How many of all documents have been looked at.
    seen: usize,
}

impl QaDraft<'_> {
    /// The first so many documents, and their tokens: the question's own, then of its article, then of all.
    fn documents(&self, count: usize) -> (Vec<u32>, usize) {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let Question {
            documents, more, ..
        } = self.question;
        let all = self.qa.questions.documents.len();
        while chosen.documents.len() < count {
            let next = chosen.documents.len();
            let document = if next < documents.len() {
                documents[next]
            } else if next < documents.len() + more.len() {
                more[self.more.at(next - documents.len())]
            } else {
                // From the last on they begin again.
                let other = self.others.at(chosen.seen % all) as u32;
                let first_round = chosen.seen < all;
                chosen.seen += 1;
                if first_round && (documents.contains(&other) || more.contains(&other)) {
                    continue;
                }
                other
            };
            let before = chosen.tokens.last().copied().unwrap_or(0);
            let tokens = self.qa.document_tokens(document, &self.setting.pieces);
            chosen.documents.push(document);
            chosen.tokens.push(before + tokens);
        }
        (chosen.documents[..count].to_vec(), chosen.tokens[count - 1])
    }

    /// Tokens of the first so many headers.
    fn headers(&self, count: usize) -> usize {
        let one = |unit| self.setting.pieces.count(&header(unit), false);
        (0..count).map(one).sum()
    }
}

/// Numbered documents.
struct Documents {
    questions: Arc<Questions>,
    documents: Vec<u32>,
    order: Permutation,
}

fn header(unit: usize) -> String {
    format!("Document {}:\n", unit + 1)
}

impl Source for Documents {
    fn write(&self, unit: usize, text: &mut String) {
        let document = self.documents[self.order.at(unit)];
        text.push_str(&header(unit));
        text.push_str(&self.questions.documents[document as usize]);
        text.push_str("\n\n");
    }
}

impl Draft for QaDraft<'_> {
    fn fewest(&self) -> usize {
        self.question.documents.len()
    }

    fn hay(&self, units: usize) -> usize {
        self.documents(units).1 + self.headers(units)
    }

    fn compose(&self, units: usize) -> Prompt {
        let (documents, tokens) = self.documents(units);
        let tokens = tokens + self.headers(units);
        let text = Documents {
            questions: Arc::clone(&self.qa.questions),
            documents,
            order: Permutation::new(units, &mut self.order.clone()),
        };
        let wording = &PROMPTS.qa.wording;
        let mut prompt = Prompt::default();
        prompt.push(&wording.head);
        prompt.units(&self.setting.counted(text, Some((units, tokens))), 0..units);
        prompt.push(&fill(&wording.question, &[("query", &self.question.query)]));
        prompt.answer_prefix.clone_from(&wording.answer_prefix);
        prompt.references.clone_from(&self.question.answers);
        prompt
    }
}
