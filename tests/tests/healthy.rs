//! The faulty plugin without a fault is a right model: otherwise the tests of faults would prove nothing.

use longhaul_plugin_api::abi::ModelBox;
use longhaul_plugin_api::abi_stable::std_types::{RSlice, RSliceMut};
use longhaul_plugin_api::data::{Batch, Logits};
use longhaul_tests::build::faulty;
use longhaul_tests::in_process::{LENGTH, ROWS, VOCAB, build_model, opened, sequences, value};

fn parameter(model: &ModelBox, index: usize, length: usize) -> Vec<f32> {
    let mut values = vec![f32::NAN; length];
    value(model.read_parameter(index, RSliceMut::from_mut_slice(&mut values)));
    values
}

#[test]
fn its_gradients_agree_with_central_differences() {
    let mut model = value(build_model(opened(&faulty()), "none"));
    let (tokens, targets) = sequences();
    let batch = Batch::new(&tokens, &targets, ROWS, LENGTH);
    value(model.loss_and_gradients(batch));
    let infos = model.parameters();
    let gradients: Vec<Vec<f32>> = infos
        .iter()
        .enumerate()
        .map(|(index, info)| {
            let mut values = vec![f32::NAN; info.len()];
            value(model.read_gradient(index, RSliceMut::from_mut_slice(&mut values)));
            values
        })
        .collect();
    for (index, info) in infos.iter().enumerate() {
        let original = parameter(&model, index, info.len());
        for at in (0..info.len()).step_by(3) {
            const STEP: f32 = 1e-2;
            let mut loss = |offset: f32| {
                let mut values = original.clone();
                values[at] += offset;
                value(model.write_parameter(index, RSlice::from_slice(&values)));
                value(model.loss_and_gradients(batch)).loss
            };
            let slope = (loss(STEP) - loss(-STEP)) / f64::from(2.0 * STEP);
            let gradient = f64::from(gradients[index][at]);
            assert!(slope.is_finite() && gradient.is_finite());
            assert!(
                (slope - gradient).abs() < 2e-4 + 2e-3 * slope.abs(),
                "{}[{at}]: {gradient} against {slope}",
                info.name
            );
        }
        value(model.write_parameter(index, RSlice::from_slice(&original)));
    }
}

#[test]
fn one_feed_chunks_and_single_steps_agree() {
    let model = value(build_model(opened(&faulty()), "none"));
    let (tokens, targets) = sequences();
    let read = |chunk: usize| {
        let mut session = value(model.new_session(ROWS));
        let mut logits = vec![Vec::new(); ROWS];
        for start in (0..LENGTH).step_by(chunk) {
            let end = LENGTH.min(start + chunk);
            let part = |row: usize| row * LENGTH + start..row * LENGTH + end;
            let tokens: Vec<u32> = (0..ROWS)
                .flat_map(|row| tokens[part(row)].to_vec())
                .collect();
            let targets: Vec<i32> = (0..ROWS)
                .flat_map(|row| targets[part(row)].to_vec())
                .collect();
            let batch = Batch::new(&tokens, &targets, ROWS, end - start);
            let output = value(session.feed(batch, Logits::All));
            let width = (end - start) * VOCAB;
            for (row, logits) in logits.iter_mut().enumerate() {
                logits.extend_from_slice(&output.logits[row * width..(row + 1) * width]);
            }
        }
        logits
    };
    let whole = read(LENGTH);
    assert!(whole.iter().flatten().all(|logit| logit.is_finite()));
    for chunk in 1..LENGTH {
        assert_eq!(read(chunk), whole, "chunks of {chunk}");
    }
}
