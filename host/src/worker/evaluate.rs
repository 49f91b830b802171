//! Evaluation at one length, streamed: examples are written chunk by chunk while the model reads them,
//! so that memory does not grow with length unless the model's state does.

use std::time::{Duration, Instant};

use longhaul_plugin_api::client::{LoadedModel, LoadedSession};
use longhaul_plugin_api::data::{Batch, FeedOutput, Logits};
use longhaul_results::outcomes::Outcomes;
use longhaul_tasks::{Coordinates, InitialState, Metric, Sample, Split, Task};

use crate::run::plan::Evaluation;
use crate::worker::batches::Ahead;
use crate::worker::blind::FirstRow;
use crate::worker::clock::Clock;
use crate::worker::initial::Start;
use crate::worker::job::Failure;
use crate::worker::observe::{StateNorms, remembrance};
use crate::worker::pipe::send;
use crate::worker::protocol::{Evaluated, Job, Message, Score};
use crate::worker::tally::Tally;

/// Most tokens of a row in one feed.
pub const CHUNK: usize = 2048;
/// Most tokens of all rows in one feed.
const FEED: usize = 16_384;
/// Most bytes of recurrent state over all rows, as the model declares it.
const STATE: u64 = 512 << 20;
/// How often progress is reported.
const GLANCE: Duration = Duration::from_millis(500);

/// Tells the host now and then how far an evaluation is: one that says nothing for long is killed as one that hangs.
pub(super) struct Signs {
    last: Instant,
}

impl Signs {
    pub(super) fn new() -> Self {
        Self {
            last: Instant::now(),
        }
    }

    /// Says the share that is done, unless that was only just said.
    pub(super) fn of_life(&mut self, share: f64) {
        if self.last.elapsed() >= GLANCE {
            send(&Message::Evaluation {
                share: share.min(1.0),
            });
            self.last = Instant::now();
        }
    }
}

/// How the examples of one length are read: depends on nothing but length, number and the model's
/// state, so that values do not depend on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Rows a feed.
    pub(super) rows: usize,
    /// Tokens a row and feed.
    pub(super) chunk: usize,
}

impl Layout {
    fn new(length: usize, samples: u64, state_bytes: u64) -> Self {
        let chunk = length.clamp(1, CHUNK);
        let by_state = (STATE / state_bytes.max(1)).max(1);
        let rows = (FEED / chunk) as u64;
        Self {
            rows: rows.min(samples).min(by_state).max(1) as usize,
            chunk,
        }
    }
}

/// Examples that are read at once, as one group, of so many at a length, by a model with so many bytes of state a
/// sequence.
pub fn rows_at_once(length: usize, samples: u64, state_bytes: u64) -> u64 {
    Layout::new(length, samples, state_bytes).rows as u64
}

/// Some tokens of a group of examples.
#[derive(Default)]
pub(super) struct Chunk {
    /// `[rows, length]`.
    tokens: Vec<u32>,
    /// `[rows, length]`; -1 is not scored.
    pub(super) targets: Vec<i32>,
    /// Bytes of text that they stand for, `[rows, length]`; empty where the metric is not of bytes.
    bytes: Vec<u32>,
    /// Tokens a row.
    pub(super) length: usize,
    /// Examples; rows beyond them are padding.
    examples: usize,
    /// Labels of each example, with the group's last chunk; else empty.
    labels: Option<Vec<Vec<String>>>,
    /// Tokens without padding.
    real_tokens: u64,
}

/// Evaluates a model with `vocab` token ids at one length of a job, on the same examples for every architecture.
///
/// # Errors
/// The plugin's, with the position; a plugin whose state says it read another number of tokens.
pub fn evaluate(
    model: &LoadedModel,
    task: &dyn Task,
    vocab: usize,
    job: &Job,
    index: usize,
    clock: &mut Clock,
) -> Result<Evaluated, Failure> {
    let (evaluation, probes, seed) = (job.evaluations[index], &job.probes, job.seed);
    let samples = evaluation.samples;
    let first = task.sample(&coordinates(evaluation, seed, 0))?.len();
    let layout = Layout::new(first, samples, model.declared_state_bytes(first as u64));
    reset_peak_memory();
    let begun = Instant::now();
    let mut session = clock.inside(|| model.new_session(layout.rows))?;
    let mut starts = probes.initial_states.as_slice();
    if !starts.is_empty() && !Start::is_possible(&session)? {
        starts = &[];
    }
    let reading = Reading {
        task,
        vocab,
        seed,
        evaluation,
        layout,
        starts,
    };
    let mut first_answers = FirstRow::default();
    let mut norms = probes.state_norms.then(StateNorms::default);
    let (mut tokens, mut groups, mut state_bytes) = (0, 0, None);
    let mut see = |session: &LoadedSession, chunk: &Chunk, answers: &FeedOutput| {
        let is_last = chunk.labels.is_some();
        if groups == 0 {
            first_answers.take(chunk, answers);
        }
        if groups == 0 && is_last {
            state_bytes = Some(state_of(model, session, layout.rows)?);
        }
        if let Some(norms) = &mut norms {
            norms.take(session, chunk.examples, is_last)?;
        }
        tokens += chunk.real_tokens;
        groups += u64::from(is_last);
        Ok(())
    };
    let (mut scores, outcomes) = reading.pass(0, &mut session, None, &mut see, clock)?;
    let seconds = begun.elapsed().as_secs_f64();
    let peak_memory_bytes = crate::machine::peak_memory();
    // After the measurement, so that it costs it neither time nor memory.
    let length = job.source_length(&evaluation);
    let from_others = reading.read_from_states(model, &mut session, length, clock)?;
    scores.splice(0..0, from_others);
    drop(session);
    let mut observations = norms.map_or_else(Vec::new, StateNorms::observations);
    if probes.remembrance > 0 {
        let some = 0..samples.min(probes.remembrance).min(layout.rows as u64);
        let some = some.map(|index| task.sample(&coordinates(evaluation, seed, index)));
        let some: Vec<_> = some.collect::<Result<_, _>>()?;
        observations.extend(remembrance(model, &some, vocab, clock)?);
    }
    let alone = Layout { rows: 1, ..layout };
    let one = Evaluation {
        samples: 1,
        ..evaluation
    };
    let reader = || Source::new(task, one, seed, alone);
    first_answers.check(model, reader, vocab, clock)?;
    Ok(Evaluated {
        index,
        scores,
        outcomes,
        observations,
        state_bytes: state_bytes.unwrap_or(0),
        peak_memory_bytes,
        tokens,
        seconds,
    })
}

/// What sees each chunk with its answers, and the session after it.
type See<'a> = dyn FnMut(&LoadedSession, &Chunk, &FeedOutput) -> Result<(), Failure> + 'a;

/// All examples of an evaluation, to be read once or more.
struct Reading<'a> {
    task: &'a dyn Task,
    vocab: usize,
    seed: u64,
    evaluation: Evaluation,
    layout: Layout,
    /// Other states than its own that a model is read from, each in a pass over all examples.
    starts: &'a [InitialState],
}

impl Reading<'_> {
    /// How much of all passes is done where so much is of one.
    fn share(&self, pass: u64, done: f64) -> f64 {
        (pass as f64 + done) / (1 + self.starts.len()) as f64
    }

    /// Reads every example again from each of the other states, which its scores' labels say; those that come
    /// from other sequences from such of this length.
    fn read_from_states(
        &self,
        model: &LoadedModel,
        session: &mut LoadedSession,
        length: usize,
        clock: &mut Clock,
    ) -> Result<Vec<Score>, Failure> {
        let mut scores = Vec::new();
        for (pass, &policy) in (1..).zip(self.starts) {
            let mut start = Start::new(session, policy, self.layout.rows, self.seed)?;
            let share = self.share(pass, 0.0);
            start.read_others(model, self.task, length, share, clock)?;
            let see = &mut |_: &LoadedSession, _: &Chunk, _: &FeedOutput| Ok(());
            let (read, _) = self.pass(pass, session, Some(&start), see, clock)?;
            let way = format!("initial={policy}");
            scores.extend(read.into_iter().map(|score| score.read_as(&way)));
        }
        Ok(scores)
    }

    /// Reads every example by a session at position 0, from given states where there are some. The session is
    /// at position 0 afterwards.
    fn pass(
        &self,
        pass: u64,
        session: &mut LoadedSession,
        start: Option<&Start>,
        see: &mut See<'_>,
        clock: &mut Clock,
    ) -> Result<(Vec<Score>, Option<Outcomes>), Failure> {
        let Self {
            task,
            vocab,
            seed,
            evaluation,
            layout,
            ..
        } = *self;
        let samples = evaluation.samples;
        let mut tally = Tally::new(task, layout.rows);
        let groups = samples.div_ceil(layout.rows as u64);
        let chunks = groups * evaluation.length.div_ceil(layout.chunk) as u64;
        let mut group = 0;
        let begin = |session: &mut LoadedSession, group: u64| match start {
            Some(start) => session.start_from(&start.states(group)),
            None => session.reset(),
        };
        std::thread::scope(|scope| -> Result<(), Failure> {
            let mut source = Source::new(task, evaluation, seed, layout);
            let ahead = Ahead::<Chunk>::start(scope, move |chunk| source.fill(chunk))
                .map_err(Failure::thread)?;
            let (mut done, mut signs) = (0_u64, Signs::new());
            if start.is_some() {
                clock.inside(|| begin(session, group))?;
            }
            while let Some(mut chunk) = ahead.next() {
                let answers = feed(session, &chunk, layout.rows, vocab, clock)?;
                tally.chunk(
                    &chunk.targets,
                    &chunk.bytes,
                    chunk.length,
                    &answers.predictions,
                    &answers.nll,
                );
                see(session, &chunk, &answers)?;
                if let Some(labels) = chunk.labels.take() {
                    tally.group(&labels);
                    group += 1;
                    clock.inside(|| begin(session, group))?;
                }
                done += 1;
                signs.of_life(self.share(pass, done as f64 / chunks.max(1) as f64));
                ahead.give_back(chunk);
            }
            Ok(())
        })?;
        if tally.examples() != samples {
            return Err(Failure::error(format!(
                "the task made {} of {samples} examples",
                tally.examples()
            )));
        }
        if start.is_some() {
            clock.inside(|| session.reset())?;
        }
        let outcomes = tally.outcomes();
        let scores = tally.scores();
        // Of so few tokens that they are all inside a character.
        if scores.last().is_none_or(|all| all.mean().is_none()) {
            return Err(Failure::error(format!(
                "the scored tokens of {samples} examples stand for no byte of text; measure more examples or longer ones"
            )));
        }
        Ok((scores, outcomes))
    }
}

/// Bytes of state a row, where they are near what the model declares: `longhaul check` holds them equal, and here
/// a number that stands for nothing is no measurement.
pub(super) fn state_of(
    model: &LoadedModel,
    session: &LoadedSession,
    rows: usize,
) -> Result<u64, Failure> {
    let (state, position) = (session.state_bytes(), session.position());
    let declared = model
        .declared_state_bytes(position)
        .saturating_mul(rows as u64);
    if state / 2 > declared || declared / 2 > state {
        return Err(Failure::error(format!(
            "the session says it has {state} bytes of state after {position} tokens of {rows} sequences, where the model declares {declared}; this is a bug in the plugin"
        )));
    }
    Ok(state / rows as u64)
}

pub(super) fn feed(
    session: &mut LoadedSession,
    chunk: &Chunk,
    rows: usize,
    vocab: usize,
    clock: &mut Clock,
) -> Result<FeedOutput, Failure> {
    // Targets are left away where nothing is scored: filler needs no output head. What a plugin gets is a copy,
    // so that writing into it changes no score.
    let scored = chunk.targets.iter().any(|&target| target >= 0);
    let targets = if scored {
        chunk.targets.clone()
    } else {
        Vec::new()
    };
    let batch = Batch::new(&chunk.tokens, &targets, rows, chunk.length);
    let position = session.position();
    let answers = clock.inside(|| session.feed(batch, Logits::None, vocab));
    if scored && targets != chunk.targets {
        return Err(Failure::error(
            "the plugin wrote into the targets that it was given; this is a bug in the plugin",
        ));
    }
    answers.map_err(|error| Failure::from(error).at(&format!("reading from token {position} on")))
}

pub(super) fn coordinates(evaluation: Evaluation, seed: u64, index: u64) -> Coordinates {
    Coordinates {
        split: match evaluation.split {
            longhaul_results::Split::Validation => Split::Validation,
            longhaul_results::Split::Test => Split::Test,
        },
        length: evaluation.length,
        seed,
        index,
    }
}

/// Writes the chunks of all groups in order.
pub(super) struct Source<'a> {
    task: &'a dyn Task,
    evaluation: Evaluation,
    seed: u64,
    layout: Layout,
    /// First example after the present group.
    next: u64,
    group: Vec<Box<dyn Sample>>,
    /// Tokens already written of each row.
    position: usize,
}

impl<'a> Source<'a> {
    fn new(task: &'a dyn Task, evaluation: Evaluation, seed: u64, layout: Layout) -> Self {
        Self {
            task,
            evaluation,
            seed,
            layout,
            next: 0,
            group: Vec::new(),
            position: 0,
        }
    }

    /// The next chunk; `false` when there are no more.
    pub(super) fn fill(&mut self, chunk: &mut Chunk) -> bool {
        let mut longest = self
            .group
            .iter()
            .map(|sample| sample.len())
            .max()
            .unwrap_or(0);
        if self.position == longest {
            let end = self
                .evaluation
                .samples
                .min(self.next + self.layout.rows as u64);
            let group = (self.next..end).map(|index| {
                self.task
                    .sample(&coordinates(self.evaluation, self.seed, index))
            });
            let Ok(group) = group.collect::<Result<Vec<_>, _>>() else {
                return false;
            };
            (self.group, self.next, self.position) = (group, end, 0);
            longest = self
                .group
                .iter()
                .map(|sample| sample.len())
                .max()
                .unwrap_or(0);
            if longest == 0 {
                return false;
            }
        }
        let length = self.layout.chunk.min(longest - self.position);
        (chunk.length, chunk.examples) = (length, self.group.len());
        chunk.real_tokens = 0;
        chunk.tokens.clear();
        chunk.tokens.resize(self.layout.rows * length, 0);
        chunk.targets.clear();
        chunk.targets.resize(self.layout.rows * length, -1);
        let rows = chunk
            .tokens
            .chunks_mut(length)
            .zip(chunk.targets.chunks_mut(length));
        for (sample, (tokens, targets)) in self.group.iter().zip(rows) {
            let own = sample.len().saturating_sub(self.position).min(length);
            sample.write(self.position, &mut tokens[..own], &mut targets[..own]);
            chunk.real_tokens += own as u64;
        }
        if self.task.spec().metric == Metric::BitsPerByte {
            chunk.bytes.clear();
            chunk.bytes.resize(self.layout.rows * length, 0);
            for (sample, bytes) in self.group.iter().zip(chunk.bytes.chunks_mut(length)) {
                let own = sample.len().saturating_sub(self.position).min(length);
                sample.write_bytes(self.position, &mut bytes[..own]);
            }
        }
        self.position += length;
        chunk.labels = (self.position == longest).then(|| {
            let texts =
                |sample: &dyn Sample| sample.labels().iter().map(ToString::to_string).collect();
            self.group
                .iter()
                .map(|sample| texts(sample.as_ref()))
                .collect()
        });
        true
    }
}

/// Lets the kernel count this process's peak memory from now on, where it allows that.
pub(super) fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_are_bounded() {
        assert_eq!(
            Layout::new(64, 500, 10),
            Layout {
                rows: 256,
                chunk: 64
            }
        );
        assert_eq!(
            Layout::new(64, 100, 10),
            Layout {
                rows: 100,
                chunk: 64
            }
        );
        assert_eq!(
            Layout::new(1 << 14, 500, 10),
            Layout {
                rows: 8,
                chunk: 2048
            }
        );
        // The same for every longer length, so that memory is the same too.
        assert_eq!(Layout::new(1 << 14, 500, 10), Layout::new(1 << 20, 500, 10));
        // A state that grows gets fewer rows.
        assert_eq!(
            Layout::new(1 << 20, 500, 300 << 20),
            Layout {
                rows: 1,
                chunk: 2048
            }
        );
    }

    #[test]
    fn chunks_together_are_the_examples() {
        let task = longhaul_tasks::parse_task("needle").unwrap();
        let layout = Layout { rows: 3, chunk: 50 };
        let five = Evaluation {
            split: longhaul_results::Split::Test,
            length: 128,
            samples: 5,
        };
        let mut source = Source::new(task.as_ref(), five, 4, layout);
        let (mut chunk, mut groups, mut tokens) = (Chunk::default(), 0, vec![Vec::new(); 5]);
        while source.fill(&mut chunk) {
            for row in 0..3.min(5 - groups * 3) {
                let own = &chunk.tokens[row * chunk.length..(row + 1) * chunk.length];
                tokens[groups * 3 + row].extend_from_slice(own);
            }
            if let Some(labels) = chunk.labels.take() {
                assert_eq!(labels.len(), [3, 2][groups]);
                assert!(labels[0][0].starts_with("depth="), "{labels:?}");
                groups += 1;
            }
        }
        assert_eq!(groups, 2);
        for (index, found) in tokens.iter().enumerate() {
            let sample = task.sample(&coordinates(five, 4, index as u64)).unwrap();
            let (mut expected, mut targets) = (vec![0; sample.len()], vec![0; sample.len()]);
            sample.write(0, &mut expected, &mut targets);
            assert_eq!(found, &expected);
        }
    }
}
