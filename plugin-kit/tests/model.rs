//! A whole model with a position-wise mixer against a naive float64 model: loss, predictions and
//! every parameter's gradient; only scored positions count; threads and micro-batches do not show.

use longhaul_plugin_kit::api::author::{Model, Session};
use longhaul_plugin_kit::api::data::{Batch, Logits, ModelConfig, TrainConfig};
use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::model::KitModel;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::testing::config;
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Tensor};

const VOCAB: usize = 37;
const WIDTH: usize = 6;

/// `x W`, position by position, with learned positions added to the embedding.
struct PositionWise;

impl Mixer for PositionWise {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        block.graph.linear("proj", x, x.cols(), false)
    }

    fn embed(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let table = graph.param("positions", &[80, x.cols()], Init::Normal { std: 0.3 });
        graph.add_positions(x, table)
    }
}

fn architecture() -> Architecture {
    Architecture {
        name: "position-wise",
        title: "a linear map of every position",
        family: Family::Rnn,
        citation: "",
        options: Vec::new(),
        default_mlp: "none",
        mixer: |_| Ok(Box::new(PositionWise)),
    }
}

fn build(config: &ModelConfig) -> KitModel {
    KitModel::new(&architecture(), config, true).expect("a model")
}

/// Tokens and targets; about one position in `every` is scored.
fn batch(rows: usize, length: usize, every: usize) -> (Vec<u32>, Vec<i32>) {
    let count = rows * length;
    let tokens = (0..count)
        .map(|i| ((i * 7 + i / 5) % VOCAB) as u32)
        .collect();
    let target = |i: usize| {
        if i % every == 1 {
            ((i * 11 + 3) % VOCAB) as i32
        } else {
            -1
        }
    };
    (tokens, (0..count).map(target).collect())
}

fn values(model: &KitModel) -> Vec<(String, Vec<f64>)> {
    let infos = model.parameters();
    let read = |(index, info): (usize, &longhaul_plugin_kit::api::data::ParameterInfo)| {
        let mut values = vec![0.0; info.len()];
        model
            .read_parameter(index, &mut values)
            .expect("a parameter");
        (
            info.name.to_string(),
            values.into_iter().map(f64::from).collect(),
        )
    };
    infos.iter().enumerate().map(read).collect()
}

fn normalise(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

/// Negative log likelihood of every scored position, in order.
fn reference(
    params: &[(String, Vec<f64>)],
    tokens: &[u32],
    targets: &[i32],
    length: usize,
) -> Vec<f64> {
    let get = |name: &str| {
        &params
            .iter()
            .find(|(known, _)| known == name)
            .expect(name)
            .1
    };
    let head = params.iter().find(|(name, _)| name == "head.weight");
    let (table, positions) = (get("embedding.weight"), get("positions"));
    let head = head.map_or(table, |(_, values)| values);
    let mut losses = Vec::new();
    for (at, (&token, &target)) in tokens.iter().zip(targets).enumerate() {
        if target < 0 {
            continue;
        }
        let embedding = &table[token as usize * WIDTH..][..WIDTH];
        let position = &positions[at % length * WIDTH..][..WIDTH];
        let mut x: Vec<f64> = embedding.iter().zip(position).map(|(a, b)| a + b).collect();
        for layer in 0..2 {
            let normal = normalise(&x, get(&format!("layers.{layer}.norm1.weight")));
            let weight = get(&format!("layers.{layer}.mixer.proj.weight"));
            for (o, x) in x.iter_mut().enumerate() {
                *x += (0..WIDTH)
                    .map(|i| weight[o * WIDTH + i] * normal[i])
                    .sum::<f64>();
            }
        }
        let normal = normalise(&x, get("norm.weight"));
        let logit = |v: usize| {
            (0..WIDTH)
                .map(|i| head[v * WIDTH + i] * normal[i])
                .sum::<f64>()
        };
        let total: f64 = (0..VOCAB).map(|v| logit(v).exp()).sum();
        losses.push(total.ln() - logit(target as usize));
    }
    losses
}

#[test]
fn loss_and_every_gradient_agree_with_float64() {
    for tied in ["false", "true"] {
        let mut model = build(&config(&architecture(), &[("tied", tied)], WIDTH, 2));
        // 40 rows of 61: several micro-batches of unequal size, several lanes, one unscored row.
        let (rows, length) = (40, 61);
        let (tokens, mut targets) = batch(rows, length, 3);
        targets[length..2 * length].fill(-1);
        let mut params = values(&model);
        let mean = |params: &[(String, Vec<f64>)]| {
            let losses = reference(params, &tokens, &targets, length);
            losses.iter().sum::<f64>() / losses.len() as f64
        };
        let report = model
            .loss_and_gradients(&Batch::new(&tokens, &targets, rows, length))
            .expect("gradients");
        let exact = mean(&params);
        assert!(
            (report.loss - exact).abs() < 1e-6 * exact,
            "{} against {exact}",
            report.loss
        );
        assert_eq!(
            report.scored as usize,
            targets.iter().filter(|&&t| t >= 0).count()
        );
        for index in 0..params.len() {
            let mut gradient = vec![0.0f32; params[index].1.len()];
            model
                .read_gradient(index, &mut gradient)
                .expect("a gradient");
            let largest = gradient
                .iter()
                .fold(0.0f64, |top, &g| top.max(f64::from(g).abs()));
            assert!(largest > 0.0, "no gradient of {}", params[index].0);
            for coordinate in (0..gradient.len()).step_by(gradient.len().div_ceil(10)) {
                params[index].1[coordinate] += 1e-5;
                let above = mean(&params);
                params[index].1[coordinate] -= 2e-5;
                let below = mean(&params);
                params[index].1[coordinate] += 1e-5;
                let exact = (above - below) / 2e-5;
                let got = f64::from(gradient[coordinate]);
                assert!(
                    (got - exact).abs() < 1e-4 * largest,
                    "{} value {coordinate}: {got} against {exact}",
                    params[index].0
                );
            }
        }
    }
}

#[test]
fn feeds_answer_in_order_whatever_the_chunks() {
    let model = build(&config(&architecture(), &[], WIDTH, 2));
    let (rows, length) = (3, 70);
    let (tokens, targets) = batch(rows, length, 4);
    let exact = reference(&values(&model), &tokens, &targets, length);
    let mut whole = model.new_session(rows).expect("a session");
    let all = whole
        .feed(&Batch::new(&tokens, &targets, rows, length), Logits::All)
        .expect("a feed");
    assert_eq!(all.nll.len(), exact.len());
    assert_eq!(all.logits.len(), rows * length * VOCAB);
    for (got, exact) in all.nll.iter().zip(&exact) {
        assert!(
            (f64::from(*got) - exact).abs() < 1e-5,
            "{got} against {exact}"
        );
    }
    let mut chunked = model.new_session(rows).expect("a session");
    let mut nll = vec![Vec::new(); rows];
    for (start, count) in [(0, 1), (1, 40), (41, 29)] {
        let cut = |values: &[u32]| -> Vec<u32> {
            (0..rows)
                .flat_map(|r| values[r * length + start..][..count].to_vec())
                .collect()
        };
        let unsigned: Vec<u32> = targets.iter().map(|&t| t as u32).collect();
        let targets: Vec<i32> = cut(&unsigned).into_iter().map(|t| t as i32).collect();
        let output = chunked
            .feed(
                &Batch::new(&cut(&tokens), &targets, rows, count),
                Logits::Last,
            )
            .expect("a feed");
        assert_eq!(output.logits.len(), rows * VOCAB);
        let mut answers = output.nll.iter();
        for (row, nll) in nll.iter_mut().enumerate() {
            let scored = targets[row * count..][..count]
                .iter()
                .filter(|&&t| t >= 0)
                .count();
            nll.extend(answers.by_ref().take(scored));
        }
    }
    let nll: Vec<f32> = nll.concat();
    assert_eq!(nll, all.nll.to_vec());
}

#[test]
fn a_position_past_the_table_is_an_error_not_a_crash() {
    let model = build(&config(&architecture(), &[], WIDTH, 1));
    let (tokens, targets) = batch(1, 81, 4);
    let mut session = model.new_session(1).expect("a session");
    let error = session
        .feed(&Batch::new(&tokens, &targets, 1, 81), Logits::None)
        .unwrap_err();
    assert!(
        error.message.contains("learned positions end at 80"),
        "{error}"
    );
    session.reset().expect("a reset");
    session
        .feed(&Batch::new(&tokens[..80], &[], 1, 80), Logits::Last)
        .expect("usable again");
}

#[test]
fn threads_do_not_show_in_the_bytes() {
    let train = |threads: u32| {
        let mut config = config(&architecture(), &[], WIDTH, 2);
        config.device.threads = threads;
        let mut model = build(&config);
        model
            .begin_training(&TrainConfig {
                total_steps: 5,
                ..TrainConfig::default()
            })
            .expect("begin");
        let (tokens, targets) = batch(40, 61, 3);
        for step in 0..5 {
            model
                .train_step(&Batch::new(&tokens, &targets, 40, 61), step)
                .expect("a step");
        }
        values(&model)
    };
    let one = train(1);
    assert_eq!(one, train(2));
    assert_eq!(one, train(3));
}

#[test]
fn bad_batches_are_errors_with_the_place() {
    let mut model = build(&config(&architecture(), &[], WIDTH, 1));
    let tokens = [0, 1, 2, 37];
    let error = model
        .loss_and_gradients(&Batch::new(&tokens, &[-1, -1, -1, 1], 2, 2))
        .unwrap_err();
    assert!(
        error.message.contains("token 37 at row 1, position 1"),
        "{error}"
    );
    let error = model
        .loss_and_gradients(&Batch::new(&[0, 1], &[-1, -1], 1, 2))
        .unwrap_err();
    assert!(
        error.message.contains("no position of the batch is scored"),
        "{error}"
    );
    let error = model
        .train_step(&Batch::new(&[0, 1], &[-1, 1], 1, 2), 0)
        .unwrap_err();
    assert!(error.message.contains("begin_training"), "{error}");
}

/// x times the softplus of a parameter, which a session computes once.
struct Scaled;

impl Mixer for Scaled {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let scale = graph.param("scale", &[x.cols()], Init::Ones);
        let scale = graph.constant(scale);
        let scale = graph.activation(scale, Activation::Softplus);
        graph.gate(scale, x, Activation::Identity)
    }
}

#[test]
fn a_session_sees_parameters_that_changed_since_its_last_feed() {
    let scaled = Architecture {
        name: "scaled",
        mixer: |_| Ok(Box::new(Scaled)),
        ..architecture()
    };
    let mut model = KitModel::new(&scaled, &config(&scaled, &[], WIDTH, 2), true).expect("a model");
    let (tokens, targets) = batch(1, 9, 2);
    let nll = |session: &mut dyn Session| {
        let batch = Batch::new(&tokens, &targets, 1, 9);
        session.reset().expect("a reset");
        session
            .feed(&batch, Logits::None)
            .expect("a feed")
            .nll
            .to_vec()
    };
    let mut session = model.new_session(1).expect("a session");
    let before = nll(session.as_mut());
    assert_eq!(nll(session.as_mut()), before);
    assert_eq!(nll(session.fork().expect("a fork").as_mut()), before);
    let names = values(&model);
    let scale = names.iter().position(|(name, _)| name.ends_with("scale"));
    let scale = scale.expect("the parameter");
    model.write_parameter(scale, &[3.0; WIDTH]).expect("values");
    let fresh = nll(model.new_session(1).expect("a session").as_mut());
    assert_ne!(fresh, before);
    assert_eq!(nll(session.as_mut()), fresh);
}
