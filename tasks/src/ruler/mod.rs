//! RULER version 1 (Hsieh and others, arXiv 2404.06654; `github.com/NVIDIA/RULER`, branch main): thirteen tasks
//! whose prompts are text and whose answers are generated. A length is RULER's `max_seq_length`: the tokens of
//! the prompt, its answer prefix and a BOS included, and those that are generated. The prompt has the largest
//! number of units of haystack (lines, words, documents) that fits.
//!
//! Templates, budgets, scores and distributions are RULER's; random choices are drawn by coordinates, as
//! everywhere here, and are not those of Python's generator. No prompt is held as a whole: what it is made of
//! is written when it is read (`units.rs`).
//!
//! BABILong's tasks are made in the same way of stories of their own (`story.rs`, `babilong.rs`).
//!
//! With a chat template the prompt is the message of a user, and the answer prefix stands behind what the template begins
//! the answer with, as in RULER's `prepare.py`. All that the template writes counts to the length, and no BOS is added:
//! it writes its own where it has one (transformers, `apply_chat_template`).

mod babilong;
mod coded;
mod cuts;
mod data;
mod essay;
mod lists;
mod niah;
mod pieces;
mod probes;
mod prompt;
mod qa;
mod questions;
pub mod score;
mod specs;
pub mod story;
mod units;
mod vt;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use longhaul_text::Chat;

use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::materials::Materials;
use crate::named::Named;
use crate::options::Options;
use crate::ruler::pieces::Pieces;
use crate::ruler::prompt::{Prompt, Tokens, largest, largest_near};
use crate::ruler::units::{Source, Units};
use crate::task::{Coordinates, Label, Request, Sample, Task, TaskSpec, find};

pub use questions::{Form, Question, Questions, QuestionsError};
pub(crate) use specs::{ALL, BABILONG};

/// Longest prompt.
const MOST_TOKENS: usize = 1 << 20;

/// Examples of which the largest decides the least length.
const LARGEST_OF: u64 = 32;

/// Attempts to draw an example that fits; at the least length one in many does not.
const ATTEMPTS: u64 = 64;

/// Where an example comes from, and what its tokens are counted with.
#[derive(Clone)]
struct Setting {
    /// The key of the task's draws.
    key: u64,
    at: Coordinates,
    attempt: u64,
    /// Most tokens of the prompt, without a BOS.
    room: usize,
    pieces: Arc<Pieces>,
    chat: Option<Arc<Chat>>,
}

impl Setting {
    fn draws(&self, purpose: Purpose) -> Draws {
        Draws::new(self.key, &self.at, self.attempt, purpose)
    }

    /// A draft's prompt of so many units of haystack, in the chat template if there is one.
    fn prompt(&self, draft: &dyn Draft, units: usize) -> Prompt {
        let mut prompt = draft.compose(units);
        if let Some(chat) = &self.chat {
            prompt.frame(chat);
        }
        prompt
    }

    /// Units of a source.
    fn units(&self, source: impl Source + 'static) -> Arc<Units> {
        self.counted(source, None)
    }

    /// Units of a source; `total` is the tokens of so many of them, where somebody has counted.
    fn counted(&self, source: impl Source + 'static, total: Option<(usize, usize)>) -> Arc<Units> {
        Arc::new(Units::new(source, Arc::clone(&self.pieces), total))
    }
}

/// One of the kinds of task.
trait Family: Send + Sync {
    /// What is drawn of an example before its size is known.
    fn draft<'a>(&'a self, setting: &Setting) -> Box<dyn Draft + 'a>;

    /// Tokens of the largest prompt of fewest units, as far as examples show.
    fn need(&self, setting: &Setting) -> usize {
        let indices = 0..LARGEST_OF;
        let need = |index| {
            let at = Coordinates {
                index,
                ..setting.at
            };
            let draft = self.draft(&Setting {
                at,
                ..setting.clone()
            });
            let prompt = setting.prompt(draft.as_ref(), draft.fewest());
            prompt.count(&setting.pieces)
        };
        indices.map(need).max().unwrap_or(0)
    }
}

/// An example whose size is still open.
trait Draft {
    /// Fewest units of haystack.
    fn fewest(&self) -> usize;
    /// The prompt with so many.
    fn compose(&self, units: usize) -> Prompt;
    /// Tokens of so many units by themselves, from which the largest number that fits is guessed.
    fn hay(&self, units: usize) -> usize;
    /// Whether all else in the prompt has the same tokens however many units there are: then it is no guess.
    fn is_even(&self) -> bool {
        false
    }
}

/// A task of RULER with its options and materials.
pub struct Ruler {
    spec: &'static TaskSpec,
    options: String,
    key: u64,
    pieces: Arc<Pieces>,
    chat: Option<Arc<Chat>>,
    /// None where the questions that it asks are not given.
    family: Option<Box<dyn Family>>,
    most_new: usize,
    least: OnceLock<usize>,
}

impl Ruler {
    /// A task from `name` or `name:option=value`, made of these materials.
    ///
    /// # Errors
    /// As [`crate::build`]; a task that is not RULER's.
    pub fn parse(text: &str, materials: &Materials) -> Result<Self, TaskError> {
        let Named { name, options } = Named::parse(text)?;
        let spec = find(&name)?;
        if !ALL.iter().any(|known| known.name == spec.name) {
            let known: Vec<&str> = ALL.iter().map(|spec| spec.name).collect();
            return Err(TaskError::BadCombination {
                task: name,
                reason: format!("it is none of RULER's, which are {}", known.join(", ")),
            });
        }
        let options = Options::parse(spec, &options, materials)?;
        Ok(Self::new(spec, &options, materials))
    }

    fn new(spec: &'static TaskSpec, options: &Options, materials: &Materials) -> Self {
        let pieces = probes::pieces(materials);
        let key = key(spec.name, &options.chosen_text());
        let setting = Setting {
            key,
            at: Coordinates {
                split: crate::Split::Test,
                length: 1,
                seed: 0,
                index: 0,
            },
            attempt: 0,
            room: 0,
            pieces: Arc::clone(&pieces),
            chat: materials.chat.clone(),
        };
        let (family, most_new) = specs::family(spec, options, materials, &setting);
        Self {
            spec,
            options: options.text(),
            key,
            pieces,
            chat: materials.chat.clone(),
            family,
            most_new,
            least: OnceLock::new(),
        }
    }

    /// The token in front of prompts; a chat template writes its own.
    fn bos(&self) -> Option<u32> {
        let bos = self.pieces.tokenizer().bos();
        bos.filter(|_| self.chat.is_none())
    }

    fn family(&self) -> Result<&dyn Family, TaskError> {
        self.family
            .as_deref()
            .ok_or_else(|| specs::no_questions(self.spec))
    }

    fn setting(&self, at: &Coordinates, attempt: u64) -> Setting {
        Setting {
            key: self.key,
            at: *at,
            attempt,
            room: at.length.saturating_sub(self.outside()),
            pieces: Arc::clone(&self.pieces),
            chat: self.chat.clone(),
        }
    }

    /// Tokens of the length that are not the prompt's text.
    fn outside(&self) -> usize {
        self.most_new + usize::from(self.bos().is_some())
    }

    /// The least length from this one on at which examples fit.
    fn least_from(&self, mut length: usize) -> usize {
        let Some(family) = &self.family else {
            return self.outside() + 1;
        };
        loop {
            let at = Coordinates {
                split: crate::Split::Test,
                length,
                seed: 0,
                index: 0,
            };
            let need = family.need(&self.setting(&at, 0)) + self.outside();
            if need <= length {
                return length;
            }
            length = need;
        }
    }

    /// The example of these coordinates.
    ///
    /// # Errors
    /// A length that the task cannot have; questions that are not given; a text that the tokenizer refuses.
    pub fn example(&self, at: &Coordinates) -> Result<Example, TaskError> {
        let example = self.fitting(at);
        match self.pieces.refusal() {
            Some(error) => Err(TaskError::BadCombination {
                task: self.spec.name.to_owned(),
                reason: error.to_string(),
            }),
            None => example,
        }
    }

    fn fitting(&self, at: &Coordinates) -> Result<Example, TaskError> {
        let family = self.family()?;
        if at.length > MOST_TOKENS || at.length < self.min_length() {
            return Err(self.wrong_length(at.length));
        }
        for attempt in 0..ATTEMPTS {
            let setting = self.setting(at, attempt);
            let draft = family.draft(&setting);
            if let Some((prompt, count)) = self.largest(draft.as_ref(), &setting) {
                return Ok(self.finish(prompt, count));
            }
        }
        Err(self.wrong_length(at.length))
    }

    /// The prompt of the largest number of units that has at most the setting's tokens, and how many it has; none
    /// where that of the fewest has more.
    fn largest(&self, draft: &dyn Draft, setting: &Setting) -> Option<(Prompt, usize)> {
        let room = setting.room;
        let mut fits = None;
        let mut count = |units| {
            let prompt = setting.prompt(draft, units);
            let count = prompt.count(&self.pieces);
            if count <= room {
                fits = Some((units, prompt, count));
            }
            count
        };
        let fewest = draft.fewest();
        let units = if self.pieces.additive() {
            // Whole prompts are made only where the sum of the units and of the rest says that they just fit.
            let (least, hay) = (count(fewest), draft.hay(fewest));
            let room_of_hay = room.checked_sub(least)? + hay;
            let guess = largest(fewest, room_of_hay, |units| draft.hay(units)).unwrap_or(fewest);
            if draft.is_even() {
                return Some((setting.prompt(draft, guess), least - hay + draft.hay(guess)));
            }
            largest_near(guess, fewest, room, count)
        } else {
            largest(fewest, room, count)?
        };
        // The last that fitted is nearly always it.
        let same = fits.filter(|(found, ..)| *found == units);
        let fitting = same.map(|(_, prompt, count)| (prompt, count));
        fitting.or_else(|| {
            let prompt = setting.prompt(draft, units);
            let count = prompt.count(&self.pieces);
            Some((prompt, count))
        })
    }

    fn wrong_length(&self, length: usize) -> TaskError {
        let least = self.min_length();
        if (least..=MOST_TOKENS).contains(&length) {
            // Only where difficulty steps up with length.
            let next = self.least_from(length);
            let reason = format!(
                "{length} tokens are too few for the difficulty that begins at {}; it takes {least}..{} and \
                 {next}..{MOST_TOKENS}, and fixed_difficulty=true takes all from {least} on",
                lists::HARD,
                lists::HARD - 1
            );
            return TaskError::BadCombination {
                task: self.spec.name.to_owned(),
                reason,
            };
        }
        TaskError::Length {
            task: self.spec.name.to_owned(),
            options: self.options.clone(),
            length,
            min: least,
            max: MOST_TOKENS,
        }
    }

    fn finish(&self, prompt: Prompt, count: usize) -> Example {
        let depth = prompt.depth.map(|depth| Label {
            key: "depth",
            // The nearest tenth, of which there are enough examples each.
            value: format!("{:.2}", (depth * 10.0).round() / 10.0),
        });
        let repeats = prompt.repeats.map(|repeats| Label {
            key: "repeats",
            value: repeats.to_string(),
        });
        Example {
            len: count + usize::from(self.bos().is_some()),
            tokens: OnceLock::new(),
            labels: depth.into_iter().chain(repeats).collect(),
            request: Request {
                references: prompt.references.clone(),
                labels: prompt.labels.clone(),
                most_new: self.most_new,
            },
            bos: self.bos(),
            pieces: Arc::clone(&self.pieces),
            prompt,
        }
    }
}

impl Task for Ruler {
    fn spec(&self) -> &'static TaskSpec {
        self.spec
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.pieces.tokenizer().vocab()
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        None
    }

    fn min_length(&self) -> usize {
        *self.least.get_or_init(|| self.least_from(1))
    }

    fn max_length(&self) -> usize {
        MOST_TOKENS
    }

    /// None of its own: nothing is trained on it. 4096 is RULER's first length.
    fn default_train_lengths(&self) -> (usize, usize) {
        let length = self.least_from(4096);
        (length, length)
    }

    fn ready(&self) -> Result<(), TaskError> {
        self.family().map(|_| ())
    }

    fn make(&self, at: &Coordinates, _attempt: u64) -> Box<dyn Sample> {
        Box::new(self.example(at).expect("a length that was checked"))
    }

    fn sample(&self, at: &Coordinates) -> Result<Box<dyn Sample>, TaskError> {
        Ok(Box::new(self.example(at)?))
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        let text = self.pieces.tokenizer().decode(&[token]);
        text.unwrap_or_else(|_| format!("<{token}>")).into()
    }
}

/// An example: a prompt, what is to be generated after it, and what an answer is held against.
pub struct Example {
    prompt: Prompt,
    /// Tokens of the prompt, a BOS included.
    len: usize,
    /// They themselves, made when they are first asked for.
    tokens: OnceLock<Tokens>,
    labels: Vec<Label>,
    request: Request,
    bos: Option<u32>,
    pieces: Arc<Pieces>,
}

impl Example {
    fn tokens(&self) -> &Tokens {
        let make = || self.prompt.tokens(self.bos, &self.pieces);
        self.tokens.get_or_init(make)
    }

    /// Gives the prompt's text without the answer prefix, in parts.
    pub fn text(&self, give: &mut dyn FnMut(&str)) {
        self.prompt.text(give);
    }

    /// The end of the prompt, with which the answer begins.
    pub fn answer_prefix(&self) -> &str {
        &self.prompt.answer_prefix
    }

    /// Tokens of the prompt and those that are generated.
    pub fn length(&self) -> usize {
        self.len + self.request.most_new
    }

    /// Number of tokens of the text before the first reference, a BOS included; none where it stands in no
    /// one place.
    pub fn answer_position(&self) -> Option<usize> {
        let place = self.prompt.answer?;
        Some(self.prompt.count_before(place, &self.pieces) + usize::from(self.bos.is_some()))
    }

    /// What is generated.
    pub fn wanted(&self) -> &Request {
        &self.request
    }
}

impl Sample for Example {
    fn len(&self) -> usize {
        self.len
    }

    fn labels(&self) -> &[Label] {
        &self.labels
    }

    fn request(&self) -> Option<&Request> {
        Some(&self.request)
    }

    fn answer_at(&self) -> Option<usize> {
        self.answer_position()
    }

    fn write(&self, start: usize, tokens: &mut [u32], targets: &mut [i32]) {
        assert_eq!(targets.len(), tokens.len());
        targets.fill(-1);
        self.tokens().write(start, tokens);
    }
}
