//! The tasks, one file a family. Each names itself by its own static; this is the only list.

mod copying;
mod facts;
mod formal;
mod haystack;
mod induction;
mod mqar;
mod needle;
mod selective;
mod tracking;
mod words;

use crate::task::TaskSpec;

pub(crate) static ALL: &[&TaskSpec] = &[
    &mqar::SPEC,
    &induction::SPEC,
    &selective::SPEC,
    &copying::COPYING,
    &copying::PREFIX_LOOKUP,
    &formal::PARITY,
    &formal::ARITHMETIC,
    &needle::SPEC,
    &tracking::SPEC,
    &words::COMMON,
    &words::FREQUENT_WORDS,
    &facts::SPEC,
];
