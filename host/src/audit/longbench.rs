//! Answers of LongBench v2 (`pred.py` and `result.py` of THUDM/LongBench).

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

use super::{Audited, Score, each_line, percent};
use crate::exit::CommandError;

/// Questions of the benchmark.
const QUESTIONS: usize = 503;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "_id")]
    id: String,
    difficulty: String,
    length: String,
    answer: String,
    response: String,
    #[serde(default)]
    pred: Option<String>,
    judge: bool,
}

/// Reads answers, and judges each again by its response.
pub fn read(path: &Path) -> Result<Audited, CommandError> {
    let mut items: Vec<(String, String, f64)> = Vec::new();
    let mut ids = HashSet::new();
    let (mut doubled, mut unread, mut other, mut once_right) = (0, 0, 0, 0);
    let torn = each_line(path, |line: Line| {
        let read = choice(&line.response);
        let right = read.is_some_and(|choice| line.answer.trim() == choice.to_string());
        let same_choice = line.pred.as_deref().map(str::to_owned) == read.map(String::from);
        other += usize::from(line.judge != right || !same_choice);
        unread += usize::from(read.is_none());
        if ids.insert(line.id) {
            once_right += usize::from(right);
        } else {
            doubled += 1;
        }
        items.push((line.difficulty, line.length, f64::from(u8::from(right))));
    })?;
    let scores = |wanted: &dyn Fn(&(String, String, f64)) -> bool| -> Vec<f64> {
        let own = items.iter().filter(|item| wanted(item));
        own.map(|item| item.2).collect()
    };
    let all = scores(&|_| true);
    let mut parts = vec![Score::of("overall", "accuracy", &all)];
    for difficulty in ["easy", "hard"] {
        parts.push(Score::of(
            difficulty,
            "accuracy",
            &scores(&|item| item.0 == difficulty),
        ));
    }
    for length in ["short", "medium", "long"] {
        parts.push(Score::of(
            length,
            "accuracy",
            &scores(&|item| item.1 == length),
        ));
    }
    parts.retain(|part| part.samples != Some(0));
    let mut findings = Vec::new();
    let missing = QUESTIONS.saturating_sub(ids.len());
    if missing > 0 {
        findings.push(format!(
            "{} of the benchmark's {QUESTIONS} questions are here: {missing} left the denominator, as what failed is \
             not written. With those as wrong it is {}",
            ids.len(),
            percent(once_right as f64 / QUESTIONS as f64)
        ));
    }
    if doubled > 0 {
        findings.push(format!(
            "questions that stand there twice: {doubled}; these count more than others"
        ));
    }
    if other > 0 {
        findings.push(format!(
            "{other} of {} answers are judged otherwise than their response says (`pred`, `judge`)",
            all.len()
        ));
    }
    findings.extend(torn);
    Ok(Audited {
        path: path.to_owned(),
        tool: "LongBench v2",
        what: format!(
            "LongBench v2 answers, {} lines; {unread} responses name no choice and count as wrong",
            all.len()
        ),
        model: None,
        scores: parts,
        findings,
        untold: "whether prompts were cut: the tool cuts their middle to the model's length and does not say so",
    })
}

/// The choice that a response names, as the tool reads it.
fn choice(response: &str) -> Option<char> {
    let response = response.replace('*', "");
    let after = |words: &str, end: &str| {
        response.match_indices(words).find_map(|(at, _)| {
            let mut rest = response[at + words.len()..].chars();
            let choice = rest.next().filter(|c| ('A'..='D').contains(c))?;
            rest.as_str().starts_with(end).then_some(choice)
        })
    };
    after("The correct answer is (", ")").or_else(|| after("The correct answer is ", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_the_tool_reads_them() {
        assert_eq!(choice("The correct answer is (B)."), Some('B'));
        assert_eq!(choice("**The correct answer is C**"), Some('C'));
        assert_eq!(choice("The correct answer is (E) or (A)"), None);
        assert_eq!(
            choice("The correct answer is (B or A. The correct answer is (D)"),
            Some('D')
        );
        assert_eq!(choice("B"), None);
    }
}
