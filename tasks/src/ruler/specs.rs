//! The thirteen tasks of RULER by name (`scripts/synthetic.yaml`).

use std::sync::Arc;

use crate::error::TaskError;
use crate::materials::{Material, Materials};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::ruler::babilong::{self, Facts};
use crate::ruler::coded::Frequent;
use crate::ruler::data::PROMPTS;
use crate::ruler::essay::Essay;
use crate::ruler::lists::Common;
use crate::ruler::niah::{Haystack, Kind, Niah, Variant};
use crate::ruler::qa::Qa;
use crate::ruler::questions::Form;
use crate::ruler::story;
use crate::ruler::vt::Tracking;
use crate::ruler::{Family, Ruler, Setting};
use crate::task::{Build, Metric, Task, TaskSpec};

/// All of them, in RULER's order.
pub(crate) static ALL: [&TaskSpec; 13] = [
    &SINGLE_1,
    &SINGLE_2,
    &SINGLE_3,
    &MULTIKEY_1,
    &MULTIKEY_2,
    &MULTIKEY_3,
    &MULTIVALUE,
    &MULTIQUERY,
    &VT,
    &CWE,
    &FWE,
    &QA_1,
    &QA_2,
];

/// BABILong's first five, whose mean it reports.
pub(crate) static BABILONG: [&TaskSpec; 5] = [&QA1, &QA2, &QA3, &QA4, &QA5];

/// Their kinds by name, with BABILong's own names.
const STORIES: [(&TaskSpec, &str, story::Kind); 5] = [
    (&QA1, "qa1", story::Kind::One),
    (&QA2, "qa2", story::Kind::Two),
    (&QA3, "qa3", story::Kind::Three),
    (&QA4, "qa4", story::Kind::Beside),
    (&QA5, "qa5", story::Kind::Given),
];

const SINGLE: Variant = Variant {
    haystack: Haystack::Noise,
    key: Kind::Word,
    value: Kind::Number,
    keys: 1,
    values: 1,
    queries: 1,
};

/// niah's variants by name.
const VARIANTS: [(&TaskSpec, Variant); 8] = [
    (&SINGLE_1, SINGLE),
    (
        &SINGLE_2,
        Variant {
            haystack: Haystack::Essay,
            ..SINGLE
        },
    ),
    (
        &SINGLE_3,
        Variant {
            haystack: Haystack::Essay,
            value: Kind::Uuid,
            ..SINGLE
        },
    ),
    (
        &MULTIKEY_1,
        Variant {
            haystack: Haystack::Essay,
            keys: 4,
            ..SINGLE
        },
    ),
    (
        &MULTIKEY_2,
        Variant {
            haystack: Haystack::Needle,
            ..SINGLE
        },
    ),
    (
        &MULTIKEY_3,
        Variant {
            haystack: Haystack::Needle,
            key: Kind::Uuid,
            value: Kind::Uuid,
            ..SINGLE
        },
    ),
    (
        &MULTIVALUE,
        Variant {
            haystack: Haystack::Essay,
            values: 4,
            ..SINGLE
        },
    ),
    // Four keys are asked for, so there are four.
    (
        &MULTIQUERY,
        Variant {
            haystack: Haystack::Essay,
            keys: 4,
            queries: 4,
            ..SINGLE
        },
    ),
];

/// What is said of all of them.
const BASE: TaskSpec = TaskSpec {
    name: "",
    title: "",
    source: "RULER, arXiv 2404.06654; github.com/NVIDIA/RULER, scripts/synthetic.yaml",
    length_meaning: "RULER's max_seq_length: all tokens of the prompt (answer prefix and BOS included), and 128 to generate",
    scored: "the generated text: the share of the values that stand in it, in any case of letters",
    chance_meaning: "any text may be generated",
    version: 1,
    metric: Metric::StringMatchAll,
    options: &[],
    materials: &[Material::Tokenizer, Material::ChatTemplate],
    build: |_, _| unreachable!("every task has its own"),
};

const DEPTH: &[OptionSpec] = &[OptionSpec {
    name: "depth",
    help: "where all needles stand, as a fraction of the haystack's sentences or lines (arXiv 2407.08112, \
           section 4.2); random: as in RULER",
    default: OptionValue::Word("random"),
    allowed: Allowed::WordOrFloat("random", 0.0, 1.0),
}];

const fn niah(name: &'static str, title: &'static str, build: Build) -> TaskSpec {
    TaskSpec {
        name,
        title,
        options: DEPTH,
        build,
        ..BASE
    }
}

const fn essay(name: &'static str, title: &'static str, build: Build) -> TaskSpec {
    TaskSpec {
        materials: &[Material::Texts, Material::Tokenizer, Material::ChatTemplate],
        ..niah(name, title, build)
    }
}

static SINGLE_1: TaskSpec = niah(
    "niah_single_1",
    "RULER: a number in repeated noise",
    |options, materials| boxed(&SINGLE_1, options, materials),
);
static SINGLE_2: TaskSpec = essay(
    "niah_single_2",
    "RULER: a number in essays",
    |options, materials| boxed(&SINGLE_2, options, materials),
);
static SINGLE_3: TaskSpec = essay(
    "niah_single_3",
    "RULER: a UUID in essays",
    |options, materials| boxed(&SINGLE_3, options, materials),
);
static MULTIKEY_1: TaskSpec = essay(
    "niah_multikey_1",
    "RULER: one of four numbers in essays",
    |options, materials| boxed(&MULTIKEY_1, options, materials),
);
static MULTIKEY_2: TaskSpec = niah(
    "niah_multikey_2",
    "RULER: a number among lines like its own",
    |options, materials| boxed(&MULTIKEY_2, options, materials),
);
static MULTIKEY_3: TaskSpec = niah(
    "niah_multikey_3",
    "RULER: a UUID by a UUID among lines like its own",
    |options, materials| boxed(&MULTIKEY_3, options, materials),
);
static MULTIVALUE: TaskSpec = essay(
    "niah_multivalue",
    "RULER: four numbers of one key in essays",
    |options, materials| boxed(&MULTIVALUE, options, materials),
);
static MULTIQUERY: TaskSpec = essay(
    "niah_multiquery",
    "RULER: the numbers of four keys in essays",
    |options, materials| boxed(&MULTIQUERY, options, materials),
);
static VT: TaskSpec = TaskSpec {
    name: "vt",
    title: "RULER: variables that are assigned a value by a chain in noise",
    length_meaning: "RULER's max_seq_length: all tokens of the prompt (example, answer prefix and BOS included), and 30 to generate",
    scored: "the generated text: the share of the five variables that stand in it",
    build: |options, materials| boxed(&VT, options, materials),
    ..BASE
};
static CWE: TaskSpec = TaskSpec {
    name: "cwe",
    title: "RULER: the ten most common words of a list",
    length_meaning: "RULER's max_seq_length: all tokens of the prompt (example, answer prefix and BOS included), and 120 to generate; \
                     words are repeated more often from 4096 on",
    scored: "the generated text: the share of the ten words that stand in it",
    options: &[OptionSpec {
        name: "fixed_difficulty",
        help: "true: words are repeated 6 times and once at every length; false: as in RULER, from 4096 tokens \
               on 30 and 3 times",
        default: OptionValue::Boolean(false),
        allowed: Allowed::Boolean,
    }],
    build: |options, materials| boxed(&CWE, options, materials),
    ..BASE
};
static FWE: TaskSpec = TaskSpec {
    name: "fwe",
    title: "RULER: the three most frequent of coded words",
    length_meaning: "RULER's max_seq_length: all tokens of the prompt (answer prefix and BOS included), and 50 to generate; \
                     a different word for every 50 tokens",
    scored: "the generated text: the share of the three words that stand in it",
    build: |options, materials| boxed(&FWE, options, materials),
    ..BASE
};

const fn qa(
    name: &'static str,
    title: &'static str,
    form: &'static [Material],
    build: Build,
) -> TaskSpec {
    TaskSpec {
        name,
        title,
        length_meaning: "RULER's max_seq_length: all tokens of the prompt (answer prefix and BOS included), and 32 to generate",
        scored: "the generated text: whether any of the right answers stands in it",
        metric: Metric::StringMatchPart,
        materials: form,
        build,
        ..BASE
    }
}

static QA_1: TaskSpec = qa(
    "qa_1",
    "RULER: a question of SQuAD about one of many paragraphs",
    &[
        Material::Questions(Form::Squad),
        Material::Tokenizer,
        Material::ChatTemplate,
    ],
    |options, materials| boxed(&QA_1, options, materials),
);
static QA_2: TaskSpec = qa(
    "qa_2",
    "RULER: a question of HotpotQA about several of many paragraphs",
    &[
        Material::Questions(Form::Hotpot),
        Material::Tokenizer,
        Material::ChatTemplate,
    ],
    |options, materials| boxed(&QA_2, options, materials),
);

const fn in_books(name: &'static str, title: &'static str, build: Build) -> TaskSpec {
    TaskSpec {
        name,
        title,
        source: "BABILong, arXiv 2406.10149; github.com/booydar/babilong. Stories after bAbI, arXiv 1502.05698",
        length_meaning: "all tokens of the prompt (instruction, examples and BOS included), and 20 to generate",
        scored: "the generated text: whether its first sentence names the answer and no other word that an answer may be",
        metric: Metric::OnlyLabel,
        materials: &[Material::Texts, Material::Tokenizer, Material::ChatTemplate],
        build,
        ..BASE
    }
}

static QA1: TaskSpec = in_books(
    "babilong_qa1",
    "BABILong: where somebody is, in books",
    |options, materials| boxed(&QA1, options, materials),
);
static QA2: TaskSpec = in_books(
    "babilong_qa2",
    "BABILong: where something is, in books",
    |options, materials| boxed(&QA2, options, materials),
);
static QA3: TaskSpec = in_books(
    "babilong_qa3",
    "BABILong: where something was before, in books",
    |options, materials| boxed(&QA3, options, materials),
);
static QA4: TaskSpec = in_books(
    "babilong_qa4",
    "BABILong: what lies beside a place, in books",
    |options, materials| boxed(&QA4, options, materials),
);
static QA5: TaskSpec = in_books(
    "babilong_qa5",
    "BABILong: who gave what to whom, in books",
    |options, materials| boxed(&QA5, options, materials),
);

fn boxed(
    spec: &'static TaskSpec,
    options: &Options,
    materials: &Materials,
) -> Result<Box<dyn Task>, TaskError> {
    Ok(Box::new(Ruler::new(spec, options, materials)))
}

/// A task's family and the most tokens that it generates; no family where its questions are not given.
pub(super) fn family(
    spec: &'static TaskSpec,
    options: &Options,
    materials: &Materials,
    setting: &Setting,
) -> (Option<Box<dyn Family>>, usize) {
    if let Some((_, variant)) = VARIANTS.iter().find(|(of, _)| of.name == spec.name) {
        let essay =
            (variant.haystack == Haystack::Essay).then(|| Essay::of(materials.texts.as_deref()));
        let niah = Niah::new(*variant, options.float("depth"), essay, setting);
        return (Some(Box::new(niah)), PROMPTS.niah.tokens_to_generate);
    }
    if let Some((_, name, kind)) = STORIES.iter().find(|(of, ..)| of.name == spec.name) {
        let essay = Essay::of(materials.texts.as_deref());
        let facts = Facts::new(name, *kind, essay, setting);
        return (Some(Box::new(facts)), babilong::PROMPTS.tokens_to_generate);
    }
    match spec.name {
        "vt" => (
            Some(Box::new(Tracking::new(setting))),
            PROMPTS.vt.tokens_to_generate,
        ),
        "cwe" => {
            let common = Common::new(options.boolean("fixed_difficulty"));
            (Some(Box::new(common)), PROMPTS.cwe.tokens_to_generate)
        }
        "fwe" => (Some(Box::new(Frequent)), PROMPTS.fwe.tokens_to_generate),
        _ => {
            let questions = form(spec).and_then(|form| materials.questions(form));
            let family = questions
                .map(|questions| -> Box<dyn Family> { Box::new(Qa::new(Arc::clone(questions))) });
            (family, PROMPTS.qa.tokens_to_generate)
        }
    }
}

/// The form of the questions that a task asks.
fn form(spec: &TaskSpec) -> Option<Form> {
    spec.materials.iter().find_map(|material| match material {
        Material::Questions(form) => Some(*form),
        _ => None,
    })
}

/// Why a task without its questions cannot be measured.
pub(super) fn no_questions(spec: &'static TaskSpec) -> TaskError {
    TaskError::NoQuestions {
        task: spec.name,
        form: form(spec).map_or("a file", Form::name),
    }
}
