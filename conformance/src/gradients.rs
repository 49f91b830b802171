//! Checks of gradients and training.

use longhaul_plugin_api::client::{ClientError, LoadedModel, LoadedSession};
use longhaul_plugin_api::data::{Logits, TrainConfig};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_plugin_api::metadata::capability;

use crate::subject::{Data, Draw, Outcome, Subject, VOCAB};
use crate::tolerance::{DIFFERENCES, GRADIENT_SUMS, SAME_LOGITS, SAME_LOSS, compare};

/// A constant learning rate without decay.
pub(crate) fn train_config(steps: u64) -> TrainConfig {
    TrainConfig {
        learning_rate: 3e-3,
        final_fraction: 1.0,
        total_steps: steps,
        weight_decay: 0.0,
        ..TrainConfig::default()
    }
}

/// Directional derivatives of every parameter against central differences of the loss, that of the
/// plugin's reference form where it offers one. The direction is the gradient itself with random positive weights, so that the derivative is large; the best of
/// several step sizes counts, because a float32 loss has rounding as well as curvature.
pub fn differences(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let config = subject.config(1, 1);
        let mut model = subject.build(&config)?;
        let mut other = match subject.reference(&config) {
            Some(config) => Some(subject.build(&config)?),
            None => None,
        };
        stir(&mut model, &mut other)?;
        // Odd sizes, more than one chunk of any recurrence's; few tokens where each is a choice that may change.
        let (rows, length) = if jumps(subject) { (1, 17) } else { (3, 70) };
        let data = Data::new(rows, length, 5);
        model.loss_and_gradients(data.batch())?;
        let of = match other {
            Some(_) => "of the reference form",
            None => "of the model's own loss, which agrees with a wrong recurrence too",
        };
        let on = Measured::new(subject, &data, None);
        slopes(&mut model, other.as_mut(), on, of)
    };
    check().into()
}

/// Holds the gradients that a model has of a batch, whose rows start from given states or afresh, against
/// differences of a loss, its own or that of `other`.
fn slopes(
    model: &mut LoadedModel,
    mut other: Option<&mut LoadedModel>,
    on: Measured<'_>,
    of: &str,
) -> Result<Outcome, ClientError> {
    let count = model.parameters().len();
    let gradients = read_gradients(model)?;
    let total = norm(gradients.iter().flatten());
    let mut draw = Draw::new(7);
    let (mut worst, mut place) = (0.0, String::new());
    let mut wrong = Vec::new();
    for (index, gradient) in gradients.iter().enumerate() {
        let name = model.parameters()[index].name.to_string();
        if gradient.iter().any(|value| !value.is_finite()) {
            return Ok(Outcome::fail(
                None,
                format!("`{name}` has a gradient that is not finite"),
            ));
        }
        // A gradient that is rounding beside the others' cannot be measured.
        if norm(gradient.iter()) < 1e-5 * total {
            continue;
        }
        let direction: Vec<f64> = gradient
            .iter()
            .map(|g| f64::from(*g) * (0.25 + 1.5 * draw.unit()))
            .collect();
        let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
        let slope: f64 = gradient
            .iter()
            .zip(&direction)
            .map(|(g, d)| f64::from(*g) * d / length)
            .sum();
        let judge = match &mut other {
            Some(reference) => &mut **reference,
            None => &mut *model,
        };
        let line = Line {
            index,
            values: judge.read_parameter(index)?,
            direction: direction.iter().map(|d| d / length).collect(),
        };
        let mut error = best_error(judge, on, &line, slope)?;
        if error > DIFFERENCES / 4.0 && on.jumps {
            error = error.min(error_between_jumps(judge, on, &line, slope)?);
        }
        if error > DIFFERENCES {
            wrong.push(name.clone());
        }
        if error > worst {
            (worst, place) = (error, name);
        }
    }
    // A gradient goes from the loss backwards, so what is wrong last in the model went wrong first.
    Ok(match wrong.last() {
        None => Outcome::pass(Some(worst), format!("{place}, differences {of}")),
        Some(nearest) => Outcome::fail(
            Some(worst),
            format!(
                "{} of {count} gradients are wrong, that of `{nearest}` nearest to the loss: look at the \
                     backward pass of what reads it; differences {of}",
                wrong.len()
            ),
        ),
    })
}

/// Training from given states: its loss and the states after it are those of feeding from them, and its
/// gradients agree with differences of that loss.
pub fn given_state(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        stir(&mut model, &mut None)?;
        // So few tokens that the state before them matters to each, and more rows than are computed at once, but
        // where each is a choice that may change.
        let rows = if jumps(subject) { 4 } else { 130 };
        let (prefix, data) = (Data::new(rows, 33, 59), Data::new(rows, 4, 61));
        let mut session = model.new_session(data.rows)?;
        session.feed(prefix.batch(), Logits::None, VOCAB)?;
        let Ok(start) = session.read_state() else {
            return Ok(Outcome::skip("its state cannot be read"));
        };
        if start.is_empty() {
            return Ok(Outcome::skip("it keeps no state of a fixed size"));
        }
        let fed = fed_loss(&mut session, &data, Some(&start))?;
        // A step so small that it changes nothing.
        model.begin_training(&TrainConfig {
            learning_rate: 1e-30,
            ..train_config(1)
        })?;
        let mut last = vec![0.0; start.len()];
        let report = match model.train_step_from(data.batch(), 0, &start, &mut last) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return Ok(Outcome::skip("it does not train from a given state"));
            }
            report => report?,
        };
        let error = (fed - report.loss).abs() / report.loss;
        if error > SAME_LOSS {
            let detail = format!("a loss of {} by training, {fed} by feeding", report.loss);
            return Ok(Outcome::fail(Some(error), detail));
        }
        if let Err((worst, detail)) = compare(&last, &session.read_state()?, SAME_LOGITS) {
            let detail = format!("the states after training and after feeding differ: {detail}");
            return Ok(Outcome::fail(Some(worst), detail));
        }
        let on = Measured::new(subject, &data, Some(&start));
        let of = "of the loss by feeding from that state";
        slopes(&mut model, None, on, of)
    };
    check().into()
}

/// Moves every parameter away from its start, where many hardly matter, the same way in both models.
fn stir(model: &mut LoadedModel, other: &mut Option<LoadedModel>) -> Result<(), ClientError> {
    let mut draw = Draw::new(31);
    for index in 0..model.parameters().len() {
        let mut values = model.read_parameter(index)?;
        for value in &mut values {
            *value += 0.3 * (2.0 * draw.unit() - 1.0) as f32;
        }
        model.write_parameter(index, &values)?;
        if let Some(other) = other {
            other.write_parameter(index, &values)?;
        }
    }
    Ok(())
}

/// What a loss is measured on.
#[derive(Clone, Copy)]
struct Measured<'a> {
    data: &'a Data,
    /// States that the rows start from.
    start: Option<&'a [f32]>,
    /// Whether the loss jumps where a choice changes.
    jumps: bool,
}

impl<'a> Measured<'a> {
    fn new(subject: &Subject, data: &'a Data, start: Option<&'a [f32]>) -> Self {
        Self {
            data,
            start,
            jumps: jumps(subject),
        }
    }
}

fn jumps(subject: &Subject) -> bool {
    subject.declares(capability::JUMPS)
}

/// A line through a parameter's values.
struct Line {
    index: usize,
    values: Vec<f32>,
    /// Of length 1.
    direction: Vec<f64>,
}

impl Line {
    /// The loss at a place of the line, the parameter's values being at 0.
    fn loss(
        &self,
        model: &mut LoadedModel,
        on: Measured<'_>,
        place: f64,
    ) -> Result<f64, ClientError> {
        let pairs = self.values.iter().zip(&self.direction);
        let moved: Vec<f32> = pairs
            .map(|(value, d)| (f64::from(*value) + place * d) as f32)
            .collect();
        model.write_parameter(self.index, &moved)?;
        let loss = fed_loss(&mut model.new_session(on.data.rows)?, on.data, on.start);
        model.write_parameter(self.index, &self.values)?;
        loss
    }
}

/// Smallest relative error of the slope over several step sizes.
fn best_error(
    model: &mut LoadedModel,
    on: Measured<'_>,
    line: &Line,
    slope: f64,
) -> Result<f64, ClientError> {
    let mut best = f64::INFINITY;
    // A parameter moves by at most a part of its size, so that the model stays the model it is.
    let most = 0.1 * norm(line.values.iter()) + 0.05;
    let mut longest_is_tried = false;
    // The loss changes by about this much; a smaller change drowns in its rounding.
    for change in [3e-3, 1e-2, 1e-3, 3e-2, 3e-4, 1e-4, 3e-5, 1e-5] {
        let size: f64 = change / slope;
        // Of a slope so small that no step is long enough, the longest has the least rounding.
        let size = match size > most {
            true if std::mem::replace(&mut longest_is_tried, true) => continue,
            true => most,
            false => size,
        };
        let mut between = |size: f64| -> Result<f64, ClientError> {
            Ok((line.loss(model, on, size)? - line.loss(model, on, -size)?) / (2.0 * size))
        };
        let (wide, narrow) = (between(size)?, between(0.5 * size)?);
        // Richardson's extrapolation takes the curvature out of the two.
        let measured = (4.0 * narrow - wide) / 3.0;
        best = best.min((measured - slope).abs() / slope);
        if best <= DIFFERENCES / 4.0 {
            break;
        }
    }
    // Nothing to measure: the loss hardly depends on this parameter.
    Ok(if best.is_finite() { best } else { 0.0 })
}

/// Relative error of the slope against the median over short steps in a row, of which jumps spoil some: the smallest
/// over several step sizes.
fn error_between_jumps(
    model: &mut LoadedModel,
    on: Measured<'_>,
    line: &Line,
    slope: f64,
) -> Result<f64, ClientError> {
    const STEPS: i32 = 64;
    let mut best = f64::INFINITY;
    for change in [1e-5, 3e-5, 1e-4, 3e-6] {
        let size: f64 = change / slope;
        let places = (-STEPS / 2..=STEPS / 2).map(|step| f64::from(step) * size);
        let losses: Result<Vec<f64>, ClientError> =
            places.map(|place| line.loss(model, on, place)).collect();
        let mut steps: Vec<f64> = losses?
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) / size)
            .collect();
        steps.sort_by(f64::total_cmp);
        let middle = steps.len() / 2;
        let median = 0.5 * (steps[middle - 1] + steps[middle]);
        best = best.min((median - slope).abs() / slope);
        if best <= DIFFERENCES / 4.0 {
            break;
        }
    }
    Ok(best)
}

/// Mean negative log likelihood by feeding, which every form can, from a given state or as the session stands.
fn fed_loss(
    session: &mut LoadedSession,
    data: &Data,
    start: Option<&[f32]>,
) -> Result<f64, ClientError> {
    if let Some(start) = start {
        session.start_from(start)?;
    }
    let output = session.feed(data.batch(), Logits::None, VOCAB)?;
    let sum: f64 = output.nll.iter().map(|nll| f64::from(*nll)).sum();
    Ok(sum / output.nll.len() as f64)
}

fn norm<'a>(values: impl Iterator<Item = &'a f32>) -> f64 {
    values
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// The gradients of a batch are those of its parts, each weighed by its scored positions. A part is small
/// enough to be computed at once, the batch is not.
pub fn sums(subject: &Subject) -> Outcome {
    const PARTS: usize = 7;
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        let whole = Data::new(20 * PARTS, 20, 43);
        let size = whole.tokens.len() / PARTS;
        let scored = model.loss_and_gradients(whole.batch())?.scored;
        let count = model.parameters().len();
        let got = read_gradients(&model)?;
        let mut sums: Vec<Vec<f64>> = got.iter().map(|values| vec![0.0; values.len()]).collect();
        for part in 0..PARTS {
            let range = part * size..(part + 1) * size;
            let part = Data {
                tokens: whole.tokens[range.clone()].to_vec(),
                targets: whole.targets[range].to_vec(),
                rows: whole.rows / PARTS,
                length: whole.length,
            };
            let share = model.loss_and_gradients(part.batch())?.scored as f64 / scored as f64;
            for (sums, values) in sums.iter_mut().zip(read_gradients(&model)?) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += share * f64::from(value);
                }
            }
        }
        let total = norm(got.iter().flatten());
        let (mut worst, mut place) = (0.0, 0);
        for index in 0..count {
            let gaps = got[index].iter().zip(&sums[index]);
            let gap = gaps
                .map(|(got, sum)| (f64::from(*got) - sum).powi(2))
                .sum::<f64>();
            // Beside the whole gradient, so that one which is rounding only is not measured.
            let error = gap.sqrt() / (norm(got[index].iter()) + 1e-3 * total);
            if error.is_nan() || error > worst {
                (worst, place) = (error, index);
            }
        }
        let name = &model.parameters()[place].name;
        Ok(if worst <= GRADIENT_SUMS {
            Outcome::pass(Some(worst), name.to_string())
        } else {
            let detail = format!(
                "`{name}`: is a gradient overwritten where it is to be added to what other parts of the batch left?"
            );
            Outcome::fail(Some(worst), detail)
        })
    };
    check().into()
}

/// All gradients of the last batch.
fn read_gradients(model: &LoadedModel) -> Result<Vec<Vec<f32>>, ClientError> {
    let all = 0..model.parameters().len();
    all.map(|index| model.read_gradient(index)).collect()
}

/// No parameter is left out of the loss.
pub fn reach(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        model.loss_and_gradients(Data::new(4, 40, 3).batch())?;
        let mut idle = Vec::new();
        for index in 0..model.parameters().len() {
            if model
                .read_gradient(index)?
                .iter()
                .all(|value| *value == 0.0)
            {
                idle.push(model.parameters()[index].name.to_string());
            }
        }
        Ok(if idle.is_empty() {
            Outcome::pass(None, format!("{} parameters", model.parameters().len()))
        } else {
            Outcome::fail(None, format!("no gradient reaches {}", idle.join(", ")))
        })
    };
    check().into()
}

/// Twenty steps on one batch lower its loss clearly. Only some of them are asked to be reported in full, as a
/// host may; that these are, the client checks.
pub fn training(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        let data = Data::new(4, 33, 3);
        model.begin_training(&train_config(20).reported_every(8))?;
        let first = model.train_step(data.batch(), 0)?.loss;
        for step in 1..20 {
            model.train_step(data.batch(), step)?;
        }
        let last = model.loss_and_gradients(data.batch())?.loss;
        let detail = format!("loss {first:.3} to {last:.3}");
        Ok(if last < 0.9 * first {
            Outcome::pass(None, detail)
        } else {
            Outcome::fail(None, detail)
        })
    };
    check().into()
}

/// The bits of all parameters.
fn bits(model: &LoadedModel) -> Result<Vec<Vec<u32>>, ClientError> {
    let all = 0..model.parameters().len();
    let of = |index| {
        Ok(model
            .read_parameter(index)?
            .into_iter()
            .map(f32::to_bits)
            .collect())
    };
    all.map(of).collect()
}

/// A training that is exported after two steps and imported into another model goes on as it would have, to the last
/// bit; other bytes are refused.
pub fn resume(subject: &Subject) -> Outcome {
    if !subject.declares(capability::EXPORT_TRAINING) {
        return Outcome::skip("not declared: an interrupted training begins anew");
    }
    let check = || -> Result<Outcome, ClientError> {
        // Steps 1 to 3 need not be reported: what a device keeps by itself goes on as well.
        let config = train_config(4).reported_every(4);
        let data: Vec<Data> = (0..4).map(|step| Data::new(2, 9, 41 + step)).collect();
        let mut model = subject.model(1)?;
        model.begin_training(&config)?;
        for (data, step) in data[..2].iter().zip(0..) {
            model.train_step(data.batch(), step)?;
        }
        let state = model.export_training()?;
        let mut other = subject.model(2)?;
        other.begin_training(&config)?;
        other.train_step(data[3].batch(), 0)?;
        other.begin_training(&config)?;
        if other.import_training(&state[..state.len() - 1]).is_ok()
            || other.import_training(&[]).is_ok()
        {
            return Ok(Outcome::fail(None, "a shortened training was imported"));
        }
        for index in 0..model.parameters().len() {
            other.write_parameter(index, &model.read_parameter(index)?)?;
        }
        other.import_training(&state)?;
        for (data, step) in data.iter().zip(0..).skip(2) {
            model.train_step(data.batch(), step)?;
            other.train_step(data.batch(), step)?;
        }
        let (expected, found) = (bits(&model)?, bits(&other)?);
        let differs = expected
            .iter()
            .zip(&found)
            .position(|(one, other)| one != other);
        Ok(match differs {
            None => Outcome::pass(None, format!("{} bytes", state.len())),
            Some(index) => {
                let name = &model.parameters()[index].name;
                Outcome::fail(None, format!("`{name}` is another after two more steps"))
            }
        })
    };
    check().into()
}

/// Two builds of a seed and three steps are the same bytes, also with two threads; another seed is not.
pub fn same_bytes(subject: &Subject) -> Outcome {
    let run = |seed: u64, threads: u32| -> Result<Vec<Vec<u32>>, ClientError> {
        let mut model = subject.build(&subject.config(seed, threads))?;
        let data = Data::new(20, 65, 3);
        model.begin_training(&train_config(3))?;
        for step in 0..3 {
            model.train_step(data.batch(), step)?;
        }
        bits(&model)
    };
    let check = || -> Result<Outcome, ClientError> {
        let first = run(1, 1)?;
        if run(1, 1)? != first {
            return Ok(Outcome::fail(None, "two runs of one seed differ"));
        }
        if run(1, 2)? != first {
            return Ok(Outcome::fail(None, "1 and 2 threads differ"));
        }
        if run(2, 1)? == first {
            return Ok(Outcome::fail(None, "two seeds give the same"));
        }
        Ok(Outcome::pass(None, ""))
    };
    check().into()
}
