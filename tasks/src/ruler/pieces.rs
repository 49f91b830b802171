//! The exact tokens of a long prompt from the tokens of its pieces. A tokenizer's answer for a text is the
//! join of its answers for pieces wherever no token reaches over a cut; where that is so depends on the
//! tokenizer and is tried out on texts of each kind that prompts hold. Words come again and again, so their
//! tokens are remembered. A tokenizer for which no cut holds is asked for whole prompts instead.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use longhaul_text::{TextError, Tokenizer};
use rustc_hash::FxBuildHasher;

use crate::ruler::cuts::{Cuts, Cutter};

/// Stand before a piece that is not a text's first, so that nothing is put in front of the piece itself: before
/// one that begins with a space or a hyphen, and before one that begins otherwise.
const ANCHORS: [&str; 2] = ["x", "x\n"];

/// Stands after a piece that ends a line, because white space is taken another way where a text ends.
const NEXT: &str = "x";

/// Longest piece that is remembered, in bytes, and longest whose bytes are its key themselves.
const LONGEST: usize = 40;
const SHORT: usize = 15;

/// Longest remembered piece that holds a digit: numbers hardly come again.
const LONGEST_NUMBER: usize = 5;

/// Most pieces that are remembered.
const MOST: usize = 1 << 18;

/// Tokens of texts, by pieces where that is exact.
pub struct Pieces {
    tokenizer: Arc<dyn Tokenizer>,
    /// A token is a byte: any cut holds, and nothing needs to be remembered.
    bytes: bool,
    /// None: whole texts only.
    cuts: Option<Cuts>,
    cutter: Cutter,
    /// The anchors' own tokens.
    anchors: [Vec<u32>; 2],
    /// The tokens of what stands after a piece that ends a line.
    next: Vec<u32>,
    memo: RwLock<Memo>,
    /// The piece that a text last began with, and its tokens: those that prompts begin with are few.
    first: Mutex<(String, Vec<u32>)>,
    /// What the tokenizer refused first since [`Pieces::refusal`] was asked.
    refused: Mutex<Option<TextError>>,
    counts: Counts,
}

/// Tokens by piece: where they begin among all, and how many they are.
#[derive(Default)]
struct Memo {
    short: HashMap<(u64, u64), (u32, u32), FxBuildHasher>,
    long: HashMap<Box<str>, (u32, u32), FxBuildHasher>,
    tokens: Vec<u32>,
}

impl Memo {
    /// The tokens of the first `len` bytes of a text.
    fn get(&self, text: &str, len: usize) -> Option<&[u32]> {
        let found = if len <= SHORT {
            self.short.get(&short(text, len))
        } else {
            self.long.get(&text[..len])
        };
        let (start, count) = *found?;
        Some(&self.tokens[start as usize..][..count as usize])
    }

    fn insert(&mut self, piece: &str, tokens: &[u32]) {
        let place = (self.tokens.len() as u32, tokens.len() as u32);
        if piece.len() <= SHORT {
            self.short.insert(short(piece, piece.len()), place);
        } else {
            self.long.insert(piece.into(), place);
        }
        self.tokens.extend_from_slice(tokens);
    }
}

/// Numbers of tokens of the shortest pieces, of which there are most: a table in which a piece has one place and
/// takes it from another, so that looking costs next to nothing and waits for nobody.
struct Counts(Vec<AtomicU64>);

impl Default for Counts {
    fn default() -> Self {
        Self((0..1 << Self::BITS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Counts {
    const BITS: u32 = 13;
    /// Longest piece, in bytes: with its length (3 bits) and its count (5 bits) it is a word of the machine.
    const SHORTEST: usize = 7;
    const COUNT: u64 = 0x1f;

    /// Its place, and what stands there but for the count, which has the lowest bits.
    fn place(text: &str, len: usize) -> (usize, u64) {
        let (bytes, _) = short(text, len);
        let key = bytes << 8 | (len as u64) << 5;
        let place = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - Self::BITS);
        (place as usize, key)
    }

    /// Tokens of the first `len` bytes of a text.
    fn get(&self, text: &str, len: usize) -> Option<usize> {
        if len > Self::SHORTEST {
            return None;
        }
        let (place, key) = Self::place(text, len);
        let found = self.0[place].load(Ordering::Relaxed);
        (found & !Self::COUNT == key).then_some((found & Self::COUNT) as usize)
    }

    /// A piece without tokens may be one that was refused, which is told each time: it is not kept.
    fn keep(&self, text: &str, len: usize, count: usize) {
        if len <= Self::SHORTEST && (1..=Self::COUNT as usize).contains(&count) {
            let (place, key) = Self::place(text, len);
            self.0[place].store(key | count as u64, Ordering::Relaxed);
        }
    }
}

/// The first `len` bytes of a text and their number as one key.
fn short(text: &str, len: usize) -> (u64, u64) {
    let bytes = text.as_bytes();
    let all = match bytes.first_chunk() {
        Some(sixteen) => u128::from_le_bytes(*sixteen) & ((1 << (8 * len)) - 1),
        None => {
            let mut sixteen = [0; SHORT + 1];
            sixteen[..len].copy_from_slice(&bytes[..len]);
            u128::from_le_bytes(sixteen)
        }
    };
    (all as u64, (all >> 64) as u64 | (len as u64) << 56)
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
            cutter: Cutter::new(&Cuts::default()),
            memo: RwLock::default(),
            first: Mutex::default(),
            refused: Mutex::default(),
            counts: Counts::default(),
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
            pieces.cut_by(cuts);
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
            |cuts: &mut Cuts| cuts.white = true,
            |cuts: &mut Cuts| cuts.digits = 3,
            |cuts: &mut Cuts| cuts.digits = 1,
        ] {
            let mut cuts = best;
            more(&mut cuts);
            if try_cuts(cuts) {
                best = cuts;
            }
        }
        pieces.cut_by(best);
        pieces
    }

    /// Takes other cuts, and forgets what it knew by those before.
    fn cut_by(&mut self, cuts: Cuts) {
        self.cuts = Some(cuts);
        self.cutter = Cutter::new(&cuts);
        self.memo = RwLock::default();
        self.first = Mutex::default();
        self.counts = Counts::default();
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

    /// Whether the tokenizer refused nothing since then: else counts are none to keep.
    pub fn sound(&self) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_none()
    }

    /// Number of tokens of a text that starts at a cut, or is a prompt's `first`.
    pub fn count(&self, text: &str, first: bool) -> usize {
        if self.bytes {
            return text.len();
        }
        let (mut count, mut start) = (0, 0);
        self.cutter.each_end(text, |end| {
            let (rest, len) = (&text[start..], end - start);
            count += if first && start == 0 {
                self.first(&rest[..len]).len()
            } else if let Some(known) = self.counts.get(rest, len) {
                known
            } else {
                let own = self.count_piece(rest, len);
                self.counts.keep(rest, len, own);
                own
            };
            start = end;
        });
        count
    }

    /// Number of tokens of the piece that is the first `len` bytes of a text.
    #[inline(never)]
    fn count_piece(&self, text: &str, len: usize) -> usize {
        let memo = self.memo.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokens) = memo.get(text, len) {
            return tokens.len();
        }
        drop(memo);
        self.learn(&text[..len]).len()
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

    /// Number of tokens of a new word (ASCII letters of one case, or dots) with a space before it: such words come once,
    /// and are not remembered.
    pub fn count_word(&self, word: &str) -> usize {
        let known = self.tokenizer.word(word, true);
        match known.filter(|_| self.additive() && !self.bytes) {
            Some(tokens) => tokens.len(),
            None => self.count(&format!(" {word}"), false),
        }
    }

    /// Gives the tokens of each piece in turn.
    fn each(&self, text: &str, first: bool, mut give: impl FnMut(&[u32])) {
        // One reader's turn for as many pieces as are known, which is nearly always all.
        let read = || self.memo.read().unwrap_or_else(|error| error.into_inner());
        let mut known = Some(read());
        let mut start = 0;
        self.cutter.each_end(text, |end| {
            let piece = &text[start..end];
            if first && start == 0 {
                give(&self.first(piece));
            } else if let Some(tokens) = known
                .as_ref()
                .and_then(|known| known.get(&text[start..], piece.len()))
            {
                give(tokens);
            } else {
                known = None;
                give(&self.learn(piece));
                known = Some(read());
            }
            start = end;
        });
    }

    /// The tokens of a piece that is not known, which it then is.
    fn learn(&self, piece: &str) -> Vec<u32> {
        let which = usize::from(!piece.starts_with([' ', '-']));
        let anchored = || self.anchored(ANCHORS[which], &self.anchors[which], piece);
        let tokens = self.word(piece).unwrap_or_else(anchored);
        self.remember(piece, &tokens);
        tokens
    }

    /// The tokens of a piece that is a word, or a space and a word.
    fn word(&self, piece: &str) -> Option<Vec<u32>> {
        let word = piece.strip_prefix(' ').unwrap_or(piece);
        let one_case = |is: fn(&u8) -> bool| !word.is_empty() && word.bytes().all(|byte| is(&byte));
        let is_word = one_case(u8::is_ascii_lowercase) || one_case(u8::is_ascii_uppercase);
        let tokens = is_word.then(|| self.tokenizer.word(word, word.len() < piece.len()));
        tokens.flatten()
    }

    /// The tokens of the piece that a text begins with.
    fn first(&self, piece: &str) -> Vec<u32> {
        let mut last = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        // A piece without tokens may be one that was refused, which is told each time.
        if last.0 != piece || last.1.is_empty() {
            *last = (piece.to_owned(), self.anchored("", &[], piece));
        }
        last.1.clone()
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
        let known = memo.short.len() + memo.long.len();
        if known < MOST && memo.get(piece, piece.len()).is_none() {
            memo.insert(piece, tokens);
        }
    }
}
