//! Documents as streams of tokens: which document is trained on and which is held out, and where the windows
//! of a length are. A document belongs to one split as a whole. Nothing here draws.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use longhaul_text::{Document, Texts};

use crate::encoded::{Encoded, Tokens};
use crate::generated::generated;
use crate::materials::Materials;
use crate::task::Split;

/// Letters of a passage by which documents are compared.
const PASSAGE: usize = 48;
/// One passage in so many is looked at.
const SAMPLED: u64 = 64;
/// Share of a document's passages that may stand in another where it is to be held out.
const SHARED: f64 = 0.02;
/// What stands between two documents of byte tokens; no text holds it.
const BYTE_MARK: u32 = 0;

/// The documents of one split, one after the other with a mark between them.
struct Stream {
    /// Which documents, in order.
    documents: Vec<usize>,
    /// Where each begins.
    starts: Vec<usize>,
    /// Tokens in all, marks included.
    len: usize,
}

/// Where a window of a split lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First token in the split's stream.
    pub start: usize,
    /// Whether documents are joined in it, because none is as long.
    pub joined: bool,
}

/// Documents with their tokens, cut into splits.
pub struct Corpus {
    tokens: Tokens,
    mark: Option<u32>,
    /// Train, validation, test.
    streams: [Stream; 3],
}

impl Corpus {
    /// The documents of these materials with a share of their text held out for test, and as much for
    /// validation. It is made once a process for the same texts, tokenizer and share.
    ///
    /// # Errors
    /// Texts of which no three documents can be kept apart; a text that holds the mark.
    pub fn of(materials: &Materials, held_out: f64) -> Result<Arc<Self>, String> {
        type Known = HashMap<(String, String, u64), Arc<Corpus>>;
        static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = materials.texts.clone().unwrap_or_else(generated);
        let tokenizer = materials.tokenizer.id().to_owned();
        let key = (texts.sha256.clone(), tokenizer, held_out.to_bits());
        if let Some(corpus) = known().get(&key) {
            return Ok(Arc::clone(corpus));
        }
        let corpus = Arc::new(Self::new(texts, materials, held_out)?);
        known().insert(key, Arc::clone(&corpus));
        Ok(corpus)
    }

    fn new(texts: Arc<Texts>, materials: &Materials, held_out: f64) -> Result<Self, String> {
        let by_bytes = materials.tokenizer.id() == "bytes";
        if let Some(marked) = texts
            .documents
            .iter()
            .find(|document| document.text.contains('\0'))
        {
            return Err(format!(
                "`{}` of the texts `{}` holds a zero byte, which marks the end of a document; leave it out",
                marked.name, texts.name
            ));
        }
        let parts = split(&texts.documents, held_out).ok_or_else(|| {
            format!(
                "of the {} documents of the texts `{}` too few stand alone to train on some and hold out two \
                 others: give more documents, or ones that do not repeat each other",
                texts.documents.len(),
                texts.name
            )
        })?;
        let mark = match by_bytes {
            true => Some(BYTE_MARK),
            false => materials
                .tokenizer
                .stops()
                .first()
                .copied()
                .or(materials.tokenizer.bos()),
        };
        let tokens = match by_bytes {
            true => Tokens::Bytes(texts),
            false => {
                let encoded = Encoded::new(texts, &materials.tokenizer);
                Tokens::Encoded(encoded.map_err(|error| error.to_string())?)
            }
        };
        let streams = parts.map(|documents| Stream::new(documents, &tokens, mark.is_some()));
        Ok(Self {
            tokens,
            mark,
            streams,
        })
    }

    fn stream(&self, split: Split) -> &Stream {
        &self.streams[match split {
            Split::Train => 0,
            Split::Validation => 1,
            Split::Test => 2,
        }]
    }

    /// Most tokens that a window of any split can have.
    pub fn longest(&self) -> usize {
        let lengths = self.streams.iter().map(|stream| stream.len);
        lengths.min().unwrap_or(0)
    }

    /// Number of windows of so many tokens in a split: inside single documents, or where no document is as
    /// long, in the stream of all of them.
    pub fn windows(&self, split: Split, tokens: usize) -> usize {
        let stream = self.stream(split);
        match stream
            .single(&self.tokens, tokens)
            .map(|(_, count)| count)
            .sum()
        {
            0 => (stream.len + 1).saturating_sub(tokens),
            single => single,
        }
    }

    /// Where a window lies, by its number.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn place(&self, split: Split, tokens: usize, window: usize) -> Place {
        let stream = self.stream(split);
        let (mut left, mut joined) = (window, true);
        for (start, count) in stream.single(&self.tokens, tokens) {
            if left < count {
                return Place {
                    start: start + left,
                    joined: false,
                };
            }
            (left, joined) = (left - count, false);
        }
        assert!(
            joined && window + tokens <= stream.len,
            "window {window} of {tokens} tokens"
        );
        Place {
            start: window,
            joined,
        }
    }

    /// Writes the tokens of a split's stream from a position on.
    ///
    /// # Panics
    /// If they leave the stream.
    pub fn read(&self, split: Split, from: usize, place: &mut [u32]) {
        let read = |document, from, place: &mut [u32]| self.tokens.read(document, from, place);
        self.walk(split, from, place, self.mark.unwrap_or(0), read);
    }

    /// Writes how many bytes of text the tokens of a split's stream from a position on stand for.
    ///
    /// # Panics
    /// If they leave the stream.
    pub fn read_bytes(&self, split: Split, from: usize, place: &mut [u32]) {
        let read =
            |document, from, place: &mut [u32]| self.tokens.read_bytes(document, from, place);
        self.walk(split, from, place, 0, read);
    }

    /// Fills a place with what `read` gives of each document that it reaches into, and `mark` between two.
    fn walk(
        &self,
        split: Split,
        mut from: usize,
        mut place: &mut [u32],
        mark: u32,
        read: impl Fn(usize, usize, &mut [u32]),
    ) {
        let stream = self.stream(split);
        let mut document = stream.starts.partition_point(|&start| start <= from) - 1;
        while !place.is_empty() {
            let within = from - stream.starts[document];
            let left = self
                .tokens
                .count(stream.documents[document])
                .saturating_sub(within);
            let (own, mut rest) = place.split_at_mut(left.min(place.len()));
            read(stream.documents[document], within, own);
            from += own.len();
            if self.mark.is_some() && !rest.is_empty() {
                let (first, after) = rest.split_at_mut(1);
                first[0] = mark;
                (rest, from) = (after, from + 1);
            }
            (place, document) = (rest, document + 1);
        }
    }

    /// Whether a position of a split's stream is the mark between two documents.
    pub fn is_mark(&self, split: Split, position: usize) -> bool {
        let starts = &self.stream(split).starts;
        self.mark.is_some() && position > 0 && starts.binary_search(&(position + 1)).is_ok()
    }
}

impl Stream {
    fn new(documents: Vec<usize>, tokens: &Tokens, marked: bool) -> Self {
        let mut starts = Vec::with_capacity(documents.len());
        let mut len = 0;
        for &document in &documents {
            starts.push(len);
            len += tokens.count(document) + usize::from(marked);
        }
        let len = len.saturating_sub(usize::from(marked));
        Self {
            documents,
            starts,
            len,
        }
    }

    /// For each document that has windows of so many tokens, its place in the stream and their number.
    fn single(&self, tokens: &Tokens, window: usize) -> impl Iterator<Item = (usize, usize)> {
        let documents = self.documents.iter().zip(&self.starts);
        documents.filter_map(move |(&document, &start)| {
            let count = (tokens.count(document) + 1).checked_sub(window)?;
            (count > 0).then_some((start, count))
        })
    }
}

/// Which documents are for training, for validation and for test, each in the order of the texts. The held-out
/// ones stand alone, and are the longest that fit into what is to be held out: long windows need long
/// documents. Where none fits it is the shortest.
fn split(documents: &[Document], held_out: f64) -> Option<[Vec<usize>; 3]> {
    let length = |document: usize| documents[document].text.len();
    let total: usize = (0..documents.len()).map(length).sum();
    let shared = shared_passages(documents);
    let alone = (0..documents.len()).filter(|&document| shared[document] <= SHARED);
    let mut free: Vec<usize> = alone.collect();
    free.sort_by_key(|&document| std::cmp::Reverse(length(document)));
    let mut taken = |what: f64| {
        let mut left = (total as f64 * what) as usize;
        let mut part: Vec<usize> = Vec::new();
        free.retain(|&document| {
            let fits = length(document) <= left;
            if fits {
                left -= length(document);
                part.push(document);
            }
            !fits
        });
        if part.is_empty() {
            part.extend(free.pop());
        }
        part.sort_unstable();
        part
    };
    let (test, validation) = (taken(held_out), taken(held_out));
    let held = |document: &usize| test.contains(document) || validation.contains(document);
    let train: Vec<usize> = (0..documents.len())
        .filter(|document| !held(document))
        .collect();
    let parts = [train, validation, test];
    parts.iter().all(|part| !part.is_empty()).then_some(parts)
}

/// For each document, the share of its passages that also stand in another: two translations of a book share
/// many, a commentary shares those that it quotes. Passages are compared by their letters alone, so that line
/// ends and numbers of verses make no difference.
fn shared_passages(documents: &[Document]) -> Vec<f64> {
    /// Stands for several documents.
    const SEVERAL: u32 = u32::MAX;
    let mut owners: HashMap<u64, u32> = HashMap::new();
    let passages: Vec<Vec<u64>> = documents
        .iter()
        .map(|document| passages(&document.text))
        .collect();
    for (document, passages) in (0..).zip(&passages) {
        for &passage in passages {
            match owners.entry(passage) {
                Entry::Vacant(place) => {
                    place.insert(document);
                }
                Entry::Occupied(mut place) if *place.get() != document => {
                    place.insert(SEVERAL);
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    let share = |passages: &Vec<u64>| {
        let shared = passages
            .iter()
            .filter(|passage| owners[passage] == SEVERAL)
            .count();
        shared as f64 / passages.len().max(1) as f64
    };
    passages.iter().map(share).collect()
}

/// Hashes of a sample of a text's passages: which ones is decided by their letters, so that the same passage
/// is looked at wherever it stands (Schleimer, Wilkerson, Aiken 2003, modulo k).
fn passages(text: &str) -> Vec<u64> {
    const BASE: u64 = 0x0000_0100_0000_01b3;
    let leaving = (0..PASSAGE).fold(1_u64, |power, _| power.wrapping_mul(BASE));
    let mut window = [0_u64; PASSAGE];
    let (mut hash, mut found) = (0_u64, Vec::new());
    let letters = text.bytes().filter(u8::is_ascii_alphabetic);
    for (index, letter) in letters.enumerate() {
        let letter = u64::from(letter.to_ascii_lowercase());
        let old = std::mem::replace(&mut window[index % PASSAGE], letter);
        hash = hash
            .wrapping_mul(BASE)
            .wrapping_add(letter)
            .wrapping_sub(old.wrapping_mul(leaving));
        let mixed = (hash ^ (hash >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if index + 1 >= PASSAGE && mixed >> 32 & (SAMPLED - 1) == 0 {
            found.push(mixed);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
