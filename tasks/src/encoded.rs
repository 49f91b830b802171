//! Tokens of documents by position, none held as a whole where that can be avoided.

use std::sync::{Arc, Mutex, PoisonError};

use longhaul_text::{TextError, Texts, TokenIndex, Tokenizer};
use rustc_hash::FxHashMap;

/// Bytes of the pieces of a document that are encoded when they are read.
const PIECE: usize = 4 << 10;
/// Most tokens of such pieces that are remembered.
const REMEMBERED: usize = 1 << 18;

/// Tokens of all documents.
pub enum Tokens {
    /// A token is a byte of the text.
    Bytes(Arc<Texts>),
    /// By a tokenizer.
    Encoded(Encoded),
}

impl Tokens {
    /// Number of a document's tokens.
    pub fn count(&self, document: usize) -> usize {
        match self {
            Self::Bytes(texts) => texts.documents[document].text.len(),
            Self::Encoded(encoded) => match &encoded.documents[document] {
                Stored::Pieces(index) => index.len(),
                Stored::Whole(tokens) => tokens.len(),
            },
        }
    }

    /// Writes a document's tokens from a position on.
    pub fn read(&self, document: usize, from: usize, place: &mut [u32]) {
        match self {
            Self::Bytes(texts) => {
                let bytes = &texts.documents[document].text.as_bytes()[from..];
                for (token, &byte) in place.iter_mut().zip(bytes) {
                    *token = u32::from(byte);
                }
            }
            Self::Encoded(encoded) => encoded.read(document, from, place, |token| token.id),
        }
    }

    /// Writes how many bytes of the text a document's tokens stand for, from a position on.
    pub fn read_bytes(&self, document: usize, from: usize, place: &mut [u32]) {
        match self {
            Self::Bytes(_) => place.fill(1),
            Self::Encoded(encoded) => encoded.read(document, from, place, |token| token.bytes),
        }
    }
}

/// A token, and the bytes of the text that it stands for. Together they stand for all that there are: what none stands
/// for, such as spaces that a tokenizer drops, is counted with the one that follows, or where the text or a piece of it
/// ends with the last; a character that several are parts of with the first.
#[derive(Debug, Clone, Copy)]
struct Token {
    id: u32,
    bytes: u32,
}

impl Token {
    /// The tokens of a text.
    fn all_of(tokenizer: &dyn Tokenizer, text: &str) -> Result<Vec<Self>, TextError> {
        let mut counted = 0;
        let pairs = tokenizer.encode_with_ends(text)?.into_iter();
        let mut tokens: Vec<Self> = pairs
            .map(|(id, end)| {
                let bytes = end.saturating_sub(counted);
                counted += bytes;
                let bytes = bytes as u32;
                Self { id, bytes }
            })
            .collect();
        if let Some(last) = tokens.last_mut() {
            last.bytes += text.len().saturating_sub(counted) as u32;
        }
        Ok(tokens)
    }
}

/// Texts whose tokens are made of pieces of them as they are read.
pub struct Encoded {
    texts: Arc<Texts>,
    tokenizer: Arc<dyn Tokenizer>,
    documents: Vec<Stored>,
    recent: Mutex<Recent>,
}

/// Tokens of one document.
enum Stored {
    /// Where its pieces are.
    Pieces(TokenIndex),
    /// All, of a tokenizer that lets it not be cut.
    Whole(Vec<Token>),
}

/// Tokens of pieces, by document and piece.
#[derive(Default)]
struct Recent {
    pieces: FxHashMap<(usize, usize), Arc<[Token]>>,
    tokens: usize,
}

impl Encoded {
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn new(texts: Arc<Texts>, tokenizer: &Arc<dyn Tokenizer>) -> Result<Self, TextError> {
        let mut documents = Vec::with_capacity(texts.documents.len());
        for document in &texts.documents {
            let index = TokenIndex::new(tokenizer.as_ref(), &document.text, PIECE)?;
            documents.push(match index {
                Some(index) => Stored::Pieces(index),
                None => Stored::Whole(Token::all_of(tokenizer.as_ref(), &document.text)?),
            });
        }
        Ok(Self {
            texts,
            tokenizer: Arc::clone(tokenizer),
            documents,
            recent: Mutex::default(),
        })
    }

    /// Writes what is asked of a document's tokens from a position on.
    fn read(&self, document: usize, from: usize, place: &mut [u32], what: fn(&Token) -> u32) {
        let write = |place: &mut [u32], tokens: &[Token]| {
            for (place, token) in place.iter_mut().zip(tokens) {
                *place = what(token);
            }
        };
        let index = match &self.documents[document] {
            Stored::Pieces(index) => index,
            Stored::Whole(tokens) => return write(place, &tokens[from..][..place.len()]),
        };
        let mut read = 0;
        while read < place.len() {
            let piece = index.piece(from + read);
            let skip = from + read - index.positions(piece).start;
            let tokens = self.piece(document, piece, index);
            let count = (tokens.len() - skip).min(place.len() - read);
            write(&mut place[read..read + count], &tokens[skip..][..count]);
            read += count;
        }
    }

    fn piece(&self, document: usize, piece: usize, index: &TokenIndex) -> Arc<[Token]> {
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokens) = recent().pieces.get(&(document, piece)) {
            return Arc::clone(tokens);
        }
        let text = &self.texts.documents[document].text[index.bytes(piece)];
        let tokens = Token::all_of(self.tokenizer.as_ref(), text).expect("encoded before");
        let tokens: Arc<[Token]> = tokens.into();
        let mut recent = recent();
        if recent.tokens + tokens.len() > REMEMBERED {
            *recent = Recent::default();
        }
        recent.tokens += tokens.len();
        recent.pieces.insert((document, piece), Arc::clone(&tokens));
        tokens
    }
}
