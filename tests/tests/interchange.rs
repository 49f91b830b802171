//! What other software is told: the schema of the tables, and BibTeX of what a run is made of; and what of others is
//! bundled.

use std::fs;

use longhaul_tests::build::workspace;
use longhaul_tests::host::longhaul;

#[test]
fn the_schema_that_is_kept_is_the_one_that_is_printed() {
    let printed = longhaul(["schema"]).expect(0).stdout;
    let kept = fs::read_to_string(workspace().join("results/schema.json")).unwrap_or_default();
    assert!(
        kept == printed,
        "results/schema.json is another one: where a column's name, type or meaning changed, raise VERSION in \
         results/src/schema.rs, then run `longhaul schema > results/schema.json`"
    );
}

#[test]
fn a_run_cites_its_architectures_and_tasks_once_each() {
    let run = workspace().join("results/reference/quick");
    let ran = longhaul(["cite".as_ref(), run.as_os_str()]).expect(0);
    ran.prints(&[
        "% architecture mamba2: dao2024transformers\n",
        "% task mqar: arora2024zoology\n",
        "% Longhaul: longhaul\n",
        "@article{hochreiter1997lstm,",
    ]);
}

#[test]
fn figures_of_a_suite_and_names_are_cited_and_what_is_none_is_refused() {
    let run = workspace().join("results/reference/published");
    let ran = longhaul(["cite".as_ref(), run.as_os_str(), "niah_single_1".as_ref()]).expect(0);
    let text = ran.stdout.clone();
    ran.prints(&[
        "% figures of arXiv 2402.01032, figure 1: jelassi2024repeat\n",
        "% task niah_single_1: hsieh2024ruler\n",
    ]);
    // The plugin and the task name one paper by one key.
    assert_eq!(text.matches("{gu2023mamba,").count(), 1, "{text}");
    longhaul(["cite", "nothing-of-this-name"])
        .expect(2)
        .complains(&["no folder of a run, no task and no architecture"]);
    longhaul(["cite", env!("CARGO_MANIFEST_DIR")])
        .expect(2)
        .complains(&["run.toml"]);
}

#[test]
fn the_citation_file_names_the_version_that_is_built() {
    let text = fs::read_to_string(workspace().join("CITATION.cff")).expect("it is kept");
    let version = longhaul(["--version"]).expect(0).stdout;
    let version = version.trim().trim_start_matches("longhaul ");
    assert!(text.contains(&format!("\nversion: {version}\n")), "{text}");
    let entry = longhaul(["cite", "parity"]).expect(0).stdout;
    assert!(entry.contains(&format!("version={{{version}}}")), "{entry}");
    for line in text.lines().filter_map(|line| line.strip_prefix("title: ")) {
        assert!(entry.contains(&format!("title={{{line}}}")), "{entry}");
    }
}

/// The files beside a README that it has the hashes of.
fn named(readme: &str) -> Vec<(&str, &str)> {
    let lines = readme.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = lines.filter_map(|line| line.strip_suffix(" |")?.split_once(" | "));
    cells.filter(|(_, hash)| hash.len() == 64).collect()
}

#[test]
fn what_is_bundled_is_what_its_readme_names() {
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_be_bytes).collect() };
    for (folder, version, file, words) in [
        // A font's names are in UTF-16.
        ("font", "# Arimo 1.33,", "arimo.ttf", utf16("Version 1.33")),
        (
            "html/uplot",
            "# uPlot 1.6.32\n",
            "uPlot.iife.min.js",
            b"https://github.com/leeoniya/uPlot (v1.6.32)".to_vec(),
        ),
    ] {
        let folder = workspace().join("results/src").join(folder);
        let readme = fs::read_to_string(folder.join("README.md")).expect("it is kept");
        assert!(readme.starts_with(version), "{readme}");
        let named = named(&readme);
        let mut files: Vec<String> = fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .filter(|name| name != "README.md")
            .collect();
        files.sort();
        let mut names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(files, names, "{}", folder.display());
        for (name, hash) in named {
            let bytes = fs::read(folder.join(name)).expect("it is there");
            assert_eq!(longhaul_text::sha256_of(&bytes), hash, "{name}");
        }
        let bytes = fs::read(folder.join(file)).expect("it is there");
        assert!(
            bytes.windows(words.len()).any(|part| part == words),
            "{file} does not say of which version it is"
        );
    }
}
