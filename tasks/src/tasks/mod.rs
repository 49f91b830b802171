//! The tasks of tokens, one file a family. Each names itself by its own static; this is the list of them
//! and, with RULER's and BABILong's, of all.

mod books;
mod brackets;
mod copying;
mod facts;
mod flipflop;
mod formal;
mod fuzzy;
mod groups;
mod haystack;
mod hops;
mod induction;
mod listops;
mod lookup;
mod majority;
mod mixture;
mod mqar;
mod needle;
mod passkey;
mod phonebook;
mod recall;
mod selective;
mod stack;
mod tracking;
mod words;

use std::sync::LazyLock;

use crate::ruler;
use crate::task::TaskSpec;

/// All tasks.
pub(crate) static ALL: LazyLock<Vec<&'static TaskSpec>> =
    LazyLock::new(|| [TOKENS, &ruler::ALL, &ruler::BABILONG].concat());

static TOKENS: &[&TaskSpec] = &[
    &mqar::SPEC,
    &mqar::FORGETTING,
    &induction::SPEC,
    &hops::SPEC,
    &recall::IN_CONTEXT,
    &fuzzy::SPEC,
    &recall::MEMORIZATION,
    &selective::SPEC,
    &copying::COPYING,
    &copying::REPEAT_COPY,
    &copying::UNIQUE_COPY,
    &copying::PALINDROME,
    &copying::SORT,
    &lookup::SPEC,
    &majority::MAJORITY,
    &majority::BIN_MAJORITY,
    &formal::PARITY,
    &formal::EVEN_PAIRS,
    &formal::CYCLE,
    &formal::ARITHMETIC,
    &brackets::SPEC,
    &groups::SPEC,
    &flipflop::SPEC,
    &stack::SPEC,
    &listops::SPEC,
    &needle::SPEC,
    &passkey::SPEC,
    &phonebook::SPEC,
    &tracking::SPEC,
    &words::COMMON,
    &words::FREQUENT_WORDS,
    &facts::SPEC,
    &mixture::SPEC,
    &books::SPEC,
];
