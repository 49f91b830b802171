//! Which buffers of a feed share memory: those that no operation needs at the same time. It says where
//! buffers go and holds none. What operations on parameters alone leave for others has memory of its own, so that a
//! session computes it once.

use super::graph::Program;
use super::tensor::{Buffer, Extent};

/// Places of a program's buffers in a feed.
pub(crate) struct Slots {
    /// The slot of each buffer; none of one that no operation's forward pass uses.
    pub of: Vec<Option<usize>>,
    /// Values of each slot.
    pub extents: Vec<Extent>,
    /// Slots whose content outlasts a feed: one buffer each, written by an operation on parameters alone.
    pub lasting: Vec<bool>,
    /// Operations on parameters alone: all that they use has a fixed size, and they carry no state.
    pub on_parameters: Vec<bool>,
}

impl Slots {
    /// Every buffer has a slot of its own.
    pub fn apart(program: &Program) -> Self {
        Self {
            of: (0..program.buffers.len()).map(Some).collect(),
            extents: program.buffers.clone(),
            lasting: vec![false; program.buffers.len()],
            on_parameters: vec![false; program.operations.len()],
        }
    }

    /// A buffer takes a free slot at the first operation that [uses](super::operation::Operation::uses) it,
    /// and leaves it free after the last.
    pub fn shared(program: &Program) -> Self {
        let uses: Vec<Option<Vec<Buffer>>> =
            program.operations.iter().map(|op| op.uses()).collect();
        let (spans, on_parameters) = (spans(program, &uses), on_parameters(program, &uses));
        let lasting = lasting(program, &uses, &on_parameters);
        let mut slots = Self {
            of: vec![None; spans.len()],
            extents: Vec::new(),
            lasting: Vec::new(),
            on_parameters,
        };
        let mut free: Vec<usize> = Vec::new();
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        begin.resize(program.operations.len(), Vec::new());
        end.resize(program.operations.len(), Vec::new());
        for (buffer, span) in spans.iter().enumerate() {
            if lasting[buffer] {
                slots.add(buffer, program.buffers[buffer], true);
            } else if let Some((first, last)) = *span {
                begin[first].push(buffer);
                end[last].push(buffer);
            }
        }
        for (begin, end) in begin.iter().zip(&end) {
            for &buffer in begin {
                slots.place(buffer, program.buffers[buffer], &mut free);
            }
            free.extend(end.iter().filter_map(|&buffer| slots.of[buffer]));
        }
        slots
    }

    /// Puts a buffer into the free slot that it fits best, or into a new one.
    fn place(&mut self, buffer: usize, extent: Extent, free: &mut Vec<usize>) {
        let fitting = free.iter().enumerate().filter_map(|(index, &slot)| {
            let (growth, unused) = self.extents[slot].fit(extent)?;
            Some(((growth, unused), index))
        });
        let slot = match fitting.min() {
            Some((_, index)) => {
                let slot = free.swap_remove(index);
                if self.extents[slot].fit(extent).is_some_and(|fit| fit.0 > 0) {
                    self.extents[slot] = extent;
                }
                slot
            }
            None => return self.add(buffer, extent, false),
        };
        self.of[buffer] = Some(slot);
    }

    /// Puts a buffer into a new slot.
    fn add(&mut self, buffer: usize, extent: Extent, lasting: bool) {
        self.of[buffer] = Some(self.extents.len());
        self.extents.push(extent);
        self.lasting.push(lasting);
    }
}

/// Which operations work on parameters alone, by what each uses.
fn on_parameters(program: &Program, uses: &[Option<Vec<Buffer>>]) -> Vec<bool> {
    let is_fixed = |buffer: &Buffer| matches!(program.buffers[buffer.id], Extent::Fixed(_));
    let alone = |uses: &Option<Vec<Buffer>>| {
        let uses = uses.as_deref().unwrap_or_default();
        !uses.is_empty() && uses.iter().all(is_fixed)
    };
    let mut on_parameters: Vec<bool> = uses.iter().map(alone).collect();
    for &(_, keeper) in &program.keepers {
        on_parameters[keeper] = false;
    }
    on_parameters
}

/// Which buffers operations on parameters alone leave for others.
fn lasting(program: &Program, uses: &[Option<Vec<Buffer>>], on_parameters: &[bool]) -> Vec<bool> {
    let mut lasting = vec![false; program.buffers.len()];
    let mut written = lasting.clone();
    for (index, uses) in uses.iter().enumerate() {
        match uses {
            Some(uses) if on_parameters[index] => {
                uses.iter().for_each(|buffer| written[buffer.id] = true);
            }
            Some(uses) => uses.iter().for_each(|buffer| lasting[buffer.id] = true),
            None => lasting[..program.recorded[index]].fill(true),
        }
    }
    lasting
        .iter_mut()
        .zip(written)
        .for_each(|(lasting, written)| *lasting &= written);
    lasting
}

/// The first and the last operation that may use each buffer in its forward pass.
fn spans(program: &Program, uses: &[Option<Vec<Buffer>>]) -> Vec<Option<(usize, usize)>> {
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; program.buffers.len()];
    for (index, uses) in uses.iter().enumerate() {
        let mut mark = |buffer: usize| {
            let first = spans[buffer].map_or(index, |span| span.0);
            spans[buffer] = Some((first, index));
        };
        match uses {
            Some(buffers) => buffers.iter().for_each(|buffer| mark(buffer.id)),
            None => (0..program.recorded[index]).for_each(mark),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::Graph;
    use crate::engine::operation::{Operation, Run};
    use crate::engine::params::Init;
    use crate::engine::tensor::{Buffer, Tensor};
    use crate::ops::attention::{AttentionSpec, PositionBias};
    use crate::ops::elementwise::Activation;
    use crate::ops::norm::NormKind;
    use longhaul_plugin_api::author::Result;

    struct Step {
        uses: Option<Vec<Buffer>>,
    }

    impl Operation for Step {
        fn name(&self) -> &'static str {
            "step"
        }

        fn forward(&self, _run: &Run<'_>) -> Result<()> {
            Ok(())
        }

        fn backward(&self, _run: &Run<'_>) -> Result<()> {
            Ok(())
        }

        fn uses(&self) -> Option<Vec<Buffer>> {
            self.uses.clone()
        }
    }

    /// A chain of tensors of these widths; `lists` says whether the operations list what they use.
    fn chain(widths: &[usize], lists: bool) -> Slots {
        let mut graph = Graph::new(0);
        let mut before: Option<Tensor> = None;
        for &width in widths {
            let after = graph.tensor(width);
            let both = before.into_iter().chain([after]).map(Buffer::from);
            graph.push(Step {
                uses: lists.then(|| both.collect()),
            });
            before = Some(after);
        }
        Slots::shared(&graph.program)
    }

    #[test]
    fn a_chain_goes_to_and_fro_between_two_slots_as_wide_as_its_widest() {
        let slots = chain(&[8, 4, 16, 4, 8], true);
        let places: Vec<usize> = slots.of.iter().flatten().copied().collect();
        assert_eq!(places, [0, 1, 0, 1, 0]);
        assert_eq!(slots.extents, [Extent::Tokens(16), Extent::Tokens(4)]);
    }

    /// Number of slots of a transformer's layers, one after the other, made of the kit's own operations.
    fn layers(count: usize) -> usize {
        let mut graph = Graph::new(0);
        let spec = AttentionSpec {
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            scale: 0.5,
            window: None,
            bias: PositionBias::None,
        };
        let table = graph.param("embedding", &[5, 8], Init::Zeros);
        let mut x = graph.embedding(table, None);
        for layer in 0..count {
            x = graph.scope(format!("{layer}"), |graph| {
                let normal = graph.norm("norm1", x, NormKind::Rms, 1e-5);
                let qkv = graph.linear("qkv", normal, 16, false);
                let (k, v) = (qkv.columns(8, 4), qkv.columns(12, 4));
                let y = graph.attention(qkv.columns(0, 8), k, v, spec);
                let x = graph.add(x, y);
                let normal = graph.norm("norm2", x, NormKind::Rms, 1e-5);
                let gate = graph.linear("gate", normal, 32, false);
                let hidden = graph.gate(gate, gate, Activation::Silu);
                let down = graph.linear("down", hidden, 8, true);
                graph.add(x, down)
            });
        }
        Slots::shared(&graph.program).extents.len()
    }

    #[test]
    fn memory_of_a_feed_does_not_grow_with_the_layers() {
        assert_eq!(layers(12), layers(3));
        assert!(layers(3) < 10, "{}", layers(3));
    }

    #[test]
    fn operations_that_list_nothing_may_use_all_that_was_recorded() {
        let slots = chain(&[8, 4, 16], false);
        assert_eq!(slots.extents.len(), 3);
    }

    #[test]
    fn what_only_the_backward_pass_uses_has_no_slot() {
        let mut graph = Graph::new(0);
        let (used, unused) = (graph.tensor(4), graph.saved(Extent::Tokens(9)));
        graph.push(Step {
            uses: Some(vec![used.into()]),
        });
        let slots = Slots::shared(&graph.program);
        assert_eq!((slots.of[used.id], slots.of[unused.id]), (Some(0), None));
    }

    #[test]
    fn what_is_made_of_parameters_alone_lasts_where_others_use_it() {
        let mut graph = Graph::new(0);
        let [first, second] = ["a", "b"].map(|name| {
            let param = graph.param(name, &[4], Init::Zeros);
            graph.constant(param)
        });
        let between = graph.activation(first, Activation::Exp);
        let factor = graph.gate(between, second, Activation::Silu);
        let x = graph.tensor(4);
        let y = graph.gate(factor, x, Activation::Silu);
        let slots = Slots::shared(&graph.program);
        assert_eq!(slots.on_parameters, [true, true, true, true, false]);
        let lasts = |tensor: Tensor| slots.lasting[slots.of[tensor.id].expect("used")];
        assert_eq!(
            [first, second, between, factor, x, y].map(lasts),
            [false, false, false, true, false, false]
        );
    }

    #[test]
    fn buffers_whose_sizes_grow_differently_never_share() {
        let mut graph = Graph::new(0);
        let (first, second) = (graph.tensor(4), graph.scored_tensor(4));
        for tensor in [first, second] {
            graph.push(Step {
                uses: Some(vec![tensor.into()]),
            });
        }
        assert_eq!(Slots::shared(&graph.program).extents.len(), 2);
    }
}
