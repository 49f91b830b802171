//! The state matrix against its naive form: every kind of decay, removal and read, several writes, groups, K that is
//! not V, on the CPU and on emulated devices.

use std::cell::RefCell;
use std::sync::Arc;

use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Heads, Read, Removal, StateMatrix};
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Graph, Recurrence, Sequence, Tensor};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Decays {
    None,
    Constant,
    Head,
    Key,
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Removes {
    None,
    Delta,
    Pair,
}

/// A state matrix under test.
#[derive(Debug, Clone, Copy)]
struct Of {
    heads: Heads,
    decays: Decays,
    removes: Removes,
    read: Read,
    /// Where inputs are drawn from.
    range: (f32, f32),
    /// Decays are `-scale softplus(input)`.
    scale: f32,
}

/// H, G, K, V, writes.
fn heads([heads, groups, key, value, writes]: [usize; 5]) -> Heads {
    Heads {
        heads,
        groups,
        key,
        value,
        writes,
    }
}

impl Of {
    fn new(sizes: [usize; 5], decays: Decays, removes: Removes, read: Read) -> Self {
        Self {
            heads: heads(sizes),
            decays,
            removes,
            read,
            range: (-1.0, 1.0),
            scale: 0.5,
        }
    }

    /// Columns of each input.
    fn inputs(&self) -> Vec<usize> {
        let Heads {
            heads,
            groups,
            key,
            value,
            writes,
        } = self.heads;
        let reads = match self.read {
            Read::Times(reads) => reads,
            _ => 1,
        };
        let mut inputs = vec![
            reads * groups * key,
            writes * groups * key,
            writes * heads * value,
        ];
        match self.decays {
            Decays::None | Decays::Constant => {}
            Decays::Head => inputs.push(heads),
            Decays::Key => inputs.push(heads * key),
            Decays::Value => inputs.push(heads * value),
        }
        match self.removes {
            Removes::None => {}
            Removes::Delta => inputs.push(writes * heads),
            Removes::Pair => inputs.extend([heads * key; 2]),
        }
        inputs
    }

    /// Keys as long as a head is wide would make what is removed grow beyond all bounds.
    fn shorter(&self) -> f32 {
        1.0 / (self.heads.key as f32).sqrt()
    }

    fn constants(&self) -> Vec<f64> {
        (0..self.heads.heads)
            .map(|head| -0.3 * head as f64)
            .collect()
    }

    fn build(&self, graph: &mut Graph, inputs: &[Tensor]) -> StateMatrix {
        let k = graph.scale(inputs[1], self.shorter());
        let mut rest = inputs[3..].iter().copied();
        let mut next = || rest.next().expect("as many inputs as are asked for");
        let decay = match self.decays {
            Decays::None => Decay::None,
            Decays::Constant => Decay::Constant(self.constants()),
            Decays::Head | Decays::Key | Decays::Value => {
                let positive = graph.activation(next(), Activation::Softplus);
                let logs = graph.scale(positive, -self.scale);
                match self.decays {
                    Decays::Head => Decay::Head(logs),
                    Decays::Key => Decay::Key(logs),
                    _ => Decay::Value(logs),
                }
            }
        };
        let removal = match self.removes {
            Removes::None => Removal::None,
            Removes::Delta => Removal::Delta(next()),
            Removes::Pair => Removal::Pair {
                a: graph.scale(next(), self.shorter()),
                b: graph.scale(next(), self.shorter()),
            },
        };
        StateMatrix {
            q: inputs[0],
            k,
            v: inputs[2],
            heads: self.heads,
            decay,
            removal,
            read: self.read,
        }
    }

    /// The inputs as `build` makes them.
    fn exact(&self, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let scaled = |input: &[f64], by: f32| -> Vec<f64> {
            input.iter().map(|x| x * f64::from(by)).collect()
        };
        let mut exact = inputs.to_vec();
        exact[1] = scaled(&inputs[1], self.shorter());
        let mut rest = 3;
        if !matches!(self.decays, Decays::None | Decays::Constant) {
            let positive: Vec<f64> = inputs[3].iter().map(|x| x.exp().ln_1p()).collect();
            exact[3] = scaled(&positive, -self.scale);
            rest = 4;
        }
        if self.removes == Removes::Pair {
            for index in [rest, rest + 1] {
                exact[index] = scaled(&inputs[index], self.shorter());
            }
        }
        exact
    }

    fn check(&self, sizes: [usize; 2]) {
        self.check_on(sizes, &longhaul_emulator::devices());
    }

    fn check_on(&self, [rows, length]: [usize; 2], devices: &[Arc<dyn Device>]) {
        let recorded = RefCell::new(None);
        Case {
            rows,
            length,
            inputs: &self.inputs(),
            range: self.range,
            recurrent: true,
            build: &|graph, inputs| {
                let what = self.build(graph, inputs);
                recorded.replace(Some(what.clone()));
                graph.state_matrix(what)
            },
            reference: &|inputs, _| {
                let what = recorded.borrow();
                let what = what.as_ref().expect("built before it is compared");
                naive(what, rows, length, &self.exact(inputs))
            },
        }
        .check_with(devices);
    }
}

/// The naive form of every sequence from its beginning.
fn naive(what: &StateMatrix, rows: usize, length: usize, inputs: &[Vec<f64>]) -> Vec<f64> {
    let mut o = Vec::new();
    for row in 0..rows {
        let of_row = |input: &Vec<f64>| -> Vec<f64> {
            let values = input.len() / rows;
            input[row * values..][..values].to_vec()
        };
        let given = Sequence {
            inputs: inputs.iter().map(of_row).collect(),
            params: Vec::new(),
            length,
            position: 0,
        };
        let Heads {
            heads, key, value, ..
        } = what.heads;
        o.extend(what.naive(&given, &mut vec![0.0; heads * value * key]));
    }
    o
}

const DECAYS: [Decays; 5] = [
    Decays::None,
    Decays::Constant,
    Decays::Head,
    Decays::Key,
    Decays::Value,
];
const REMOVES: [Removes; 3] = [Removes::None, Removes::Delta, Removes::Pair];

#[test]
fn every_kind_of_decay_removal_and_read() {
    for decays in DECAYS {
        for removes in REMOVES {
            // Of which there is the naive form alone.
            if decays == Decays::Value && removes != Removes::None {
                continue;
            }
            for read in [Read::After, Read::Before] {
                Of::new([2, 2, 5, 3, 1], decays, removes, read).check([2, 19]);
            }
        }
    }
}

#[test]
fn several_writes_and_shared_keys() {
    for removes in REMOVES {
        for decays in [Decays::Head, Decays::Key] {
            Of::new([4, 2, 5, 3, 3], decays, removes, Read::After).check([2, 26]);
            Of::new([3, 1, 4, 6, 2], decays, removes, Read::Before).check([1, 9]);
        }
    }
    for (writes, reads) in [(1, 2), (2, 3)] {
        for removes in REMOVES {
            let sizes = [4, 2, 5, 3, writes];
            Of::new(sizes, Decays::Head, removes, Read::Times(reads)).check([2, 26]);
        }
    }
    Of::new([4, 2, 5, 3, 3], Decays::Value, Removes::None, Read::After).check([2, 26]);
    Of::new([3, 1, 4, 6, 2], Decays::Value, Removes::None, Read::Before).check([1, 9]);
}

/// Their form in chunks is the CPU's alone.
#[test]
fn several_writes_in_chunks() {
    for (decays, removes) in [
        (Decays::None, Removes::Delta),
        (Decays::Head, Removes::Delta),
        (Decays::Constant, Removes::None),
        (Decays::Head, Removes::None),
    ] {
        for (writes, read) in [
            (2, Read::After),
            (3, Read::After),
            (16, Read::After),
            (1, Read::Times(2)),
            (4, Read::Times(4)),
            (2, Read::Times(5)),
        ] {
            let of = Of::new([4, 2, 5, 3, writes], decays, removes, read);
            for length in [1, 31, 65] {
                of.check_on([2, length], &[]);
            }
        }
    }
}

#[test]
fn lengths_on_both_sides_of_what_is_kept() {
    for length in [1, 2, 7, 8, 9, 16, 17, 63, 64, 65] {
        for (decays, removes) in [
            (Decays::Head, Removes::None),
            (Decays::Key, Removes::None),
            (Decays::Value, Removes::None),
            (Decays::Head, Removes::Delta),
            (Decays::Key, Removes::Delta),
            (Decays::Key, Removes::Pair),
        ] {
            Of::new([1, 1, 5, 5, 1], decays, removes, Read::After).check([1, length]);
        }
    }
}

#[test]
fn widths_of_keys_and_values() {
    for (key, value) in [(16, 33), (17, 4), (33, 70), (64, 5), (65, 3), (128, 2)] {
        let sizes = [1, 1, key, value, 1];
        Of::new(sizes, Decays::Key, Removes::Delta, Read::After).check([1, 6]);
        Of::new(sizes, Decays::Key, Removes::None, Read::Before).check([1, 6]);
        Of::new(sizes, Decays::Value, Removes::None, Read::After).check([1, 6]);
    }
}

#[test]
fn states_that_forget_at_once_and_never() {
    for (range, scale) in [((-1.0, 1.0), 60.0), ((0.5, 1.0), 20.0), ((-6.0, -5.0), 0.1)] {
        for (decays, removes) in [
            (Decays::Head, Removes::None),
            (Decays::Key, Removes::None),
            (Decays::Value, Removes::None),
            (Decays::Head, Removes::Delta),
            (Decays::Key, Removes::Delta),
            (Decays::Key, Removes::Pair),
        ] {
            // Inputs of -6 would make rank-one changes of a state explode.
            if range.0 < -1.0 && removes != Removes::None {
                continue;
            }
            let of = Of::new([2, 1, 5, 4, 1], decays, removes, Read::After);
            Of { range, scale, ..of }.check([1, 70]);
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_said() {
    let refused = |heads: Heads, change: fn(&mut StateMatrix)| {
        let of = Of {
            heads,
            ..Of::new([1; 5], Decays::Head, Removes::None, Read::After)
        };
        let error = std::panic::catch_unwind(|| {
            let mut graph = Graph::new(0);
            let inputs: Vec<Tensor> = of
                .inputs()
                .into_iter()
                .map(|cols| graph.tensor(cols))
                .collect();
            let mut what = of.build(&mut graph, &inputs);
            change(&mut what);
            graph.state_matrix(what);
        });
        let error = error.expect_err("refused");
        error.downcast_ref::<String>().expect("a message").clone()
    };
    let usual = heads([4, 2, 5, 3, 1]);
    for (sizes, change, expected) in [
        (
            usual,
            (|what| what.heads.groups = 3) as fn(&mut StateMatrix),
            "3 groups of queries and keys must divide 4 heads",
        ),
        (
            usual,
            |what| what.heads.key = 4,
            "`q` of a state matrix must have reads * groups * key columns",
        ),
        (
            usual,
            |what| what.v = what.q,
            "`v` of a state matrix must have writes * heads * value columns",
        ),
        (
            usual,
            |what| what.decay = Decay::Constant(vec![0.0, 0.1, 0.0, 0.0]),
            "is Some(0.1), over 0",
        ),
    ] {
        let message = refused(sizes, change);
        assert!(message.contains(expected), "{message}");
    }
}

/// One tensor in several places, whole and as columns that overlap: every place adds to its gradient.
#[test]
fn one_tensor_in_several_places() {
    for (decay, pair, start) in [
        (Decays::Key, true, 0),
        (Decays::Key, true, 2),
        (Decays::Head, false, 0),
        (Decays::Head, false, 2),
    ] {
        // K and V alike, one head.
        let of = Of::new([1, 1, 4, 4, 1], decay, Removes::None, Read::After);
        let width = 4 + start;
        let places = |inputs: &[Vec<f64>]| {
            let columns = |start: usize| -> Vec<f64> {
                let tokens = inputs[0].chunks(width);
                tokens.flat_map(|x| x[start..][..4].to_vec()).collect()
            };
            let [first, second] = [columns(0), columns(start)];
            let decays = if pair { &first } else { &inputs[1] };
            let mut all = vec![first.clone(), second.clone(), first.clone(), decays.clone()];
            if pair {
                all.extend([second.clone(), second]);
            }
            all
        };
        let recorded = RefCell::new(None);
        Case {
            rows: 2,
            length: 70,
            inputs: &[width, 1],
            range: (-0.4, -0.1),
            recurrent: true,
            build: &|graph, inputs| {
                let [first, second] = [0, start].map(|start| inputs[0].columns(start, 4));
                let what = StateMatrix {
                    q: first,
                    k: second,
                    v: first,
                    heads: of.heads,
                    decay: match pair {
                        true => Decay::Key(first),
                        false => Decay::Head(inputs[1]),
                    },
                    removal: match pair {
                        true => Removal::Pair {
                            a: second,
                            b: second,
                        },
                        false => Removal::None,
                    },
                    read: Read::After,
                };
                recorded.replace(Some(what.clone()));
                graph.state_matrix(what)
            },
            reference: &|inputs, _| {
                let what = recorded.borrow();
                let what = what.as_ref().expect("built before it is compared");
                naive(what, 2, 70, &places(inputs))
            },
        }
        .check_with(&longhaul_emulator::devices());
    }
}
