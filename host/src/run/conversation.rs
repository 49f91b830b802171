//! What a worker may say, and when: each message is held against the job and against what was said before.
//! A message that cannot be true ends the worker; what it means for records is not decided here.

use std::collections::HashSet;

use longhaul_results::metric::Kind;
use longhaul_results::outcomes::MOST_EXAMPLES;
use longhaul_tasks::Metric;

use crate::run::plan::Evaluation;
use crate::worker::protocol::{Answered, Evaluated, Job, Message, Observation, Observed, Score};

/// Most bytes that anything on a machine has: beyond it a number is no size.
const MOST_BYTES: u64 = 1 << 50;
/// Most breakdowns of one length.
const MOST_SCORES: usize = 10_000;
/// Most bytes that are said of one generated answer.
const MOST_ANSWER: usize = 1 << 20;
/// How far below 0 rounding may bring a negative log likelihood, in nats.
const ROUNDING: f64 = 1e-3;

/// What was said of a job so far.
pub struct Conversation<'a> {
    job: &'a Job,
    started: bool,
    trained: bool,
    /// Last training step that was reported.
    step: Option<u64>,
    /// The evaluation under way.
    evaluating: Option<usize>,
    /// Evaluations that were begun.
    begun: usize,
    /// Examples of the evaluation under way that were answered in words.
    answered: HashSet<u64>,
}

/// What cannot be, in words that follow on "the worker said".
pub type Impossible = String;

impl<'a> Conversation<'a> {
    /// Before the first word.
    pub fn new(job: &'a Job) -> Self {
        Self {
            job,
            started: false,
            trained: job.to_train().is_none(),
            step: None,
            evaluating: None,
            begun: 0,
            answered: HashSet::new(),
        }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// In which way it cannot be.
    pub fn hear(&mut self, message: &Message) -> Result<(), Impossible> {
        if !self.started
            && !matches!(
                message,
                Message::Started { .. } | Message::Log { .. } | Message::Failed { .. }
            )
        {
            return Err("something of a model before there was one".to_owned());
        }
        match message {
            Message::Log { .. } | Message::Failed { .. } => Ok(()),
            Message::Started { parameters, .. } => {
                let again = std::mem::replace(&mut self.started, true);
                must(!again, || "twice that its model stands".to_owned())?;
                within("parameters", *parameters, MOST_BYTES)
            }
            Message::Progress { .. } => self.progress(message),
            Message::GoesOn { step } => {
                let training = self.job.training.as_ref().filter(|_| !self.trained);
                let steps = training.map_or(0, |training| training.steps);
                must(self.step.is_none() && (1..steps).contains(step), || {
                    format!("that a training goes on at step {step} of {steps}")
                })
            }
            Message::Trained { seconds } => {
                time(*seconds)?;
                let last = self.job.training.as_ref().map(|training| training.steps);
                let step = self.step.map(|step| step + 1);
                let trained = std::mem::replace(&mut self.trained, true);
                must(!trained && step == last, || {
                    format!(
                        "that training is over after step {} of {}",
                        step.unwrap_or(0),
                        last.unwrap_or(0)
                    )
                })
            }
            Message::Evaluating { index } => {
                let next = self.trained && self.evaluating.is_none() && *index == self.begun;
                must(next && *index < self.job.evaluations.len(), || {
                    format!("that it begins evaluation {index}, which is not next")
                })?;
                (self.evaluating, self.begun) = (Some(*index), self.begun + 1);
                Ok(())
            }
            Message::Evaluation { share } => {
                must(self.evaluating.is_some(), || {
                    "how far an evaluation is that was not begun".to_owned()
                })?;
                must((0.0..=1.0).contains(share), || {
                    format!("a share of {share}")
                })
            }
            Message::Answered(answered) => self.answer(answered),
            Message::Evaluated(evaluated) => {
                self.over(evaluated.index)?;
                let (answers, asked) = (
                    std::mem::take(&mut self.answered).len() as u64,
                    self.job.evaluations[evaluated.index].samples,
                );
                must(answers == 0 || answers == asked, || {
                    format!("{answers} answers in words of {asked} examples")
                })?;
                check_scores(self.job, evaluated)
            }
            Message::EvaluationFailed { index, .. } => {
                self.answered.clear();
                self.over(*index)
            }
            Message::Done {
                inside_plugin_s,
                outside_plugin_s,
            } => {
                time(*inside_plugin_s)?;
                time(*outside_plugin_s)?;
                let left = self.job.evaluations.len() - self.begun;
                must(
                    self.trained && self.evaluating.is_none() && left == 0,
                    || format!("that all is done, with {left} evaluations not begun"),
                )
            }
        }
    }

    fn progress(&mut self, message: &Message) -> Result<(), Impossible> {
        let Message::Progress {
            step,
            loss,
            accuracy,
            gradient_norm,
            learning_rate,
            tokens_per_second,
            seconds,
            ..
        } = message
        else {
            return Ok(());
        };
        let Some(training) = self.job.training.as_ref().filter(|_| !self.trained) else {
            return Err("a training step outside a training".to_owned());
        };
        let later = self.step.is_none_or(|last| *step > last) && *step < training.steps;
        must(later, || {
            format!(
                "training step {step} of {} after {}",
                training.steps,
                self.step.map_or("none".to_owned(), |step| step.to_string())
            )
        })?;
        self.step = Some(*step);
        must(loss.is_finite() && *loss >= -ROUNDING, || {
            format!("a loss of {loss} at step {step}")
        })?;
        let share = accuracy.is_none_or(|accuracy| (0.0..=1.0).contains(&accuracy));
        must(share, || {
            format!("an accuracy of {accuracy:?} at step {step}")
        })?;
        let norm = gradient_norm.is_none_or(|norm| norm.is_finite() && norm >= 0.0);
        must(norm, || {
            format!("a gradient norm of {gradient_norm:?} at step {step}")
        })?;
        let rate = (0.0..=training.learning_rate * 1.000_001).contains(learning_rate);
        must(rate, || {
            format!("a learning rate of {learning_rate} at step {step}")
        })?;
        let speed = tokens_per_second.is_none_or(|speed| speed.is_finite() && speed >= 0.0);
        must(speed, || format!("{tokens_per_second:?} tokens a second"))?;
        time(*seconds)
    }

    /// Takes a generated answer.
    fn answer(&mut self, answered: &Answered) -> Result<(), Impossible> {
        let asked = self.evaluating.map(|index| self.job.evaluations[index]);
        let sample = answered.sample;
        let first =
            asked.is_some_and(|asked| sample < asked.samples) && self.answered.insert(sample);
        must(first, || {
            format!("an answer to example {sample}, which was not asked for or answered before")
        })?;
        let (score, bytes) = (answered.score, answered.bytes());
        must((0.0..=1.0).contains(&score), || {
            format!("a score of {score} for example {sample}")
        })?;
        must(bytes <= MOST_ANSWER, || {
            format!("{bytes} bytes on example {sample}")
        })
    }

    /// Takes the end of an evaluation.
    fn over(&mut self, index: usize) -> Result<(), Impossible> {
        must(self.evaluating.take() == Some(index), || {
            format!("the end of evaluation {index}, which was not begun")
        })
    }
}

/// Whether an evaluation's numbers can be those of what was asked.
fn check_scores(job: &Job, evaluated: &Evaluated) -> Result<(), Impossible> {
    let asked = &job.evaluations[evaluated.index];
    let place = format!("at {} tokens", asked.length);
    must((1..=MOST_SCORES).contains(&evaluated.scores.len()), || {
        format!("{} scores {place}", evaluated.scores.len())
    })?;
    // Every example can have every position scored, and a length is about what was asked for.
    let most = asked.samples.saturating_mul(2 * asked.length as u64 + 64);
    let metric = longhaul_tasks::spec_of(&job.task)
        .map_err(|error| error.to_string())?
        .metric;
    for score in &evaluated.scores {
        check_score(score, Kind::of(metric.name()), most, &place)?;
    }
    let (cell, labelled) = evaluated.scores.split_last().expect("at least one");
    let cells = cell.label.is_empty() && labelled.iter().all(|score| !score.label.is_empty());
    must(cells, || format!("no score of all examples {place}"))?;
    must(
        metric == Metric::TokenAccuracy || cell.samples == asked.samples,
        || {
            format!(
                "{} answers of {} examples {place}",
                cell.samples, asked.samples
            )
        },
    )?;
    check_outcomes(evaluated, asked, metric, &place)?;
    must(evaluated.observations.len() <= MOST_SCORES, || {
        format!("{} observations {place}", evaluated.observations.len())
    })?;
    for seen in &evaluated.observations {
        check_observation(seen, asked, &place)?;
    }
    within("bytes of state", evaluated.state_bytes, MOST_BYTES)?;
    within(
        "bytes of memory",
        evaluated.peak_memory_bytes.unwrap_or(0),
        MOST_BYTES,
    )?;
    time(evaluated.seconds)
}

/// Whether the examples' outcomes are as many as were asked for and add up to the cell.
fn check_outcomes(
    evaluated: &Evaluated,
    asked: &Evaluation,
    metric: Metric,
    place: &str,
) -> Result<(), Impossible> {
    let cell = evaluated.scores.last().expect("at least one");
    let Some(outcomes) = &evaluated.outcomes else {
        return must(asked.samples > MOST_EXAMPLES, || {
            format!("no outcomes of {} examples {place}", asked.samples)
        });
    };
    let count = outcomes.scores().len() as u64;
    must(count == asked.samples, || {
        format!("outcomes of {count} of {} examples {place}", asked.samples)
    })?;
    let are = outcomes.are(Kind::of(metric.name()));
    must(are && outcomes.add_up(cell.sum, cell.weight), || {
        format!(
            "outcomes of {:?} in the mean that do not add up to {} over {} {place}",
            outcomes.mean(),
            cell.sum,
            cell.weight
        )
    })
}

fn check_observation(
    seen: &Observation,
    asked: &Evaluation,
    place: &str,
) -> Result<(), Impossible> {
    let (length, count) = (asked.length as u64, seen.samples as f64);
    must(
        (1..=asked.samples).contains(&seen.samples) && seen.position <= length,
        || {
            format!(
                "an observation of {} examples at position {} {place}",
                seen.samples, seen.position
            )
        },
    )?;
    let most = match &seen.what {
        Observed::StateNorm { bytes, .. } => {
            within("bytes of state", *bytes, MOST_BYTES)?;
            f64::MAX
        }
        Observed::Remembrance { skipped } => {
            must(*skipped < length, || {
                format!("{skipped} tokens skipped {place}")
            })?;
            1.0
        }
    };
    let holds = (0.0..=most * count).contains(&seen.sum)
        && (0.0..f64::INFINITY).contains(&seen.sum_squares);
    must(holds, || {
        format!(
            "{:?} with a sum of {} and of squares of {} {place}",
            seen.what, seen.sum, seen.sum_squares
        )
    })
}

fn check_score(score: &Score, kind: Kind, most: u64, place: &str) -> Result<(), Impossible> {
    let Score {
        label,
        samples,
        sum,
        squares,
        weight,
        weight_squares,
        products,
        tokens,
        nll_sum,
    } = score;
    let count = *samples as f64;
    let range = 0.0..=if kind.is_accuracy() { count } else { f64::MAX };
    must(range.contains(sum) && range.contains(squares), || {
        format!("a score of {sum} in all, of {samples} answers {place} `{label}`")
    })?;
    let whole = sum.fract() == 0.0 && squares == sum;
    must(kind != Kind::ZeroOne || whole, || {
        format!("{sum} right answers of {samples} {place} `{label}`")
    })?;
    let weighed = match kind {
        Kind::Loss => *weight > 0.0 && *weight <= MOST_BYTES as f64,
        _ => *samples > 0 && [weight, weight_squares, products] == [&count, &count, sum],
    };
    must(weighed, || {
        format!("a score of {sum} over {weight}, of {samples} answers {place} `{label}`")
    })?;
    // Cauchy and Schwarz.
    let holds = |product: f64, one: f64, other: f64| {
        (0.0..=one.sqrt() * other.sqrt() * (1.0 + 1e-9) + 1e-9).contains(&product)
    };
    let squared = holds(*sum, *squares, count)
        && holds(*weight, *weight_squares, count)
        && holds(*products, *squares, *weight_squares);
    must(squared, || {
        format!(
            "a score of {sum} over {weight} whose squares are {squares} and {weight_squares}, of {samples} answers {place} `{label}`"
        )
    })?;
    must((*samples).max(*tokens) <= most, || {
        format!(
            "{samples} answers of {tokens} tokens {place} `{label}`, where there are at most {most}"
        )
    })?;
    let rounding = ROUNDING * *tokens as f64;
    must(nll_sum.is_finite() && *nll_sum >= -rounding, || {
        format!("a negative log likelihood of {nll_sum} {place} `{label}`")
    })?;
    let off = sum * std::f64::consts::LN_2 - nll_sum;
    must(
        kind != Kind::Loss || off.abs() <= rounding + 1e-9 * nll_sum,
        || format!("{sum} bits at a negative log likelihood of {nll_sum} {place} `{label}`"),
    )
}

fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Impossible> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn within(what: &str, number: u64, most: u64) -> Result<(), Impossible> {
    must(number <= most, || format!("{number} {what}"))
}

fn time(seconds: f64) -> Result<(), Impossible> {
    must(seconds.is_finite() && seconds >= 0.0, || {
        format!("a time of {seconds} s")
    })
}

#[cfg(test)]
mod tests {
    use longhaul_results::outcomes::Outcomes;

    use super::*;
    use crate::worker::protocol::tests::job;

    fn started() -> Message {
        Message::Started {
            parameters: 5,
            notes: Vec::new(),
        }
    }

    fn step(step: u64, loss: f64, learning_rate: f64) -> Message {
        Message::Progress {
            step,
            loss,
            accuracy: Some(0.5),
            gradient_norm: None,
            learning_rate,
            tokens_per_second: None,
            seconds: 0.1,
            record: true,
        }
    }

    /// Of so many examples, so many of them right.
    fn outcomes(samples: u64, correct: u64) -> Option<Outcomes> {
        let examples = (0..samples.min(MOST_EXAMPLES)).map(|at| (1.0, f64::from(at < correct)));
        Outcomes::new(examples).ok()
    }

    fn evaluated(index: usize, samples: u64, correct: u64, nll_sum: f64) -> Message {
        Message::Evaluated(Evaluated {
            index,
            scores: vec![Score {
                tokens: samples,
                nll_sum,
                ..Score::answers(samples, correct)
            }],
            outcomes: outcomes(samples, correct),
            observations: Vec::new(),
            state_bytes: 8,
            peak_memory_bytes: None,
            tokens: 100,
            seconds: 0.1,
        })
    }

    fn done() -> Message {
        Message::Done {
            inside_plugin_s: 1.0,
            outside_plugin_s: 1.0,
        }
    }

    /// What is refused of the last of these messages.
    fn last(messages: &[Message]) -> Result<(), Impossible> {
        let job = job();
        let mut conversation = Conversation::new(&job);
        let (last, before) = messages.split_last().unwrap();
        for message in before {
            conversation.hear(message).unwrap();
        }
        conversation.hear(last)
    }

    #[test]
    fn what_a_worker_says_is_believed_in_order() {
        let trained = Message::Trained { seconds: 1.0 };
        let all = [
            started(),
            Message::GoesOn { step: 5 },
            step(0, 1.0, 1e-3),
            step(9, 0.5, 1e-4),
            trained,
            Message::Evaluating { index: 0 },
            Message::Evaluation { share: 0.5 },
            evaluated(0, 10, 10, 0.0),
            Message::Evaluating { index: 1 },
            evaluated(1, 10, 0, 5.0),
            done(),
        ];
        for end in 1..=all.len() {
            assert_eq!(last(&all[..end]), Ok(()), "{end}");
        }
        for skipped in [0, 3, 4, 5, 7, 8, 9] {
            let mut some = all.to_vec();
            some.remove(skipped);
            let job = job();
            let mut conversation = Conversation::new(&job);
            let heard: Result<Vec<()>, _> = some.iter().map(|m| conversation.hear(m)).collect();
            assert!(heard.is_err(), "without message {skipped}");
        }
    }

    /// What is refused of a score of this kind.
    fn refused(kind: Kind, score: Score) -> String {
        match check_score(&score, kind, 100, "at 16 tokens") {
            Ok(()) => String::new(),
            Err(words) => words,
        }
    }

    #[test]
    fn a_score_is_held_against_its_kind() {
        let share = Score::of(0.25);
        assert_eq!(refused(Kind::Share, share.clone()), "");
        assert!(refused(Kind::ZeroOne, share).contains("0.25 right answers"));
        assert!(refused(Kind::Share, Score::of(1.5)).contains("a score of 1.5 in all"));
        assert!(refused(Kind::Share, Score::ratio(0.5, 2.0)).contains("0.5 over 2"));
        // Two documents, of 8 and 24 bytes, with 2 bits and 1 bit a byte.
        let mut loss = Score::ratio(16.0, 8.0);
        loss.add(&Score::ratio(24.0, 24.0));
        (loss.tokens, loss.nll_sum) = (32, 40.0 * std::f64::consts::LN_2);
        assert_eq!(refused(Kind::Loss, loss.clone()), "");
        let changed = |change: &dyn Fn(&mut Score)| {
            let mut score = loss.clone();
            change(&mut score);
            refused(Kind::Loss, score)
        };
        assert!(changed(&|score| score.weight = 0.0).contains("40 over 0"));
        assert!(changed(&|score| score.weight = f64::NAN).contains("40 over NaN"));
        assert!(changed(&|score| score.sum = f64::INFINITY).contains("inf in all"));
        assert!(changed(&|score| score.squares = 700.0).contains("squares are 700"));
        assert!(changed(&|score| score.weight_squares = 500.0).contains("and 500"));
        assert!(changed(&|score| score.products = 1e4).contains("40 over 32"));
        assert!(changed(&|score| score.nll_sum = 40.0).contains("40 bits at"));
    }

    #[test]
    fn every_example_is_answered_once() {
        let answer = |sample, score| {
            Message::Answered(Answered {
                sample,
                score,
                ..Answered::default()
            })
        };
        let mut said = vec![
            started(),
            step(9, 1.0, 1e-3),
            Message::Trained { seconds: 1.0 },
            answer(0, 1.0),
        ];
        assert!(last(&said).unwrap_err().contains("example 0"));
        said[3] = Message::Evaluating { index: 0 };
        let then = |message: Message| last(&[said.clone(), vec![message]].concat());
        assert!(then(answer(10, 1.0)).unwrap_err().contains("example 10"));
        assert!(then(answer(1, 1.5)).unwrap_err().contains("score of 1.5"));
        said.push(answer(3, 1.0));
        let then = |message: Message| last(&[said.clone(), vec![message]].concat());
        assert!(then(answer(3, 1.0)).unwrap_err().contains("example 3"));
        assert!(
            then(evaluated(0, 10, 1, 1.0))
                .unwrap_err()
                .contains("1 answers in words of 10")
        );
        said.extend([0, 1, 2, 4, 5, 6, 7, 8, 9].map(|sample| answer(sample, 0.0)));
        let then = |message: Message| last(&[said.clone(), vec![message]].concat());
        assert_eq!(then(evaluated(0, 10, 1, 1.0)), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let training = |message| last(&[started(), message]).unwrap_err();
        assert!(training(step(10, 1.0, 1e-3)).contains("step 10 of 10"));
        assert!(training(step(0, -5.0, 1e-3)).contains("loss of -5"));
        assert!(training(Message::GoesOn { step: 10 }).contains("at step 10 of 10"));
        assert!(training(step(0, f64::NAN, 1e-3)).contains("loss of NaN"));
        assert!(training(step(0, 1.0, f64::NAN)).contains("learning rate of NaN"));
        assert!(training(step(0, 1.0, 0.1)).contains("learning rate of 0.1"));
        assert!(training(Message::Trained { seconds: 0.0 }).contains("step 0 of 10"));
        assert!(training(done()).contains("all is done"));
        assert!(training(started()).contains("twice"));
        let evaluating = |message| {
            let trained = Message::Trained { seconds: 1.0 };
            let begun = Message::Evaluating { index: 0 };
            last(&[started(), step(9, 1.0, 1e-3), trained, begun, message]).unwrap_err()
        };
        assert!(evaluating(evaluated(7, 10, 1, 1.0)).contains("evaluation 7"));
        assert!(
            evaluating(evaluated(0, 4, 99, 1.0)).contains("a score of 99 in all, of 4 answers")
        );
        assert!(evaluating(evaluated(0, 1 << 60, 1, 1.0)).contains("at most"));
        assert!(evaluating(evaluated(0, 0, 0, 0.0)).contains("0 over 0, of 0 answers"));
        assert!(evaluating(evaluated(0, 10, 1, -5.0)).contains("likelihood of -5"));
        let seeing = |what: Observed, samples: u64, position: u64, sum: f64| {
            let Message::Evaluated(mut evaluated) = evaluated(0, 10, 1, 1.0) else {
                unreachable!("that is what it makes");
            };
            evaluated.observations.push(Observation {
                what,
                position,
                samples,
                sum,
                sum_squares: sum * sum,
            });
            evaluating(Message::Evaluated(evaluated))
        };
        let far = |skipped| Observed::Remembrance { skipped };
        assert!(seeing(far(8), 11, 16, 1.0).contains("11 examples"));
        assert!(seeing(far(8), 4, 17, 1.0).contains("position 17"));
        assert!(seeing(far(16), 4, 16, 1.0).contains("16 tokens skipped"));
        assert!(
            seeing(far(8), 4, 16, 4.1).contains("sum of 4.1"),
            "at most 1 each"
        );
        assert!(seeing(far(8), 4, 16, f64::NAN).contains("NaN"));
        let with = |outcomes: Option<Outcomes>| {
            let Message::Evaluated(mut evaluated) = evaluated(0, 10, 1, 1.0) else {
                unreachable!("that is what it makes");
            };
            evaluated.outcomes = outcomes;
            evaluating(Message::Evaluated(evaluated))
        };
        assert!(with(None).contains("no outcomes of 10 examples"));
        assert!(with(outcomes(9, 1)).contains("outcomes of 9 of 10"));
        assert!(with(outcomes(10, 2)).contains("do not add up to 1 over 10"));
        let twice = (0..10).map(|at| (2.0, f64::from(at < 1)));
        assert!(with(Outcomes::new(twice).ok()).contains("do not add up"));
        assert!(evaluating(Message::Evaluation { share: 2.0 }).contains("share of 2"));
        assert!(evaluating(Message::Evaluating { index: 1 }).contains("not next"));
    }
}
