//! Layers against what other software gave for them: fla's layers and transformers' MiniMax attention. The files are
//! made by `tests/foreign/linear_attention.py`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use longhaul_linear_attention::{
    based, gla, gsa, hgrn2, lightning, linear_attention, raven, retnet,
};
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::{config, output};
use longhaul_plugin_kit::{Architecture, Block, Graph, Tensor};
use serde_json::Value;

/// Largest difference relative to the largest value: there recurrences are in float32, as here.
const TOLERANCE: f64 = 1e-5;

fn architectures() -> Vec<Architecture> {
    vec![
        linear_attention(),
        retnet(),
        lightning(),
        gla(),
        hgrn2(),
        based(),
        gsa(),
        raven(),
    ]
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/foreign/linear-attention");
    let entries = fs::read_dir(folder).expect("the folder of foreign outputs");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect()
}

fn values(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list of numbers");
    list.iter()
        .map(|value| value.as_f64().expect("a number"))
        .collect()
}

fn narrow(value: &Value) -> Vec<f32> {
    values(value).iter().map(|&value| value as f32).collect()
}

fn size(case: &Value, key: &str) -> usize {
    case[key].as_u64().expect("a size") as usize
}

/// What our layer gives for a case. Layers before it are recorded too, since they may leave something for it.
fn ours(architecture: &Architecture, case: &Value) -> Vec<f32> {
    let options: Vec<(&str, &str)> = case["options"]
        .as_object()
        .expect("options")
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().expect("a word")))
        .collect();
    let (layer, layers) = (size(case, "layer"), size(case, "layers"));
    let d_model = size(case, "d_model");
    let settings = Settings::new(&config(architecture, &options, d_model, layers));
    let mixer = (architecture.mixer)(&settings).expect("good options");
    let build = |graph: &mut Graph, inputs: &[Tensor]| {
        let record = |index: usize| {
            graph.scope(index.to_string(), |graph| {
                mixer.forward(&mut Block::new(graph, index, layers), inputs[0])
            })
        };
        (0..=layer).map(record).last().expect("a layer")
    };
    let params = case["params"].as_object().expect("parameters");
    let used = std::cell::RefCell::new(BTreeSet::new());
    let given = |full: &str| {
        let (index, name) = full.split_once('.').expect("a layer's parameter");
        let values = params.get(name);
        // What layers share is made in the first; else only the last one's matter.
        let own = index == layer.to_string() || name == "lower_bounds";
        assert!(values.is_some() || !own, "no values for `{full}`");
        let values = values.filter(|_| own)?;
        used.borrow_mut().insert(name.to_owned());
        Some(narrow(values))
    };
    let sizes = [size(case, "rows"), size(case, "length")];
    let y = output(&build, sizes, &[(d_model, narrow(&case["x"]))], &given);
    let left: Vec<_> = params
        .keys()
        .filter(|name| !used.borrow().contains(*name))
        .collect();
    assert!(left.is_empty(), "nothing here is called {left:?}");
    y
}

#[test]
fn layers_agree_with_other_software() {
    let mut seen = BTreeSet::new();
    for path in files() {
        let text = fs::read_to_string(&path).expect("a case");
        let case: Value = serde_json::from_str(&text).expect("JSON");
        let name = case["architecture"].as_str().expect("a name");
        let architecture = architectures()
            .into_iter()
            .find(|known| known.name == name)
            .unwrap_or_else(|| panic!("there is no architecture `{name}`"));
        let (got, exact) = (ours(&architecture, &case), values(&case["y"]));
        assert_eq!(got.len(), exact.len(), "{}", path.display());
        let largest = exact.iter().fold(0.0f64, |top, value| top.max(value.abs()));
        let error = got
            .iter()
            .zip(&exact)
            .map(|(got, exact)| (f64::from(*got) - exact).abs() / largest)
            .fold(0.0, |most, error| {
                if error > most || error.is_nan() {
                    error
                } else {
                    most
                }
            });
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        println!("{file:40} {error:.1e}");
        assert!(error <= TOLERANCE, "{file}: {error:e}");
        seen.insert(architecture.name);
    }
    let all: BTreeSet<_> = architectures().iter().map(|known| known.name).collect();
    assert_eq!(seen, all);
}
