//! A recurrence with nothing but its naive form: its gradients come from a tape, it carries its state through
//! chunks and steps, and a model of it trains on a CPU.

use std::sync::atomic::{AtomicUsize, Ordering};

use longhaul_plugin_kit::engine::tensor::Tensor;
use longhaul_plugin_kit::recurrences::tape::gradients;
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Carries, Graph, Init, Param, Ports, Real, Recurrence, Sequence};

/// Most tokens that were on a tape at a time.
static MOST_TAPED: AtomicUsize = AtomicUsize::new(0);

/// h_t = a_t h_{t-1} + (1 - a_t) x_t with a_t = sigmoid(g_t + w), channel by channel.
struct Average {
    x: Tensor,
    gate: Tensor,
    bias: Param,
}

impl Recurrence for Average {
    fn name(&self) -> &'static str {
        "average"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.x, self.gate],
            params: vec![self.bias],
            cols: self.x.cols(),
            carries: Carries::State {
                values: self.x.cols(),
                initial: 0.5,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        if size_of::<N>() > size_of::<f64>() {
            MOST_TAPED.fetch_max(given.length, Ordering::Relaxed);
        }
        let mut y = Vec::new();
        for t in 0..given.length {
            let tokens = given.token(0, t).iter().zip(given.token(1, t));
            for (c, (&x, &gate)) in tokens.enumerate() {
                let a = (gate + given.params[0][c]).sigmoid();
                state[c] = a * state[c] + (N::from(1.0) - a) * x;
            }
            y.extend_from_slice(state);
        }
        y
    }
}

/// y_t is the sum over s <= t of x_s tanh(x_t): all that was read is needed.
struct Everything(Tensor);

impl Recurrence for Everything {
    fn name(&self) -> &'static str {
        "everything"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.0],
            params: Vec::new(),
            cols: 1,
            carries: Carries::History,
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, _state: &mut [N]) -> Vec<N> {
        assert_eq!(given.position, 0, "from the beginning");
        let x = &given.inputs[0];
        let sum = |t: usize| x[..=t].iter().copied().sum::<N>();
        (0..given.length).map(|t| sum(t) * x[t].tanh()).collect()
    }
}

fn average(graph: &mut Graph, inputs: &[Tensor]) -> Tensor {
    let init = Init::Values(vec![1.0, -0.5, 0.25]);
    let bias = graph.param("bias", &[3], init);
    graph.record(Average {
        x: inputs[0],
        gate: inputs[1],
        bias,
    })
}

#[test]
fn a_naive_form_has_gradients_and_carries_its_state() {
    for length in [1, 2, 15, 16, 17, 50] {
        Case {
            rows: 3,
            length,
            inputs: &[3, 3],
            range: (-1.5, 1.5),
            recurrent: true,
            build: &average,
            reference: &|inputs, params| {
                let mut y = Vec::new();
                let tokens = inputs[0].chunks(3).zip(inputs[1].chunks(3));
                let mut h = [0.5; 3];
                for (index, (x, gate)) in tokens.enumerate() {
                    if index % length == 0 {
                        h = [0.5; 3];
                    }
                    for c in 0..3 {
                        let a = 1.0 / (1.0 + (-gate[c] - params[0][c]).exp());
                        h[c] = a * h[c] + (1.0 - a) * x[c];
                    }
                    y.extend(h);
                }
                y
            },
        }
        .check();
    }
    // Memory does not grow with the length.
    assert_eq!(MOST_TAPED.load(Ordering::Relaxed), 16);
}

#[test]
fn a_form_that_needs_all_it_read_is_given_it_again() {
    let length = 20;
    Case {
        rows: 2,
        length,
        inputs: &[1],
        range: (-1.5, 1.5),
        recurrent: true,
        build: &|graph, inputs| graph.record(Everything(inputs[0])),
        reference: &|inputs, _| {
            let rows = inputs[0].chunks(length);
            rows.flat_map(|x| (0..length).map(|t| x[..=t].iter().sum::<f64>() * x[t].tanh()))
                .collect()
        },
    }
    .check();
}

/// Every function of a real number, where its gradient is not one by itself.
fn functions<N: Real>(x: &[N]) -> Vec<N> {
    let (a, b) = (x[0], x[1]);
    let mut sum = a;
    sum += b * 2.0;
    sum -= a * b;
    sum *= b;
    sum /= a - 3.0;
    vec![
        sum,
        -a / b,
        a.exp(),
        (a * a + 1.0).ln(),
        (a * a + 0.5).sqrt(),
        a.exp_m1() * (a * a).ln_1p(),
        a.tanh() * b.sin() + a.cos(),
        a.abs() + b.abs(),
        a.max(b) * b.max(a * 0.1),
        a.sigmoid() + b.softplus(),
        a.log_sigmoid() - b.silu(),
        [a, b, a].into_iter().sum::<N>() * 0.5,
        N::from(4.0),
    ]
}

#[test]
fn the_tape_gives_the_gradient_of_every_function() {
    for at in [[0.7, -0.4], [-1.3, 2.0], [0.2, 0.1]] {
        let plain = functions(&at);
        for index in 0..plain.len() {
            let one = |values: &[f64]| {
                assert_eq!(values, plain, "the same values on the tape");
                (0..values.len()).map(|i| f64::from(i == index)).collect()
            };
            let got = gradients(at, functions, one);
            for (place, got) in got.iter().enumerate() {
                let shifted = |by: f64| {
                    let mut x = at;
                    x[place] += by;
                    functions(&x)[index]
                };
                let exact = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
                assert!(
                    (got - exact).abs() < 1e-8 * exact.abs().max(1.0),
                    "function {index} by number {place}: {got} against {exact}"
                );
            }
        }
    }
}

#[test]
fn far_from_zero_nothing_overflows() {
    let all = |x: &[_]| functions_of_one(x[0]);
    for at in [-800.0, 800.0] {
        assert!(
            functions_of_one(at)
                .iter()
                .all(|value: &f64| value.is_finite())
        );
        let got = gradients([at], all, |values| vec![1.0; values.len()]);
        assert!(got[0].is_finite(), "{got:?}");
    }
    let tiny = functions_of_one(-60.0)[1];
    assert!((tiny / f64::exp(-60.0) - 1.0).abs() < 1e-12, "{tiny}");
    let at_zero = gradients([0.0], |x| vec![x[0].softplus()], |_| vec![1.0]);
    assert_eq!(at_zero, [0.5]);
}

fn functions_of_one<N: Real>(x: N) -> Vec<N> {
    vec![
        x.sigmoid(),
        x.softplus(),
        x.log_sigmoid(),
        x.silu(),
        x.tanh(),
    ]
}

#[test]
fn a_tape_within_a_tape_leaves_the_outer_one_as_it_was() {
    let got = gradients(
        [3.0],
        |x| {
            let square = x[0] * x[0];
            let inner = gradients([5.0], |y| vec![y[0] * y[0]], |_| vec![1.0]);
            assert_eq!(inner, [10.0]);
            vec![square * x[0]]
        },
        |_| vec![1.0],
    );
    assert_eq!(got, [27.0]);
}
