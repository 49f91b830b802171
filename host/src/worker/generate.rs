//! Generated answers: prompts are read by sessions of one row each, so that no padding reaches a state, then
//! tokens are chosen greedily. What prompts share is read once (`prompts.rs`). No prompt is in memory as a whole.

use std::time::Instant;

use longhaul_plugin_api::client::{ClientError, LoadedModel, LoadedSession};
use longhaul_plugin_api::data::{Batch, Logits};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_tasks::ruler::score::is_null;
use longhaul_tasks::{Request, Sample, Task, TaskError};
use longhaul_text::Tokenizer;

use crate::run::plan::Evaluation;
use crate::worker::clock::Clock;
use crate::worker::evaluate::{Signs, coordinates, reset_peak_memory, state_of};
use crate::worker::job::Failure;
use crate::worker::pipe::send;
use crate::worker::prompts::{CELL, Order, Turn};
use crate::worker::protocol::{Answered, Evaluated, Message, Score};
use crate::worker::tally::Tally;

/// Most bytes of sessions that are kept for prompts to come, as the model declares them. A prompt whose prefix was
/// not kept is read from further back, to the same bytes.
const KEPT: u64 = 1 << 30;

/// Most tokens of a prompt that is told with its answer.
const SHOWN: usize = 1024;

/// Why an answer is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model said so.
    Stop,
    /// It has as many tokens as may be generated.
    Most,
    /// More tokens could not change its score.
    Scored,
}

impl End {
    /// Its name in predictions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Most => "length",
            Self::Scored => "scored",
        }
    }
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Without the token that ended it.
    pub tokens: Vec<u32>,
    /// Why it is over.
    pub end: End,
}

/// What is to be generated and scored.
pub struct Asked<'a> {
    /// The task.
    pub task: &'a dyn Task,
    /// Makes text of answers.
    pub tokenizer: &'a dyn Tokenizer,
    /// Token ids of the model.
    pub vocab: usize,
    /// Of the examples.
    pub seed: u64,
    /// Which examples.
    pub evaluation: Evaluation,
    /// The model's local window in tokens, where it has one.
    pub window: Option<usize>,
    /// Those that come after them.
    pub next: Option<Evaluation>,
    /// Place in the job's list.
    pub index: usize,
}

impl Asked<'_> {
    fn samples(&self, of: Evaluation) -> Result<Vec<Box<dyn Sample>>, TaskError> {
        let all = 0..of.samples;
        all.map(|index| self.task.sample(&coordinates(of, self.seed, index)))
            .collect()
    }

    fn score(&self, text: &str, request: &Request) -> f64 {
        request.score(self.task.spec().metric, text)
    }
}

/// Lets a model answer the examples of one length, on the same prompts for every architecture, and tells the host
/// each answer.
///
/// # Errors
/// The plugin's, with the position: a prompt that is longer than the model can read is never cut. A length that the
/// task cannot have.
pub fn generate(
    model: &LoadedModel,
    asked: &Asked<'_>,
    carried: &mut Carried,
    clock: &mut Clock,
) -> Result<Evaluated, Failure> {
    let begun = Instant::now();
    let samples = asked.samples(asked.evaluation)?;
    // Of a length that the task cannot have nothing is carried; its turn says why.
    let next = asked.next.map(|next| asked.samples(next));
    let next = next.and_then(Result::ok).unwrap_or_default();
    let carried_here = std::mem::take(carried);
    let order = Order::new(&samples, carried_here.position(), &next);
    drop(next);
    reset_peak_memory();
    let most = samples
        .iter()
        .filter_map(|sample| Some(sample.request()?.most_new as u64));
    let planned = order.tokens(&samples) + most.sum::<u64>();
    let mut reader = Reader::new(model, asked.vocab, carried_here, planned, clock);
    let mut tally = Tally::new(asked.task, 0);
    let mut state_bytes = 0;
    for turn in &order.turns {
        let sample = samples[turn.sample].as_ref();
        let request = sample.request().ok_or_else(|| {
            Failure::error("the task scores texts, and asks for none; this is a bug in the task")
        })?;
        let (mut session, first) = reader.prompt(turn, sample)?;
        if turn.sample == 0 {
            state_bytes = state_of(model, &session, 1)?;
        }
        // Tokens that are no text yet may become one; those of the whole answer must be.
        let is_final = |tokens: &[u32]| {
            let text = asked.tokenizer.decode(tokens);
            text.is_ok_and(|text| asked.score(&text, request) >= 1.0)
        };
        let stops = asked.tokenizer.stops();
        let answer = reader.answer(&mut session, first, request, stops, &is_final)?;
        let answered = answered(asked, turn.sample, sample, request, &answer)?;
        tally.example(answered.sample, &answered.labels, Score::of(answered.score));
        send(&Message::Answered(answered));
    }
    let read = reader.read;
    *carried = reader.carry(&order);
    Ok(Evaluated {
        index: asked.index,
        outcomes: tally.outcomes(),
        scores: tally.scores(),
        observations: Vec::new(),
        state_bytes,
        peak_memory_bytes: crate::machine::peak_memory(),
        tokens: read,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// An answer as the host is told it.
///
/// # Errors
/// Tokens that the tokenizer makes no text of.
fn answered(
    asked: &Asked<'_>,
    index: usize,
    sample: &dyn Sample,
    request: &Request,
    answer: &Answer,
) -> Result<Answered, Failure> {
    let decode = |tokens: &[u32]| {
        let text = asked.tokenizer.decode(tokens);
        text.map_err(|error| Failure::error(error.to_string()))
    };
    let text = decode(&answer.tokens)?;
    let mut labels: Vec<String> = sample.labels().iter().map(ToString::to_string).collect();
    // What a window alone could answer, for a hybrid to be held against.
    if let (Some(window), Some(place)) = (asked.window, sample.answer_at()) {
        let inside = place + window >= sample.len();
        labels.push(format!(
            "window={}",
            if inside { "inside" } else { "outside" }
        ));
    }
    if is_null(&text) {
        labels.push("answer=empty".to_owned());
    }
    let prompt = (sample.len() <= SHOWN).then(|| {
        let (mut tokens, mut targets) = (vec![0; sample.len()], vec![0; sample.len()]);
        sample.write(0, &mut tokens, &mut targets);
        decode(&tokens)
    });
    Ok(Answered {
        sample: index as u64,
        tokens: answer.tokens.len() as u64,
        end: answer.end.name().to_owned(),
        score: asked.score(&text, request),
        text,
        prompt: prompt.transpose()?,
        prompt_tokens: sample.len() as u64,
        references: request.references.clone(),
        labels,
    })
}

/// A session that read the prompts' common beginning.
struct Kept {
    position: usize,
    session: LoadedSession,
}

/// A session kept from one length for the next, where the prompts of both begin alike.
#[derive(Default)]
pub struct Carried(Option<Kept>);

impl Carried {
    /// Tokens that it read.
    pub fn position(&self) -> usize {
        self.0.as_ref().map_or(0, |kept| kept.position)
    }
}

/// Reads prompts in an order and lets a model answer them.
pub struct Reader<'a> {
    model: &'a LoadedModel,
    /// Token ids of the model.
    vocab: usize,
    clock: &'a mut Clock,
    kept: Vec<Kept>,
    can_fork: bool,
    /// Tokens fed so far.
    pub read: u64,
    /// Tokens that will be, about.
    planned: u64,
    signs: Signs,
}

impl<'a> Reader<'a> {
    /// A reader that may go on from what was kept before.
    pub fn new(
        model: &'a LoadedModel,
        vocab: usize,
        carried: Carried,
        planned: u64,
        clock: &'a mut Clock,
    ) -> Self {
        Self {
            model,
            vocab,
            clock,
            kept: carried.0.into_iter().collect(),
            can_fork: true,
            read: 0,
            planned,
            signs: Signs::new(),
        }
    }

    /// Reads a prompt whose turn it is. Returns its session and the token that the model would go on with.
    ///
    /// # Errors
    /// The plugin's, with the position.
    pub fn prompt(
        &mut self,
        turn: &Turn,
        sample: &dyn Sample,
    ) -> Result<(LoadedSession, u32), Failure> {
        let (mut position, mut session) = self.begin(turn)?;
        let (mut tokens, mut targets) = (vec![0; CELL], vec![-1; CELL]);
        loop {
            let count = CELL.min(sample.len() - position);
            let (tokens, targets) = (&mut tokens[..count], &mut targets[..count]);
            sample.write(position, tokens, targets);
            targets.fill(-1);
            position += count;
            if position == sample.len() {
                targets[count - 1] = 0;
                let next = self.feed(&mut session, tokens, targets)?;
                return Ok((session, next.unwrap_or(0)));
            }
            self.feed(&mut session, tokens, &[])?;
            if turn.keeps.contains(&position) {
                self.keep(position, &session)?;
            }
        }
    }

    /// The session from which a prompt's reading begins, and its position.
    fn begin(&mut self, turn: &Turn) -> Result<(usize, LoadedSession), Failure> {
        while self
            .kept
            .pop_if(|kept| kept.position > turn.shared)
            .is_some()
        {}
        let begun = match self.kept.last() {
            // Nobody else goes on from there.
            Some(kept) if kept.position == turn.shared && !turn.again => self.kept.pop(),
            Some(kept) => Some(Kept {
                position: kept.position,
                session: self.clock.inside(|| kept.session.fork())?,
            }),
            None => None,
        };
        match begun {
            Some(Kept { position, session }) => Ok((position, session)),
            None => Ok((0, self.clock.inside(|| self.model.new_session(1))?)),
        }
    }

    /// Keeps a copy of a session, where the plugin makes copies and there is room.
    fn keep(&mut self, position: usize, session: &LoadedSession) -> Result<(), Failure> {
        let size = |position: usize| self.model.declared_state_bytes(position as u64);
        let there: u64 = self.kept.iter().map(|kept| size(kept.position)).sum();
        if !self.can_fork || there.saturating_add(size(position)) > KEPT {
            return Ok(());
        }
        match self.clock.inside(|| session.fork()) {
            Ok(session) => self.kept.push(Kept { position, session }),
            Err(error) if error.kind() == ErrorKind::Unsupported => self.can_fork = false,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Generates until a stop, as many tokens as may be, or an answer of which `is_final` says that its score is
    /// settled.
    ///
    /// # Errors
    /// The plugin's, with the position.
    pub fn answer(
        &mut self,
        session: &mut LoadedSession,
        first: u32,
        request: &Request,
        stops: &[u32],
        is_final: &dyn Fn(&[u32]) -> bool,
    ) -> Result<Answer, Failure> {
        let (mut tokens, mut next) = (Vec::new(), first);
        let end = loop {
            if stops.contains(&next) {
                break End::Stop;
            }
            if tokens.len() == request.most_new {
                break End::Most;
            }
            tokens.push(next);
            if is_final(&tokens) {
                break End::Scored;
            }
            if tokens.len() == request.most_new {
                break End::Most;
            }
            next = self.feed(session, &[next], &[0])?.unwrap_or(0);
        };
        Ok(Answer { tokens, end })
    }

    /// Feeds one row; the most likely token after the last, where that one is scored.
    fn feed(
        &mut self,
        session: &mut LoadedSession,
        tokens: &[u32],
        targets: &[i32],
    ) -> Result<Option<u32>, Failure> {
        let position = session.position();
        let batch = Batch::new(tokens, targets, 1, tokens.len());
        let fed = self
            .clock
            .inside(|| session.feed(batch, Logits::None, self.vocab));
        let output = fed.map_err(|error: ClientError| {
            Failure::from(error).at(&format!("reading from token {position} on"))
        })?;
        self.read += tokens.len() as u64;
        self.signs
            .of_life(self.read as f64 / self.planned.max(1) as f64);
        Ok(output.predictions.last().copied())
    }

    /// What is kept for the prompts of the next length.
    pub fn carry(mut self, order: &Order) -> Carried {
        while self
            .kept
            .pop_if(|kept| kept.position > order.carried)
            .is_some()
        {}
        Carried(self.kept.pop().filter(|kept| kept.position > 0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::worker::prompts::tests::{Prompt, needle};
    use longhaul_plugin_api::author::{Model, Result, Session, model_box};
    use longhaul_plugin_api::data::{
        FeedOutput, ParameterInfo, ParameterRole, StepReport, TrainConfig,
    };
    use longhaul_plugin_api::error::PluginError;
    use longhaul_plugin_api::metadata::StateGrowth;

    const VOCAB: usize = 997;

    /// A model whose next token depends on every token, on their order and on how they were fed.
    #[derive(Clone, Default)]
    struct Exact {
        cannot_fork: bool,
        /// Bytes of state that it declares.
        state: u64,
        /// Where each feed of more than one token began.
        feeds: Arc<Mutex<Vec<u64>>>,
    }

    #[allow(unused_variables)]
    impl Model for Exact {
        fn parameters(&self) -> Vec<ParameterInfo> {
            vec![ParameterInfo {
                name: "one".into(),
                shape: vec![1].into(),
                role: ParameterRole::Mixer,
            }]
        }
        fn read_parameter(&self, index: usize, values: &mut [f32]) -> Result<()> {
            values.fill(0.0);
            Ok(())
        }
        fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()> {
            Ok(())
        }
        fn begin_training(&mut self, config: &TrainConfig) -> Result<()> {
            Ok(())
        }
        fn train_step(&mut self, batch: &Batch<'_>, step: u64) -> Result<StepReport> {
            Ok(StepReport::unread(0.0))
        }
        fn loss_and_gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
            Ok(StepReport::unread(0.0))
        }
        fn read_gradient(&self, index: usize, values: &mut [f32]) -> Result<()> {
            values.fill(0.0);
            Ok(())
        }
        fn state_growth(&self) -> StateGrowth {
            StateGrowth::Constant
        }
        fn declared_state_bytes(&self, length: u64) -> u64 {
            self.state
        }
        fn new_session(&self, rows: usize) -> Result<Box<dyn Session>> {
            assert_eq!(rows, 1, "rows of unequal length share no session");
            Ok(Box::new(Read {
                model: self.clone(),
                position: 0,
                hash: 1,
            }))
        }
    }

    #[derive(Clone)]
    struct Read {
        model: Exact,
        position: u64,
        hash: u64,
    }

    impl Session for Read {
        fn feed(&mut self, batch: &Batch<'_>, _: Logits) -> Result<FeedOutput> {
            if batch.length > 1 {
                self.model.feeds.lock().unwrap().push(self.position);
            }
            let mut output = FeedOutput::default();
            self.hash = self.hash.wrapping_mul(31).wrapping_add(self.position);
            for (place, &token) in batch.tokens.iter().enumerate() {
                self.hash = (self.hash ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                self.position += 1;
                if batch.targets.get(place).is_some_and(|&target| target >= 0) {
                    output
                        .predictions
                        .push((self.hash >> 33) as u32 % VOCAB as u32);
                    output.nll.push(2.0);
                }
            }
            Ok(output)
        }
        fn position(&self) -> u64 {
            self.position
        }
        fn state_bytes(&self) -> u64 {
            self.model.state
        }
        fn reset(&mut self) -> Result<()> {
            (self.position, self.hash) = (0, 1);
            Ok(())
        }
        fn fork(&self) -> Result<Box<dyn Session>> {
            if self.model.cannot_fork {
                return Err(PluginError::unsupported("no forks"));
            }
            Ok(Box::new(self.clone()))
        }
    }

    /// Answers of all samples by place, and tokens read.
    fn answers(model: &Exact, samples: &[Box<dyn Sample>], carried: Carried) -> (Vec<Answer>, u64) {
        let loaded = LoadedModel::new("exact", model_box(Box::new(model.clone()))).unwrap();
        let order = Order::new(samples, carried.position(), &[]);
        let mut clock = Clock::start();
        let mut reader = Reader::new(&loaded, VOCAB, carried, 1, &mut clock);
        let mut all = vec![None; samples.len()];
        for turn in &order.turns {
            let sample = samples[turn.sample].as_ref();
            let (mut session, first) = reader.prompt(turn, sample).unwrap();
            let request = sample.request().unwrap();
            let answer = reader.answer(&mut session, first, request, &[], &|_| false);
            all[turn.sample] = Some(answer.unwrap());
        }
        let read = reader.read;
        (all.into_iter().map(Option::unwrap).collect(), read)
    }

    fn samples() -> Vec<Box<dyn Sample>> {
        let lengths = [3000, 700, 4096, 5000, 5000, 20];
        let depths = [1500, 600, 4000, 2600, 1100, 10];
        (0..6)
            .map(|i| needle(lengths[i], depths[i], i as u32))
            .collect()
    }

    #[test]
    fn together_they_answer_as_alone() {
        let model = Exact::default();
        let (together, read) = answers(&model, &samples(), Carried::default());
        let mut alone_read = 0;
        for (sample, together) in samples().into_iter().zip(&together) {
            let (alone, read) = answers(&model, &[sample], Carried::default());
            assert_eq!(&alone[0], together);
            assert_eq!((together.end, together.tokens.len()), (End::Most, 4));
            alone_read += read;
        }
        assert!(read < alone_read, "{read} of {alone_read}");
        // Every feed of a prompt begins at a cell, whatever it went on from.
        let feeds = model.feeds.lock().unwrap();
        assert!(feeds.iter().all(|position| position % CELL as u64 == 0));
    }

    #[test]
    fn what_cannot_be_kept_is_read_again() {
        let (together, read) = answers(&Exact::default(), &samples(), Carried::default());
        let all: u64 = samples().iter().map(|sample| sample.len() as u64 + 3).sum();
        assert!(read < all);
        let cannot = Exact {
            cannot_fork: true,
            ..Exact::default()
        };
        assert_eq!(
            answers(&cannot, &samples(), Carried::default()),
            (together.clone(), all)
        );
        let large = Exact {
            state: KEPT + 1,
            ..Exact::default()
        };
        assert_eq!(
            answers(&large, &samples(), Carried::default()),
            (together.clone(), all)
        );
        // With room for one session, some are read again.
        let one = Exact {
            state: KEPT / 2 + 1,
            ..Exact::default()
        };
        let (answered, some) = answers(&one, &samples(), Carried::default());
        assert_eq!(answered, together);
        assert!((read..=all).contains(&some), "{read} {some} {all}");
    }

    #[test]
    fn a_longer_haystack_goes_on() {
        let of = |length: usize| -> Vec<_> { (0..3).map(|i| needle(length, length, i)).collect() };
        let model = Exact::default();
        let loaded = LoadedModel::new("exact", model_box(Box::new(model.clone()))).unwrap();
        let (short, long) = (of(1024), of(2048));
        let order = Order::new(&short, 0, &long);
        let mut clock = Clock::start();
        let mut reader = Reader::new(&loaded, VOCAB, Carried::default(), 1, &mut clock);
        for turn in &order.turns {
            reader.prompt(turn, short[turn.sample].as_ref()).unwrap();
        }
        assert_eq!(reader.read, 1024 + 3 * 28);
        let carried = reader.carry(&order);
        assert_eq!(carried.position(), 1024);
        let (went_on, read) = answers(&model, &long, carried);
        assert_eq!(read, 1024 + 3 * (28 + 3));
        assert_eq!(went_on, answers(&model, &long, Carried::default()).0);
    }

    #[test]
    fn an_answer_ends_in_time() {
        let model = LoadedModel::new("exact", model_box(Box::new(Exact::default()))).unwrap();
        let answer = |most_new: usize, stops: &[u32], last: Option<u32>| {
            let request = Request {
                references: Vec::new(),
                labels: Vec::new(),
                most_new,
            };
            let prompt = Prompt {
                tokens: vec![1, 2, 3],
                request: request.clone(),
            };
            let samples: [Box<dyn Sample>; 1] = [Box::new(prompt)];
            let order = Order::new(&samples, 0, &[]);
            let mut clock = Clock::start();
            let mut reader = Reader::new(&model, VOCAB, Carried::default(), 1, &mut clock);
            let (mut session, first) = reader.prompt(&order.turns[0], samples[0].as_ref()).unwrap();
            let is_final = |tokens: &[u32]| last.is_some() && tokens.last() == last.as_ref();
            let answer = reader
                .answer(&mut session, first, &request, stops, &is_final)
                .unwrap();
            (answer, session.position())
        };
        let (whole, read) = answer(6, &[], None);
        assert_eq!((whole.end, whole.tokens.len(), read), (End::Most, 6, 3 + 5));
        let third = whole.tokens[2];
        let (stopped, _) = answer(6, &[third], None);
        assert_eq!(
            (stopped.end, stopped.tokens.as_slice()),
            (End::Stop, &whole.tokens[..2])
        );
        let (scored, _) = answer(6, &[], Some(third));
        assert_eq!(
            (scored.end, scored.tokens.as_slice()),
            (End::Scored, &whole.tokens[..3])
        );
        let (nothing, _) = answer(0, &[], None);
        assert_eq!((nothing.end, nothing.tokens.len()), (End::Most, 0));
    }
}
