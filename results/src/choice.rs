//! The choice between learning rates: by validation examples inside the training length, over all seeds
//! that were planned. Test examples have no part in it.

use std::cmp::Ordering;

use crate::metric::Kind;
use crate::record::Split;
use crate::setting::group;
use crate::summary::SummaryRow;

/// What a learning rate is judged by. Greater is better.
struct Judged {
    /// Seeds that were planned and not measured.
    missing: u64,
    /// Accuracy, or a loss below 0.
    value: f64,
    nll: f64,
    rate: f64,
}

impl Judged {
    /// Fewer seeds missing, then accuracy, then likelihood, then the smaller rate.
    fn compare(&self, other: &Self) -> Ordering {
        let missing = other.missing.cmp(&self.missing);
        missing
            .then(self.value.total_cmp(&other.value))
            .then(other.nll.total_cmp(&self.nll))
            .then(other.rate.total_cmp(&self.rate))
    }
}

/// Fills in the column `selected` of all rows.
pub(crate) fn mark_selected(rows: &mut [SummaryRow]) {
    let mut chosen = Vec::new();
    for model in group(0..rows.len(), |&place| rows[place].model()) {
        let rates = group(model.iter().copied(), |&place| rows[place].trained().1);
        let best = if rates.len() == 1 {
            rows[model[0]].learning_rate
        } else {
            match best_rate(rows, &model) {
                Some(rate) => Some(rate),
                // Several rates and nothing to choose by.
                None => continue,
            }
        };
        chosen.push((model, best));
    }
    for (model, best) in chosen {
        for place in model {
            rows[place].selected = Some(rows[place].learning_rate == best);
        }
    }
}

/// The best learning rate of a model that has several, by the largest length at which any of them was
/// validated inside the training length. A rate without a value there has all its seeds missing.
fn best_rate(rows: &[SummaryRow], model: &[usize]) -> Option<f64> {
    let inside = |row: &SummaryRow| Some(row.eval_length) <= row.train_length;
    let validated: Vec<&SummaryRow> = model
        .iter()
        .map(|&place| &rows[place])
        .filter(|row| row.split == Split::Validation && row.label.is_empty() && inside(row))
        .collect();
    let length = validated
        .iter()
        .filter(|row| row.value.is_some())
        .map(|row| row.eval_length)
        .max()?;
    let at_length = validated.iter().filter(|row| row.eval_length == length);
    let planned = at_length.clone().map(|row| row.seeds + row.not_ok).max()?;
    let judged = at_length.filter_map(|row| {
        Some(Judged {
            missing: planned - row.seeds,
            value: if Kind::of(&row.metric).is_accuracy() {
                row.value?
            } else {
                -row.value?
            },
            nll: row.nll.unwrap_or(f64::INFINITY),
            rate: row.learning_rate?,
        })
    });
    judged.max_by(Judged::compare).map(|judged| judged.rate)
}
