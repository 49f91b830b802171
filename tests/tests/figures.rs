//! Figures that the project promises and that hold with room to spare on any machine: size of a
//! plugin, time to load one, time of a call into one. The others are commands in `bench/README.md`.

use std::time::Instant;

use longhaul_plugin_api::abi::LogLevel;
use longhaul_plugin_api::abi_stable::std_types::RStr;
use longhaul_plugin_api::client::LoadedPlugin;
use longhaul_tests::build::{longhaul, profile_folder};
use longhaul_tests::in_process::default_config;

const PLUGINS: [&str; 14] = [
    "delta",
    "griffin",
    "hybrid",
    "hyena",
    "linear_attention",
    "lstm",
    "mamba",
    "mamba2",
    "min_rnn",
    "rwkv",
    "s4",
    "transformer",
    "ttt",
    "xlstm",
];

extern "C" fn no_log(_: LogLevel, _: RStr<'_>) {}

fn library(name: &str) -> std::path::PathBuf {
    longhaul();
    profile_folder().join(format!("liblonghaul_{name}.so"))
}

#[test]
fn plugins_are_small() {
    for name in PLUGINS {
        let bytes = std::fs::metadata(library(name))
            .expect("a built plugin")
            .len();
        println!("{name}: {:.2} MB", bytes as f64 / 1e6);
        // Only release builds are stripped.
        if profile_folder().ends_with("release") {
            assert!(bytes < 6_100_000, "{name} has {bytes} bytes");
        }
    }
}

#[test]
fn a_library_loads_and_describes_itself_in_a_few_milliseconds() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in PLUGINS {
        // Each copy is a library of its own, so that every load is a first one.
        let mut architectures = 0;
        let times: Vec<f64> = (0..9)
            .map(|index| {
                let copy = folder.path().join(format!("{name}-{index}.so"));
                std::fs::copy(library(name), &copy).expect("a copy");
                let begin = Instant::now();
                let plugin = LoadedPlugin::open(&copy, no_log).expect("a plugin");
                architectures = plugin.info().architectures.len();
                begin.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        // The quickest: a busy machine makes them slower and never quicker.
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{name}: {least:.2} ms");
        assert!(architectures > 0);
        if profile_folder().ends_with("release") {
            // Each architecture is recorded once to be described; a slow machine takes three times as long as a fast one.
            let most = 4.0 * (4.0 + architectures as f64);
            assert!(least < most, "{name} takes {least:.2} ms");
        }
    }
}

#[test]
fn a_call_that_does_nothing_costs_nanoseconds() {
    const CALLS: u32 = 1_000_000;
    let plugin = LoadedPlugin::open(&library("lstm"), no_log).expect("a plugin");
    let model = plugin
        .build(&default_config(&plugin.info().architectures[0], 8, 8, 1))
        .expect("a model");
    let session = model.new_session(1).expect("a session");
    let times: Vec<f64> = (0..9)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..CALLS {
                assert_eq!(std::hint::black_box(&session).position(), 0);
            }
            begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
        })
        .collect();
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    println!("a call that does nothing: {least:.1} ns");
    if profile_folder().ends_with("release") {
        assert!(least < 20.0, "a call takes {least:.1} ns");
    }
}
