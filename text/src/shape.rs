//! Which characters can stand beside each other in a match of a regular expression: Glushkov's follow sets, by
//! class of characters instead of by place. Repetitions and choices are taken as if all were possible, so the
//! answer is never too small.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind};

/// Sets of classes are bits.
type Bits = u8;

/// First and last classes of the words of an expression, and the pairs inside.
#[derive(Clone, Default)]
pub(crate) struct Shape {
    empty: bool,
    first: Bits,
    last: Bits,
    follow: [Bits; 6],
}

impl Shape {
    /// Of an expression; `None` if it looks around.
    pub(crate) fn of(hir: &Hir, sets: &[ClassUnicode]) -> Option<Self> {
        let nothing = Self {
            empty: true,
            ..Self::default()
        };
        Some(match hir.kind() {
            HirKind::Empty => nothing,
            HirKind::Look(_) => return None,
            HirKind::Class(Class::Bytes(_)) => return None,
            HirKind::Class(Class::Unicode(class)) => Self::one(class, sets),
            HirKind::Literal(literal) => {
                let text = std::str::from_utf8(&literal.0).ok()?;
                text.chars().fold(nothing, |before, c| {
                    before.then(&Self::one(&single(c), sets))
                })
            }
            HirKind::Capture(capture) => Self::of(&capture.sub, sets)?,
            HirKind::Repetition(repetition) => {
                let mut one = Self::of(&repetition.sub, sets)?;
                if repetition.max != Some(1) {
                    one.follow = one.then(&one).follow;
                }
                one.empty |= repetition.min == 0;
                one
            }
            HirKind::Concat(parts) => parts.iter().try_fold(nothing, |before, part| {
                Some(before.then(&Self::of(part, sets)?))
            })?,
            HirKind::Alternation(parts) => {
                parts.iter().try_fold(Self::default(), |mut all, part| {
                    let part = Self::of(part, sets)?;
                    all.empty |= part.empty;
                    all.first |= part.first;
                    all.last |= part.last;
                    (0..6).for_each(|left| all.follow[left] |= part.follow[left]);
                    Some(all)
                })?
            }
        })
    }

    /// A character of a set.
    fn one(class: &ClassUnicode, sets: &[ClassUnicode]) -> Self {
        let touched = |set: &ClassUnicode| {
            let mut both = set.clone();
            both.intersect(class);
            !both.ranges().is_empty()
        };
        let bits = (0..sets.len())
            .filter(|&index| touched(&sets[index]))
            .fold(0, |bits, index| bits | 1 << index);
        Self {
            first: bits,
            last: bits,
            ..Self::default()
        }
    }

    /// One word after another.
    fn then(&self, next: &Self) -> Self {
        let mut follow = self.follow;
        for (left, follow) in follow.iter_mut().enumerate() {
            *follow |= next.follow[left];
            if self.last & 1 << left != 0 {
                *follow |= next.first;
            }
        }
        Self {
            empty: self.empty && next.empty,
            first: self.first | if self.empty { next.first } else { 0 },
            last: next.last | if next.empty { self.last } else { 0 },
            follow,
        }
    }

    /// Whether a word may hold a character of class `left` and then one of class `right`.
    pub(crate) fn joins(&self, left: usize, right: usize) -> bool {
        self.follow[left] & 1 << right != 0
    }
}

fn single(c: char) -> ClassUnicode {
    ClassUnicode::new([ClassUnicodeRange::new(c, c)])
}

/// The characters that are words of the expression by themselves; perhaps not all, but none that is not.
pub(crate) fn singles(hir: &Hir) -> ClassUnicode {
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => class.clone(),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).unwrap_or("");
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => single(c),
                _ => ClassUnicode::empty(),
            }
        }
        HirKind::Capture(capture) => singles(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min <= 1 && repetition.max != Some(0) => {
            singles(&repetition.sub)
        }
        HirKind::Alternation(parts) => {
            let mut all = ClassUnicode::empty();
            parts.iter().for_each(|part| all.union(&singles(part)));
            all
        }
        HirKind::Concat(parts) => {
            let may_be_empty = |hir: &Hir| hir.properties().minimum_len() == Some(0);
            let mut all = ClassUnicode::empty();
            for (index, part) in parts.iter().enumerate() {
                let others = parts
                    .iter()
                    .enumerate()
                    .filter(|&(other, _)| other != index);
                if others.map(|(_, other)| other).all(may_be_empty) {
                    all.union(&singles(part));
                }
            }
            all
        }
        _ => ClassUnicode::empty(),
    }
}
