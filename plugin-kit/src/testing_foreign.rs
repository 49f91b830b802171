//! Mixers held to what another implementation computes: fixtures with parameters, inputs, results and gradients, made
//! by a script and committed. For tests only.

use serde_json::Value;

use crate::backbone::{Architecture, Block};
use crate::engine::graph::Graph;
use crate::engine::tensor::Tensor;
use crate::options::Settings;
use crate::testing::{Case, compare, config};

/// Largest accepted errors, relative to the largest value of a tensor: float32 against float64.
const FORWARD: f64 = 2e-5;
const BACKWARD: f64 = 2e-4;

/// Holds the mixers of an architecture, one layer after the other without a backbone, to every case of a fixture:
///
/// ```json
/// [{"options": {"heads": "2"}, "layers": 1, "shape": [B, T, D], "params": {"0.in_proj.weight": [..]},
///   "x": [..], "y": [..], "grad_y": [..], "grad_x": [..], "grads": {"0.in_proj.weight": [..]}}]
/// ```
///
/// Names of parameters begin with their layer; all of them and their gradients are there.
///
/// # Panics
/// With what differs, where and by how much; with what is missing.
pub fn check_foreign(architecture: &Architecture, fixture: &str) {
    let cases: Value = serde_json::from_str(fixture).expect("a fixture");
    let cases = cases.as_array().expect("a list of cases");
    assert!(!cases.is_empty(), "a fixture without cases");
    for (index, case) in cases.iter().enumerate() {
        check_case(architecture, case, &format!("case {index}"));
    }
}

fn check_case(architecture: &Architecture, case: &Value, name: &str) {
    let size = |value: &Value| value.as_u64().expect("a size") as usize;
    let layers = size(&case["layers"]);
    let [rows, length, d_model] = [0, 1, 2].map(|axis| size(&case["shape"][axis]));
    let options = case["options"].as_object().expect("options by name");
    let options: Vec<(&str, &str)> = options
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().expect("an option as text")))
        .collect();
    let settings = Settings::new(&config(architecture, &options, d_model, layers));
    let mixer = (architecture.mixer)(&settings).unwrap_or_else(|error| panic!("{name}: {error}"));
    let build = |graph: &mut Graph, inputs: &[Tensor]| {
        (0..layers).fold(inputs[0], |x, layer| {
            graph.scope(layer.to_string(), |graph| {
                mixer.forward(&mut Block::new(graph, layer, layers), x)
            })
        })
    };
    let operations = Case {
        rows,
        length,
        inputs: &[d_model],
        range: (0.0, 0.0),
        recurrent: true,
        build: &build,
        reference: &|_, _| Vec::new(),
    };
    let mut recorded = operations.record(Graph::new(0), &[narrow(&case["x"], "x")], 0);
    let given = case["params"].as_object().expect("parameters by name");
    let entries = &mut recorded.graph.params.entries;
    assert_eq!(given.len(), entries.len(), "{name}: parameters");
    for entry in entries {
        let values = narrow(&case["params"][&entry.name], &entry.name);
        assert_eq!(values.len(), entry.values.len(), "{name}: `{}`", entry.name);
        entry.values = values;
    }
    let grad_y = narrow(&case["grad_y"], "grad_y");
    let trained = recorded.train(Some(&grad_y), 0.0).expect("a pass");
    let what = |part: &str| format!("{}, {name}: {part}", architecture.name);
    let exact = |key: &str| numbers(&case[key], key);
    compare(&what("result"), &trained.y, &exact("y"), FORWARD);
    let grad_x = &trained.grad_inputs[0];
    compare(&what("gradient of x"), grad_x, &exact("grad_x"), BACKWARD);
    for (entry, grad) in recorded
        .graph
        .params
        .entries
        .iter()
        .zip(&trained.grad_params)
    {
        let exact = numbers(&case["grads"][&entry.name], &entry.name);
        compare(
            &what(&format!("gradient of {}", entry.name)),
            grad,
            &exact,
            BACKWARD,
        );
    }
}

fn numbers(value: &Value, key: &str) -> Vec<f64> {
    let list = value.as_array();
    let list = list.unwrap_or_else(|| panic!("the fixture has no list `{key}`"));
    list.iter()
        .map(|value| value.as_f64().expect("a number"))
        .collect()
}

fn narrow(value: &Value, key: &str) -> Vec<f32> {
    let numbers = numbers(value, key).into_iter();
    numbers.map(|value| value as f32).collect()
}
