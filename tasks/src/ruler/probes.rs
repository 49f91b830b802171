//! Texts of each kind that prompts hold, on which it is tried out where a tokenizer lets them be cut.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::materials::Materials;
use crate::ruler::data::{PROMPTS, WORDS, Wording};
use crate::ruler::essay::Essay;
use crate::ruler::pieces::Pieces;
use crate::ruler::units::Source;

/// Texts of a kind.
const EACH: usize = 12;

/// Lines or entries of a text.
const LINES: usize = 24;

/// Pieces of the tokenizer of these materials; those of a tokenizer that somebody still uses are shared.
pub fn pieces(materials: &Materials) -> Arc<Pieces> {
    type Known = Vec<(String, Weak<Pieces>)>;
    static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let of = key(materials);
    known.retain(|(_, pieces)| pieces.strong_count() > 0);
    let found = known.iter().find(|(name, _)| *name == of);
    if let Some(pieces) = found.and_then(|(_, pieces)| pieces.upgrade()) {
        return pieces;
    }
    let pieces = Arc::new(Pieces::new(
        Arc::clone(&materials.tokenizer),
        &texts(materials),
    ));
    known.push((of, Arc::downgrade(&pieces)));
    pieces
}

/// What decides the answer: the tokenizer, and what others wrote that is among the probes.
fn key(materials: &Materials) -> String {
    let texts = materials.texts.as_ref().map_or("", |texts| &texts.sha256);
    let questions = materials
        .questions
        .iter()
        .map(|questions| questions.sha256.as_str());
    let chat = materials.chat.as_ref().map_or("", |chat| &chat.sha256);
    [materials.tokenizer.id(), texts, chat]
        .into_iter()
        .chain(questions)
        .collect::<Vec<_>>()
        .join(" ")
}

fn texts(materials: &Materials) -> Vec<String> {
    // Any seed serves: what is tried out are kinds of text.
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut below = |count: usize| ((u64::from(rng.next_u32()) * count as u64) >> 32) as usize;
    let mut all = Vec::new();
    for _ in 0..EACH {
        let (mut needles, mut list, mut coded) = (String::new(), String::new(), String::new());
        let first = below(100_000);
        for entry in 0..LINES {
            let word = WORDS.all[below(WORDS.all.len())];
            let adjective = WORDS.adjectives[below(WORDS.adjectives.len())];
            let noun = WORDS.nouns[below(WORDS.nouns.len())];
            let number = 1_000_000 + below(9_000_000);
            let mut hex = || format!("{:04x}", below(1 << 16));
            let uuid = format!(
                "{}{}-{}-{}-{}-{}{}{}",
                hex(),
                hex(),
                hex(),
                hex(),
                hex(),
                hex(),
                hex(),
                hex()
            );
            let letter = |_| char::from(b'a' + below(26) as u8);
            let name: String = (0..6).map(letter).collect();
            let capitals = name.to_uppercase();
            needles +=
                &format!("One of the special magic numbers for {adjective}-{noun} is: {number}.\n");
            needles += &format!("One of the special magic uuids for {uuid} is: {uuid}.\n");
            needles += &format!(
                "{}\nVAR {capitals} = {number}\nVAR {capitals} = VAR {capitals} \n",
                PROMPTS.noise
            );
            list += &format!(" {}. {word}", (first >> (entry % 17)) + entry);
            coded += &format!(" {name}{}", if entry % 3 == 0 { " ..." } else { "" });
        }
        // Each kind in its own frame: what stands where two pieces meet matters.
        let framed = [
            (&PROMPTS.vt.wording, needles.trim_end_matches('\n')),
            (&PROMPTS.cwe.wording, list.trim_start()),
            (&PROMPTS.fwe.wording, &coded),
        ];
        all.extend(framed.map(|(wording, text)| {
            let Wording {
                head,
                question,
                answer_prefix,
            } = wording;
            format!("{head}{text}{question}{answer_prefix}")
        }));
    }
    let essay = Essay::of(materials.texts.as_deref());
    let per_text = 400;
    for text in 0..EACH {
        let mut words = String::from(essay.word(text * per_text));
        essay.text(text * per_text + 1..(text + 1) * per_text, &mut |more| {
            words.push_str(more)
        });
        all.push(words);
    }
    for questions in &materials.questions {
        let documents = questions.documents.chunks(4).take(EACH);
        all.extend(documents.map(|some| {
            let some = some.join("\n\nDocument 12:\n");
            format!(
                "{}Document 7:\n{some}\n\n{}",
                PROMPTS.qa.wording.head, PROMPTS.qa.wording.question
            )
        }));
    }
    if let Some(chat) = &materials.chat {
        let answered = |text: &String| format!("{} The answer is", chat.turn(text));
        all = all.iter().map(answered).collect();
    }
    all
}
