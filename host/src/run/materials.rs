//! What text tasks are made of (a tokenizer, texts, questions, a chat template), as plans record it: by hash, which decides what is
//! measured, and by path, which only says where to look.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use longhaul_tasks::ruler::Questions;
use longhaul_tasks::{
    Coordinates, Material, Materials, Split, SuiteMaterials, Task, TaskError, TaskSpec,
};
use longhaul_text::{Bytes, Chat, Texts, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::materials::MaterialArgs;

/// The word for the tokenizer that needs no file.
const BYTES: &str = "bytes";

/// A path that is written without loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Place(#[serde(with = "crate::path_text")] pub PathBuf);

/// What the text task of a unit is made of. What it does not depend on is not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Kind and hash of the tokenizer: [`Tokenizer::id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Its file or folder; none of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_path: Option<Place>,
    /// What the texts are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<String>,
    /// Their hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts_sha256: Option<String>,
    /// Their folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts_path: Option<Place>,
    /// Whose questions: `SQuAD` or `HotpotQA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub questions: Option<String>,
    /// Hash of their file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub questions_sha256: Option<String>,
    /// Their file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub questions_path: Option<Place>,
    /// Hash of the chat template around its prompts; none where they stand by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_sha256: Option<String>,
    /// The folder that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_path: Option<Place>,
}

impl Record {
    /// The same without what does not decide: paths, and what texts are called.
    pub fn deciding(&self) -> Self {
        Self {
            tokenizer_path: None,
            texts: None,
            texts_path: None,
            questions_path: None,
            chat_template_path: None,
            ..self.clone()
        }
    }

    /// The same with the places where the command line says that materials are now; what it says of materials that
    /// are not recorded is left aside.
    ///
    /// # Errors
    /// What cannot be read, or is not what it was: with both hashes.
    pub fn moved(&self, spec: &TaskSpec, args: &MaterialArgs) -> Result<Self, String> {
        let wanted = Wanted::new(args, None, None);
        let here = Stock::open(&wanted)?.record_of(spec).unwrap_or_default();
        let mut moved = self.clone();
        if args.tokenizer.is_some() && self.tokenizer.is_some() {
            let path = args.tokenizer.as_deref();
            same(
                "tokenizer",
                path,
                self.tokenizer.as_ref(),
                here.tokenizer.as_ref(),
            )?;
            moved.tokenizer_path = here.tokenizer_path;
        }
        if args.texts.is_some() && self.texts_sha256.is_some() {
            let path = args.texts.as_deref();
            same(
                "texts",
                path,
                self.texts_sha256.as_ref(),
                here.texts_sha256.as_ref(),
            )?;
            moved.texts_path = here.texts_path;
        }
        if here.questions_sha256.is_some() && self.questions_sha256.is_some() {
            let path = here.questions_path.as_ref().map(|place| place.0.as_path());
            same(
                "questions",
                path,
                self.questions_sha256.as_ref(),
                here.questions_sha256.as_ref(),
            )?;
            moved.questions_path = here.questions_path;
        }
        Ok(moved)
    }

    /// Opens what is recorded. It is opened once a process.
    ///
    /// # Errors
    /// What is gone, or is not what it was: with both hashes.
    pub fn open(&self) -> Result<Materials, String> {
        let place = |place: &Option<Place>| place.as_ref().map(|place| place.0.clone());
        let wanted = Wanted {
            tokenizer: place(&self.tokenizer_path),
            texts: place(&self.texts_path),
            questions: place(&self.questions_path).into_iter().collect(),
            chat: place(&self.chat_template_path),
        };
        let stock = Stock::open(&wanted)?;
        let pairs = [
            (
                "tokenizer",
                &wanted.tokenizer,
                &self.tokenizer,
                &stock.record.tokenizer,
            ),
            (
                "texts",
                &wanted.texts,
                &self.texts_sha256,
                &stock.record.texts_sha256,
            ),
            (
                "chat template",
                &wanted.chat,
                &self.chat_template_sha256,
                &stock.record.chat_template_sha256,
            ),
        ];
        for (what, path, recorded, here) in pairs {
            same(what, path.as_deref(), recorded.as_ref(), here.as_ref())?;
        }
        let questions = stock
            .materials
            .questions
            .first()
            .map(|questions| &questions.sha256);
        let path = wanted.questions.first().map(PathBuf::as_path);
        same("questions", path, self.questions_sha256.as_ref(), questions)?;
        Ok(stock.materials)
    }
}

/// Refuses a material that is another than was recorded.
fn same(
    what: &str,
    path: Option<&Path>,
    recorded: Option<&String>,
    here: Option<&String>,
) -> Result<(), String> {
    match (recorded, here) {
        (Some(recorded), Some(here)) if recorded != here => {
            let place = path.map_or_else(
                || "what is given".to_owned(),
                |path| path.display().to_string(),
            );
            Err(format!(
                "{place} has changed: the {what} had the hash {recorded} when the run was planned, and have \
                 {here} now; put back what was there, or begin another run"
            ))
        }
        _ => Ok(()),
    }
}

/// Where materials are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A tokenizer's file or folder; none: bytes.
    pub tokenizer: Option<PathBuf>,
    /// A folder of texts; none: haystacks are generated.
    pub texts: Option<PathBuf>,
    /// Files of questions, at most one of each form.
    pub questions: Vec<PathBuf>,
    /// A folder with a chat template; none: prompts stand by themselves.
    pub chat: Option<PathBuf>,
}

impl Wanted {
    /// What the command line gives, and what a suite names where it gives nothing. `own` is where a tokenizer is
    /// taken from if neither says.
    pub fn new(args: &MaterialArgs, suite: Option<&SuiteMaterials>, own: Option<&Path>) -> Self {
        let path = |given: &Option<PathBuf>, named: fn(&SuiteMaterials) -> &Option<PathBuf>| {
            given
                .clone()
                .or_else(|| suite.and_then(|suite| named(suite).clone()))
        };
        let tokenizer = path(&args.tokenizer, |suite| &suite.tokenizer);
        let tokenizer = tokenizer.or_else(|| own.map(Path::to_owned));
        let questions = match suite {
            Some(suite) if args.questions.is_empty() => suite.questions.clone(),
            _ => args.questions.clone(),
        };
        Self {
            tokenizer: tokenizer.filter(|path| path.as_os_str() != BYTES),
            texts: path(&args.texts, |suite| &suite.texts),
            questions,
            chat: None,
        }
    }
}

/// Materials that tasks can be made of, and their record.
#[derive(Clone)]
pub struct Stock {
    /// The materials.
    pub materials: Materials,
    record: Record,
    /// Where each of the questions came from.
    places: Vec<PathBuf>,
}

impl Default for Stock {
    /// Bytes, and nothing else.
    fn default() -> Self {
        Self::read(&Wanted::default()).expect("nothing is read")
    }
}

impl Stock {
    /// Opens materials, each file once a process.
    ///
    /// # Errors
    /// One that cannot be read or is not what it should be; questions of one form twice.
    pub fn open(wanted: &Wanted) -> Result<Self, String> {
        type Opened = Mutex<Vec<(Wanted, Stock)>>;
        static OPENED: LazyLock<Opened> = LazyLock::new(Mutex::default);
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, stock)) = opened.iter().find(|(known, _)| known == wanted) {
            return Ok(stock.clone());
        }
        let stock = Self::read(wanted)?;
        opened.push((wanted.clone(), stock.clone()));
        Ok(stock)
    }

    fn read(wanted: &Wanted) -> Result<Self, String> {
        let place = |path: &Path| {
            let absolute = std::path::absolute(path);
            Some(Place(absolute.unwrap_or_else(|_| path.to_owned())))
        };
        let tokenizer: Arc<dyn Tokenizer> = match &wanted.tokenizer {
            Some(path) => longhaul_text::tokenizer_of(path).map_err(|error| error.to_string())?,
            None => Arc::new(Bytes),
        };
        let texts = match &wanted.texts {
            Some(path) => {
                let texts = Texts::of_folder(path).map_err(|error| error.to_string())?;
                Some(Arc::new(texts))
            }
            None => None,
        };
        let mut questions: Vec<Arc<Questions>> = Vec::new();
        for path in &wanted.questions {
            let read = Questions::load(path).map_err(|error| error.to_string())?;
            if questions.iter().any(|known| known.form == read.form) {
                return Err(format!(
                    "two files of {} questions are given",
                    read.form.name()
                ));
            }
            questions.push(Arc::new(read));
        }
        let chat = match &wanted.chat {
            Some(folder) => {
                let chat = Chat::of_folder(folder).map_err(|error| error.to_string())?;
                Some(Arc::new(chat))
            }
            None => None,
        };
        let record = Record {
            tokenizer: Some(tokenizer.id().to_owned()),
            tokenizer_path: wanted.tokenizer.as_deref().and_then(place),
            texts: texts.as_ref().map(|texts| texts.name.clone()),
            texts_sha256: texts.as_ref().map(|texts| texts.sha256.clone()),
            texts_path: wanted.texts.as_deref().and_then(place),
            chat_template_sha256: chat.as_ref().map(|chat| chat.sha256.clone()),
            chat_template_path: wanted.chat.as_deref().and_then(place),
            ..Record::default()
        };
        Ok(Self {
            materials: Materials {
                tokenizer,
                texts,
                questions,
                chat,
            },
            record,
            places: wanted.questions.clone(),
        })
    }

    /// What a task of them depends on; none of a task of tokens.
    pub fn record_of(&self, spec: &TaskSpec) -> Option<Record> {
        let mut record = Record::default();
        for material in spec.materials {
            let all = &self.record;
            match material {
                Material::Tokenizer => {
                    record.tokenizer.clone_from(&all.tokenizer);
                    record.tokenizer_path.clone_from(&all.tokenizer_path);
                }
                Material::Texts => {
                    record.texts.clone_from(&all.texts);
                    record.texts_sha256.clone_from(&all.texts_sha256);
                    record.texts_path.clone_from(&all.texts_path);
                }
                Material::ChatTemplate => {
                    let (sha256, path) = (&all.chat_template_sha256, &all.chat_template_path);
                    record.chat_template_sha256.clone_from(sha256);
                    record.chat_template_path.clone_from(path);
                }
                Material::Questions(form) => {
                    let mut known = self.materials.questions.iter().zip(&self.places);
                    let of_form = known.find(|(questions, _)| questions.form == *form);
                    if let Some((questions, path)) = of_form {
                        record.questions = Some(form.name().to_owned());
                        record.questions_sha256 = Some(questions.sha256.clone());
                        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                        record.questions_path = Some(Place(path));
                    }
                }
            }
        }
        (record != Record::default()).then_some(record)
    }
}

/// Whether a task can be measured at a length.
///
/// # Errors
/// What it lacks, or lengths that it can have.
pub fn possible(task: &dyn Task, length: usize) -> Result<(), TaskError> {
    task.ready()?;
    let (min, max) = (task.min_length(), task.max_length());
    if !(min..=max).contains(&length) {
        return Err(TaskError::Length {
            task: task.spec().name.to_owned(),
            options: task.options_text(),
            length,
            min,
            max,
        });
    }
    if task.spec().metric.is_generated() {
        // Where difficulty steps up with length, some lengths between the least and the most are too short.
        task.sample(&Coordinates {
            split: Split::Test,
            length,
            seed: 0,
            index: 0,
        })?;
    }
    Ok(())
}
