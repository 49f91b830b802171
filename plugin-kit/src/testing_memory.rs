//! Holds the memory of whole models on a device: a buffer that nothing writes is memory for nothing. For
//! tests only.

use std::collections::BTreeSet;
use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::ModelConfig;

use crate::backbone::{Architecture, record};
use crate::cuda::device::Device;
use crate::cuda::memory::{DeviceArena, POISON, download};
use crate::engine::graph::{Graph, Program};
use crate::engine::operation::Wanted;
use crate::engine::tensor::Shape;
use crate::options::Settings;
use crate::testing_ends::{EndsBatch, EndsBench};

/// Trains on and feeds one batch of each shape (B, T), with room for the longest in caches; the buffers of the
/// program that nothing wrote in any of it.
///
/// # Panics
/// If an option is refused, or the device fails.
pub fn idle_buffers(
    device: &Arc<dyn Device>,
    architecture: &Architecture,
    config: &ModelConfig,
    shapes: &[(usize, usize)],
) -> BTreeSet<String> {
    let settings = Settings::new(config);
    let mixer = (architecture.mixer)(&settings).expect("good options");
    let mut graph = Graph::new(5);
    graph.want_device(device.precision());
    record(&settings, mixer.as_ref(), &mut graph).expect("good options");
    let vocab = config.vocab as usize;
    let mut idle: BTreeSet<String> = (0..graph.program.buffers.len())
        .flat_map(|id| {
            [
                name(&graph.program, id, false),
                name(&graph.program, id, true),
            ]
        })
        .collect();
    let room = shapes.iter().map(|(_, length)| *length).max().unwrap_or(0);
    for &(rows, length) in shapes {
        let shape = Shape {
            rows,
            length,
            scored: rows * length,
        };
        let bench = EndsBench::new(device, shape, room, vocab, &graph.program, &graph.params);
        let bench = bench.expect("memory");
        bench.upload(&batch(shape, vocab)).expect("an upload");
        for training in [true, false] {
            let left = unwritten(device, &graph.program, &bench, shape, training);
            let left = left.expect("a pass");
            idle.retain(|buffer| left.contains(buffer));
        }
    }
    idle
}

fn name(program: &Program, id: usize, gradient: bool) -> String {
    let what = if gradient {
        "gradient of buffer"
    } else {
        "buffer"
    };
    format!("{what} {id}, {:?}", program.buffers[id])
}

/// Every position is wanted.
fn batch(shape: Shape, vocab: usize) -> EndsBatch {
    let wanted = |position| Wanted {
        position: position as u32,
        target: (position * 5 % vocab) as i32,
        logits: false,
    };
    EndsBatch {
        tokens: (0..shape.scored).map(|i| (i * 7 % vocab) as u32).collect(),
        wanted: (0..shape.scored).map(wanted).collect(),
        position: 0,
    }
}

/// The buffers that a pass leaves as they were. An empty one is not there to be written.
fn unwritten(
    device: &Arc<dyn Device>,
    program: &Program,
    bench: &EndsBench,
    shape: Shape,
    training: bool,
) -> Result<BTreeSet<String>> {
    let mut arena = DeviceArena::new(device)?;
    arena.prepare(program, shape, training, true)?;
    let run = bench.run(program, shape, &arena, training, false);
    for operation in &program.operations {
        operation.cuda_forward(&run)?;
    }
    let backward = program.operations.iter().rev();
    for operation in backward.take(if training { usize::MAX } else { 0 }) {
        operation.cuda_backward(&run)?;
    }
    let mut left = BTreeSet::new();
    for (gradient, places) in [(false, &arena.values), (true, &arena.grads)] {
        for (id, place) in places.iter().enumerate() {
            let there = match gradient {
                true => program.has_own_gradient(id),
                false => program.has_value(id),
            };
            let count = program.buffers[id].len(shape);
            let words = download(device.as_ref(), *place, if there { count } else { 0 })?;
            if !words.is_empty() && words.iter().all(|word| word.to_bits() == POISON) {
                left.insert(name(program, id, gradient));
            }
        }
    }
    if !training {
        // A feed has no gradients: it says nothing of them.
        left.extend((0..program.buffers.len()).map(|id| name(program, id, true)));
    }
    Ok(left)
}
