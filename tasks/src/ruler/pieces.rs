//! The exact tokens of a long prompt from the tokens of its pieces. A tokenizer's answer for a text is the
//! join of its answers for pieces wherever no token reaches over a cut; where that is so depends on the
//! tokenizer and is tried out on texts of each kind that prompts hold. Words come again and again, so their
//! tokens are remembered. A tokenizer for which no cut holds is asked for whole prompts instead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use longhaul_text::{TextError, Tokenizer};
use rustc_hash::FxBuildHasher;

/// Stand before a piece that is not a text's first, so that nothing is put in front of the piece itself: before
/// one that begins with a space or a hyphen, and before one that begins otherwise.
const ANCHORS: [&str; 2] = ["x", "x\n"];

/// Stands after a piece that ends a line, because white space is taken another way where a text ends.
const NEXT: &str = "x";

/// Longest piece that is remembered, in bytes.
const LONGEST: usize = 40;

/// Longest remembered piece that holds a digit: numbers hardly come again.
const LONGEST_NUMBER: usize = 5;

/// Most pieces that are remembered.
const MOST: usize = 1 << 18;

/// Where a text may be cut. Each cut stands before the character that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Cuts {
    /// A single space between two other characters.
    space: bool,
    /// What follows an end of a line and is no white space.
    line: bool,
    /// A hyphen after a letter or digit.
    hyphen: bool,
    /// A digit after a letter, a letter after a digit, and what is neither after a digit.
    kind: bool,
    /// After each so many digits of a row; 0: nowhere in it.
    digits: usize,
}

/// Tokens of texts, by pieces where that is exact.
pub struct Pieces {
    tokenizer: Arc<dyn Tokenizer>,
    /// A token is a byte: any cut holds, and nothing needs to be remembered.
    bytes: bool,
    /// None: whole texts only.
    cuts: Option<Cuts>,
    /// The anchors' own tokens.
    anchors: [Vec<u32>; 2],
    /// The tokens of what stands after a piece that ends a line.
    next: Vec<u32>,
    memo: RwLock<Memo>,
    /// What the tokenizer refused first since [`Pieces::refusal`] was asked.
    refused: Mutex<Option<TextError>>,
}

#[derive(Default)]
struct Memo {
    found: HashMap<Box<str>, (u32, u32), FxBuildHasher>,
    tokens: Vec<u32>,
}

impl Pieces {
    /// Tries out which cuts a tokenizer allows on given texts, of the kinds that are to be cut.
    pub fn new(tokenizer: Arc<dyn Tokenizer>, probes: &[String]) -> Self {
        let mut pieces = Self {
            bytes: tokenizer.id() == "bytes",
            next: Vec::new(),
            anchors: Default::default(),
            tokenizer,
            cuts: None,
            memo: RwLock::default(),
            refused: Mutex::default(),
        };
        if pieces.bytes {
            pieces.cuts = Some(Cuts::default());
            return pieces;
        }
        pieces.anchors = ANCHORS.map(|anchor| pieces.whole(anchor));
        let line = pieces.whole(&format!("{}{NEXT}", ANCHORS[1]));
        pieces.next = line
            .get(pieces.anchors[1].len()..)
            .unwrap_or_default()
            .to_vec();
        let whole: Vec<Vec<u32>> = probes.iter().map(|text| pieces.whole(text)).collect();
        // What cannot be tried out shows no cut; prompts may do without that text.
        if pieces.refusal().is_some() {
            return pieces;
        }
        let mut try_cuts = |cuts: Cuts| {
            pieces.cuts = Some(cuts);
            pieces.memo = RwLock::default();
            let mut joined = probes.iter().map(|text| pieces.tokens(text, true));
            whole
                .iter()
                .all(|whole| joined.next().as_ref() == Some(whole))
        };
        let mut best = Cuts {
            space: true,
            line: true,
            ..Cuts::default()
        };
        if !try_cuts(best) {
            pieces.cuts = None;
            return pieces;
        }
        for more in [
            |cuts: &mut Cuts| cuts.hyphen = true,
            |cuts: &mut Cuts| cuts.kind = true,
            |cuts: &mut Cuts| cuts.digits = 3,
            |cuts: &mut Cuts| cuts.digits = 1,
        ] {
            let mut cuts = best;
            more(&mut cuts);
            if try_cuts(cuts) {
                best = cuts;
            }
        }
        pieces.cuts = Some(best);
        pieces.memo = RwLock::default();
        pieces
    }

    /// Whether texts may be cut at all: before single spaces, and at starts of lines.
    pub fn additive(&self) -> bool {
        self.cuts.is_some()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.tokenizer
    }

    /// The tokens of a whole text; none where the tokenizer refuses it, which [`Pieces::refusal`] then tells.
    pub fn whole(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text).unwrap_or_else(|error| {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert(error);
            Vec::new()
        })
    }

    /// What the tokenizer refused since this was last asked: tokens and counts made since then are no answer.
    pub fn refusal(&self) -> Option<TextError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.take()
    }

    /// Number of tokens of a text that starts at a cut, or is a prompt's `first`.
    pub fn count(&self, text: &str, first: bool) -> usize {
        if self.bytes {
            return text.len();
        }
        let mut count = 0;
        self.each(text, first, |tokens| count += tokens.len());
        count
    }

    /// The tokens of a text that starts at a cut, or is a prompt's `first`.
    pub fn tokens(&self, text: &str, first: bool) -> Vec<u32> {
        if self.bytes {
            return self.whole(text);
        }
        let mut all = Vec::new();
        self.each(text, first, |tokens| all.extend_from_slice(tokens));
        all
    }

    /// Gives the tokens of each piece in turn.
    fn each(&self, text: &str, first: bool, mut give: impl FnMut(&[u32])) {
        let cuts = self.cuts.unwrap_or_default();
        let mut rest = text;
        if first {
            let end = cuts.first(text);
            give(&self.anchored("", &[], &text[..end]));
            rest = &text[end..];
        }
        while !rest.is_empty() {
            // One reader's turn for as many pieces as are known, which is nearly always all.
            let known = self.memo.read().unwrap_or_else(|error| error.into_inner());
            let mut unknown = None;
            while !rest.is_empty() {
                let piece;
                (piece, rest) = rest.split_at(cuts.first(rest));
                match known.found.get(piece) {
                    Some(&(start, len)) => give(&known.tokens[start as usize..][..len as usize]),
                    None => {
                        unknown = Some(piece);
                        break;
                    }
                }
            }
            drop(known);
            if let Some(piece) = unknown {
                let which = usize::from(!piece.starts_with([' ', '-']));
                let tokens = self.anchored(ANCHORS[which], &self.anchors[which], piece);
                give(&tokens);
                self.remember(piece, &tokens);
            }
        }
    }

    /// The tokens of a piece after an anchor, whose own tokens are given.
    fn anchored(&self, anchor: &str, its_own: &[u32], piece: &str) -> Vec<u32> {
        let ends_line = piece.ends_with('\n');
        let mut tokens = self.whole(&format!(
            "{anchor}{piece}{}",
            if ends_line { NEXT } else { "" }
        ));
        // Where what stands around takes part in the piece's tokens a cut does not hold, and probes show that.
        if ends_line && tokens.ends_with(&self.next) {
            tokens.truncate(tokens.len() - self.next.len());
        }
        if tokens.starts_with(its_own) {
            tokens.drain(..its_own.len());
        }
        tokens
    }

    fn remember(&self, piece: &str, tokens: &[u32]) {
        let digits = piece.bytes().any(|byte| byte.is_ascii_digit());
        let longest = if digits { LONGEST_NUMBER } else { LONGEST };
        // A piece without tokens may be one that was refused, which is told each time.
        if piece.len() > longest || tokens.is_empty() {
            return;
        }
        let mut memo = self.memo.write().unwrap_or_else(|error| error.into_inner());
        // Another thread may have been first.
        if memo.found.len() < MOST && !memo.found.contains_key(piece) {
            let place = (memo.tokens.len() as u32, tokens.len() as u32);
            memo.found.insert(piece.into(), place);
            memo.tokens.extend_from_slice(tokens);
        }
    }
}

impl Cuts {
    /// Where the first piece of a text that is not empty ends.
    fn first(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let next = |at: usize| bytes.get(at).copied().unwrap_or(b' ');
        let mut digits = usize::from(bytes[0].is_ascii_digit());
        for at in 1..bytes.len() {
            let (before, here) = (bytes[at - 1], bytes[at]);
            let cut = match here {
                b' ' => self.space && !is_space(before) && !starts_space(text, at + 1),
                b'-' if before.is_ascii_alphanumeric() => {
                    self.hyphen && next(at + 1).is_ascii_alphanumeric()
                }
                _ if before == b'\n' => self.line && !starts_space(text, at),
                b'0'..=b'9' if before.is_ascii_digit() => digits == self.digits,
                b'0'..=b'9' if before.is_ascii_alphabetic() => self.kind,
                b'0'..=b'9' => false,
                _ if before.is_ascii_digit() => self.kind && !is_space(here),
                _ => false,
            };
            if cut && text.is_char_boundary(at) {
                return at;
            }
            digits = if here.is_ascii_digit() { digits + 1 } else { 0 };
        }
        bytes.len()
    }
}

fn is_space(byte: u8) -> bool {
    // Bytes of longer characters are taken as what may be white space: no cut, which is always exact.
    byte.is_ascii_whitespace() || byte == 0x0b || byte >= 0x80
}

/// Whether a text ends at a place, or has what may be white space there.
fn starts_space(text: &str, at: usize) -> bool {
    text.as_bytes().get(at).is_none_or(|&byte| is_space(byte))
}
