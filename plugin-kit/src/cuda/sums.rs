//! Sums of a program that cost a device nothing of their own: `y = x + b` where b is the result of a product, which can
//! add x as it goes and put y where b would have gone; and gradients of sums, which are that of y and so may be in its
//! memory. It says which and computes nothing.

use crate::engine::graph::Program;
use crate::engine::tensor::{Buffer, Tensor};

/// `y = a + b`, as [`Graph::add`](crate::Graph::add) records it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum {
    /// The operation that adds.
    pub operation: usize,
    pub a: Tensor,
    pub b: Tensor,
    pub y: Tensor,
}

/// What sums of a program are made in passing.
pub(crate) struct Sums {
    /// For the result of a product by its buffer: what it adds, and where the sum goes.
    pub added: Vec<Option<(Tensor, Tensor)>>,
    /// For each buffer the one whose memory its gradient is in: mostly its own.
    pub gradients: Vec<usize>,
}

impl Sums {
    /// Finds them.
    pub fn of(program: &Program) -> Self {
        let uses: Vec<Option<Vec<Buffer>>> =
            program.operations.iter().map(|op| op.uses()).collect();
        let mut sums = Self {
            added: vec![None; program.buffers.len()],
            gradients: (0..program.buffers.len()).collect(),
        };
        let is_sum = |tensor: Tensor| program.sums.iter().any(|sum| sum.y.id == tensor.id);
        for sum in &program.sums {
            let Sum {
                operation: at,
                a,
                b,
                y,
            } = *sum;
            let whole = |tensor: Tensor| {
                tensor.is_whole() && program.buffers[tensor.id] == program.buffers[y.id]
            };
            if a.id == b.id || !whole(a) || !whole(b) || !whole(y) {
                continue;
            }
            let users = |tensor: Tensor| {
                let users = uses
                    .iter()
                    .enumerate()
                    .filter(move |(index, uses)| match uses {
                        Some(uses) => uses.iter().any(|buffer| buffer.id == tensor.id),
                        // It may use whatever was there.
                        None => tensor.id < program.recorded[*index],
                    });
                users.map(|(index, _)| index).collect::<Vec<usize>>()
            };
            // Of b nobody knows but who makes it, and the sum.
            let made = |tensor: Tensor| match users(tensor)[..] {
                [maker, last] if last == at && !is_sum(tensor) => Some(maker),
                _ => None,
            };
            // After the sum nobody adds to the gradient of x, and between b's maker and the sum nobody does: from its
            // backward pass on, the memory is x's.
            let ends = |tensor: Tensor| users(tensor).last() == Some(&at);
            let apart = |tensor: Tensor, maker: usize| {
                users(tensor)
                    .iter()
                    .all(|user| *user < maker || *user >= at)
            };
            let pairs = [(a, b), (b, a)];
            let product = pairs.iter().find_map(|&(x, b)| {
                let maker = made(b).filter(|maker| apart(x, *maker))?;
                let output = program.operations[maker].adds()?;
                (output.id == b.id).then_some((x, b))
            });
            if let Some((x, b)) = product {
                sums.added[b.id] = Some((x, y));
            }
            let both = product
                .into_iter()
                .chain(pairs)
                .find(|&(x, b)| ends(x) && made(b).is_some_and(|maker| apart(x, maker)));
            let shared = match both {
                Some((x, b)) => vec![x, b],
                None => {
                    let one = pairs.iter().find(|(x, b)| made(*b).is_some() || ends(*x));
                    one.map(|&(x, b)| if made(b).is_some() { b } else { x })
                        .into_iter()
                        .collect()
                }
            };
            for tensor in shared {
                sums.gradients[tensor.id] = y.id;
            }
        }
        // A sum may be part of another: its gradient is where that one's is.
        for id in 0..sums.gradients.len() {
            let mut home = sums.gradients[id];
            while sums.gradients[home] != home {
                home = sums.gradients[home];
            }
            sums.gradients[id] = home;
        }
        sums
    }
}
