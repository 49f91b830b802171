//! Writes the batches that `longhaul run` trains on, for a comparison with another trainer:
//!
//!     cargo run --release --package longhaul --example batches -- TASK MIN..MAX ROWS SEED STEPS FILE
//!
//! FILE is safetensors: `tokens` and `targets`, i32 `[STEPS, ROWS, MAX]`, a target of -1 not scored. Batches shorter
//! than the longest are padded on the right, with token 0 and target -1, as rows shorter than their batch are.

use std::error::Error;

use longhaul::worker::batches::{BatchPlan, TrainingBatch};
use longhaul_tasks::parse_task;
use safetensors::tensor::{Dtype, TensorView};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, lengths, rows, seed, steps, file] = &arguments[..] else {
        return Err("usage: batches TASK MIN..MAX ROWS SEED STEPS FILE".into());
    };
    let task = parse_task(task)?;
    let (low, high) = lengths.split_once("..").unwrap_or((lengths, lengths));
    let plan = BatchPlan {
        length_min: low.parse()?,
        length_max: high.parse()?,
        growing_steps: 0,
        rows: rows.parse()?,
        seed: seed.parse()?,
    };
    let (steps, width) = (steps.parse::<usize>()?, plan.length_max);
    let mut tokens = vec![0i32; steps * plan.rows * width];
    let mut targets = vec![-1i32; tokens.len()];
    let mut batch = TrainingBatch::default();
    for step in 0..steps {
        plan.fill(task.as_ref(), step as u64, &mut batch)?;
        for row in 0..batch.rows {
            let from = row * batch.length..(row + 1) * batch.length;
            let to = (step * plan.rows + row) * width..;
            for (place, token) in tokens[to.clone()]
                .iter_mut()
                .zip(&batch.tokens[from.clone()])
            {
                *place = i32::try_from(*token)?;
            }
            targets[to][..batch.length].copy_from_slice(&batch.targets[from]);
        }
    }
    let shape = vec![steps, plan.rows, width];
    let bytes =
        |values: &[i32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let (tokens, targets) = (bytes(&tokens), bytes(&targets));
    let views = [
        (
            "tokens",
            TensorView::new(Dtype::I32, shape.clone(), &tokens)?,
        ),
        ("targets", TensorView::new(Dtype::I32, shape, &targets)?),
    ];
    std::fs::write(file, safetensors::serialize(views, None)?)?;
    Ok(())
}
