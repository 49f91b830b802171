//! Tests of opening a checkpoint's files.

use half::{bf16, f16};
use safetensors::Dtype;

use super::*;

const INDEX: &str = "model.safetensors.index.json";

fn refusal(folder: &Path) -> String {
    match Folder::open(folder) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_missing_or_damaged_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert!(refusal(path).contains("config.json"));
    std::fs::write(path.join("config.json"), "{}").unwrap();
    assert!(refusal(path).contains("model_type"));
    std::fs::write(
        path.join("config.json"),
        r#"{"model_type": "x", "a": Infinity}"#,
    )
    .unwrap();
    assert!(refusal(path).contains("neither model.safetensors"));
    std::fs::write(path.join("pytorch_model.bin"), "x").unwrap();
    assert!(refusal(path).contains("pickle"));
    std::fs::write(path.join("model.safetensors"), [0; 3]).unwrap();
    assert!(refusal(path).contains("not a whole safetensors file"));
}

#[test]
fn shards_and_small_types_are_read() {
    use safetensors::tensor::TensorView;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("config.json"), r#"{"model_type" : "x"}"#).unwrap();
    let half: Vec<u8> = [1.5f32, -2.0]
        .iter()
        .flat_map(|&v| f16::from_f32(v).to_le_bytes())
        .collect();
    let brain = bf16::from_f32(3.0).to_le_bytes();
    let shards = [
        ("one", "a", Dtype::F16, vec![2], half.as_slice()),
        ("two", "b", Dtype::BF16, vec![1], brain.as_slice()),
    ];
    for (file, tensor, dtype, shape, raw) in shards {
        let view = TensorView::new(dtype, shape, raw).unwrap();
        let bytes = safetensors::serialize([(tensor, view)], None).unwrap();
        std::fs::write(path.join(file), bytes).unwrap();
    }
    let index = path.join(INDEX);
    std::fs::write(&index, r#"{"weight_map": {"a": "one", "b": "two"}}"#).unwrap();
    let opened = Folder::open(path).unwrap();
    assert_eq!(
        (opened.config.model_type.as_str(), opened.tensors.files()),
        ("x", 2)
    );
    let values = |name: &str| {
        let place = opened.tensors.get(name).unwrap();
        opened.tensors.floats(name, place).unwrap()
    };
    assert_eq!((values("a"), values("b")), (vec![1.5, -2.0], vec![3.0]));
    std::fs::write(&index, r#"{"weight_map": {"a": "one", "c": "two"}}"#).unwrap();
    assert!(refusal(path).contains("`c` is in two"));
    std::fs::write(&index, r#"{"weight_map": {"a": "../one"}}"#).unwrap();
    assert!(refusal(path).contains("outside the folder"));
    // A shard cut short.
    let whole = std::fs::read(path.join("one")).unwrap();
    std::fs::write(path.join("one"), &whole[..whole.len() - 1]).unwrap();
    std::fs::write(&index, r#"{"weight_map": {"a": "one"}}"#).unwrap();
    assert!(refusal(path).contains("not a whole safetensors file"));
}

#[test]
fn only_regular_files_of_a_sane_size_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let config = path.join("config.json");
    std::os::unix::fs::symlink("/dev/zero", &config).unwrap();
    assert!(refusal(path).contains("not a regular file"));
    std::fs::remove_file(&config).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &config, rustix::fs::Mode::RUSR).unwrap();
    assert!(refusal(path).contains("not a regular file"));
    std::fs::remove_file(&config).unwrap();
    std::fs::File::create(&config)
        .unwrap()
        .set_len(600 << 20)
        .unwrap();
    assert!(refusal(path).contains("more than 16777216 bytes"));
    std::fs::write(&config, r#"{"model_type": "x"}"#).unwrap();
    for name in [INDEX, "model.safetensors"] {
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join(name), rustix::fs::Mode::RUSR).unwrap();
        let message = refusal(path);
        assert!(
            message.contains(name) && message.contains("not a regular file"),
            "{message}"
        );
        std::fs::remove_file(path.join(name)).unwrap();
    }
}

#[test]
fn what_a_file_is_instead_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let says = |file: &str, bytes: &[u8], part: &str| {
        std::fs::write(path.join(file), bytes).unwrap();
        let message = refusal(path);
        assert!(
            message.contains(file) && message.contains(part),
            "{message}"
        );
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
    says("config.json", b"\xef\xbb\xbf{}", "byte order mark");
    says("config.json", b"\xff\xfe{\0}\0", "UTF-16");
    says("config.json", pointer, "Git LFS pointer");
    says("config.json", b"\n<!DOCTYPE html><html>", "web page");
    says(
        "config.json",
        b"{\"model_type\": \"\xff\"}",
        "not UTF-8 text (byte 16)",
    );
    says("config.json", b"[]", "not an object");
    says("config.json", b"{\"model_type\": 5}", "no word");
    std::fs::write(path.join("config.json"), r#"{"model_type": "x"}"#).unwrap();
    let says = |bytes: &[u8], part: &str| {
        std::fs::write(path.join("model.safetensors"), bytes).unwrap();
        let message = refusal(path);
        assert!(message.contains(part), "{message}");
    };
    says(pointer, "Git LFS pointer");
    says(b"<html><body>Not found</body></html>", "web page");
    says(b"GGUF\x03\0\0\0", "GGUF");
    says(b"PK\x03\x04aaaa", "zip archive");
    says(b"", "not a whole safetensors file");
}

#[test]
fn the_own_model_type_counts() {
    let folder = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        Config::read(folder.path()).unwrap().model_type
    };
    assert_eq!(
        read(r#"{"draft": {"model_type": "a"}, "x": NaN, "model_type": "b"}"#),
        "b"
    );
    // As in Python, the last of two values of a key counts.
    assert_eq!(read(r#"{"model_type": "a", "model_type": "b"}"#), "b");
}

/// Writes a file of one tensor of one value.
fn write(path: &Path, tensor: &str, value: f32) {
    let raw = value.to_le_bytes();
    let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![1], &raw).unwrap();
    let bytes = safetensors::serialize([(tensor, view)], None).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn one_set_of_weights_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("config.json"), r#"{"model_type": "x"}"#).unwrap();
    write(&path.join("model.safetensors"), "a", 1.0);
    write(&path.join("one"), "a", 2.0);
    let index = |file: &str| {
        let text = format!(r#"{{"weight_map": {{"a": "{file}"}}}}"#);
        std::fs::write(path.join(INDEX), text).unwrap();
    };
    index("one");
    let message = refusal(path);
    assert!(
        message.contains("two sets of weights") && message.contains(INDEX),
        "{message}"
    );
    index("./model.safetensors");
    assert!(Folder::open(path).unwrap().tensors.warnings.is_empty());
    // Shards that are gone leave one set.
    index("gone");
    let opened = Folder::open(path).unwrap().tensors;
    assert!(opened.warnings[0].contains("gone") && opened.get("a").is_some());
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    assert!(refusal(path).contains("`gone`, which is not there"));
    index("./one");
    assert_eq!(Folder::open(path).unwrap().tensors.files(), 1);
    for outside in ["../one", "/dev/zero", "sub/one", "./../x", ""] {
        index(outside);
        assert!(refusal(path).contains("outside the folder"));
    }
}

#[test]
fn names_of_wrappers_are_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("config.json"), r#"{"model_type": "x"}"#).unwrap();
    for name in ["_orig_mod.a", "module.a", "_orig_mod.module.a"] {
        write(&path.join("model.safetensors"), name, 1.0);
        assert!(
            Folder::open(path).unwrap().tensors.get("a").is_some(),
            "{name}"
        );
    }
}
