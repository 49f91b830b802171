//! Variable tracking: a chain of assignments among lines of noise; all its variables are the answer.

use std::sync::{Arc, OnceLock};

use crate::draws::{Draws, Purpose};
use crate::ruler::data::{PROMPTS, fill};
use crate::ruler::niah::Noise;
use crate::ruler::prompt::{Prompt, largest};
use crate::ruler::units::Units;
use crate::ruler::{Draft, Family, Setting};
use crate::task::Coordinates;

/// Variables of the chain: one is bound to a number, each other to the one before.
const VARIABLES: usize = 5;

/// Letters of a name, and of a name in the example that stands before.
const LETTERS: usize = 5;
const EXAMPLE_LETTERS: usize = 3;

/// Most tokens of the example, without its answer, and its fewest lines of noise.
const EXAMPLE_TOKENS: usize = 500;
const EXAMPLE_LINES: usize = 5;

/// Variable tracking, one chain of four hops.
pub struct Tracking {
    noise: Arc<Units>,
    example_lines: OnceLock<usize>,
}

impl Tracking {
    pub fn new(setting: &Setting) -> Self {
        Self {
            noise: setting.units(Noise),
            example_lines: OnceLock::new(),
        }
    }

    /// Lines of noise of the example: as many as its tokens allow.
    fn example_lines(&self, setting: &Setting) -> usize {
        *self.example_lines.get_or_init(|| {
            let chain = Chain::draw(&mut setting.draws(Purpose::Chance), EXAMPLE_LETTERS);
            let count = |lines| {
                let mut prompt = Prompt::default();
                self.question(&chain, lines, &setting.draws(Purpose::Chance), &mut prompt);
                prompt.count(&setting.pieces)
            };
            largest(EXAMPLE_LINES, EXAMPLE_TOKENS, count).unwrap_or(EXAMPLE_LINES)
        })
    }

    /// Adds a text with a chain, and the question for it; the answer's beginning becomes the prompt's.
    fn question(&self, chain: &Chain, lines: usize, places: &Draws, prompt: &mut Prompt) {
        let names = [
            ("query", chain.value.as_str()),
            ("count", &VARIABLES.to_string()),
        ];
        prompt.push(&PROMPTS.vt.wording.head);
        let mut places = places.clone().distinct(VARIABLES, lines);
        places.sort_unstable();
        let mut read = 0;
        for (variable, line) in places.into_iter().enumerate() {
            prompt.units(&self.noise, read..line);
            read = line;
            prompt.push(&chain.statement(variable));
        }
        prompt.units(&self.noise, read..lines);
        prompt.push(fill(&PROMPTS.vt.wording.question, &names).trim_start_matches('\n'));
        prompt.answer_prefix = fill(&PROMPTS.vt.wording.answer_prefix, &names);
    }
}

/// Names and the number that all of them have.
struct Chain {
    names: Vec<String>,
    value: String,
}

impl Chain {
    fn draw(draws: &mut Draws, letters: usize) -> Self {
        let mut names: Vec<String> = Vec::new();
        while names.len() < VARIABLES {
            let letter = |_| char::from(b'A' + draws.below(26) as u8);
            let name: String = (0..letters).map(letter).collect();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let value = 10_000 + draws.below(89_999);
        Self {
            names,
            value: value.to_string(),
        }
    }

    /// A line of the text. The space at the end of all but the first is RULER's.
    fn statement(&self, variable: usize) -> String {
        match variable {
            0 => format!("VAR {} = {}\n", self.names[0], self.value),
            _ => format!(
                "VAR {} = VAR {} \n",
                self.names[variable],
                self.names[variable - 1]
            ),
        }
    }
}

impl Family for Tracking {
    fn draft<'a>(&'a self, setting: &Setting) -> Box<dyn Draft + 'a> {
        let mut draws = setting.draws(Purpose::Plan);
        // As in RULER all examples of a set have the example in front with its statements in the same
        // places, and names and number of their own in it.
        let same = Coordinates {
            index: 0,
            ..setting.at
        };
        let layout = Draws::new(setting.key, &same, 0, Purpose::Filler);
        let chains = [EXAMPLE_LETTERS, LETTERS].map(|letters| Chain::draw(&mut draws, letters));
        let [example, chain] = chains;
        Box::new(TrackingDraft {
            tracking: self,
            example_lines: self.example_lines(setting),
            example,
            chain,
            layout,
            places: setting.draws(Purpose::Order),
        })
    }
}

struct TrackingDraft<'a> {
    tracking: &'a Tracking,
    example: Chain,
    example_lines: usize,
    chain: Chain,
    /// Where the example's statements stand.
    layout: Draws,
    places: Draws,
}

impl Draft for TrackingDraft<'_> {
    fn fewest(&self) -> usize {
        VARIABLES
    }

    fn hay(&self, units: usize) -> usize {
        self.tracking.noise.before(units)
    }

    fn is_even(&self) -> bool {
        true
    }

    fn compose(&self, units: usize) -> Prompt {
        let mut prompt = Prompt::default();
        self.tracking
            .question(&self.example, self.example_lines, &self.layout, &mut prompt);
        let answer = format!(
            "{} {}\n\n",
            prompt.answer_prefix,
            self.example.names.join(" ")
        );
        prompt.push(&answer);
        self.tracking
            .question(&self.chain, units, &self.places, &mut prompt);
        prompt.references = self.chain.names.clone();
        prompt
    }
}
