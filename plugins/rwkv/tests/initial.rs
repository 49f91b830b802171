//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

/// D, layers, the vocabulary of such tests, a head's size, hidden width of the channel mix.
const D: usize = 128;
const LAYERS: usize = 3;
const VOCAB: f64 = 512.0;
const HEAD: usize = 64;
const HIDDEN: usize = 4 * D;

/// l / (L - 1).
fn rising(layer: usize) -> f64 {
    layer as f64 / (LAYERS - 1) as f64
}

/// 1 - l / L.
fn falling(layer: usize) -> f64 {
    1.0 - layer as f64 / LAYERS as f64
}

/// i / D.
fn share(i: usize) -> f64 {
    i as f64 / D as f64
}

/// i / (D - 1).
fn place(i: usize) -> f64 {
    i as f64 / (D - 1) as f64
}

/// 0, 1, -1, 0, ..
fn zigzag(i: usize) -> f64 {
    ((i + 1) % 3) as f64 - 1.0
}

/// From -1 to 1 over a head, times its size.
fn curve(i: usize) -> f64 {
    let middle = (HEAD - 1) as f64 / 2.0;
    let within = ((i % HEAD) as f64 - middle) / middle;
    within * within.abs()
}

/// Both forms of a start, of which a test takes one.
struct Form {
    reference: bool,
}

impl Form {
    fn of<'a>(&self, here: Law<'a>, there: Law<'a>) -> Law<'a> {
        if self.reference { there } else { here }
    }

    /// A matrix read `cols` wide: uniform here, orthogonal there.
    fn matrix(&self, gain: f64, cols: usize, orthogonal: f64) -> Law<'static> {
        self.of(linear(gain, cols), Law::Orthogonal(orthogonal))
    }

    /// What is 0 there.
    fn closed(&self, gain: f64, cols: usize) -> Law<'static> {
        self.of(linear(gain, cols), Law::Constant(0.0))
    }

    /// Into the residual stream.
    fn out(&self, cols: usize) -> Law<'static> {
        self.closed(1.0 / (2.0 * LAYERS as f64).sqrt(), cols)
    }

    /// What all three have, with the channel mix's key.
    fn common<'a>(&self, embedding: Law<'a>, key: f64) -> Vec<(&'static str, Law<'a>)> {
        let head = Law::Orthogonal(0.5 * (VOCAB / D as f64).sqrt());
        let mut laws = vec![
            (
                "embedding.weight",
                self.of(Law::Normal(1.0 / (D as f64).sqrt()), embedding),
            ),
            ("head.weight", self.of(linear(1.0, D), head)),
            ("pre_ln.weight", Law::Constant(1.0)),
            ("pre_ln.bias", Law::Constant(0.0)),
            ("norm.weight", Law::Constant(1.0)),
            ("norm1.weight", Law::Constant(1.0)),
            ("norm2.weight", Law::Constant(1.0)),
            ("mlp.key.weight", self.matrix(1.0, D, key)),
            ("mlp.value.weight", self.out(HIDDEN)),
        ];
        laws.push(("mixer.output.weight", self.out(D)));
        laws
    }

    fn head_norm(&self) -> [(&'static str, Law<'static>); 2] {
        let weight = &|layer: usize, _| ((layer + 1) as f64 / LAYERS as f64).powf(0.7);
        [
            (
                "mixer.ln_x.weight",
                self.of(Law::Constant(1.0), Law::Formula(weight)),
            ),
            ("mixer.ln_x.bias", Law::Constant(0.0)),
        ]
    }

    fn check(&self, architecture: &Architecture, laws: &[(&str, Law<'_>)]) {
        let init = if self.reference {
            "reference"
        } else {
            "longhaul"
        };
        check_initial_values(architecture, &[("init", init)], D, LAYERS, laws);
    }
}

const FORMS: [Form; 2] = [Form { reference: false }, Form { reference: true }];

fn linear(gain: f64, cols: usize) -> Law<'static> {
    Law::Within(gain / (cols as f64).sqrt())
}

#[test]
fn initial_values_of_rwkv4() {
    for form in FORMS {
        let mix = &|layer: usize, i: usize| share(i).powf(falling(layer));
        let value = &|layer, i| share(i).powf(falling(layer)) + 0.3 * rising(layer);
        let receptance = &|layer, i| share(i).powf(0.5 * falling(layer));
        let decay = &|layer, i| 8.0 * place(i).powf(0.7 + 1.3 * rising(layer)) - 5.0;
        let first = &|_, i| 0.3f64.ln() + 0.5 * zigzag(i);
        let mut laws = form.common(Law::Orthogonal(1e-4 * VOCAB.sqrt()), 2.0);
        laws.extend([
            ("mixer.time_decay", Law::Formula(decay)),
            ("mixer.time_first", Law::Formula(first)),
            ("mixer.time_mix_key", Law::Formula(mix)),
            ("mixer.time_mix_value", Law::Formula(value)),
            ("mixer.time_mix_receptance", Law::Formula(receptance)),
            ("mixer.key.weight", form.closed(1.0, D)),
            ("mixer.value.weight", form.matrix(1.0, D, 1.0)),
            ("mixer.receptance.weight", form.closed(1.0, D)),
            ("mlp.time_mix_key", Law::Formula(mix)),
            ("mlp.time_mix_receptance", Law::Formula(mix)),
            ("mlp.receptance.weight", form.closed(1.0, D)),
        ]);
        form.check(&longhaul_rwkv::rwkv4(), &laws);
    }
}

#[test]
fn initial_values_of_rwkv6() {
    for form in FORMS {
        let power = if form.reference { 3 } else { 1 };
        let channel = &|layer, i| 1.0 - share(i).powf(falling(layer).powi(power));
        let whole = &|layer, i| 1.0 - share(i).powf(falling(layer));
        let half = &|layer, i| 1.0 - share(i).powf(0.5 * falling(layer));
        let value = &|layer, i| 1.0 - share(i).powf(falling(layer)) - 0.3 * rising(layer);
        let decay = &|layer, i| 5.0 * place(i).powf(0.7 + 1.3 * rising(layer)) - 6.0;
        let bonus = &|layer, i| rising(layer) * (1.0 - place(i)) + 0.1 * zigzag(i);
        let up = |rank| form.of(linear(0.1, rank), Law::Within(0.01));
        let mut laws = form.common(Law::Within(1e-4), 1.0);
        laws.extend(form.head_norm());
        laws.extend([
            ("mixer.time_maa_x", Law::Formula(whole)),
            ("mixer.time_maa.down.weight", form.closed(1.0, D)),
            ("mixer.time_maa_w.bias", Law::Formula(whole)),
            ("mixer.time_maa_k.bias", Law::Formula(whole)),
            ("mixer.time_maa_v.bias", Law::Formula(value)),
            ("mixer.time_maa_r.bias", Law::Formula(half)),
            ("mixer.time_maa_g.bias", Law::Formula(half)),
            ("mixer.time_maa_w.up.weight", up(32)),
            ("mixer.time_maa_k.up.weight", up(32)),
            ("mixer.time_maa_v.up.weight", up(32)),
            ("mixer.time_maa_r.up.weight", up(32)),
            ("mixer.time_maa_g.up.weight", up(32)),
            ("mixer.time_decay.down.weight", form.closed(1.0, D)),
            ("mixer.time_decay.up.weight", up(64)),
            ("mixer.time_decay.bias", Law::Formula(decay)),
            ("mixer.time_faaaa", Law::Formula(bonus)),
            ("mixer.receptance.weight", form.matrix(1.0, D, 1.0)),
            ("mixer.key.weight", form.matrix(0.1, D, 0.1)),
            ("mixer.value.weight", form.matrix(1.0, D, 1.0)),
            ("mixer.gate.weight", form.matrix(1.0, D, 0.1)),
            ("mlp.time_maa_k", Law::Formula(channel)),
            ("mlp.time_maa_r", Law::Formula(channel)),
            ("mlp.receptance.weight", form.closed(1.0, D)),
        ]);
        form.check(&longhaul_rwkv::rwkv6(), &laws);
    }
}

#[test]
fn initial_values_of_rwkv7() {
    // Ranks at D 128: 1.8 sqrt(D), 1.3 sqrt(D) and 0.6 D^0.8, rounded to multiples of 32.
    const RANK: usize = 32;
    for form in FORMS {
        let reference = form.reference;
        let ramp =
            |power: f64| move |layer: usize, i: usize| 1.0 - share(i).powf(power * falling(layer));
        let (fifth, tenths7, tenths9) = (ramp(0.2), ramp(0.7), ramp(0.9));
        let channel = &|layer, i| 1.0 - share(i).powf(falling(layer).powi(4));
        let line = |i| place(i) - 0.5;
        let decay = &|layer: usize, i| match reference {
            false => 5.0 * place(i).powf(0.85 + rising(layer).sqrt()) - 6.5,
            true => 6.0 * place(i).powf(1.0 + rising(layer).powf(0.3)) - 5.5 + 2.5 * curve(i),
        };
        let rate = &|_, i| -0.19 + 0.3 * curve(i) + 0.4 * line(i);
        let value = &|_, i| 0.73 - 0.4 * line(i);
        let removal = &|_, i| 0.71 - 0.1 * line(i);
        let constant = Law::Constant;
        let mut laws = form.common(Law::Within(1e-4), 1.0);
        laws.extend(form.head_norm());
        laws.extend([
            ("mixer.x_r", Law::Formula(&fifth)),
            ("mixer.x_w", Law::Formula(&tenths9)),
            ("mixer.x_k", Law::Formula(&tenths7)),
            ("mixer.x_v", Law::Formula(&tenths7)),
            ("mixer.x_a", Law::Formula(&tenths9)),
            ("mixer.x_g", Law::Formula(&fifth)),
            ("mixer.decay.down.weight", form.closed(1.0, D)),
            ("mixer.decay.up.weight", form.matrix(0.1, RANK, 0.1)),
            ("mixer.decay.bias", Law::Formula(decay)),
            ("mixer.rate.down.weight", form.closed(1.0, D)),
            ("mixer.rate.up.weight", form.matrix(0.1, RANK, 0.1)),
            (
                "mixer.rate.bias",
                form.of(constant(0.0), Law::Formula(rate)),
            ),
            ("mixer.value_mix.down.weight", form.closed(1.0, D)),
            ("mixer.value_mix.up.weight", form.matrix(0.1, RANK, 0.1)),
            (
                "mixer.value_mix.bias",
                form.of(constant(1.0), Law::Formula(value)),
            ),
            ("mixer.gate.down.weight", form.closed(1.0, D)),
            ("mixer.gate.up.weight", form.matrix(1.0, RANK, 0.1)),
            ("mixer.k_k", form.of(constant(0.85), Law::Formula(removal))),
            ("mixer.k_a", form.of(constant(1.0), constant(1.02))),
            ("mixer.r_k", constant(-0.04)),
            ("mixer.receptance.weight", form.matrix(0.5, D, 1.0)),
            ("mixer.key.weight", form.matrix(0.05, D, 0.1)),
            ("mixer.value.weight", form.matrix(0.5, D, 1.0)),
            ("mlp.x_k", Law::Formula(channel)),
        ]);
        form.check(&longhaul_rwkv::rwkv7(), &laws);
    }
}
