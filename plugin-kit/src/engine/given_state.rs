//! Recurrent state as those outside see it: what it is made of, its values in one row of numbers, and slots made
//! of such a row. The same for sessions on the CPU, on a device, and for training.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::StateSummary;
use longhaul_plugin_api::error::PluginError;

use super::graph::Program;
use super::operation::StateRows;
use super::tensor::StateSpec;

/// What the slots of a session are, at a position; `norms_of` gives those of each row of a slot, see [`norms`].
///
/// # Errors
/// Those of `norms_of`.
pub(crate) fn summarise(
    program: &Program,
    position: u64,
    norms_of: impl Fn(usize) -> Result<Vec<f64>>,
) -> Result<Vec<StateSummary>> {
    let keeper = |slot: usize| {
        let (layer, operation) = program.keepers[slot];
        (layer, program.operations[operation].name())
    };
    let mut summary = Vec::with_capacity(program.states.len());
    for (slot, spec) in program.states.iter().enumerate() {
        let (layer, name) = keeper(slot);
        let same = (0..slot).filter(|&before| keeper(before) == (layer, name));
        let name = match same.count() {
            0 => name.to_owned(),
            before => format!("{name}-{}", before + 1),
        };
        let initial = match *spec {
            StateSpec::Fixed { initial, .. } => initial,
            StateSpec::Cache { .. } => 0.0,
        };
        summary.push(StateSummary {
            layer,
            name: name.into(),
            values: spec.bytes(position) / size_of::<f32>() as u64,
            grows: matches!(spec, StateSpec::Cache { .. }),
            initial,
            norms: norms_of(slot)?.into(),
        });
    }
    Ok(summary)
}

/// Euclidean norms of a slot's rows.
pub(crate) fn norms(rows: &StateRows) -> Vec<f64> {
    let square = |&value: &f32| f64::from(value) * f64::from(value);
    let norm = |row: &Vec<f32>| row.iter().map(square).sum::<f64>().sqrt();
    rows.iter().map(norm).collect()
}

/// The slots of a fixed size, by their places.
pub(crate) fn fixed(specs: &[StateSpec]) -> impl Iterator<Item = usize> {
    let is_fixed = |slot: &usize| matches!(specs[*slot], StateSpec::Fixed { .. });
    (0..specs.len()).filter(is_fixed)
}

/// Slots of `rows` rows at position 0 with given values in those of a fixed size, `[slot][B, values]`;
/// caches have rows without values.
///
/// # Errors
/// Another number of values; values that are not finite.
pub(crate) fn slots_of(specs: &[StateSpec], rows: usize, values: &[f32]) -> Result<Vec<StateRows>> {
    let width = |spec: &StateSpec| match *spec {
        StateSpec::Fixed { values, .. } => values,
        StateSpec::Cache { .. } => 0,
    };
    let expected = rows * specs.iter().map(width).sum::<usize>();
    if values.len() != expected {
        return Err(PluginError::bad_option(format!(
            "a state of {} values for {rows} rows, which have {expected}",
            values.len()
        )));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(PluginError::bad_option(
            "a state with values that are not finite",
        ));
    }
    let mut rest = values;
    let mut take = |count: usize| {
        let (own, others) = rest.split_at(count);
        rest = others;
        own.to_vec()
    };
    let slot = |spec: &StateSpec| (0..rows).map(|_| take(width(spec))).collect();
    Ok(specs.iter().map(slot).collect())
}
