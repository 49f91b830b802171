//! Folders of texts.

use std::path::Path;

use longhaul_text::Texts;

fn write(folder: &Path, name: &str, text: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

#[test]
fn documents_come_by_name_and_have_one_hash() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("books");
    write(&folder, "b.txt", b"second");
    write(&folder, "a/1.txt", "naïve".as_bytes());
    write(&folder, ".hidden.txt", b"no");
    write(&folder, "notes.md", b"no");
    std::os::unix::fs::symlink("/etc/hostname", folder.join("link.txt")).expect("a link");
    let texts = Texts::of_folder(&folder).expect("texts");
    let names: Vec<&str> = texts.documents.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(
        (texts.name.as_str(), names),
        ("books", vec!["a/1.txt", "b.txt"])
    );
    assert_eq!(texts.documents[0].text, "naïve");
    let again = Texts::of_folder(&folder).expect("texts");
    assert_eq!(texts.sha256, again.sha256);
    // What moves from one document to the next changes the hash.
    write(&folder, "a/1.txt", "naïves".as_bytes());
    write(&folder, "b.txt", b"econd");
    assert_ne!(
        Texts::of_folder(&folder).expect("texts").sha256,
        texts.sha256
    );
}

#[test]
fn what_is_no_text_is_named() {
    let refusal = |name: &str, text: &[u8]| {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "good.txt", b"good");
        write(folder.path(), name, text);
        Texts::of_folder(folder.path()).expect_err(name).to_string()
    };
    assert!(refusal("bad.txt", b"ab\xff").contains("bad.txt: is no UTF-8 from byte 2"));
    assert!(refusal("zero.txt", b"a\0b").contains("zero.txt: holds the byte 0"));
    assert!(refusal("empty.txt", b" \n").contains("empty.txt: is empty"));
    let folder = tempfile::tempdir().expect("a folder");
    let none = Texts::of_folder(folder.path())
        .expect_err("none")
        .to_string();
    assert!(none.contains("no file whose name ends in .txt"), "{none}");
    let gone = Texts::of_folder(&folder.path().join("gone")).expect_err("gone");
    assert!(gone.to_string().contains("cannot read"));
}
