//! What the machine allows: GFLOP/s of the matrix product and GB/s of reading weights over and over,
//! by one thread and by two. The bounds that bench/README.md holds the speed table against.
//!
//! `cargo run --release -p longhaul-plugin-kit --example bounds`

use std::hint::black_box;
use std::time::Instant;

use longhaul_plugin_kit::gemm::{Mat, gemm};

/// Seconds of one call: the median of many.
fn seconds(mut call: impl FnMut()) -> f64 {
    call();
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 11 || start.elapsed().as_secs_f64() < 0.5 {
        let begin = Instant::now();
        call();
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn in_pool(threads: usize, work: impl FnOnce() -> f64 + Send) -> f64 {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("a thread pool").install(work)
}

fn product(threads: usize, rows: usize, inner: usize, outputs: usize) {
    let (a, b) = (vec![0.5; rows * inner], vec![0.25; outputs * inner]);
    let mut c = vec![0.0; rows * outputs];
    let time = in_pool(threads, || {
        seconds(|| {
            let (a, b) = (
                Mat::new(&a, rows, inner, inner),
                Mat::new(&b, outputs, inner, inner).t(),
            );
            gemm(black_box(&mut c), outputs, a, b, 1.0, 0.0);
        })
    });
    let operations = (2 * rows * inner * outputs) as f64;
    println!(
        "product {rows} x {inner} x {outputs}, {threads} threads: {:.0} GFLOP/s",
        operations / time / 1e9
    );
}

/// Layers' weights, `[outputs, inner]` each, one after the other, as a single step reads them.
fn weights(threads: usize, kilobytes: usize, inner: usize, outputs: usize) {
    let layers = kilobytes * 1024 / (4 * inner * outputs);
    let (x, mut y) = (vec![0.5f32; inner], vec![0.0f32; outputs]);
    let matrix = vec![0.25f32; layers * inner * outputs];
    let time = in_pool(threads, || {
        seconds(|| {
            for layer in matrix.chunks_exact(inner * outputs) {
                let a = Mat::new(&x, 1, inner, inner);
                let b = Mat::new(layer, outputs, inner, inner).t();
                gemm(black_box(&mut y), outputs, a, b, 1.0, 0.0);
            }
        })
    });
    let bytes = (layers * inner * outputs * 4) as f64;
    println!(
        "{kilobytes} KiB of weights, one row, {threads} threads: {:.1} us, {:.0} GB/s",
        time * 1e6,
        bytes / time / 1e9
    );
}

fn main() {
    for threads in [1, 2] {
        product(threads, 4096, 128, 512);
        product(threads, 4096, 512, 128);
        product(threads, 512, 128, 512);
        // A model of SmolLM2-135M's shape reads in pieces of 1,024 tokens.
        product(threads, 1024, 576, 1536);
        product(threads, 1024, 1536, 576);
    }
    for kilobytes in [512, 1280, 2304] {
        weights(1, kilobytes, 128, 512);
        weights(2, kilobytes, 128, 512);
    }
    // As many as that model has, which no cache holds.
    weights(1, 525_000, 576, 1536);
    weights(2, 525_000, 576, 1536);
}
