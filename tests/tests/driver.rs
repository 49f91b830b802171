//! The kit's CUDA driver on the simulated one: what it asks of NVIDIA's libraries, what it refuses before
//! asking, and that threads do not get into each other's recordings.

use longhaul_plugin_kit::cuda::cards;
use longhaul_plugin_kit::cuda::device::{
    Device, DeviceMat, Epilogue, Kernel, KernelParams, KernelSource, Launch, Product, Ptr,
    Recording,
};
use longhaul_plugin_kit::cuda::driver::Driver;
use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::{PluginError, kernel_params};
use longhaul_tests::card;

/// Small kernels for these tests.
static SOURCE: KernelSource = KernelSource {
    file: "tests.cu",
    text: "KERNEL(256, scale, Scaling) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < p.count) p.y[i] = p.factor * p.x[i];
}

// Through shared memory, from both ends.
KERNEL(256, reverse, Scaling) {
    SHARED(values);
    for (u32 i = threadIdx.x; i < p.count; i += blockDim.x) values[i] = p.x[i];
    __syncthreads();
    for (u32 i = threadIdx.x; i < p.count; i += blockDim.x) p.y[i] = p.factor * values[p.count - 1 - i];
}
",
    params: &[Scaling::CPP],
};

/// A source with a mistake in its third line.
static BROKEN: KernelSource = KernelSource {
    file: "broken.cu",
    text: "struct Nothing { float* x; u64 unused; };
KERNEL(256, nothing, Nothing) {
    p.x[0] = no_such_name;
}
",
    params: &[],
};

kernel_params! {
    struct Scaling { x: *const f32, y: *mut f32, count: u32, factor: f32 }
}

const SCALE: Kernel = Kernel {
    source: &SOURCE,
    name: "scale",
};
const REVERSE: Kernel = Kernel {
    source: &SOURCE,
    name: "reverse",
};

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn put(card: &Driver, values: &[f32]) -> Ptr {
    let place = card.allocate(4 * values.len()).unwrap();
    card.upload(place, &bytes(values)).unwrap();
    place
}

fn get(card: &Driver, from: Ptr, count: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * count];
    card.download(from, &mut bytes).unwrap();
    let words = bytes.as_chunks::<4>().0;
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn counted(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32).collect()
}

#[track_caller]
fn assert_says(error: &PluginError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

#[track_caller]
fn refusal<T>(result: Result<T, PluginError>) -> PluginError {
    match result {
        Ok(_) => panic!("it had to be refused"),
        Err(error) => error,
    }
}

#[test]
fn memory_kernels_and_copies() {
    if !card::is_here("memory_kernels_and_copies", &[]) {
        return;
    }
    let card = Driver::open(0).unwrap();
    let (x, y) = (put(&card, &counted(1000)), put(&card, &[7.0; 1000]));
    let params = Scaling {
        x,
        y,
        count: 999,
        factor: 0.5,
    };
    card.launch(SCALE, Launch::for_each(999), params.bytes())
        .unwrap();
    card.copy(x, y.value(10), 40).unwrap();
    card.fill(x.value(10), 2.0f32.to_bits(), 5).unwrap();
    let half: Vec<f32> = (0..1000)
        .map(|i| if i < 999 { 0.5 * i as f32 } else { 7.0 })
        .collect();
    assert_eq!(get(&card, y, 1000), half);
    let start = get(&card, x, 20);
    assert_eq!(start[..10], half[10..20]);
    assert_eq!(start[10..15], [2.0; 5]);
    assert_eq!(start[15..], [15.0, 16.0, 17.0, 18.0, 19.0]);
    // More shared memory than a launch gets without asking.
    let many = counted(50_000);
    let (x, y) = (put(&card, &many), put(&card, &many));
    let params = Scaling {
        x,
        y,
        count: 50_000,
        factor: 1.0,
    };
    for _ in 0..2 {
        let launch = Launch::flat(1, 256).with_shared(50_000);
        card.launch(REVERSE, launch, params.bytes()).unwrap();
    }
    let turned: Vec<f32> = many.iter().rev().copied().collect();
    assert_eq!(get(&card, y, 50_000), turned);
}

#[test]
fn a_recording_runs_when_it_is_replayed_and_only_then() {
    if !card::is_here("a_recording_runs_when_it_is_replayed_and_only_then", &[]) {
        return;
    }
    let card = Driver::open(0).unwrap();
    let (x, y) = (put(&card, &[1.0; 64]), put(&card, &[0.0; 64]));
    let recording = card
        .record(&mut || {
            // The parameter is taken as it is now.
            let params = Scaling {
                x,
                y,
                count: 64,
                factor: 3.0,
            };
            let mut bytes = params.bytes().to_vec();
            card.launch(SCALE, Launch::for_each(64), &bytes)?;
            bytes.fill(0xff);
            card.copy(x, y, 4 * 64)?;
            card.fill_rows(x, 0, [1, 1, 64])?;
            let place = |data| DeviceMat::new(data, 8, 8, 8);
            card.product(Product::one(place(x), place(x), place(y), 1.0, 1.0))
        })
        .unwrap();
    assert_eq!(get(&card, y, 64), [0.0; 64], "it has not run");
    assert_eq!(recording.nodes(), 4);
    for _ in 0..2 {
        card.upload(x, &bytes(&[1.0; 64])).unwrap();
        card.replay(recording.as_ref()).unwrap();
        let mut x_then = [3.0; 64];
        x_then[0] = 0.0;
        assert_eq!(get(&card, x, 64), x_then);
        let y_then = get(&card, y, 64);
        assert_eq!((y_then[0], y_then[1], y_then[9]), (3.0 + 63.0, 66.0, 75.0));
    }
    // What fails inside fails the recording, and the device goes on.
    let error = refusal(card.record(&mut || {
        card.fill(x, 0, 4)?;
        Err(PluginError::bad_option("no, thank you"))
    }));
    assert_says(&error, &["no, thank you"]);
    assert_eq!(get(&card, x, 2), [0.0, 3.0]);
    card.replay(recording.as_ref()).unwrap();
    card.synchronize().unwrap();
}

/// One thread records, replays and looks; the other works. Without turns, what the other asks for is
/// recorded by the first and missing where it should have run.
#[test]
fn threads_take_turns() {
    if !card::is_here("threads_take_turns", &[]) {
        return;
    }
    let card = Driver::open(0).unwrap();
    card.load(&[&SOURCE]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (x, y) = (put(&card, &[0.0; 256]), put(&card, &[0.0; 256]));
            for round in 0..200 {
                let value = round as f32;
                let recording = card
                    .record(&mut || {
                        card.fill(x, value.to_bits(), 256)?;
                        std::thread::yield_now();
                        let params = Scaling {
                            x,
                            y,
                            count: 256,
                            factor: 2.0,
                        };
                        card.launch(SCALE, Launch::for_each(256), params.bytes())
                    })
                    .unwrap();
                card.replay(recording.as_ref()).unwrap();
                assert_eq!(get(&card, y, 256), [2.0 * value; 256], "round {round}");
            }
        });
        let (x, y) = (put(&card, &[0.0; 256]), put(&card, &[0.0; 256]));
        for round in 0..200 {
            let value = round as f32;
            card.fill(x, value.to_bits(), 256).unwrap();
            let params = Scaling {
                x,
                y,
                count: 256,
                factor: -1.0,
            };
            card.launch(SCALE, Launch::for_each(256), params.bytes())
                .unwrap();
            assert_eq!(get(&card, y, 256), [-value; 256], "round {round}");
            let memory = card.allocate(4096).unwrap();
            card.free(memory);
        }
    });
}

/// A matrix of a few thousandths each, rows 1 or 3 values apart, perhaps turned; enough for a batch.
struct Side {
    rows: usize,
    cols: usize,
    gap: usize,
    turned: bool,
}

impl Side {
    /// The matrix as it is meant has `height` rows and `width` columns.
    fn new(height: usize, width: usize, gap: usize, turned: bool) -> Self {
        let (rows, cols) = if turned {
            (width, height)
        } else {
            (height, width)
        };
        Self {
            rows,
            cols,
            gap,
            turned,
        }
    }

    fn stride(&self) -> usize {
        self.cols + self.gap
    }

    fn step(&self) -> usize {
        self.rows * self.stride() + 5
    }

    fn values(&self, count: usize, seed: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0;
        (0..count * self.step()).map(value).collect()
    }

    fn at(&self, index: usize, row: usize, col: usize) -> usize {
        let (row, col) = if self.turned { (col, row) } else { (row, col) };
        index * self.step() + row * self.stride() + col
    }

    fn mat(&self, data: Ptr) -> DeviceMat {
        let mat = DeviceMat::new(data, self.rows, self.cols, self.stride());
        if self.turned {
            DeviceMat {
                turned: true,
                ..mat
            }
        } else {
            mat
        }
    }
}

#[test]
fn products_of_every_layout() {
    if !card::is_here("products_of_every_layout", &[]) {
        return;
    }
    let card = Driver::open(0).unwrap();
    let (height, inner, width) = (5, 7, 6);
    for case in 0..48 {
        let flag = |bit: usize| case >> bit & 1 == 1;
        let gap = if flag(2) { 3 } else { 0 };
        let a = Side::new(height, inner, gap, flag(0));
        let b = Side::new(inner, width, gap, flag(1));
        let c = Side::new(height, width, gap, false);
        let count = if flag(3) { 3 } else { 1 };
        let (alpha, beta) = [(1.0, 0.0), (0.5, 1.0), (-2.0, 0.25)][case >> 4];
        let values = [a.values(count, 1), b.values(count, 2), c.values(count, 3)];
        let mut expected = values[2].clone();
        for index in 0..count {
            for row in 0..height {
                for col in 0..width {
                    let sum: f64 = (0..inner)
                        .map(|k| {
                            f64::from(values[0][a.at(index, row, k)])
                                * f64::from(values[1][b.at(index, k, col)])
                        })
                        .sum();
                    let place = &mut expected[c.at(index, row, col)];
                    *place = (f64::from(alpha) * sum + f64::from(beta) * f64::from(*place)) as f32;
                }
            }
        }
        let [x, y, z] = [0, 1, 2].map(|side: usize| put(&card, &values[side]));
        let one = Product::one(a.mat(x), b.mat(y), c.mat(z), alpha, beta);
        let product = Product {
            count,
            a_step: a.step(),
            b_step: b.step(),
            c_step: c.step(),
            ..one
        };
        card.product(if count == 1 { one } else { product })
            .unwrap();
        // What lies between the rows and between the matrices is as it was.
        let found = get(&card, z, expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let near = (found - expected).abs() <= 1e-5;
            assert!(near, "case {case}, value {i}: {found} and not {expected}");
        }
    }
}

#[test]
fn one_product_for_a_whole_batch_reads_the_shared_side_again() {
    if !card::is_here(
        "one_product_for_a_whole_batch_reads_the_shared_side_again",
        &[],
    ) {
        return;
    }
    let card = Driver::open(0).unwrap();
    let (a, b) = (put(&card, &[1.0, 2.0, 3.0, 4.0]), put(&card, &[10.0]));
    let c = put(&card, &[f32::NAN; 4]);
    let product = Product {
        count: 4,
        a_step: 1,
        b_step: 0,
        c_step: 1,
        ..Product::one(
            DeviceMat::new(a, 1, 1, 1),
            DeviceMat::new(b, 1, 1, 1),
            DeviceMat::new(c, 1, 1, 1),
            1.0,
            0.0,
        )
    };
    card.product(product).unwrap();
    assert_eq!(get(&card, c, 4), [10.0, 20.0, 30.0, 40.0]);
}

#[test]
fn limits_are_checked_before_a_launch() {
    if !card::is_here("limits_are_checked_before_a_launch", &[]) {
        return;
    }
    let card = Driver::open(0).unwrap();
    let x = put(&card, &[1.0]);
    let params = Scaling {
        x,
        y: x,
        count: 1,
        factor: 1.0,
    };
    let launch = |launch: Launch| refusal(card.launch(SCALE, launch, params.bytes()));
    let grid = |grid: [usize; 3]| Launch::of(grid, 32);
    assert_says(
        &launch(grid([1, 70_000, 1])),
        &["cuda:0", "tests.cu, scale", "70000", "65535"],
    );
    assert_says(&launch(Launch::flat(1, 2048)), &["2048", "1024"]);
    assert_says(&launch(Launch::flat(1, 512)), &["512", "compiled for 256"]);
    let shared = Launch::flat(1, 32).with_shared(60_000);
    assert_says(&launch(shared), &["240000 bytes of shared", "232448"]);
    let large = refusal(card.launch(SCALE, Launch::flat(1, 32), &[0; 5000]));
    assert_says(&large, &["tests.cu, scale", "5000", "4096"]);
    // Nothing of that has hurt the card.
    card.launch(SCALE, Launch::flat(1, 32), params.bytes())
        .unwrap();
    assert_eq!(get(&card, x, 1), [1.0]);
    let unknown = Kernel {
        source: &SOURCE,
        name: "scael",
    };
    let error = refusal(card.launch(unknown, Launch::flat(1, 32), params.bytes()));
    assert_says(&error, &["tests.cu, scael", "CUDA_ERROR_NOT_FOUND"]);
}

#[test]
fn a_source_that_does_not_compile_is_shown_with_its_line() {
    if !card::is_here("a_source_that_does_not_compile_is_shown_with_its_line", &[]) {
        return;
    }
    let card = Driver::open(0).unwrap();
    let error = refusal(card.load(&[&BROKEN]));
    assert_says(
        &error,
        &[
            "broken.cu: does not compile for sm_90",
            "broken.cu:3:",
            "no_such_name",
        ],
    );
    card.load(&[&SOURCE]).unwrap();
}

#[test]
fn a_driver_that_cannot_be_opened_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    // The workspace of products is larger than this card.
    let variables = [
        ("SIMULATED_CUDA_MEMORY", "16M"),
        ("SIMULATED_CUDA_LOG", &log.to_string_lossy()),
    ];
    if !card::is_here(
        "a_driver_that_cannot_be_opened_leaves_nothing_behind",
        &variables,
    ) {
        let log = std::fs::read_to_string(&log).expect("a context was opened");
        let lines: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, what)| what)
            .collect();
        assert_eq!(lines, ["card 0 opened", "card 0 closed"].repeat(2));
        return;
    }
    for _ in 0..2 {
        let error = refusal(Driver::open(0));
        assert_eq!(
            error.kind,
            longhaul_plugin_kit::api::error::ErrorKind::OutOfMemory
        );
        assert_says(
            &error,
            &["cuda:0, a workspace of 32 MiB", "CUDA_ERROR_OUT_OF_MEMORY"],
        );
    }
}

#[test]
fn a_driver_gives_back_what_it_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let variables = [("SIMULATED_CUDA_LOG", &*log.to_string_lossy())];
    if !card::is_here("a_driver_gives_back_what_it_made", &variables) {
        let log = std::fs::read_to_string(&log).expect("a context was opened");
        let lines: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, what)| what)
            .collect();
        // Two drivers at once have one context.
        assert_eq!(lines, ["card 0 opened", "card 0 closed"]);
        return;
    }
    let (first, second) = (Driver::open(0).unwrap(), Driver::open(0).unwrap());
    for card in [&first, &second] {
        let x = put(card, &[1.0; 32]);
        let params = Scaling {
            x,
            y: x,
            count: 32,
            factor: 2.0,
        };
        let work = &mut || card.launch(SCALE, Launch::for_each(32), params.bytes());
        let recording: Box<dyn Recording> = card.record(work).unwrap();
        card.replay(recording.as_ref()).unwrap();
        assert_eq!(get(card, x, 32), [2.0; 32]);
        card.free(x);
    }
    drop(first);
    let x = put(&second, &[4.0]);
    assert_eq!(get(&second, x, 1), [4.0]);
    second.free(x);
    // Another thread than the one that opened it may close it.
    std::thread::spawn(move || drop(second)).join().unwrap();
}

#[test]
fn after_an_illegal_access_every_call_says_so() {
    let variables = [("SIMULATED_CUDA_FAULT", "illegal-address@scale:2")];
    if !card::is_here("after_an_illegal_access_every_call_says_so", &variables) {
        return;
    }
    let card = Driver::open(0).unwrap();
    let x = put(&card, &[1.0]);
    let params = Scaling {
        x,
        y: x,
        count: 1,
        factor: 2.0,
    };
    let launch = || card.launch(SCALE, Launch::flat(1, 32), params.bytes());
    launch().unwrap();
    assert_eq!(get(&card, x, 1), [2.0]);
    // The launch itself is taken; what waits for it hears of it.
    launch().unwrap();
    let name = "CUDA_ERROR_ILLEGAL_ADDRESS";
    assert_says(&refusal(card.synchronize()), &["cuda:0", name]);
    assert_says(&refusal(card.allocate(64)), &[name]);
    assert_says(&refusal(launch()), &["tests.cu, scale", name]);
    assert_says(&refusal(card.download(x, &mut [0; 4])), &[name]);
    assert_says(&refusal(card.record(&mut || Ok(()))), &[name]);
}

#[test]
fn models_share_a_card_until_it_fails() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let variables = [
        ("SIMULATED_CUDA_LOG", &*log.to_string_lossy()),
        ("SIMULATED_CUDA_FAULT", "illegal-address@scale:2"),
    ];
    if !card::is_here("models_share_a_card_until_it_fails", &variables) {
        let log = std::fs::read_to_string(&log).expect("a context was opened");
        let said = log
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3));
        let said: Vec<&str> = said.collect();
        let times = ["opened", "closed"];
        assert_eq!(said, [times, times, times].concat(), "{log}");
        return;
    }
    let scaled = |card: &dyn Device| {
        let x = card.allocate(4).unwrap();
        card.upload(x, &1.5_f32.to_ne_bytes()).unwrap();
        let params = Scaling {
            x,
            y: x,
            count: 1,
            factor: 2.0,
        };
        card.launch(SCALE, Launch::flat(1, 32), params.bytes())?;
        let mut bytes = [0; 4];
        card.download(x, &mut bytes)?;
        card.free(x);
        Ok(f32::from_ne_bytes(bytes))
    };
    let first = cards::card(0).unwrap();
    let second = cards::card(0).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    drop(first);
    assert_eq!(scaled(second.as_ref()).unwrap(), 3.0);
    drop(second);
    let failing = cards::card(0).unwrap();
    assert_says(
        &refusal(scaled(failing.as_ref())),
        &["CUDA_ERROR_ILLEGAL_ADDRESS"],
    );
    drop(failing);
    let another = cards::card(0).unwrap();
    assert_eq!(scaled(another.as_ref()).unwrap(), 3.0);
}

/// `a b`, what is added, a row to every row, and the sums of a's rows, with what a product leaves of each.
#[test]
fn products_with_epilogues_and_another_matrix_added() {
    if !card::is_here("products_with_epilogues_and_another_matrix_added", &[]) {
        return;
    }
    let card = Driver::open(0).unwrap();
    let (height, inner, width) = (5, 7, 6);
    for case in 0..24 {
        let flag = |bit: usize| case >> bit & 1 == 1;
        let a = Side::new(height, inner, 2, flag(0));
        let b = Side::new(inner, width, 1, flag(1));
        let (c, x) = (
            Side::new(height, width, 3, false),
            Side::new(height, width, 0, false),
        );
        let [av, bv, cv, xv] = [&a, &b, &c, &x].map(|side| side.values(1, side.cols + 3));
        let row: Vec<f32> = (0..height.max(width)).map(|i| i as f32 - 2.5).collect();
        let places = [&av, &bv, &cv, &xv, &row].map(|values| put(&card, values));
        let epilogue = [
            Epilogue::None,
            Epilogue::AddRow(places[4]),
            Epilogue::RowSums(places[4]),
        ][case >> 3];
        let product = Product::one(
            a.mat(places[0]),
            b.mat(places[1]),
            c.mat(places[2]),
            1.0,
            0.0,
        );
        let product = Product {
            epilogue,
            ..if flag(2) {
                product.plus(x.mat(places[3]))
            } else {
                product
            }
        };
        assert!(card.takes(&product).unwrap());
        card.product(product).unwrap();
        let (mut result, mut sums) = (cv.clone(), row.clone());
        for i in 0..height {
            let own = |k: usize| f64::from(av[a.at(0, i, k)]);
            if matches!(epilogue, Epilogue::RowSums(_)) {
                sums[i] = (0..inner).map(own).sum::<f64>() as f32;
            }
            for j in 0..width {
                let sum: f64 = (0..inner)
                    .map(|k| own(k) * f64::from(bv[b.at(0, k, j)]))
                    .sum();
                let added = if flag(2) { xv[x.at(0, i, j)] } else { 0.0 };
                let bias = match epilogue {
                    Epilogue::AddRow(_) => row[j],
                    _ => 0.0,
                };
                result[c.at(0, i, j)] = sum as f32 + added + bias;
            }
        }
        for (what, place, expected) in [("result", places[2], result), ("row", places[4], sums)] {
            let found = get(&card, place, expected.len());
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let near = (found - expected).abs() <= 1e-5;
                assert!(
                    near,
                    "case {case}, {what} {index}: {found} and not {expected}"
                );
            }
        }
        assert_eq!(get(&card, places[3], xv.len()), xv, "what is added stays");
    }
    // The sums of several products have no place.
    let of = |place| DeviceMat::new(place, 2, 2, 2);
    let [a, b, c] = [0; 3].map(|_| put(&card, &[1.0; 8]));
    let several = Product {
        epilogue: Epilogue::RowSums(c),
        count: 2,
        a_step: 4,
        b_step: 4,
        c_step: 4,
        ..Product::one(of(a), of(b), of(c), 1.0, 0.0)
    };
    assert!(!card.takes(&several).unwrap());
    assert_says(
        &refusal(card.product(several)),
        &["CUBLAS_STATUS_NOT_SUPPORTED", "choosing how"],
    );
}

/// A library without algorithms for epilogues is not given any, and one without rounded products takes them in float32.
#[test]
fn products_that_the_library_lacks() {
    let variables = [("SIMULATED_CUDA_LACKS", "epilogues,rounding")];
    if !card::is_here("products_that_the_library_lacks", &variables) {
        return;
    }
    let card = Driver::open_with(0, Precision::Bf16).unwrap();
    let place = |values: &[f32]| DeviceMat::new(put(&card, values), 1, values.len(), values.len());
    // In BF16 it would be 1.
    let (a, b, c) = (place(&[1.001]), place(&[1.0]), place(&[0.0]));
    let product = Product::one(a, b, c, 1.0, 0.0);
    let with_row = Product {
        epilogue: Epilogue::AddRow(b.data),
        ..product
    };
    assert!(!card.takes(&with_row).unwrap() && card.takes(&product).unwrap());
    card.product(product).unwrap();
    assert_eq!(get(&card, c.data, 1), [1.001]);
}
