//! BABILong (arXiv 2406.10149): the facts of a story among the sentences of books, in order, each before a sentence that is
//! drawn, or behind the last; the question stands at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use crate::draws::{Draws, Purpose};
use crate::ruler::data::fill;
use crate::ruler::essay::Essay;
use crate::ruler::prompt::Prompt;
use crate::ruler::story::{Kind, Story};
use crate::ruler::units::Units;
use crate::ruler::{Draft, Family, Setting};

/// What is said to a model around the context.
#[derive(Deserialize)]
pub struct Wording {
    instruction: String,
    examples: String,
    post_prompt: String,
}

/// All prompts.
#[derive(Deserialize)]
pub struct Prompts {
    /// Tokens that are generated at most; they count in the length.
    pub tokens_to_generate: usize,
    head: String,
    tail: String,
    #[serde(flatten)]
    tasks: BTreeMap<String, Wording>,
}

/// The prompts.
pub static PROMPTS: LazyLock<Prompts> = LazyLock::new(|| {
    toml::from_str(include_str!("../../data/babilong.toml")).expect("data/babilong.toml is whole")
});

/// Facts of a kind in prose.
pub struct Facts {
    kind: Kind,
    head: String,
    essay: Arc<Essay>,
    words: Arc<Units>,
}

impl Facts {
    /// The task of this name, in the words of documents.
    pub fn new(task: &str, kind: Kind, essay: Arc<Essay>, setting: &Setting) -> Self {
        let wording = &PROMPTS.tasks[task];
        let head = fill(
            &PROMPTS.head,
            &[
                ("instruction", wording.instruction.as_str()),
                ("examples", &wording.examples),
                ("post_prompt", &wording.post_prompt),
            ],
        );
        Self {
            kind,
            head,
            words: setting.units(Arc::clone(&essay)),
            essay,
        }
    }
}

impl Family for Facts {
    fn draft<'a>(&'a self, setting: &Setting) -> Box<dyn Draft + 'a> {
        Box::new(FactsDraft {
            facts: self,
            story: self.kind.draw(&mut setting.draws(Purpose::Plan)),
            places: setting.draws(Purpose::Order),
        })
    }
}

struct FactsDraft<'a> {
    facts: &'a Facts,
    story: Story,
    places: Draws,
}

impl Draft for FactsDraft<'_> {
    fn fewest(&self) -> usize {
        0
    }

    fn hay(&self, units: usize) -> usize {
        self.facts.words.before(units)
    }

    fn compose(&self, units: usize) -> Prompt {
        let Facts { essay, words, .. } = self.facts;
        let sentences = essay.sentences(units);
        let mut draws = self.places.clone();
        let facts = self.story.facts.iter();
        let mut places: Vec<usize> = facts.map(|_| draws.below(sentences + 1)).collect();
        places.sort_unstable();
        let mut prompt = Prompt::default();
        prompt.push(&self.facts.head);
        let mut read = 0;
        for (index, (fact, &sentence)) in self.story.facts.iter().zip(&places).enumerate() {
            let to = match sentence == sentences {
                true => units,
                false => essay.start(sentence),
            };
            if read == 0 && to > 0 && index == 0 {
                // Nothing stands before the first word.
                prompt.push(essay.word(0));
                read = 1;
            }
            prompt.units(words, read..to);
            read = read.max(to);
            if index > 0 || read > 0 {
                prompt.push(" ");
            }
            prompt.push(fact);
        }
        prompt.units_within_text(words, read..units);
        prompt.push(&fill(&PROMPTS.tail, &[("question", &self.story.question)]));
        prompt.references = vec![self.story.answer.clone()];
        let question = self.story.question.to_lowercase();
        let labels = self.facts.kind.labels().iter();
        prompt.labels = labels
            .filter(|label| !question.contains(**label))
            .map(|&label| label.to_owned())
            .collect();
        prompt.depth = Some(places[self.story.decides] as f64 / sentences.max(1) as f64);
        prompt
    }
}
