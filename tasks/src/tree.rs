//! Expressions of an exact length, grown from the outside in: what an inner expression is made of follows from
//! where it begins and from its length alone, so any stretch of tokens is written without what stands before it.

use crate::sequence::Written;

/// A part of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// This token.
    Token(u32),
    /// An expression inside.
    Inner {
        /// Its tokens.
        len: usize,
        /// How many it stands inside of.
        depth: usize,
    },
}

impl Part {
    fn len(self) -> usize {
        match self {
            Self::Token(_) => 1,
            Self::Inner { len, .. } => len,
        }
    }
}

/// What expressions are made of.
pub trait Grammar: Send + Sync {
    /// Adds the parts of an expression that begins at a position, as many tokens in all as it has.
    fn parts(&self, start: usize, len: usize, depth: usize, parts: &mut Vec<Part>);
}

/// An expression of a grammar.
pub struct Tree<G> {
    /// Its grammar.
    pub grammar: G,
    /// Its tokens.
    pub len: usize,
}

impl<G: Grammar> Written for Tree<G> {
    fn write(&self, from: usize, tokens: &mut [u32]) {
        let end = from + tokens.len();
        let whole = Part::Inner {
            len: self.len,
            depth: 0,
        };
        // What is still to be written, the next last.
        let mut ahead = vec![whole];
        let (mut at, mut parts) = (0, Vec::new());
        while at < end {
            let Some(part) = ahead.pop() else {
                return;
            };
            match part {
                part if at + part.len() <= from => at += part.len(),
                Part::Token(token) => {
                    tokens[at - from] = token;
                    at += 1;
                }
                Part::Inner { len, depth } => {
                    self.grammar.parts(at, len, depth, &mut parts);
                    ahead.extend(parts.drain(..).rev());
                }
            }
        }
    }
}
