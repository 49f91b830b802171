//! What a model's answers score, over all examples and by label, in the task's metric.

use std::collections::BTreeMap;

use longhaul_results::metric::Kind;
use longhaul_results::outcomes::{MOST_EXAMPLES, Outcomes};
use longhaul_tasks::{Metric, Task};

use crate::worker::protocol::Score;

/// What the answers at some scored positions add up to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sums {
    scored: u64,
    correct: u64,
    nll: f64,
    bytes: u64,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.scored += other.scored;
        self.correct += other.correct;
        self.nll += other.nll;
        self.bytes += other.bytes;
    }
}

/// Scores of examples in one metric.
pub struct Tally {
    metric: Metric,
    /// What each row of the present group has answered so far.
    rows: Vec<Sums>,
    /// The same by position, of losses.
    positions: Vec<BTreeMap<Bucket, Sums>>,
    /// Positions of the present group that have been read.
    position: usize,
    /// By the start of the positions that they are of, then by label; the whole is the last.
    scores: BTreeMap<(Option<usize>, String), Score>,
    whole: Score,
    examples: u64,
    /// Index, answers and score of each example, while there are not too many.
    outcomes: Vec<(u64, f64, f64)>,
}

impl Tally {
    /// Of nothing, for groups of `rows` examples.
    pub fn new(task: &dyn Task, rows: usize) -> Self {
        Self {
            metric: task.spec().metric,
            rows: vec![Sums::default(); rows],
            positions: vec![BTreeMap::new(); rows],
            position: 0,
            scores: BTreeMap::new(),
            whole: Score::default(),
            examples: 0,
            outcomes: Vec::new(),
        }
    }

    /// Examples that are closed.
    pub fn examples(&self) -> u64 {
        self.examples
    }

    /// Takes the answers of the next chunk of the group, `length` positions a row, which are in row-major
    /// order of its scored positions: predictions and their likelihoods. `targets` is `[rows, length]`, and so are
    /// the `bytes` of text that they stand for, which other metrics than those of bytes do without.
    pub fn chunk(
        &mut self,
        targets: &[i32],
        bytes: &[u32],
        length: usize,
        predictions: &[u32],
        nll: &[f32],
    ) {
        let by_position = !Kind::of(self.metric.name()).is_accuracy();
        let mut answers = predictions.iter().zip(nll);
        for (row, targets) in targets.chunks(length).enumerate() {
            for (place, &target) in targets.iter().enumerate() {
                let Ok(wanted) = u32::try_from(target) else {
                    continue;
                };
                let Some((&prediction, &nll)) = answers.next() else {
                    return;
                };
                let answered = Sums {
                    scored: 1,
                    correct: u64::from(prediction == wanted),
                    nll: f64::from(nll),
                    bytes: bytes.get(row * length + place).map_or(0, |&b| b.into()),
                };
                self.rows[row].add(answered);
                if by_position {
                    let bucket = Bucket::of(self.position + place);
                    self.positions[row].entry(bucket).or_default().add(answered);
                }
            }
        }
        self.position += length;
    }

    /// Closes a group of examples, one an entry of `labels`.
    pub fn group(&mut self, labels: &[Vec<String>]) {
        for (row, labels) in labels.iter().enumerate() {
            let answered = self.rows[row];
            self.example(self.examples, labels, self.scored(&answered));
            for (bucket, answered) in std::mem::take(&mut self.positions[row]) {
                let score = self.scored(&answered);
                self.labelled(Some(bucket.start), &bucket.label(), &score);
            }
        }
        self.rows.fill(Sums::default());
        self.position = 0;
    }

    /// The score of what was answered.
    fn scored(&self, answered: &Sums) -> Score {
        let score = match self.metric {
            Metric::TokenAccuracy => Score::answers(answered.scored, answered.correct),
            Metric::ExactMatch => Score::answers(1, u64::from(answered.correct == answered.scored)),
            // Rounding must not make a loss less than none.
            Metric::BitsPerByte => Score::ratio(
                answered.nll.max(0.0) / std::f64::consts::LN_2,
                answered.bytes as f64,
            ),
            // Answers in text are scored where they are generated.
            Metric::StringMatchAll | Metric::StringMatchPart | Metric::OnlyLabel => Score::of(0.0),
        };
        Score {
            tokens: answered.scored,
            nll_sum: answered.nll,
            ..score
        }
    }

    /// Adds the example of this index with its labels and its score.
    pub fn example(&mut self, index: u64, labels: &[String], score: Score) {
        for label in labels {
            self.labelled(None, label, &score);
        }
        self.whole.add(&score);
        self.examples += 1;
        if self.examples <= MOST_EXAMPLES {
            self.outcomes.push((index, score.weight, score.sum));
        }
    }

    fn labelled(&mut self, start: Option<usize>, label: &str, score: &Score) {
        let key = (start, label.to_owned());
        self.scores.entry(key).or_default().add(score);
    }

    /// What each example scored, in order of index; `None` where there are too many to be kept.
    pub fn outcomes(&mut self) -> Option<Outcomes> {
        let mut all = std::mem::take(&mut self.outcomes);
        all.sort_by_key(|&(index, ..)| index);
        let scores = all.into_iter().map(|(_, answers, score)| (answers, score));
        let kept = self.examples <= MOST_EXAMPLES;
        kept.then(|| Outcomes::new(scores).ok()).flatten()
    }

    /// Breakdowns in order of their label, then those by position, then all examples.
    pub fn scores(self) -> Vec<Score> {
        // Where tokens are parts of characters, some few may stand for no byte: there is no loss a byte of them.
        let some = self
            .scores
            .into_iter()
            .filter(|(_, score)| score.weight > 0.0);
        let labelled = some.map(|((_, label), score)| Score { label, ..score });
        labelled.chain([self.whole]).collect()
    }
}

/// Positions that a loss is averaged over: the first 64, then octaves, from 256 on quarters of octaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bucket {
    start: usize,
    len: usize,
}

impl Bucket {
    /// Of a position, from 0.
    fn of(position: usize) -> Self {
        if position < 64 {
            return Self { start: 0, len: 64 };
        }
        let octave = 1 << position.ilog2();
        let len = if octave < 256 { octave } else { octave / 4 };
        Self {
            start: position / len * len,
            len,
        }
    }

    fn label(self) -> String {
        format!("position={}..{}", self.start, self.start + self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_metric_and_label() {
        // Two rows of three, and padding below.
        let targets = [-1, 4, 5, 6, -1, 7];
        let labels = [vec!["depth=0.50".to_owned()], vec!["depth=0.10".to_owned()]];
        let score = |task: &str| {
            let task = longhaul_tasks::parse_task(task).unwrap();
            let mut tally = Tally::new(task.as_ref(), 2);
            tally.chunk(&targets, &[], 3, &[4, 5, 6, 0], &[0.5, 0.5, 1.0, 2.0]);
            tally.group(&labels);
            assert_eq!(tally.examples(), 2);
            let outcomes = tally.outcomes().expect("two examples");
            (tally.scores(), outcomes)
        };
        let (tokens, outcomes) = score("mqar");
        assert_eq!(
            (outcomes.answers(), outcomes.scores()),
            (&[2.0, 2.0][..], &[2.0, 1.0][..])
        );
        let names: Vec<&str> = tokens.iter().map(|score| score.label.as_str()).collect();
        assert_eq!(names, ["depth=0.10", "depth=0.50", ""]);
        let numbers = |score: &Score| (score.samples, score.sum, score.tokens);
        assert_eq!(numbers(&tokens[2]), (4, 3.0, 4));
        assert_eq!(numbers(&tokens[0]), (2, 1.0, 2));
        assert!((tokens[2].nll_sum - 4.0).abs() < 1e-12);
        let (exact, outcomes) = score("needle");
        assert_eq!(
            (outcomes.answers(), outcomes.scores()),
            (&[1.0, 1.0][..], &[1.0, 0.0][..])
        );
        assert_eq!(numbers(&exact[2]), (2, 1.0, 4));
        assert_eq!(numbers(&exact[1]), (1, 1.0, 2));
    }

    /// Two windows of 66 and 68 bytes, so that the loss is over all bytes and not a mean of windows; the 65th
    /// position opens another bucket, in the second chunk.
    #[test]
    fn a_loss_is_over_bytes_and_by_position() {
        let task = longhaul_tasks::parse_task("books").unwrap();
        let mut tally = Tally::new(task.as_ref(), 2);
        let bit = std::f32::consts::LN_2;
        // 64 bytes a window at one bit each, but for the first of the first window, at five.
        let mut nll = vec![bit; 128];
        nll[0] = 5.0 * bit;
        tally.chunk(&[1; 128], &[1; 128], 64, &[1; 128], &nll);
        // A token of two bytes and a mark; a character of four bytes in two tokens.
        tally.chunk(&[1, -1, 1, 1], &[2, 0, 4, 0], 2, &[1; 3], &[3.0 * bit; 3]);
        tally.group(&[vec!["documents=joined".to_owned()], Vec::new()]);
        let outcomes = tally.outcomes().expect("two windows");
        assert_eq!(outcomes.answers(), [66.0, 68.0]);
        assert!((outcomes.scores()[0] - 71.0).abs() < 1e-4);
        let scores = tally.scores();
        let found: Vec<_> = scores
            .iter()
            .map(|score| {
                let mean = score.mean().unwrap();
                (score.label.as_str(), score.samples, score.weight, mean)
            })
            .collect();
        let expected = [
            ("documents=joined", 1, 66.0, 71.0 / 66.0),
            ("position=0..64", 2, 128.0, 132.0 / 128.0),
            ("position=64..128", 2, 6.0, 9.0 / 6.0),
            ("", 2, 134.0, 141.0 / 134.0),
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(
                (found.0, found.1, found.2),
                (expected.0, expected.1, expected.2)
            );
            assert!((found.3 - expected.3).abs() < 1e-6, "{found:?}");
        }
        assert_eq!(found.len(), 4);
        // A window inside one character has bits and no byte: none of its own, but they count with others.
        let mut tally = Tally::new(task.as_ref(), 2);
        tally.chunk(&[1, -1, 1, -1], &[0, 0, 4, 0], 2, &[1; 2], &[bit; 2]);
        tally.group(&[vec!["documents=joined".to_owned()], Vec::new()]);
        let scores = tally.scores();
        assert_eq!(
            (scores.len(), scores[0].label.as_str()),
            (2, "position=0..64")
        );
        for score in scores {
            let mean = score.mean().unwrap();
            assert!(score.samples == 2 && (mean - 0.5).abs() < 1e-6, "{score:?}");
        }
    }

    #[test]
    fn buckets_cover_all_positions_once() {
        let mut end = 0;
        let mut position = 0;
        while position < 1 << 20 {
            let bucket = Bucket::of(position);
            assert_eq!(bucket.start, end, "no gap and no overlap");
            end = bucket.start + bucket.len;
            assert_eq!(Bucket::of(end - 1), bucket);
            position = end;
        }
        let labels = [0, 63, 64, 255, 256, 319, 320, 1 << 19].map(|p| Bucket::of(p).label());
        let expected = [
            "position=0..64",
            "position=0..64",
            "position=64..128",
            "position=128..256",
            "position=256..320",
            "position=256..320",
            "position=320..384",
            "position=524288..655360",
        ];
        assert_eq!(labels, expected);
    }
}
