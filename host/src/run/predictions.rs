//! Generated answers of one length, in the form of RULER's prediction files, so that others' software scores them
//! too: one JSON object a line, in the order of the examples.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::worker::protocol::Answered;

/// The folder of predictions in a run's.
pub const FOLDER: &str = "predictions";

/// A line of a predictions file. Names and their order are RULER's.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// The example, which is the line's place.
    index: u64,
    pred: &'a str,
    /// The prompt; empty where it is long.
    input: &'a str,
    outputs: &'a [String],
    others: Others<'a>,
    /// -1: no prompt is ever cut.
    truncation: i64,
    /// Tokens of the prompt.
    length: u64,
}

/// What RULER leaves to the one who writes.
#[derive(Debug, Serialize)]
struct Others<'a> {
    score: f64,
    /// Tokens generated.
    tokens: u64,
    end: &'a str,
    labels: &'a [String],
}

/// The answers of the evaluation under way.
#[derive(Debug, Default)]
pub struct Predictions {
    answers: BTreeMap<u64, Answered>,
}

/// A whole file of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name in [`FOLDER`].
    pub name: String,
    /// Its lines.
    pub bytes: Vec<u8>,
}

impl Predictions {
    /// Takes an answer.
    pub fn take(&mut self, answered: &Answered) {
        self.answers.insert(answered.sample, answered.clone());
    }

    /// Forgets an evaluation that came to nothing.
    pub fn clear(&mut self) {
        self.answers.clear();
    }

    /// The file of an evaluation that is over, if anything was generated. The unit's name is one that a file may
    /// have.
    pub fn file(&mut self, unit: &str, length: usize) -> Option<File> {
        let answers = std::mem::take(&mut self.answers);
        if answers.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        for (index, answer) in &answers {
            let line = Line {
                index: *index,
                pred: &answer.text,
                input: answer.prompt.as_deref().unwrap_or_default(),
                outputs: &answer.references,
                others: Others {
                    score: answer.score,
                    tokens: answer.tokens,
                    end: &answer.end,
                    labels: &answer.labels,
                },
                truncation: -1,
                length: answer.prompt_tokens,
            };
            serde_json::to_writer(&mut bytes, &line).expect("plain data serialises");
            bytes.push(b'\n');
        }
        let name = file_name(unit, length);
        Some(File { name, bytes })
    }
}

/// The name of the file of a unit's answers at a length.
pub fn file_name(unit: &str, length: usize) -> String {
    format!("{unit}-{length}.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_rulers_in_the_order_of_the_examples() {
        let answer = |sample: u64, text: &str| Answered {
            sample,
            text: text.to_owned(),
            tokens: 3,
            end: "stop".to_owned(),
            score: 0.5,
            prompt: (sample == 0).then(|| "What?".to_owned()),
            prompt_tokens: 12,
            references: vec!["7".to_owned(), "8".to_owned()],
            labels: vec!["depth=0.50".to_owned()],
        };
        let mut predictions = Predictions::default();
        predictions.take(&answer(1, "7 \"and\"\nmore"));
        predictions.take(&answer(0, "8"));
        let file = predictions.file("smol-niah-s0", 512).unwrap();
        assert_eq!(file.name, "smol-niah-s0-512.jsonl");
        let text = String::from_utf8(file.bytes).unwrap();
        let others = r#""outputs":["7","8"],"others":{"score":0.5,"tokens":3,"end":"stop","labels":["depth=0.50"]},"truncation":-1,"length":12}"#;
        assert_eq!(
            text,
            format!(
                "{{\"index\":0,\"pred\":\"8\",\"input\":\"What?\",{others}\n\
                 {{\"index\":1,\"pred\":\"7 \\\"and\\\"\\nmore\",\"input\":\"\",{others}\n"
            )
        );
        assert_eq!(predictions.file("smol-niah-s0", 1024), None);
    }
}
