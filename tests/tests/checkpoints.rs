//! Checkpoints of other software: every family agrees with what that software computed, and whatever does not fit is
//! refused by name. The folders are made by `tests/checkpoints/make.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longhaul_tests::build::workspace;
use longhaul_tests::host::{Ran, longhaul};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn folders() -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(workspace().join("tests/checkpoints")).expect("the folder is there");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

fn checkpoint(command: &str, folder: &Path) -> Ran {
    let folder = folder.to_string_lossy().into_owned();
    longhaul(["checkpoint", command, &folder])
}

#[test]
fn every_family_agrees_with_what_other_software_computed() {
    let folders = folders();
    assert!(folders.len() >= 27, "{} checkpoints", folders.len());
    for folder in folders {
        let ran = checkpoint("verify", &folder).expect(0);
        ran.prints(&[
            "one feed",
            "uneven chunks",
            "single steps",
            "all within their limits",
        ]);
    }
}

#[test]
fn a_checkpoint_is_described() {
    let folder = workspace().join("tests/checkpoints/bamba");
    checkpoint("inspect", &folder).expect(0).prints(&[
        "bamba",
        "hybrid:",
        "pattern=attention+mamba2",
        "vocabulary 40, width 16, 2 layers",
    ]);
}

/// A copy of a checkpoint that a test may spoil.
struct Copy {
    folder: tempfile::TempDir,
}

type Stored = (Dtype, Vec<usize>, Vec<u8>);

impl Copy {
    fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in ["config.json", "model.safetensors", "expected.safetensors"] {
            let from = workspace().join("tests/checkpoints").join(name).join(file);
            std::fs::copy(from, folder.path().join(file)).expect("copied");
        }
        Self { folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Changes the stored tensors.
    fn change(&self, file: &str, change: impl FnOnce(&mut BTreeMap<String, Stored>)) {
        let bytes = std::fs::read(self.path(file)).expect("readable");
        let tensors = SafeTensors::deserialize(&bytes).expect("whole");
        let mut stored: BTreeMap<String, Stored> = tensors
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
                (name, (view.dtype(), shape, data))
            })
            .collect();
        change(&mut stored);
        let views = stored.iter().map(|(name, (dtype, shape, data))| {
            let view = TensorView::new(*dtype, shape.clone(), data).expect("shape and bytes agree");
            (name.clone(), view)
        });
        let bytes = safetensors::serialize(views, None).expect("serializable");
        std::fs::write(self.path(file), bytes).expect("writable");
    }

    fn configure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("config.json")).expect("readable");
        assert!(text.contains(from), "`{from}` is not in:\n{text}");
        std::fs::write(self.path("config.json"), text.replace(from, to)).expect("writable");
    }

    /// Sets a key of the config; without a value, takes it away.
    fn set(&self, key: &str, value: impl Into<Option<Value>>) {
        let text = std::fs::read_to_string(self.path("config.json")).expect("readable");
        let mut config: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("JSON");
        match value.into() {
            Some(value) => drop(config.insert(key.to_owned(), value)),
            None => drop(config.remove(key).expect("a key of the config")),
        }
        let text = Value::Object(config).to_string();
        std::fs::write(self.path("config.json"), text).expect("writable");
    }

    /// What other software computed still holds.
    fn verified(&self) -> Ran {
        checkpoint("verify", self.folder.path()).expect(0)
    }

    fn refused(&self, parts: &[&str]) {
        checkpoint("inspect", self.folder.path())
            .expect(2)
            .complains(parts);
    }
}

const WEIGHT: &str = "backbone.layers.1.mixer.out_proj.weight";

#[test]
fn tensors_that_do_not_fit_are_named() {
    let copy = Copy::of("mamba2");
    copy.change("model.safetensors", |stored| {
        stored.remove(WEIGHT);
    });
    copy.refused(&["no tensor", WEIGHT, "[16, 32]"]);

    let copy = Copy::of("mamba2");
    copy.change("model.safetensors", |stored| {
        stored.get_mut(WEIGHT).expect("there").1 = vec![32, 16];
    });
    copy.refused(&[WEIGHT, "[32, 16]", "[16, 32]"]);

    let copy = Copy::of("mamba2");
    copy.change("model.safetensors", |stored| {
        stored.insert("backbone.extra".into(), (Dtype::F32, vec![1], vec![0; 4]));
    });
    copy.refused(&["backbone.extra", "config.json"]);

    let copy = Copy::of("mamba2");
    copy.change("model.safetensors", |stored| {
        stored.get_mut(WEIGHT).expect("there").0 = Dtype::I32;
    });
    copy.refused(&[WEIGHT, "I32", "F32"]);
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let copy = Copy::of("llama");
    let whole = std::fs::read(copy.path("model.safetensors")).expect("readable");
    std::fs::write(copy.path("model.safetensors"), &whole[..whole.len() - 7]).expect("writable");
    copy.refused(&["model.safetensors", "whole"]);

    let copy = Copy::of("llama");
    std::fs::rename(
        copy.path("model.safetensors"),
        copy.path("pytorch_model.bin"),
    )
    .expect("renamed");
    copy.refused(&["pickle", "pytorch_model.bin", "save_pretrained"]);

    let copy = Copy::of("llama");
    copy.configure("\"llama\"", "\"lama\"");
    copy.refused(&["`lama`", "did you mean `llama`"]);

    let copy = Copy::of("llama");
    copy.configure("\"rope_type\": \"default\"", "\"rope_type\": \"dynamic\"");
    copy.refused(&[
        "rope_type",
        "dynamic",
        "default or linear or yarn or llama3",
    ]);

    let copy = Copy::of("llama");
    copy.configure("\"hidden_size\": 16", "\"hidden_size\": \"wide\"");
    copy.refused(&["hidden_size", "wide", "whole number"]);

    let copy = Copy::of("llama");
    copy.set("num_hidden_layers", json!(1u64 << 31));
    copy.refused(&["`num_hidden_layers`", "from 1 to 1024"]);

    let nowhere = Path::new("no/such/folder");
    checkpoint("inspect", nowhere)
        .expect(2)
        .complains(&["no/such/folder"]);
}

#[test]
fn a_wrong_value_fails_the_comparison() {
    let copy = Copy::of("llama");
    copy.change("model.safetensors", |stored| {
        let data = &mut stored.get_mut("model.norm.weight").expect("there").2;
        data[..4].copy_from_slice(&1.5f32.to_le_bytes());
    });
    let ran = checkpoint("verify", copy.folder.path()).expect(1);
    ran.prints(&["one feed", "FAILED", "gradient of"]);

    let copy = Copy::of("llama");
    copy.change("expected.safetensors", |stored| {
        let data = &mut stored.get_mut("grad.lm_head.weight").expect("there").2;
        data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let ran = checkpoint("verify", copy.folder.path()).expect(1);
    ran.prints(&["FAILED", "lm_head.weight"]);
}

#[test]
fn what_was_not_compared_is_said() {
    let copy = Copy::of("llama");
    copy.verified()
        .prints(&["logits, loss and 35 of 35 gradients were compared"]);
    copy.change("expected.safetensors", |stored| {
        stored.remove("grad.lm_head.weight");
    });
    copy.verified()
        .prints(&["34 of 35 gradients", "has none for lm_head.weight"]);
    copy.change("expected.safetensors", |stored| {
        stored.retain(|name, _| !name.starts_with("grad."));
    });
    let ran = copy.verified().prints(&["no gradient was", "none of 35"]);
    assert!(!ran.stdout.contains("not finite"), "{}", ran.stdout);
    for (tensor, bad) in [
        ("logits", f32::NAN),
        ("logits", f32::INFINITY),
        ("logits", f32::NEG_INFINITY),
    ] {
        let copy = Copy::of("llama");
        copy.change("expected.safetensors", |stored| {
            let data = &mut stored.get_mut(tensor).expect("there").2;
            let last = data.len() - 4;
            data[last..].copy_from_slice(&bad.to_le_bytes());
        });
        let ran = checkpoint("verify", copy.folder.path()).expect(1);
        ran.prints(&["1 of 3520 expected values", "3 comparisons failed"]);
    }
}

/// Keys under their other names and in their other places; the values that other software computed from the
/// unchanged checkpoint are right for each.
#[test]
fn a_key_means_what_it_means_to_other_software() {
    let copy = Copy::of("llama");
    copy.set("rope_parameters", None);
    copy.set(
        "rope_scaling",
        json!({"rope_type": "default", "rope_theta": 500.0}),
    );
    copy.verified();
    copy.set("rope_scaling", json!(null));
    copy.set("rope_theta", json!(500));
    copy.verified();
    copy.set("hidden_act", json!("swish"));
    copy.verified();
    copy.set("tie_word_embeddings", json!(true));
    copy.verified()
        .complains(&["`lm_head.weight`", "different values"]);
    let copy = Copy::of("state-spaces-mamba");
    copy.change("model.safetensors", |stored| {
        stored.get_mut("lm_head.weight").expect("there").2[3] ^= 1;
    });
    let ran = checkpoint("inspect", copy.folder.path()).expect(0);
    let ran = ran.complains(&["`lm_head.weight`", "different values"]);
    assert!(!ran.stdout.contains("tied=true"), "{}", ran.stdout);

    // Absent is the class's own value; null is none.
    for name in ["bamba", "recurrent_gemma"] {
        let copy = Copy::of(name);
        copy.set("pad_token_id", None);
        copy.verified();
    }
    let copy = Copy::of("llama-wide-heads");
    copy.set("pad_token_id", json!(3 - 40));
    copy.verified();
    let inspected = |copy: &Copy| checkpoint("inspect", copy.folder.path()).expect(0);
    let copy = Copy::of("mistral");
    copy.set("sliding_window", None);
    inspected(&copy).prints(&["window=4096"]);
    copy.set("sliding_window", json!(null));
    inspected(&copy).prints(&["linear,"]);
    copy.set("layer_types", json!(["full_attention", "full_attention"]));
    copy.set("use_sliding_window", json!(false));
    inspected(&copy).prints(&["linear,"]);
    inspected(&Copy::of("rwkv")).prints(&["64 tokens"]);

    let copy = Copy::of("llama");
    let unscaled = json!({"rope_theta": 500.0, "factor": 4.0});
    copy.set("rope_parameters", unscaled);
    copy.verified().complains(&["rope_parameters.factor"]);
    copy.set("aa_draft", json!({"model_type": "mamba"}));
    copy.verified()
        .complains(&["not known to have", "aa_draft"]);
}

#[test]
fn a_key_that_is_not_honoured_is_refused_by_name() {
    for (name, key, value) in [
        (
            "llama",
            "rope_parameters",
            json!({"type": "longrope", "factor": 4.0}),
        ),
        ("llama", "rope_parameters", json!({"type": "linear"})),
        (
            "llama",
            "rope_parameters",
            json!({"type": "linear", "factor": 0.5}),
        ),
        (
            "recurrent_gemma",
            "rope_parameters",
            json!({"type": "linear", "factor": 4.0}),
        ),
        ("llama", "rope_parameters", json!("x")),
        (
            "llama",
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8.0}),
        ),
        ("llama", "partial_rotary_factor", json!(0.5)),
        ("llama", "sliding_window", json!(9)),
        ("llama", "hidden_act", json!("gelu")),
        ("llama", "rms_norm_eps", json!(-1)),
        ("llama", "num_key_value_heads", json!(3)),
        ("llama", "quantization_config", json!({"bits": 4})),
        (
            "mistral",
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
        ),
        ("mistral", "use_sliding_window", json!(false)),
        ("mistral", "sliding_window", json!(0)),
        ("bamba", "partial_rotary_factor", json!(1.0)),
        ("bamba", "time_step_limit", json!([0.0, 0.1])),
        ("bamba", "pad_token_id", json!(40)),
        ("bamba", "attn_layer_indices", json!([2])),
        ("recurrent_gemma", "logits_soft_cap", json!(0.0)),
        ("recurrent_gemma", "block_types", json!([])),
        (
            "recurrent_gemma",
            "block_types",
            json!(["recurrent", "other"]),
        ),
        ("jamba", "num_experts", json!(2)),
        ("jamba", "attn_layer_offset", json!(3)),
        ("jamba", "sliding_window", json!(9)),
        ("qwen3_next", "num_experts", json!(4)),
        ("qwen3_next-bias", "mlp_only_layers", json!([4])),
        ("qwen3_next-bias", "decoder_sparse_step", json!(0)),
        ("qwen3_next", "linear_num_value_heads", json!(5)),
        ("qwen3_next", "linear_conv_kernel_dim", json!(1)),
        ("qwen3_next", "layer_types", json!(["full_attention"])),
        ("qwen3_next-bias", "head_dim", json!(6)),
        ("mamba2", "layer_norm_epsilon", json!(-1)),
        ("mamba2", "n_groups", json!(null)),
        ("mamba2", "rms_norm", json!(false)),
        ("mamba", "time_step_rank", json!(0)),
        ("rwkv", "intermediate_size", json!(41)),
        ("xlstm-single", "num_blocks", json!(3)),
        ("xlstm-single", "use_bias", json!(true)),
        ("xlstm-single", "tie_word_embeddings", json!(true)),
        ("xlstm-fused", "weight_mode", json!("other")),
        ("xlstm-fused", "qk_dim_factor", json!(0.3)),
        (
            "state-spaces-mamba2",
            "ssm_cfg",
            json!({"layer": "Mamba2", "headdim": 8, "d_state": 6, "rmsnorm": false}),
        ),
        ("state-spaces-mamba", "ssm_cfg", json!({"d_states": 8})),
        ("state-spaces-mamba", "rms_norm", json!(false)),
        ("state-spaces-mamba2attn", "attn_layer_idx", json!([3])),
        (
            "state-spaces-mamba2attn",
            "attn_cfg",
            json!({"causal": false, "num_heads": 4}),
        ),
    ] {
        let copy = Copy::of(name);
        copy.set(key, value);
        copy.refused(&[&format!("`{key}")]);
    }
}

#[test]
fn options_of_the_user_win_over_the_config() {
    let copy = Copy::of("llama-yarn");
    copy.set(
        "rope_parameters",
        json!({"rope_type": "default", "rope_theta": 500.0}),
    );
    let folder = copy.folder.path().to_string_lossy().into_owned();
    let with = |options: &str| longhaul(["checkpoint", "verify", &folder, "--options", options]);
    with("").expect(1).prints(&["FAILED"]);
    with("rope_scaling=yarn,rope_factor=4,rope_original_length=16")
        .expect(0)
        .prints(&["rope_scaling=yarn", "all within their limits"]);
    for (options, parts) in [
        ("rope_scaling=ntk", ["`rope_scaling`", "yarn"]),
        ("rope_scaling=yarn", ["rope_original_length", "yarn"]),
        ("rope_factor=2", ["rope_factor=2", "rope_scaling"]),
        ("rope_scale=2", ["no option `rope_scale`", "rope_scaling"]),
        ("kv_heads=1", ["qkv.weight", "changes a shape"]),
    ] {
        with(options).expect(2).complains(&parts);
    }
    let out = tempfile::tempdir().expect("a temporary folder");
    let out = out.path().join("run").to_string_lossy().into_owned();
    let eval = [
        "checkpoint",
        "eval",
        &folder,
        "--out",
        &out,
        "--lengths",
        "32",
    ];
    let rest = ["--samples", "2", "--task", "induction", "--options"];
    let words = eval
        .into_iter()
        .chain(rest)
        .chain(["rope_scaling=linear,rope_factor=2"]);
    longhaul(words).expect(0);
    let records = longhaul_tests::host::rows(&Path::new(&out).join("results.csv"));
    assert!(!records.is_empty());
    for row in records {
        assert!(
            row["options"].ends_with("rope_scaling=linear,rope_factor=2"),
            "{row:?}"
        );
    }
}

#[test]
fn names_and_files_of_the_base_model_are_read() {
    let renamed = |name: &str, rename: fn(&str) -> String| {
        let copy = Copy::of(name);
        copy.change("model.safetensors", |stored| {
            *stored = std::mem::take(stored)
                .into_iter()
                .map(|(name, tensor)| (rename(&name), tensor))
                .collect();
        });
        copy
    };
    let base = |name: &str| name.split_once('.').expect("a prefix").1.to_owned();
    renamed("llama-wide-heads", base).verified();
    renamed("mamba", base).verified();
    renamed("llama", |name| format!("_orig_mod.{name}")).verified();

    let copy = Copy::of("llama");
    let index = json!({"weight_map": {"model.norm.weight": "./model-1.safetensors"}});
    std::fs::write(copy.path("model.safetensors.index.json"), index.to_string()).expect("writable");
    copy.verified()
        .complains(&["model-1.safetensors", "gone", "model.safetensors"]);
    std::fs::copy(
        copy.path("model.safetensors"),
        copy.path("model-1.safetensors"),
    )
    .expect("copied");
    copy.refused(&["two sets of weights", "model.safetensors.index.json"]);
    std::fs::write(copy.path("config.json"), b"\xef\xbb\xbf{}").expect("writable");
    copy.refused(&["byte order mark"]);
}

#[test]
fn shards_are_one_checkpoint() {
    let copy = Copy::of("mistral");
    let bytes = std::fs::read(copy.path("model.safetensors")).expect("readable");
    let tensors = SafeTensors::deserialize(&bytes).expect("whole");
    let mut map = serde_json::Map::new();
    for (index, (name, view)) in tensors.tensors().into_iter().enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", index % 2 + 1);
        map.insert(name.clone(), file.clone().into());
        let path = copy.path(&file);
        let before = std::fs::read(&path).unwrap_or_default();
        let known = SafeTensors::deserialize(&before).ok();
        let known = known.iter().flat_map(SafeTensors::tensors);
        let all: Vec<_> = known.chain([(name, view)]).collect();
        let shard = safetensors::serialize(all, None).expect("serializable");
        std::fs::write(path, shard).expect("writable");
    }
    std::fs::remove_file(copy.path("model.safetensors")).expect("removed");
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(copy.path("model.safetensors.index.json"), index.to_string()).expect("writable");
    checkpoint("verify", copy.folder.path())
        .expect(0)
        .prints(&["2 file(s)"]);
}

#[test]
fn checkpoints_are_evaluated_like_models_of_a_run() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let out = out.path().join("run").to_string_lossy().into_owned();
    let folder = |name: &str| {
        let path = workspace().join("tests/checkpoints").join(name);
        path.to_string_lossy().into_owned()
    };
    let (llama, mamba) = (folder("llama"), folder("mamba"));
    let words = [
        "checkpoint",
        "eval",
        &llama,
        &mamba,
        "--task",
        "induction",
        "--samples",
        "20",
    ];
    let rest = ["--lengths", "32,64", "--out", &out];
    let all: Vec<&str> = words.into_iter().chain(rest).collect();
    longhaul(&all)
        .expect(0)
        .prints(&["induction", "4 measurements", "2 read back"]);
    let records = longhaul_tests::host::rows(&Path::new(&out).join("results.csv"));
    let names: std::collections::BTreeSet<&str> = records
        .iter()
        .map(|row| row["checkpoint"].as_str())
        .collect();
    assert_eq!(names, ["llama", "mamba"].into());
    for row in &records {
        assert_eq!(row["checkpoint_sha256"].len(), 64);
        let unknown = ["train_steps", "batch", "learning_rate", "weight_decay"];
        assert!(
            unknown.iter().all(|column| row[*column].is_empty()),
            "{row:?}"
        );
    }
    longhaul(&all)
        .expect(2)
        .complains(&["already holds this run", "--resume"]);
    let again = all.iter().copied().chain(["--resume"]);
    longhaul(again).expect(0).prints(&["0 read back"]);
    let ran = longhaul([
        "checkpoint",
        "eval",
        &llama,
        "--task",
        "mqar",
        "--lengths",
        "64",
    ]);
    ran.expect(2).complains(&["8192 token ids", "only 40"]);
    longhaul(["eval", &out, "--lengths", "128"])
        .expect(2)
        .complains(&["checkpoint eval", "another --out"]);
}

#[test]
fn the_limits_of_a_suite_are_those_of_its_evaluation() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let suite = place.path().join("mine.toml").display().to_string();
    let text = "title = 'Mine'\n[limits]\ntime_s = 77\nmemory_bytes = 3221225472\n[[task]]\nname = 'induction'\n";
    std::fs::write(&suite, text).expect("writable");
    let folder = workspace().join("tests/checkpoints/llama");
    let folder = folder.to_string_lossy();
    let eval = ["checkpoint", "eval", &folder, "--suite", &suite];
    let planned = |more: &[&str]| {
        let rest = ["--lengths", "32", "--dry-run"];
        longhaul(eval.iter().chain(&rest).chain(more)).expect(0)
    };
    planned(&[]).prints(&["at most 77 s a unit", "3.0 GiB a worker"]);
    planned(&["--time-limit", "99", "--memory-limit", "2G"])
        .prints(&["at most 99 s a unit", "2.0 GiB a worker"]);
}

/// What `run` looks at beside the answers, `checkpoint eval` does too.
#[test]
fn states_and_starts_of_a_checkpoint_are_recorded() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let out = place.path().join("run");
    let mamba = workspace().join("tests/checkpoints/mamba");
    let (mamba, out_text) = (mamba.to_string_lossy(), out.to_string_lossy());
    let eval = ["checkpoint", "eval", &mamba, "--out", &out_text, "--quiet"];
    let probes = "--state-norms --remembrance 2 --initial-states noise:0.5,zero,fitted";
    let task = "--task induction --lengths 32,64 --samples 8";
    let words = |text: &'static str| text.split(' ');
    longhaul(eval.into_iter().chain(words(task)).chain(words(probes))).expect(0);
    let cells = longhaul_tests::host::rows(&out.join("results.csv"));
    let value = |label: &str| -> &str {
        let found = cells
            .iter()
            .find(|row| row["eval_length"] == "64" && row["label"] == label);
        &found.unwrap_or_else(|| panic!("no `{label}`"))["nll"]
    };
    for label in ["initial=noise:0.5", "initial=fitted"] {
        assert_ne!(value(label), value(""), "{label}");
    }
    assert!(cells.iter().all(|row| row["label"] != "initial=zero"));
    let probes_file = longhaul_tests::host::rows(&out.join("probes.csv"));
    for probe in ["state_norm", "effective_remembrance"] {
        let mut own = probes_file.iter().filter(|row| row["probe"] == probe);
        assert!(own.any(|row| row["eval_length"] == "64"), "{probe}");
    }
    // Beside answers that are generated there is nothing to look at.
    let generated = "--task vt --lengths 1024 --tokenizer bytes";
    let all = eval
        .into_iter()
        .chain(words(generated))
        .chain(words(probes));
    longhaul(all)
        .expect(2)
        .complains(&["--state-norms", "generated"]);
}
