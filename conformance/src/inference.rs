//! Checks of sessions: chunks, causality, rows, state.

use longhaul_plugin_api::client::ClientError;
use longhaul_plugin_api::data::{Logits, StateSummary};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_plugin_api::metadata::{StateGrowth, capability};

use crate::subject::{Data, Outcome, Subject, VOCAB, feed};
use crate::tolerance::{SAME_LOGITS, SAME_LOSS, compare};

/// Keeps the worst of several comparisons.
pub(crate) struct Worst {
    error: f64,
    place: String,
}

impl Worst {
    pub(crate) fn new() -> Self {
        Self {
            error: 0.0,
            place: String::new(),
        }
    }

    /// Takes a comparison in; a failed one is the outcome.
    pub(crate) fn take(
        &mut self,
        place: &str,
        result: Result<f64, (f64, String)>,
    ) -> Option<Outcome> {
        match result {
            Ok(error) => {
                if error >= self.error {
                    (self.error, self.place) = (error, place.to_owned());
                }
                None
            }
            Err((error, detail)) => Some(Outcome::fail(Some(error), format!("{place}: {detail}"))),
        }
    }

    pub(crate) fn pass(self) -> Outcome {
        Outcome::pass(Some(self.error), self.place)
    }
}

/// One feed, uneven chunks and single steps give the same logits, at lengths around every chunk size.
pub fn chunks(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let model = subject.model(1)?;
        let mut worst = Worst::new();
        for length in [1, 2, 63, 64, 65, 130] {
            for rows in [1, 3] {
                let data = Data::new(rows, length, 11);
                let whole = feed(&model, &data, &[length])?;
                for (name, pieces) in [("steps", &[1][..]), ("chunks", &[5, 1, 64, 2, 33])] {
                    let place = format!("{name} at T {length}, B {rows}");
                    let parts = feed(&model, &data, pieces)?;
                    let compared = compare(&parts, &whole, SAME_LOGITS);
                    if let Some(mut failed) = worst.take(&place, compared) {
                        failed.detail += " of one feed; is the state read at the start of a feed, and written \
                                          back at its end?";
                        return Ok(failed);
                    }
                }
            }
        }
        Ok(worst.pass())
    };
    check().into()
}

/// Mean negative log likelihood by feeding equals the loss by training.
pub fn same_loss(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        let (mut worst, mut place) = (0.0, String::new());
        for (rows, length) in [(1, 1), (3, 65), (9, 130)] {
            let data = Data::new(rows, length, 13);
            let trained = model.loss_and_gradients(data.batch())?;
            let output = model
                .new_session(rows)?
                .feed(data.batch(), Logits::None, VOCAB)?;
            let sum: f64 = output.nll.iter().map(|nll| f64::from(*nll)).sum();
            let fed = sum / output.nll.len() as f64;
            let targets = data.targets.iter().filter(|target| **target >= 0);
            let right = output
                .predictions
                .iter()
                .zip(targets)
                .filter(|(p, t)| **p as i32 == **t)
                .count();
            if right as u64 != trained.correct {
                let detail = format!("{right} right by feeding, {} by training", trained.correct);
                return Ok(Outcome::fail(None, detail));
            }
            let error = (fed - trained.loss).abs() / trained.loss;
            if error >= worst {
                (worst, place) = (error, format!("B {rows}, T {length}"));
            }
        }
        Ok(if worst <= SAME_LOSS {
            Outcome::pass(Some(worst), place)
        } else {
            Outcome::fail(Some(worst), place)
        })
    };
    check().into()
}

/// Changing a token changes logits from its place on, and none before.
pub fn causality(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let model = subject.model(1)?;
        let data = Data::new(2, 70, 17);
        let base = feed(&model, &data, &[70])?;
        let mut worst = Worst::new();
        for place in [1, 33, 64, 69] {
            let mut changed = data.clone();
            for row in 0..2 {
                let token = &mut changed.tokens[row * 70 + place];
                *token = (*token + 1) % VOCAB as u32;
            }
            let logits = feed(&model, &changed, &[70])?;
            for row in 0..2 {
                let range =
                    |from: usize, to: usize| (row * 70 + from) * VOCAB..(row * 70 + to) * VOCAB;
                let before = compare(
                    &logits[range(0, place)],
                    &base[range(0, place)],
                    SAME_LOGITS,
                );
                let name = format!("before token {place} of row {row}");
                if let Some(failed) = worst.take(&name, before) {
                    return Ok(failed);
                }
                if logits[range(place, place + 1)] == base[range(place, place + 1)] {
                    return Ok(Outcome::fail(
                        None,
                        format!("token {place} changes nothing at its place"),
                    ));
                }
            }
        }
        Ok(worst.pass())
    };
    check().into()
}

/// A row alone and among others gives the same logits; so does its gradient's batch in another order.
pub fn rows(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        let data = Data::new(5, 67, 19);
        let all = feed(&model, &data, &[67])?;
        let mut worst = Worst::new();
        for row in 0..5 {
            let range = row * 67..(row + 1) * 67;
            let alone = Data {
                tokens: data.tokens[range.clone()].to_vec(),
                targets: data.targets[range].to_vec(),
                rows: 1,
                length: 67,
            };
            let logits = feed(&model, &alone, &[67])?;
            let among = &all[row * 67 * VOCAB..(row + 1) * 67 * VOCAB];
            if let Some(failed) =
                worst.take(&format!("row {row}"), compare(&logits, among, SAME_LOGITS))
            {
                return Ok(failed);
            }
        }
        let loss = model.loss_and_gradients(data.batch())?.loss;
        let mut turned = data.clone();
        turned.tokens.rotate_left(67);
        turned.targets.rotate_left(67);
        let other = model.loss_and_gradients(turned.batch())?.loss;
        if (loss - other).abs() > SAME_LOSS * loss {
            return Ok(Outcome::fail(
                None,
                format!("loss {loss}, and {other} with rows in another order"),
            ));
        }
        Ok(worst.pass())
    };
    check().into()
}

/// Measured state bytes are the declared ones at three lengths, and grow as declared.
pub fn state_bytes(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let model = subject.model(1)?;
        let mut session = model.new_session(2)?;
        let mut sizes = Vec::new();
        for length in [16u64, 64, 200] {
            let count = (length - session.position()) as usize;
            session.feed(Data::new(2, count, 23).batch(), Logits::None, VOCAB)?;
            if session.position() != length {
                let detail = format!("position {} after {length} tokens", session.position());
                return Ok(Outcome::fail(None, detail));
            }
            let (measured, declared) = (
                session.state_bytes(),
                2 * model.declared_state_bytes(length),
            );
            if measured != declared {
                let detail = format!("{measured} bytes at T {length}, {declared} declared");
                return Ok(Outcome::fail(None, detail));
            }
            sizes.push(measured);
        }
        let growth = model.state_growth();
        let holds = match growth {
            StateGrowth::Constant => sizes[0] == sizes[2],
            StateGrowth::Window => sizes[0] <= sizes[1] && sizes[1] <= sizes[2],
            StateGrowth::Linear => sizes[0] < sizes[1] && sizes[1] < sizes[2],
        };
        let detail = format!(
            "{}: {} B at T 16, {} at T 200",
            growth.name(),
            sizes[0],
            sizes[2]
        );
        Ok(if holds {
            Outcome::pass(None, detail)
        } else {
            Outcome::fail(None, detail)
        })
    };
    check().into()
}

/// A fork goes on as its origin would, and neither touches the other.
pub fn fork(subject: &Subject) -> Outcome {
    if !subject.declares(capability::FORK) {
        return Outcome::pass(None, "not declared");
    }
    let check = || -> Result<Outcome, ClientError> {
        let model = subject.model(1)?;
        let (prefix, one, two) = (
            Data::new(2, 40, 29),
            Data::new(2, 9, 31),
            Data::new(2, 9, 37),
        );
        let mut session = model.new_session(2)?;
        session.feed(prefix.batch(), Logits::None, VOCAB)?;
        let mut other = session.fork()?;
        let first = session.feed(one.batch(), Logits::All, VOCAB)?.logits;
        let diverged = other.feed(two.batch(), Logits::All, VOCAB)?.logits;
        let mut again = model.new_session(2)?;
        again.feed(prefix.batch(), Logits::None, VOCAB)?;
        let expected = again.feed(two.batch(), Logits::All, VOCAB)?.logits;
        if first == diverged {
            return Ok(Outcome::fail(
                None,
                "a fork and its origin read other tokens and agree",
            ));
        }
        Ok(match compare(&diverged, &expected, SAME_LOGITS) {
            Ok(worst) => Outcome::pass(Some(worst), ""),
            Err((worst, detail)) => Outcome::fail(Some(worst), detail),
        })
    };
    check().into()
}

/// An exported state, imported into a fresh session, goes on the same; other bytes are refused.
pub fn export(subject: &Subject) -> Outcome {
    if !subject.declares(capability::EXPORT_STATE) {
        return Outcome::pass(None, "not declared");
    }
    let check = || -> Result<Outcome, ClientError> {
        let model = subject.model(1)?;
        let (prefix, rest) = (Data::new(2, 40, 29), Data::new(2, 9, 31));
        let mut session = model.new_session(2)?;
        session.feed(prefix.batch(), Logits::None, VOCAB)?;
        let bytes = session.export_state()?;
        let expected = session.feed(rest.batch(), Logits::All, VOCAB)?.logits;
        let mut other = model.new_session(2)?;
        if other.import_state(&bytes[..bytes.len() - 1]).is_ok() || other.import_state(&[]).is_ok()
        {
            return Ok(Outcome::fail(None, "a shortened state was imported"));
        }
        other.import_state(&bytes)?;
        if other.position() != 40 {
            return Ok(Outcome::fail(
                None,
                format!("position {} after an import", other.position()),
            ));
        }
        let logits = other.feed(rest.batch(), Logits::All, VOCAB)?.logits;
        Ok(match compare(&logits, &expected, SAME_LOGITS) {
            Ok(worst) => Outcome::pass(Some(worst), format!("{} bytes", bytes.len())),
            Err((worst, detail)) => Outcome::fail(Some(worst), detail),
        })
    };
    check().into()
}

/// The parts of the state add up to its bytes, their norms do not depend on how the tokens were fed, and a
/// session started from its initial values is a fresh one.
pub fn state_summary(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let model = subject.model(1)?;
        let data = Data::new(2, 70, 53);
        let mut session = model.new_session(2)?;
        let fresh = match session.state_summary() {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return Ok(Outcome::skip("its sessions do not describe their state"));
            }
            fresh => fresh?,
        };
        let initial = session.read_state()?;
        let logits = session.feed(data.batch(), Logits::All, VOCAB)?.logits;
        let whole = session.state_summary()?;
        let mut stepped = model.new_session(2)?;
        for start in 0..data.length {
            stepped.feed(data.cut(start, 1).batch(), Logits::None, VOCAB)?;
        }
        let norms = |summary: &[StateSummary]| -> Vec<f32> {
            let norms = summary.iter().flat_map(|part| part.norms.iter());
            norms.map(|&norm| norm as f32).collect()
        };
        let mut worst = Worst::new();
        let compared = compare(
            &norms(&stepped.state_summary()?),
            &norms(&whole),
            SAME_LOGITS,
        );
        if let Some(failed) = worst.take("norms after single steps", compared) {
            return Ok(failed);
        }
        let same = |a: &StateSummary, b: &StateSummary| a.name == b.name && a.layer == b.layer;
        if fresh.len() != whole.len() || !fresh.iter().zip(&whole).all(|(a, b)| same(a, b)) {
            return Ok(Outcome::fail(
                None,
                "other parts after 70 tokens than before",
            ));
        }
        if let Some(part) = whole
            .iter()
            .find(|part| part.values > 0 && part.norms.contains(&0.0))
        {
            let detail = format!(
                "`{}` of layer {} is 0 after 70 tokens",
                part.name, part.layer
            );
            return Ok(Outcome::fail(None, detail));
        }
        session.start_from(&initial)?;
        let again = session.feed(data.batch(), Logits::All, VOCAB)?.logits;
        if let Some(failed) = worst.take(
            "from the initial values",
            compare(&again, &logits, SAME_LOGITS),
        ) {
            return Ok(failed);
        }
        let ended = session.read_state()?;
        session.start_from(&ended)?;
        if session.read_state()? != ended || session.position() != 0 {
            return Ok(Outcome::fail(
                None,
                "a state that was given reads back otherwise",
            ));
        }
        let carried = session.feed(data.batch(), Logits::All, VOCAB)?.logits;
        if !ended.is_empty() && carried == logits {
            return Ok(Outcome::fail(None, "a given state changes no logit"));
        }
        if session
            .start_from(&ended[..ended.len().saturating_sub(1)])
            .is_ok()
            && !ended.is_empty()
        {
            return Ok(Outcome::fail(None, "a shortened state was taken"));
        }
        Ok(worst.pass())
    };
    check().into()
}

/// Logits stay finite at initialisation over 65,536 tokens; over 4096 where the state grows.
pub fn long(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let model = subject.model(1)?;
        let mut session = model.new_session(1)?;
        let data = Data::new(1, 1024, 41);
        let constant = model.state_growth() == StateGrowth::Constant;
        for _ in 0..if constant { 64 } else { 4 } {
            let logits = session.feed(data.batch(), Logits::Last, VOCAB)?.logits;
            if logits.iter().any(|logit| !logit.is_finite()) {
                return Ok(Outcome::fail(
                    None,
                    format!("not finite at {}", session.position()),
                ));
            }
        }
        Ok(Outcome::pass(
            None,
            format!("{} tokens", session.position()),
        ))
    };
    check().into()
}
