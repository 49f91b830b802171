//! Checkpoints of other software: every family agrees with what that software computed, and whatever does not fit is
//! refused by name. The folders are made by `tests/checkpoints/make.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longhaul_tests::build::workspace;
use longhaul_tests::host::{Ran, longhaul};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

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
    assert!(folders.len() >= 11, "{} checkpoints", folders.len());
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
    copy.configure("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"");
    copy.refused(&["rope_type", "yarn", "default"]);

    let copy = Copy::of("llama");
    copy.configure("\"hidden_size\": 16", "\"hidden_size\": \"wide\"");
    copy.refused(&["hidden_size", "wide", "whole number"]);

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
    let records = std::fs::read_to_string(Path::new(&out).join("results.csv")).expect("written");
    assert!(records.contains("checkpoint=llama") && records.contains("checkpoint=mamba"));
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
        .complains(&["checkpoint eval"]);
}
