//! Every operation of the kit against a naive float64 reference.

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::ops::taylor::taylor_features;
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Graph, Init, Tensor};

fn case<'a>(inputs: &'a [usize]) -> Case<'a> {
    Case {
        rows: 3,
        length: 65,
        inputs,
        range: (-2.0, 2.0),
        recurrent: false,
        build: &|_, inputs| inputs[0],
        reference: &|inputs, _| inputs[0].clone(),
    }
}

#[test]
fn linear_with_bias() {
    Case {
        build: &|graph, inputs| graph.linear("proj", inputs[0], 13, true),
        reference: &|inputs, params| {
            let (weight, bias) = (&params[0], &params[1]);
            inputs[0]
                .chunks(7)
                .flat_map(|x| {
                    (0..13).map(move |o| {
                        bias[o] + (0..7).map(|i| x[i] * weight[o * 7 + i]).sum::<f64>()
                    })
                })
                .collect()
        },
        ..case(&[7])
    }
    .check_with(&longhaul_emulator::devices());
}

fn normalise(
    x: &[f64],
    kind: NormKind,
    weight: &[f64],
    bias: Option<&[f64]>,
    epsilon: f64,
) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = if kind != NormKind::Rms {
        x.iter().sum::<f64>() / n
    } else {
        0.0
    };
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let scale = 1.0 / (variance + epsilon).sqrt();
    (0..x.len())
        .map(|c| (x[c] - mean) * scale * weight[c] + bias.map_or(0.0, |bias| bias[c]))
        .collect()
}

#[test]
fn norms_whole_and_by_group() {
    for (kind, groups) in [
        (NormKind::Rms, 1),
        (NormKind::Layer, 1),
        (NormKind::Rms, 3),
        (NormKind::Layer, 3),
        (NormKind::Centred, 3),
    ] {
        Case {
            build: &|graph, inputs| graph.group_norm("n", inputs[0], kind, groups, 1e-5),
            reference: &|inputs, params| {
                let width = 33 / groups;
                inputs[0]
                    .chunks(width)
                    .enumerate()
                    .flat_map(|(index, x)| {
                        let at = index % groups * width;
                        let bias = params.get(1).map(|bias| &bias[at..at + width]);
                        normalise(x, kind, &params[0][at..at + width], bias, 1e-5)
                    })
                    .collect()
            },
            ..case(&[33])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

/// Groups that a warp and that a block of threads takes, and lengths around a device's parts of rows.
#[test]
fn norms_of_other_sizes() {
    for (rows, length, cols, groups) in [
        (1, 1, 7, 1),
        (1, 2, 32, 1),
        (1, 257, 33, 3),
        (3, 1, 1024, 1),
        (1, 3, 2060, 2),
    ] {
        for kind in [NormKind::Rms, NormKind::Layer] {
            Case {
                rows,
                length,
                build: &|graph, inputs| graph.group_norm("n", inputs[0], kind, groups, 1e-5),
                reference: &|inputs, params| {
                    let width = cols / groups;
                    inputs[0]
                        .chunks(width)
                        .enumerate()
                        .flat_map(|(index, x)| {
                            let at = index % groups * width;
                            let bias = params.get(1).map(|bias| &bias[at..at + width]);
                            normalise(x, kind, &params[0][at..at + width], bias, 1e-5)
                        })
                        .collect()
                },
                ..case(&[cols])
            }
            .check_with(&longhaul_emulator::devices());
        }
    }
}

#[test]
fn block_diagonal_linear() {
    for (rows, length, cols, heads, has_bias) in [
        (3, 65, 12, 3, true),
        (1, 1, 5, 1, true),
        (1, 64, 8, 8, true),
        (3, 65, 12, 3, false),
    ] {
        let init = Init::Linear { gain: 1.0 };
        let none = vec![0.0; cols];
        Case {
            rows,
            length,
            build: &|graph, inputs| {
                graph.block_linear_with("proj", inputs[0], heads, has_bias, init.clone())
            },
            reference: &|inputs, params| {
                let (weight, bias) = (&params[0], params.get(1).unwrap_or(&none));
                let width = cols / heads;
                inputs[0]
                    .chunks(cols)
                    .flat_map(|x| {
                        (0..cols).map(move |o| {
                            let start = o / width * width;
                            let column = |i: usize| weight[(start + i) * width + o % width];
                            bias[o] + (0..width).map(|i| x[start + i] * column(i)).sum::<f64>()
                        })
                    })
                    .collect()
            },
            ..case(&[cols])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

fn exact(activation: Activation, x: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => x * sigmoid,
        Activation::Gelu => {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => sigmoid,
        Activation::Tanh => x.tanh(),
        Activation::Softplus => x.exp().ln_1p(),
        Activation::NegativeExp => -x.exp(),
        Activation::Identity => x,
        Activation::Exp => x.exp(),
        Activation::Positive => {
            if x < 0.0 {
                sigmoid
            } else {
                x + 0.5
            }
        }
        Activation::EluPlusOne => x.max(0.0) + x.min(0.0).exp(),
        Activation::LogSigmoid => sigmoid.ln(),
        Activation::OneMinusExp => -x.exp_m1(),
        Activation::LogOneMinus => (-x).ln_1p(),
        Activation::Reciprocal => 1.0 / x,
        Activation::Sine => x.sin(),
    }
}

#[test]
fn activations_gates_and_sums() {
    use Activation::{
        Exp, Gelu, Identity, NegativeExp, Positive, Relu, Sigmoid, Silu, Softplus, Tanh,
    };
    for activation in [
        Exp,
        Gelu,
        Identity,
        NegativeExp,
        Positive,
        Relu,
        Sigmoid,
        Silu,
        Softplus,
        Tanh,
    ] {
        Case {
            build: &|graph, inputs| graph.activation(inputs[0], activation),
            reference: &|inputs, _| inputs[0].iter().map(|&x| exact(activation, x)).collect(),
            ..case(&[19])
        }
        .check_with(&longhaul_emulator::devices());
        Case {
            build: &|graph, inputs| graph.gate(inputs[0], inputs[1], activation),
            reference: &|inputs, _| {
                inputs[0]
                    .iter()
                    .zip(&inputs[1])
                    .map(|(&g, x)| exact(activation, g) * x)
                    .collect()
            },
            ..case(&[19, 19])
        }
        .check_with(&longhaul_emulator::devices());
    }
    Case {
        build: &|graph, inputs| graph.add(inputs[0], inputs[1]),
        reference: &|inputs, _| {
            inputs[0]
                .iter()
                .zip(&inputs[1])
                .map(|(a, b)| a + b)
                .collect()
        },
        ..case(&[19, 19])
    }
    .check_with(&longhaul_emulator::devices());
}

/// Gate and input as columns of one tensor: two partial writes of one gradient.
#[test]
fn columns_of_one_tensor() {
    Case {
        build: &|graph, inputs| {
            let (gate, x) = (inputs[0].columns(2, 5), inputs[0].columns(7, 5));
            graph.gate(gate, x, Activation::Silu)
        },
        reference: &|inputs, _| {
            inputs[0]
                .chunks(13)
                .flat_map(|row| (0..5).map(|c| exact(Activation::Silu, row[2 + c]) * row[7 + c]))
                .collect()
        },
        ..case(&[13])
    }
    .check_with(&longhaul_emulator::devices());
}

/// A constant beside a tensor, on either side, and constants among themselves.
#[test]
fn constants_stand_for_every_position() {
    let start = || Init::Uniform {
        low: -1.0,
        high: 1.0,
    };
    for (rows, length) in [(3, 65), (1, 1)] {
        let case = || Case {
            rows,
            length,
            ..case(&[19])
        };
        let by_column = |x: &[f64], f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            x.iter().enumerate().map(|(at, &x)| f(at % 19, x)).collect()
        };
        Case {
            build: &|graph, inputs| {
                let param = graph.param("a", &[19], start());
                let a = graph.constant(param);
                let gated = graph.gate(inputs[0], a, Activation::Tanh);
                let gated = graph.gate(a, gated, Activation::Silu);
                graph.add(a, gated)
            },
            reference: &|inputs, params| {
                by_column(&inputs[0], &|column, x| {
                    let a = params[0][column];
                    a + exact(Activation::Silu, a) * x.tanh() * a
                })
            },
            ..case()
        }
        .check_with(&longhaul_emulator::devices());
        Case {
            build: &|graph, inputs| {
                let (a, b) = (
                    graph.param("a", &[19], start()),
                    graph.param("b", &[19], start()),
                );
                let (a, b) = (graph.constant(a), graph.constant(b));
                let sum = graph.add(a, b);
                let grown = graph.activation(sum, Activation::Exp);
                let scaled = graph.scale(grown, -0.5);
                let product = graph.gate(a, scaled, Activation::Identity);
                graph.add(inputs[0], product)
            },
            reference: &|inputs, params| {
                by_column(&inputs[0], &|column, x| {
                    let (a, b) = (params[0][column], params[1][column]);
                    x - 0.5 * a * (a + b).exp()
                })
            },
            ..case()
        }
        .check_with(&longhaul_emulator::devices());
    }
}

/// Heads that a warp and that a block of threads takes, alone and as columns of more.
#[test]
fn norms_of_heads() {
    for (length, width, heads) in [(65, 11, 3), (1, 1100, 2), (257, 16, 1)] {
        let whole = |graph: &mut Graph, inputs: &[Tensor]| {
            let normal = graph.head_norm("n", inputs[0], heads, 1e-5);
            let length = graph.l2_norm(inputs[0], heads, 0.1);
            graph.add(normal, length)
        };
        Case {
            rows: 2,
            length,
            build: &whole,
            reference: &|inputs, params| {
                let each = inputs[0].chunks(width).flat_map(|x| {
                    let normal = normalise(x, NormKind::Rms, &params[0], None, 1e-5).into_iter();
                    let length = (x.iter().map(|x| x * x).sum::<f64>() + 0.1).sqrt();
                    normal.zip(x).map(move |(normal, x)| normal + x / length)
                });
                each.collect()
            },
            ..case(&[width * heads])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

/// A constant factor, beside columns of a wider tensor; and one of every position.
#[test]
fn factors_of_heads() {
    for (rows, length, heads, width) in [(3, 65, 5, 2), (1, 1, 1, 3), (1, 257, 2, 4)] {
        for constant in [true, false] {
            Case {
                rows,
                length,
                build: &|graph, inputs| {
                    let factor = match constant {
                        true => {
                            let (low, high) = (-1.0, 1.5);
                            let param = graph.param("f", &[heads], Init::Uniform { low, high });
                            graph.constant(param)
                        }
                        false => inputs[0].columns(0, heads),
                    };
                    graph.by_head(factor, inputs[0].columns(heads, heads * width))
                },
                reference: &|inputs, params| {
                    let tokens = inputs[0].chunks(heads * (1 + width));
                    let product = |token: &[f64]| -> Vec<f64> {
                        let (factors, x) = token.split_at(heads);
                        let factors = if constant { &params[0] } else { factors };
                        let value = |(i, x): (usize, &f64)| factors[i / width] * x;
                        x.iter().enumerate().map(value).collect()
                    };
                    tokens.flat_map(product).collect()
                },
                ..case(&[heads * (1 + width)])
            }
            .check_with(&longhaul_emulator::devices());
        }
    }
}

/// Parts of unequal widths, one of them twice, one of a wider tensor.
#[test]
fn heads_are_concatenated() {
    for (rows, length, heads) in [(2, 33, 3), (1, 1, 1), (1, 130, 2)] {
        Case {
            rows,
            length,
            build: &|graph, inputs| {
                let part = inputs[0].columns(1, 2 * heads);
                graph.concatenate(&[part, inputs[1], part], heads)
            },
            reference: &|inputs, _| {
                let tokens = inputs[0]
                    .chunks(2 * heads + 1)
                    .zip(inputs[1].chunks(3 * heads));
                let heads = tokens.flat_map(|(a, b)| a[1..].chunks(2).zip(b.chunks(3)));
                heads.flat_map(|(a, b)| [a, b, a].concat()).collect()
            },
            ..case(&[2 * heads + 1, 3 * heads])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

/// Lengths on both sides of a warp; more channels than a block has warps; columns of a wider tensor.
#[test]
fn running_sums() {
    for (rows, length, width) in [(3, 65, 5), (1, 1, 1), (2, 32, 9), (1, 257, 2)] {
        Case {
            rows,
            length,
            recurrent: true,
            build: &|graph, inputs| graph.running_sum(inputs[0].columns(1, width)),
            reference: &|inputs, _| {
                let mut sums = Vec::new();
                for sequence in inputs[0].chunks(length * (width + 1)) {
                    let mut total = vec![0.0; width];
                    for token in sequence.chunks(width + 1) {
                        total
                            .iter_mut()
                            .zip(&token[1..])
                            .for_each(|(sum, x)| *sum += x);
                        sums.extend(&total);
                        sums.resize(sums.len() + width, 0.0);
                    }
                }
                sums
            },
            ..case(&[width + 1])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn step_sizes_and_their_decays() {
    for (rows, length, heads) in [(3, 65, 5), (1, 1, 1), (1, 257, 8)] {
        Case {
            rows,
            length,
            build: &|graph, inputs| {
                let (low, high) = (-1.0, 1.5);
                let mut param = |name| graph.param(name, &[heads], Init::Uniform { low, high });
                let [bias, a_log] = ["bias", "a_log"].map(&mut param);
                let [dt, logs] = graph.step_sizes(inputs[0], bias, a_log);
                let half = graph.scale(logs, 0.5);
                graph.add(dt, half)
            },
            reference: &|inputs, params| {
                let value = |(i, x): (usize, &f64)| {
                    let dt = (x + params[0][i % heads]).exp().ln_1p();
                    dt * (1.0 - 0.5 * params[1][i % heads].exp())
                };
                inputs[0].iter().enumerate().map(value).collect()
            },
            ..case(&[heads])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn lower_bounds_are_sums_of_a_softmax_over_layers() {
    for (layers, layer) in [(4, 0), (4, 2), (4, 3), (1, 0)] {
        Case {
            build: &|graph, inputs| {
                let start = Init::Normal { std: 1.0 };
                let bounds = graph.param("bounds", &[layers, 7], start);
                let bounds = graph.constant(bounds);
                let (bound, room) = graph.lower_bound(bounds, layer, layers);
                let gated = graph.gate(inputs[0], room, Activation::Sigmoid);
                graph.add(bound, gated)
            },
            reference: &|inputs, params| {
                let power = |layer: usize, column: usize| params[0][layer * 7 + column].exp();
                let f = |(at, &x): (usize, &f64)| {
                    let sum: f64 = (0..layers).map(|layer| power(layer, at % 7)).sum();
                    let part: f64 = (1..=layer).map(|layer| power(layer, at % 7)).sum();
                    let bound = part / sum;
                    bound + (1.0 - bound) * exact(Activation::Sigmoid, x)
                };
                inputs[0].iter().enumerate().map(f).collect()
            },
            ..case(&[7])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

/// Activations of a part of the line, at its ends: values keep their digits where they are small.
#[test]
fn activations_of_decays_and_sums() {
    use Activation::{EluPlusOne, LogOneMinus, LogSigmoid, OneMinusExp, Reciprocal, Sine};
    for (activation, range) in [
        (EluPlusOne, (-9.0, 3.0)),
        (LogSigmoid, (-30.0, 9.0)),
        (LogSigmoid, (9.0, 15.0)),
        (OneMinusExp, (-20.0, 0.0)),
        (OneMinusExp, (-1e-4, 0.0)),
        (LogOneMinus, (0.0, 0.99)),
        (LogOneMinus, (0.0, 1e-4)),
        (Reciprocal, (0.3, 50.0)),
        (Sine, (-40.0, 40.0)),
    ] {
        Case {
            range,
            build: &|graph, inputs| graph.activation(inputs[0], activation),
            reference: &|inputs, _| inputs[0].iter().map(|&x| exact(activation, x)).collect(),
            ..case(&[19])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

fn over_their_sum(x: &[f64], epsilon: f64) -> Vec<f64> {
    let sum = x.iter().sum::<f64>() + epsilon;
    x.iter().map(|x| x / sum).collect()
}

#[test]
fn shares_of_heads() {
    for (length, heads, width) in [(65, 3, 7), (1, 1, 100), (257, 4, 1)] {
        let cols = heads * width;
        Case {
            length,
            range: (-5.0, 5.0),
            build: &|graph, inputs| graph.softmax(inputs[0], heads),
            reference: &|inputs, _| {
                let each = inputs[0].chunks(width).flat_map(|x| {
                    let powers: Vec<f64> = x.iter().map(|x| x.exp()).collect();
                    over_their_sum(&powers, 0.0)
                });
                each.collect()
            },
            ..case(&[cols])
        }
        .check_with(&longhaul_emulator::devices());
        Case {
            length,
            range: (0.0, 2.0),
            build: &|graph, inputs| graph.shares(inputs[0], heads, 0.1),
            reference: &|inputs, _| {
                let each = inputs[0].chunks(width).flat_map(|x| over_their_sum(x, 0.1));
                each.collect()
            },
            ..case(&[cols])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn the_largest_of_heads() {
    for (heads, width, count) in [(3, 7, 2), (1, 100, 32), (2, 5, 5)] {
        Case {
            build: &|graph, inputs| {
                // What is kept and what decides differ by a factor, so that a place that is lost shows.
                let kept = graph.largest(inputs[0], heads, count);
                graph.gate(kept, inputs[1], Activation::Identity)
            },
            reference: &|inputs, _| {
                let each = inputs[0].chunks(width).flat_map(|x| {
                    let mut order = x.to_vec();
                    order.sort_by(|a, b| b.total_cmp(a));
                    let least = order[count - 1];
                    x.iter().map(move |&x| if x >= least { x } else { 0.0 })
                });
                each.zip(&inputs[1]).map(|(kept, x)| kept * x).collect()
            },
            ..case(&[heads * width, heads * width])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

/// Sums of features and of products of features: those of one head with another's are the series.
#[test]
fn taylor_features_have_the_series_as_products() {
    for (heads, width) in [(3, 5), (1, 16), (2, 1)] {
        let scale = 0.7;
        let features = taylor_features(width);
        let exact = |x: &[f64]| -> Vec<f64> {
            let mut f = vec![1.0];
            f.extend(x.iter().map(|x| x * f64::sqrt(scale)));
            for (i, a) in x.iter().enumerate() {
                let products = x[i..].iter().enumerate();
                f.extend(
                    products.map(|(j, b)| a * b * scale * if j == 0 { 0.5f64.sqrt() } else { 1.0 }),
                );
            }
            f
        };
        let (q, k): (Vec<f64>, Vec<f64>) = (0..width)
            .map(|i| ((i as f64).sin(), (i as f64 + 0.5).cos()))
            .unzip();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let s = scale * dot(&q, &k);
        let series = 1.0 + s + s * s / 2.0;
        assert!((dot(&exact(&q), &exact(&k)) - series).abs() < 1e-12);
        assert_eq!(exact(&q).len(), features);
        Case {
            build: &|graph, inputs| graph.taylor(inputs[0], heads, scale as f32),
            reference: &|inputs, _| inputs[0].chunks(width).flat_map(exact).collect(),
            ..case(&[heads * width])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn a_number_at_every_position() {
    Case {
        build: &|graph, inputs| {
            let half = graph.filled(0.5, 19);
            graph.add(inputs[0], half)
        },
        reference: &|inputs, _| inputs[0].iter().map(|x| x + 0.5).collect(),
        ..case(&[19])
    }
    .check_with(&longhaul_emulator::devices());
}
