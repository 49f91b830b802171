//! A checkpoint's model against what other software computed from the same files: logits, loss and
//! gradients of `expected.safetensors`. Non-finite values are counted before anything is compared.

use longhaul_conformance::tolerance::{VERIFY_GRADIENT, VERIFY_LOGITS, VERIFY_LOSS, VERIFY_ZERO};
use longhaul_plugin_api::checkpoint::{CheckpointPlan, TensorPlace};
use longhaul_plugin_api::client::LoadedModel;
use longhaul_plugin_api::data::{Batch, Logits};
use serde::{Deserialize, Serialize};

use crate::checkpoint::load::{LoadError, Result, is_ignored};
use crate::checkpoint::tensors::Tensors;
use crate::text::{as_line, as_lines};

/// What a comparison of a gradient is called.
pub const GRADIENT_OF: &str = "gradient of";

/// What stands before a tensor's name where `expected` has its gradient.
const GRADIENT: &str = "grad.";

/// One comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// What was compared.
    #[serde(deserialize_with = "as_line")]
    pub what: String,
    /// The error, or nothing where values were not finite.
    pub error: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// Where the error is, or what is wrong.
    #[serde(deserialize_with = "as_line")]
    pub place: String,
}

impl Row {
    /// Whether the error is within its limit.
    pub fn passed(&self) -> bool {
        self.error.is_some_and(|error| error <= self.limit)
    }
}

/// All comparisons of a checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verified {
    /// Logits of one feed, of uneven chunks and of single steps; loss; gradients, the worst first.
    pub rows: Vec<Row>,
    /// Tensors of the checkpoint whose gradients the other software did not state.
    #[serde(deserialize_with = "as_lines")]
    pub without_gradient: Vec<String>,
}

/// What other software computed.
struct Expected {
    rows: usize,
    length: usize,
    tokens: Vec<u32>,
    logits: Vec<f64>,
    loss: f64,
}

impl Expected {
    fn read(tensors: &Tensors, vocab: usize) -> Result<Self> {
        let get = |name: &str| {
            tensors.get(name).ok_or_else(|| {
                LoadError::Words(format!("expected.safetensors has no tensor `{name}`"))
            })
        };
        let (tokens, logits, loss) = (get("tokens")?, get("logits")?, get("loss")?);
        let [rows, length] = tokens.shape[..] else {
            return Err(LoadError::Words(format!(
                "`tokens` is of shape {:?}; expected [B, T]",
                tokens.shape
            )));
        };
        if logits.shape != [rows, length, vocab] || rows * length == 0 {
            return Err(LoadError::Words(format!(
                "`logits` is of shape {:?}; expected {:?}",
                logits.shape,
                [rows, length, vocab]
            )));
        }
        let loss = tensors.doubles("loss", loss)?;
        let [loss] = loss[..] else {
            let what = format!("`loss` has {} values; expected 1", loss.len());
            return Err(LoadError::Words(what));
        };
        Ok(Self {
            rows,
            length,
            tokens: tensors.tokens("tokens", tokens)?,
            logits: tensors.doubles("logits", logits)?,
            loss,
        })
    }
}

/// Makes every comparison that `expected` has values for.
///
/// # Errors
/// A tensor that is missing or mis-shaped in `expected`; the plugin's.
pub fn verify(
    model: &mut LoadedModel,
    plan: &CheckpointPlan,
    expected: &Tensors,
) -> Result<Verified> {
    let vocab = plan.vocab as usize;
    let known = Expected::read(expected, vocab)?;
    let ways: [(&str, &[usize]); 3] = [
        ("logits, one feed", &[usize::MAX]),
        ("logits, uneven chunks", &[7, 1, 17, 2, 64, 3]),
        ("logits, single steps", &[1]),
    ];
    let mut rows = Vec::new();
    for (what, chunks) in ways {
        let logits = feed(model, &known, vocab, chunks)?;
        rows.push(compare_logits(what, &logits, &known, vocab));
    }
    let mut targets: Vec<i32> = vec![-1; known.tokens.len()];
    let rows_of = known.tokens.chunks_exact(known.length);
    for (targets, tokens) in targets.chunks_exact_mut(known.length).zip(rows_of) {
        for (target, &next) in targets.iter_mut().zip(&tokens[1..]) {
            *target = next as i32;
        }
    }
    let batch = Batch::new(&known.tokens, &targets, known.rows, known.length);
    let report = model.loss_and_gradients(batch)?;
    let error = (report.loss - known.loss).abs() / known.loss.abs().max(f64::MIN_POSITIVE);
    rows.push(Row {
        what: "loss".to_owned(),
        error: error.is_finite().then_some(error),
        limit: VERIFY_LOSS,
        place: format!("{} against {}", report.loss, known.loss),
    });
    rows.extend(compare_gradients(model, plan, expected)?);
    let tensors = plan.tensors.iter().map(|place| place.tensor.as_str());
    let stated = |tensor: &&str| expected.get(&format!("{GRADIENT}{tensor}")).is_some();
    let mut without_gradient: Vec<String> = tensors
        .filter(|tensor| !stated(tensor))
        .map(str::to_owned)
        .collect();
    // A tensor in parts has several places, one after the other.
    without_gradient.dedup();
    Ok(Verified {
        rows,
        without_gradient,
    })
}

/// Logits `[B, T, V]` of feeding in chunks of the given lengths, repeated until the end.
fn feed(model: &LoadedModel, known: &Expected, vocab: usize, chunks: &[usize]) -> Result<Vec<f32>> {
    let Expected { rows, length, .. } = *known;
    let mut session = model.new_session(rows)?;
    let mut all = vec![f32::NAN; rows * length * vocab];
    let mut start = 0;
    for &chunk in chunks.iter().cycle() {
        let count = chunk.min(length - start);
        let tokens: Vec<u32> = known
            .tokens
            .chunks_exact(length)
            .flat_map(|row| &row[start..start + count])
            .copied()
            .collect();
        let batch = Batch::new(&tokens, &[], rows, count);
        let output = session.feed(batch, Logits::All, vocab)?;
        for (row, logits) in output.logits.chunks_exact(count * vocab).enumerate() {
            let place = (row * length + start) * vocab;
            all[place..place + count * vocab].copy_from_slice(logits);
        }
        start += count;
        if start == length {
            break;
        }
    }
    Ok(all)
}

/// How many values on either side are not finite, in words; nothing where all are.
fn odd_values(got: &[f32], expected: &[f64]) -> Option<String> {
    let ours = got.iter().filter(|value| !value.is_finite()).count();
    let theirs = expected.iter().filter(|value| !value.is_finite()).count();
    let words = |odd: usize, all: usize, whose: &str| {
        (odd > 0).then(|| format!("{odd} of {all} {whose} values are not finite"))
    };
    let ours = words(ours, got.len(), "computed");
    let theirs = words(theirs, expected.len(), "expected");
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Some(format!("{ours}, {theirs}")),
        (one, other) => one.or(other),
    }
}

fn compare_logits(what: &str, got: &[f32], known: &Expected, vocab: usize) -> Row {
    let odd = odd_values(got, &known.logits);
    let largest = known
        .logits
        .iter()
        .fold(f64::MIN_POSITIVE, |top, v| top.max(v.abs()));
    let (mut worst, mut place) = (0.0, 0);
    for (index, (&got, exact)) in got.iter().zip(&known.logits).enumerate() {
        let error = (f64::from(got) - exact).abs() / largest;
        if error > worst {
            (worst, place) = (error, index);
        }
    }
    let position = place / vocab;
    Row {
        what: what.to_owned(),
        error: odd.is_none().then_some(worst),
        limit: VERIFY_LOGITS,
        place: odd.unwrap_or_else(|| {
            format!(
                "row {}, position {}, token {}",
                position / known.length,
                position % known.length,
                place % vocab
            )
        }),
    }
}

/// The gradient of what a place takes of its tensor.
fn gradient_of(model: &LoadedModel, place: &TensorPlace) -> Result<Vec<f32>> {
    let index = model
        .parameters()
        .iter()
        .position(|parameter| parameter.name == place.parameter)
        .ok_or_else(|| LoadError::Words(format!("no parameter `{}`", place.parameter)))?;
    let gradient = model.read_gradient(index)?;
    Ok(gradient[place.offset as usize..][..place.values() as usize].to_vec())
}

/// A row a gradient in `expected`, the worst first.
fn compare_gradients(
    model: &LoadedModel,
    plan: &CheckpointPlan,
    expected: &Tensors,
) -> Result<Vec<Row>> {
    let mut pairs = Vec::new();
    for (name, found) in expected.iter() {
        let Some(tensor) = name.strip_prefix(GRADIENT) else {
            continue;
        };
        let mut places = plan.tensors.iter().filter(|place| place.tensor == tensor);
        let mut place = places.next().ok_or_else(|| {
            LoadError::Words(format!(
                "expected.safetensors has `{name}`, and `{tensor}` {}",
                if is_ignored(plan, tensor) {
                    "is no parameter of its own by this config: it is tied to another or computed"
                } else {
                    "is no tensor of a checkpoint of this config"
                }
            ))
        })?;
        let exact = expected.doubles(name, found)?;
        let whole: usize = place.tensor_shape().iter().product();
        if exact.len() != whole {
            return Err(LoadError::Words(format!(
                "`{name}` has {} values; expected {whole}",
                exact.len()
            )));
        }
        let mut gradient = vec![f32::NAN; whole];
        loop {
            let part = gradient_of(model, place)?;
            gradient[place.range()].copy_from_slice(&part);
            match places.next() {
                Some(next) => place = next,
                None => break,
            }
        }
        pairs.push((tensor.to_owned(), gradient, exact));
    }
    let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let total = norm(
        &pairs
            .iter()
            .map(|(_, _, exact)| norm(exact))
            .collect::<Vec<_>>(),
    );
    let least = (VERIFY_ZERO * total).max(f64::MIN_POSITIVE);
    let mut rows: Vec<Row> = pairs
        .iter()
        .map(|(tensor, got, exact)| {
            let odd = odd_values(got, exact);
            let pairs = got.iter().zip(exact);
            let difference: Vec<f64> = pairs.map(|(&g, e)| f64::from(g) - e).collect();
            let error = norm(&difference) / norm(exact).max(least);
            Row {
                what: GRADIENT_OF.to_owned(),
                error: (odd.is_none() && error.is_finite()).then_some(error),
                limit: VERIFY_GRADIENT,
                place: odd.map_or_else(|| tensor.clone(), |odd| format!("{tensor}: {odd}")),
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        let key = |row: &Row| row.error.unwrap_or(f64::INFINITY);
        key(b).total_cmp(&key(a))
    });
    Ok(rows)
}
