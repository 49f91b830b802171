//! What is seen of the accesses of kernels: races, reads of what nobody wrote, sectors and banks.

use std::sync::Arc;

use longhaul_emulator::Emulator;
use longhaul_emulator::accesses::{Row, Watched, Watcher, table};
use longhaul_plugin_kit::cuda::device::{Device, Kernel, KernelParams, KernelSource, Launch};
use longhaul_plugin_kit::cuda::guards::GUARD;
use longhaul_plugin_kit::cuda::memory::POISON;
use longhaul_plugin_kit::kernel_params;

static SOURCE: KernelSource = KernelSource {
    file: "accesses.cu",
    text: include_str!("accesses.cu"),
    params: &[Values::CPP],
};

const COUNT: usize = 256;

kernel_params! {
    struct Values {
        x: *mut f32,
        other: u64,
    }
}

/// What is wrong with a kernel. Of its values the first are 0, and nobody wrote the others; `other` tells some of them to be
/// another one.
fn run(
    device: &Arc<dyn Device>,
    name: &'static str,
    (blocks, threads): (usize, u32),
    zeros: usize,
    other: u64,
) -> Result<(), String> {
    device.load(&[&SOURCE]).expect("a source that compiles");
    let x = device.allocate(4 * COUNT).expect("memory");
    device.fill(x, 0, zeros).expect("zeros");
    let kernel = Kernel {
        source: &SOURCE,
        name,
    };
    let launch = Launch::flat(blocks, threads).with_shared(COUNT);
    let result = device.launch(kernel, launch, Values { x, other }.bytes());
    device.free(x);
    result.map_err(|error| error.message.to_string())
}

const ORDER: Watched = Watched {
    order: true,
    shape: false,
};

fn watching(watched: Watched) -> Arc<dyn Device> {
    Arc::new(Emulator::beside_target().watching(watched))
}

/// The lines of a kernel that have such a mark.
fn marked(name: &str, mark: &str) -> Vec<String> {
    let mut lines = (1..).zip(SOURCE.text.lines());
    let begin = format!(" {name}, Values");
    let own = lines
        .by_ref()
        .skip_while(|(_, line)| !line.contains(&begin));
    let own = own.take_while(|(_, line)| *line != "}");
    let marked = own.filter(|(_, line)| line.ends_with(mark));
    marked
        .map(|(number, _)| format!("accesses.cu:{number}"))
        .collect()
}

#[test]
fn races_are_found_whatever_the_values_and_the_order() {
    let device = watching(ORDER);
    let race = |name, blocks, threads, other| {
        let error = run(&device, name, (blocks, threads), COUNT, other).expect_err(name);
        assert!(error.contains(&format!("{name}: a race: ")), "{error}");
        let places = marked(name, "// here");
        assert!(!places.is_empty(), "{name}");
        for place in places {
            assert!(error.contains(&format!("{place} ")), "{place}: {error}");
        }
        error
    };
    race("no_barrier", 1, 64, 0);
    race("no_second_barrier", 1, 64, 0);
    race("equal_values", 1, 64, 0);
    race("next_block", 2, 32, 0);
    race("branches", 1, 32, 0);
    race("one_half", 1, 64, 0);
    race("copy_not_waited_for", 1, 32, 1);
    let error = race("blocks_write", 2, 32, 0);
    let who = "byte 28 from `x` on, byte 28 of an allocation of 1024, thread 0 of block 1, 0, 0 and thread 0 of block 0, 0, 0";
    assert!(error.contains(who), "{error}");
    let error = race("warp_barrier", 1, 64, 1);
    assert!(
        error.contains("byte 128 of 1024 of shared memory, thread 0 of"),
        "{error}"
    );
}

#[test]
fn what_is_in_order_is_no_race() {
    let device = watching(ORDER);
    for (name, threads) in [
        ("warp_barrier", 64),
        ("copy_not_waited_for", 32),
        ("halves", 64),
        ("far_apart", 32),
    ] {
        run(&device, name, (1, threads), COUNT, 0).expect(name);
    }
}

#[test]
fn reads_of_what_nobody_wrote_are_found() {
    let device = watching(ORDER);
    let place = marked("far_apart", "// there").remove(0);
    for zeros in [0, COUNT - 8] {
        let error = run(&device, "far_apart", (1, 32), zeros, 0).expect_err("a read");
        let what = format!(
            "{place} reads what nobody wrote: byte {} from `x` on",
            4 * zeros
        );
        assert!(error.contains(&what), "{error}");
    }
}

#[test]
fn downloads_of_what_nobody_wrote_are_found() {
    let device = watching(ORDER);
    let x = device.allocate(4 * COUNT).expect("memory");
    let mut bytes = vec![0; 4 * COUNT];
    device.fill(x, 0, COUNT - 8).expect("zeros");
    for word in [None, Some(POISON)] {
        if let Some(word) = word {
            device.fill(x.value(COUNT - 8), word, 8).expect("a word");
        }
        let error = device.download(x, &mut bytes).expect_err("a download");
        let what = format!("reads what nobody wrote, from byte {} on", 4 * (COUNT - 8));
        assert!(error.message.contains(&what), "{error}");
    }
    // Bands between buffers are looked at.
    device.fill(x.value(COUNT - 8), GUARD, 8).expect("a band");
    device.download(x, &mut bytes).expect("a download");
    device.free(x);
}

#[test]
fn sectors_and_banks_are_counted() {
    let device = watching(Watched {
        order: false,
        shape: true,
    });
    run(&device, "far_apart", (2, 32), COUNT, 0).expect("a run");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("totals.tsv");
    let watcher = Watcher::of_process(folder.path()).expect("the process's");
    watcher.write_totals(&file).expect("a file");
    let rows = table(&[file]).expect("a file");
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.kernel == "far_apart")
        .collect();
    let find = |mark: &str, shared: bool| {
        let line = marked("far_apart", mark).remove(0);
        let row = rows
            .iter()
            .find(|row| row.line == line && row.shared == shared)
            .expect("a row");
        (row.write, row.requests, row.passes, row.ideal, row.worst)
    };
    assert_eq!(find("// there", false), (false, 2, 64, 8, 32));
    assert_eq!(find("// there", true), (true, 2, 16, 2, 8));
    assert_eq!(find("// and back", true), (false, 2, 16, 2, 8));
    assert_eq!(find("// and back", false), (true, 2, 8, 8, 4));
}
