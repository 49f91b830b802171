//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};
use longhaul_xlstm::{mlstm, slstm, xlstm};

/// D, layers, hidden width of the MLP.
const D: usize = 256;
const LAYERS: usize = 2;
const HIDDEN: usize = 320;

/// Whose values, as laws.
#[derive(Clone, Copy)]
struct Laws(&'static str);

impl Laws {
    /// A matrix that reads so many columns.
    fn read(self, cols: usize) -> Law<'static> {
        match self.0 {
            "reference" => Law::Normal((0.4 / D as f64).sqrt()),
            _ => Law::Within(1.0 / (cols as f64).sqrt()),
        }
    }

    /// A matrix from so many columns into the residual stream, `counted` of which the reference implementation counts.
    fn write(self, cols: usize, counted: usize) -> Law<'static> {
        match self.0 {
            "reference" => Law::Normal(2.0 / LAYERS as f64 / (counted as f64).sqrt()),
            _ => Law::Within(1.0 / ((2 * LAYERS * cols) as f64).sqrt()),
        }
    }

    /// The backbone, with an MLP of so many columns that the reference implementation counts `counted` of.
    fn backbone(self, counted: usize) -> Vec<(&'static str, Law<'static>)> {
        let embedding = match self.0 {
            "reference" => (0.4 / D as f64).sqrt(),
            _ => 1.0 / (D as f64).sqrt(),
        };
        vec![
            ("embedding.weight", Law::Normal(embedding)),
            ("head.weight", self.read(D)),
            ("norm.weight", Law::Constant(1.0)),
            ("norm1.weight", Law::Constant(1.0)),
            ("norm2.weight", Law::Constant(1.0)),
            ("mlp.gate.weight", self.read(D)),
            ("mlp.up.weight", self.read(D)),
            ("mlp.down.weight", self.write(HIDDEN, counted)),
            ("mixer.norm.weight", Law::Constant(1.0)),
        ]
    }
}

const BOTH: [Laws; 2] = [Laws("longhaul"), Laws("reference")];

/// Biases of input and forget gates of four heads.
fn gate_bias(_layer: usize, index: usize) -> f64 {
    match index {
        0..4 => -10.0,
        _ => 3.0 + (index - 4) as f64,
    }
}

#[test]
fn matrix_memories_before_the_mlp() {
    for laws in BOTH {
        let mut all = laws.backbone(HIDDEN);
        all.extend([
            ("mixer.qkvo.weight", laws.read(D)),
            ("mixer.gates.weight", Law::Constant(0.0)),
            ("mixer.gates.bias", Law::Formula(&gate_bias)),
            ("mixer.out_proj.weight", laws.write(D, D)),
        ]);
        let options = [("init", laws.0), ("mlp_hidden", "320")];
        check_initial_values(&mlstm(), &options, D, LAYERS, &all);
    }
}

fn scalar(laws: Laws) -> Vec<(&'static str, Law<'static>)> {
    let recurrent = match laws.0 {
        "reference" => Law::Constant(0.0),
        _ => laws.read(64),
    };
    vec![
        ("mixer.igate.weight", laws.read(64)),
        ("mixer.fgate.weight", laws.read(64)),
        ("mixer.zgate.weight", laws.read(64)),
        ("mixer.ogate.weight", laws.read(64)),
        ("mixer.conv1d.weight", Law::Within(0.5)),
        ("mixer.conv1d.bias", Law::Within(0.5)),
        ("mixer.weight_hh", recurrent),
    ]
}

/// Biases of cells in four heads, of which those of the forget gate fall from 5 to -7.
fn cell_bias(layer: usize, index: usize) -> f64 {
    let place = (index % 64) as f64 / 63.0;
    let power = 0.3 + 1.3 * layer as f64 / (LAYERS - 1) as f64;
    match index / D {
        1 => 5.0 - 12.0 * place.powf(power),
        _ => 0.0,
    }
}

#[test]
fn scalar_memories() {
    for laws in BOTH {
        let mut all = laws.backbone(D);
        all.extend(scalar(laws));
        all.push(("mixer.bias", Law::Formula(&cell_bias)));
        let options = [("init", laws.0), ("mlp_hidden", "320")];
        check_initial_values(&slstm(), &options, D, LAYERS, &all);
    }
}

/// Input gates' biases by where they stand in a normal distribution of deviation 0.1 (to 1 %), forget gates' between 3
/// and 6.
fn share(bias: f64) -> f64 {
    if bias > 2.0 {
        (bias - 3.0) / 3.0
    } else {
        1.0 / (1.0 + (-17.02 * bias).exp())
    }
}

#[test]
fn both_by_a_pattern() {
    for laws in BOTH {
        let mut all = laws.backbone(D);
        all.extend(scalar(laws));
        all.extend([
            ("mixer.bias", Law::Formula(&cell_bias)),
            ("mixer.proj_up.weight", laws.read(D)),
            ("mixer.q_proj.weight", laws.read(4)),
            ("mixer.k_proj.weight", laws.read(4)),
            ("mixer.v_proj.weight", laws.read(4)),
            ("mixer.gates.weight", Law::Constant(0.0)),
            ("mixer.gates.bias", Law::UniformOf(share, 0.0, 1.0)),
            ("mixer.skip", Law::Constant(1.0)),
            ("mixer.proj_down.weight", laws.write(2 * D, D)),
        ]);
        let options = [
            ("mlstm.init", laws.0),
            ("slstm.init", laws.0),
            ("mlstm.heads", "128"),
            ("mlp_hidden", "320"),
        ];
        check_initial_values(&xlstm(), &options, D, LAYERS, &all);
    }
}
