//! Stacks of which elements are pushed and popped (Kimi Linear, arXiv 2510.26692, section 5.1): `push 1 g`
//! puts g onto stack 1, `pop 1 g` takes it off again and has to be foreseen.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::steps::{Stepped, Steps};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

const PAD: u32 = 0;
const PUSH: u32 = 1;
const POP: u32 = 2;
const STACKS: u32 = 3;

/// Tokens an operation.
const OPERATION: usize = 3;
/// Draws an operation: the stack, push or pop, the element.
const DRAWS: usize = 3;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "stack",
    title: "Elements popped from many stacks",
    source: "Kimi Linear, arXiv 2510.26692, section 5.1",
    length_meaning: "all tokens, three an operation; what is over is pads before",
    scored: "the element of each pop, the last of the sequence included",
    chance_meaning: "an element at random: 1 / elements",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "stacks",
            help: "stacks, of which every operation draws one",
            default: OptionValue::Integer(64),
            allowed: Allowed::Integer(1, 256),
        },
        OptionSpec {
            name: "depth",
            help: "most elements of a stack: a full one is popped, an empty one pushed, else each is as likely",
            default: OptionValue::Integer(8),
            allowed: Allowed::Integer(2, 64),
        },
        OptionSpec {
            name: "elements",
            help: "different elements",
            default: OptionValue::Integer(26),
            allowed: Allowed::Integer(2, 4096),
        },
    ],
    materials: &[],
    build: |options, _| Ok(Box::new(Stacks::new(options))),
};

struct Stacks {
    options: String,
    key: u64,
    stacks: usize,
    depth: usize,
    elements: usize,
}

impl Stacks {
    fn new(options: &Options) -> Self {
        let text = options.text();
        Self {
            key: key(SPEC.name, &text),
            options: text,
            stacks: options.integer("stacks"),
            depth: options.integer("depth"),
            elements: options.integer("elements"),
        }
    }
}

impl Task for Stacks {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        STACKS as usize + self.stacks + self.elements
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(1.0 / self.elements as f64)
    }

    fn min_length(&self) -> usize {
        2 * OPERATION
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (256, 2048)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let operations = Operations {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            count: at.length / OPERATION,
            pads: at.length % OPERATION,
            stacks: self.stacks,
            depth: self.depth,
            elements: self.elements,
        };
        Box::new(Stepped::new(operations, Vec::new()))
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        let elements = STACKS + self.stacks as u32;
        match token {
            PAD => "_".into(),
            PUSH => "push".into(),
            POP => "pop".into(),
            stack if stack < elements => (stack - STACKS).to_string().into(),
            element if self.elements <= 26 => {
                let letter = char::from(b'a' + (element - elements) as u8);
                letter.to_string().into()
            }
            element => format!("e{}", element - elements).into(),
        }
    }
}

/// Operations on stacks that are empty at first.
struct Operations {
    draws: Draws,
    count: usize,
    pads: usize,
    stacks: usize,
    depth: usize,
    elements: usize,
}

/// What the stacks hold, and the operation that is being written.
#[derive(Clone)]
struct Held {
    /// Elements of each stack, the last pushed last: `depth` places a stack.
    elements: Vec<u16>,
    /// Elements that each stack has.
    heights: Vec<u8>,
    /// Elements of all.
    total: usize,
    operation: [u32; OPERATION],
}

impl Operations {
    /// Carries an operation out. The last one pops, so that something is asked for, and the one before leaves
    /// something to pop.
    fn carry_out(&self, index: usize, held: &mut Held, draws: &mut Draws) {
        let mut stack = draws.below(self.stacks);
        let (pops, element) = (draws.below(2) == 1, draws.below(self.elements) as u16);
        let last = index + 1 == self.count;
        if last && held.heights[stack] == 0 {
            let after = (stack..self.stacks).chain(0..stack);
            let mut filled = after.filter(|&stack| held.heights[stack] > 0);
            stack = filled.next().expect("the operation before left something");
        }
        let height = usize::from(held.heights[stack]);
        let must_push = height == 0 || index + 2 == self.count && held.total == 1;
        let pops = last || !must_push && (pops || height == self.depth);
        let top = stack * self.depth + height;
        let (kind, element) = if pops {
            held.heights[stack] -= 1;
            held.total -= 1;
            (POP, held.elements[top - 1])
        } else {
            held.heights[stack] += 1;
            held.total += 1;
            held.elements[top] = element;
            (PUSH, element)
        };
        let elements = STACKS + self.stacks as u32;
        held.operation = [kind, STACKS + stack as u32, elements + u32::from(element)];
    }
}

impl Steps for Operations {
    type State = Held;

    fn len(&self) -> usize {
        self.pads + OPERATION * self.count
    }

    fn spacing(&self) -> usize {
        512.max(4 * self.stacks * self.depth)
    }

    fn start(&self) -> Held {
        Held {
            elements: vec![0; self.stacks * self.depth],
            heights: vec![0; self.stacks],
            total: 0,
            operation: [PAD; OPERATION],
        }
    }

    fn advance(&self, held: &mut Held, from: usize, tokens: &mut [u32], targets: &mut [i32]) {
        let mut draws = self.draws.clone();
        let next = from.saturating_sub(self.pads).div_ceil(OPERATION);
        draws.seek(DRAWS * next);
        for (position, (token, target)) in (from..).zip(tokens.iter_mut().zip(targets)) {
            (*token, *target) = (PAD, -1);
            let Some(place) = position.checked_sub(self.pads) else {
                continue;
            };
            let part = place % OPERATION;
            if part == 0 {
                self.carry_out(place / OPERATION, held, &mut draws);
            }
            *token = held.operation[part];
            if part == 1 && held.operation[0] == POP {
                *target = held.operation[2] as i32;
            }
        }
    }
}
