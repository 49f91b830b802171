//! The evolution rules of `longhaul-plugin-api`, and libraries side by side, on real libraries in this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use longhaul_plugin_api::abi::{ABI_GENERATION, API_VERSION, Host, LogLevel, TARGET};
use longhaul_plugin_api::abi_stable::prefix_type::PrefixTypeTrait;
use longhaul_plugin_api::abi_stable::std_types::{RSlice, RStr};
use longhaul_plugin_api::data::{Batch, Device, DeviceKind, Logits};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_plugin_api::load::{LoadError, open};
use longhaul_tests::build::{faulty, fixture};
use longhaul_tests::in_process::{
    LENGTH, ROWS, assert_says, build_model, exercise, failure, opened, refusal, sequences, value,
};
use longhaul_tests::versions::{Edit, Version};

#[test]
fn a_plugin_of_this_version_loads_trains_and_feeds() {
    let (module, probe) = open(&faulty()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(probe.generation, ABI_GENERATION);
    assert_eq!(probe.api_version, API_VERSION);
    assert_eq!(probe.target, TARGET);
    assert_eq!(probe.kit, "no kit");
    let info = module.describe()();
    assert_eq!(info.name, "longhaul-faulty");
    assert_eq!(info.architectures.len(), 1);
    let report = module
        .device_report()
        .expect("this version reports devices");
    let device = Device {
        kind: DeviceKind::Cpu,
        index: 0,
        threads: 1,
    };
    assert_eq!(value(report(device)), "cpu");

    let mut model = value(build_model(module, "none"));
    exercise(&mut model);
    assert_eq!(model.notes().len(), 1);

    let (tokens, targets) = sequences();
    let batch = Batch::new(&tokens, &targets, ROWS, LENGTH);
    let mut first = value(model.new_session(ROWS));
    value(first.feed(batch, Logits::None));
    let mut second = value(first.fork());
    let mut third = value(model.new_session(ROWS));
    let state = value(first.export_state());
    value(third.import_state(RSlice::from_slice(&state)));
    let expected = value(first.feed(batch, Logits::All));
    assert_eq!(
        value(second.feed(batch, Logits::All)).logits,
        expected.logits
    );
    assert_eq!(
        value(third.feed(batch, Logits::All)).logits,
        expected.logits
    );
}

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

extern "C" fn hear(_level: LogLevel, message: RStr<'_>) {
    HEARD
        .lock()
        .expect("no test panics here")
        .push(message.to_string());
}

#[test]
fn copies_and_different_plugins_live_side_by_side() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copies: Vec<PathBuf> = (0..2)
        .map(|index| {
            let path = folder.path().join(format!("libcopy{index}.so"));
            fs::copy(faulty(), &path).expect("writable");
            path
        })
        .collect();
    let (first, second) = (opened(&copies[0]), opened(&copies[1]));
    let other = opened(&fixture("wrong_metadata"));
    let places = [first, second, other].map(|module| module.describe() as usize);
    assert!(places[0] != places[1] && places[1] != places[2] && places[0] != places[2]);
    assert_eq!(other.describe()().name, "longhaul-contradiction");
    assert_eq!(first.describe()().name, "longhaul-faulty");

    // Each has statics of its own: only the one that was given a host speaks to it.
    value(build_model(second, "none"));
    assert_eq!(HEARD.lock().expect("unpoisoned").len(), 0);
    first.attach()(Host { log: hear }.leak_into_prefix());
    let mut model = value(build_model(first, "none"));
    value(build_model(second, "none"));
    assert_eq!(HEARD.lock().expect("unpoisoned").len(), 1);
    let mut twin = value(build_model(second, "none"));
    assert_eq!(
        exercise(&mut model),
        exercise(&mut twin),
        "the same build, the same bytes"
    );
}

const API: &str = "plugin-api/src/abi.rs";
const AUTHOR: &str = "plugin-api/src/author.rs";

/// Built against a module that ends earlier: no device report, no notes, no fork, export or import.
fn older() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let abi = [
            Edit::Cut(
                "    /// One line on what the plugin sees of a device, or",
                "}\n\nimpl RootModule for",
            ),
            Edit::Cut(
                "    /// Notes for the log",
                "}\n\n/// Recurrent inference. New methods",
            ),
            Edit::Cut(
                "    /// An independent copy of the state",
                "}\n\n/// First bytes of a [`Probe`]",
            ),
        ];
        let author = [
            Edit::Cut(
                "    device_report: extern \"C\" fn(Device) -> AbiResult<RString>,\n    checkpoint:",
                ") -> PluginModuleRef {\n    PluginModule {",
            ),
            Edit::Replace(
                "\n        build,\n        device_report,\n        checkpoint,\n",
                "\n        build,\n",
            ),
            Edit::Replace(
                "(attach, describe, build, device_report, checkpoint)",
                "(attach, describe, build)",
            ),
            Edit::Cut(
                "            extern \"C\" fn device_report(",
                "            fn root_module() ->",
            ),
            Edit::Cut(
                "    fn notes(&self) -> RVec<RString> {",
                "}\n\nstruct SessionGuard {",
            ),
            Edit::Cut(
                "    fn fork(&self) -> AbiResult<SessionBox> {",
                "}\n\n/// Exports a type that implements",
            ),
        ];
        let faulty = Edit::Replace("\nversion.workspace = true\n", "\nversion = \"0.0.7\"\n");
        let abi = abi.map(|edit| (API, edit)).into_iter();
        let author = author.map(|edit| (AUTHOR, edit));
        let edits = abi.chain(author).chain([("faulty/Cargo.toml", faulty)]);
        Version {
            name: "older",
            api_version: "1.0.0",
            edits: edits.collect(),
        }
        .build()
    })
}

/// Built against a module that ends later, by a later minor version.
fn newer() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let abi = [
            Edit::Before(
                "}\n\nimpl RootModule for",
                "    /// Added later.\n    pub shut_down: extern \"C\" fn() -> u32,\n",
            ),
            Edit::Before(
                "}\n\n/// Recurrent inference. New methods",
                "    /// Added later.\n    fn explain(&self) -> RString {\n        RString::new()\n    }\n",
            ),
            Edit::Before(
                "}\n\n/// First bytes of a [`Probe`]",
                "    /// Added later.\n    fn rewind(&mut self, _tokens: u64) -> AbiResult<()> {\n        RResult::ROk(())\n    }\n",
            ),
        ];
        let author = [
            Edit::Replace(
                "        checkpoint,\n    }\n    .leak_into_prefix()",
                "        checkpoint,\n        shut_down,\n    }\n    .leak_into_prefix()",
            ),
            Edit::Before(
                "/// Wraps an author's model for the boundary.",
                "extern \"C\" fn shut_down() -> u32 {\n    42\n}\n\n",
            ),
            Edit::Before(
                "}\n\nstruct SessionGuard {",
                "\n    fn explain(&self) -> RString {\n        \"newer\".into()\n    }\n",
            ),
        ];
        let abi = abi.map(|edit| (API, edit)).into_iter();
        Version {
            name: "newer",
            api_version: "1.90.0",
            edits: abi.chain(author.map(|edit| (AUTHOR, edit))).collect(),
        }
        .build()
    })
}

#[test]
fn a_plugin_built_against_an_older_smaller_module_loads_and_runs() {
    let module = opened(older());
    assert!(module.device_report().is_none(), "absent, not wrong");
    assert_eq!(
        module.describe()().version,
        "0.0.7",
        "another version of the same plugin"
    );
    let mut model = value(build_model(module, "none"));
    let values = exercise(&mut model);
    assert_eq!(model.notes().len(), 0, "the default body answers");
    let mut session = value(model.new_session(ROWS));
    let unsupported = [
        refusal(session.fork()),
        refusal(session.export_state()),
        refusal(session.import_state(RSlice::from_slice(&[]))),
    ];
    for (error, what) in unsupported.iter().zip(["forked", "exported", "imported"]) {
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert_says(error.message.as_str(), &[what]);
    }
    let mut current = value(build_model(opened(&faulty()), "none"));
    assert_close(&values, &exercise(&mut current));
}

#[test]
fn a_plugin_built_against_a_newer_larger_module_loads_and_runs() {
    let (module, probe) = open(newer()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(probe.api_version, "1.90.0");
    assert!(module.device_report().is_some());
    let mut model = value(build_model(module, "none"));
    let values = exercise(&mut model);
    assert_eq!(model.notes().len(), 1);
    let session = value(model.new_session(ROWS));
    value(session.fork());
    value(session.export_state());
    let mut current = value(build_model(opened(&faulty()), "none"));
    assert_close(&values, &exercise(&mut current));
}

/// Builds of other optimisation levels may round sums otherwise.
fn assert_close(left: &[f64], right: &[f64]) {
    assert_eq!(left.len(), right.len());
    for (a, b) in left.iter().zip(right) {
        assert!(a.is_finite() && b.is_finite());
        assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{a} against {b}");
    }
}

#[test]
fn a_changed_layout_is_a_sentence_with_both_versions() {
    let edits = vec![
        (
            "plugin-api/src/metadata.rs",
            Edit::Replace("    pub version: RString,", "    pub version: u64,"),
        ),
        (
            AUTHOR,
            Edit::Replace("version: RString::new(),", "version: 0,"),
        ),
        (
            "faulty/src/options.rs",
            Edit::Replace(
                "version: env!(\"CARGO_PKG_VERSION\").into(),",
                "version: 1,",
            ),
        ),
    ];
    let version = Version {
        name: "mismatch",
        api_version: "1.80.0",
        edits,
    };
    let (error, words) = failure(&version.build());
    assert!(matches!(error, LoadError::Layout { .. }), "{error:?}");
    let parts = [
        "libfaulty_mismatch.so",
        "other type layouts",
        "built with longhaul-plugin-api 1.80.0",
        &format!("this host with {API_VERSION}"),
        "Rebuild the plugin",
        "describe.__returns.version",
        "Expected: RString Found: u64",
    ];
    assert_says(&words, &parts);
}
