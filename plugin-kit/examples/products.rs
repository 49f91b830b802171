//! Products of bfloat16 factors beside those of float32: GFLOP/s of each form that this processor has at the kit's
//! shapes, and errors against float64, also of float32 made of several products of bfloat16 (a value is the sum of two
//! or three bfloat16; products of parts that matter are added).
//!
//! `cargo run --release -p longhaul-plugin-kit --example products`
//!
//! `LONGHAUL_SIMD=v3` leaves the plain loops alone. Figures stand in bench/README.md.

use std::hint::black_box;
use std::time::Instant;

use longhaul_plugin_kit::gemm::{Form, Mat, forms, gemm};
use longhaul_plugin_kit::precision::Precision;

/// Rows, inner size, outputs: layers of width 128 and of SmolLM2-135M's shape, a head's chunk.
const SHAPES: [[usize; 3]; 7] = [
    [512, 128, 512],
    [512, 512, 128],
    [4096, 128, 512],
    [1024, 576, 1536],
    [1024, 1536, 576],
    [128, 512, 512],
    [64, 64, 64],
];

/// A product of row-major a and of b that is given as its columns, as weights are.
struct Product {
    m: usize,
    k: usize,
    n: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Product {
    /// Values from a normal distribution, as activations and weights are.
    fn new([m, k, n]: [usize; 3]) -> Self {
        let mut state = 1u64;
        let mut unit = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f64 + 0.5) / (1u64 << 24) as f64
        };
        // Box and Muller's form.
        let mut normal = |count: usize| -> Vec<f32> {
            let value =
                |_| ((-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos()) as f32;
            (0..count).map(value).collect()
        };
        Self {
            m,
            k,
            n,
            a: normal(m * k),
            b: normal(n * k),
        }
    }

    fn mats<'a>(&self, a: &'a [f32], b: &'a [f32]) -> (Mat<'a>, Mat<'a>) {
        (
            Mat::new(a, self.m, self.k, self.k),
            Mat::new(b, self.n, self.k, self.k).t(),
        )
    }

    fn float32(&self, c: &mut [f32]) {
        let (a, b) = self.mats(&self.a, &self.b);
        gemm(c, self.n, a, b, 1.0, 0.0);
    }

    fn bf16(&self, form: Form, c: &mut [f32]) {
        let (a, b) = self.mats(&self.a, &self.b);
        form.gemm(c, a, b, 0.0);
    }

    /// Values as sums of `parts` bfloat16, the products of part i and part j added where i + j is below `parts`, the
    /// smallest first.
    fn of_parts(&self, form: Form, parts: usize, c: &mut [f32]) {
        let (a, b) = (split(&self.a, parts), split(&self.b, parts));
        let mut beta = 0.0;
        for order in (0..parts).rev() {
            for i in 0..=order {
                let (a, b) = self.mats(&a[i], &b[order - i]);
                form.gemm(c, a, b, beta);
                beta = 1.0;
            }
        }
    }

    /// Largest error over the sum of the terms' sizes, and root mean square over that of the result, times 2^24.
    fn errors(&self, c: &[f32]) -> [f64; 2] {
        let (mut largest, mut squares, mut all) = (0.0f64, 0.0, 0.0);
        for (a, c) in self.a.chunks(self.k).zip(c.chunks(self.n)) {
            for (b, c) in self.b.chunks(self.k).zip(c) {
                let terms = || a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
                let exact: f64 = terms().sum();
                let error = f64::from(*c) - exact;
                largest = largest.max(error.abs() / terms().map(f64::abs).sum::<f64>());
                squares += error * error;
                all += exact * exact;
            }
        }
        [largest, (squares / all).sqrt()].map(|error| error * f64::from(1 << 24))
    }
}

/// Parts that are bfloat16, the largest first, whose sum is each value as far as they go.
fn split(values: &[f32], parts: usize) -> Vec<Vec<f32>> {
    let mut rest = values.to_vec();
    let part = |_| {
        let round = |rest: &mut f32| {
            let part = Precision::Bf16.round(*rest);
            *rest -= part;
            part
        };
        rest.iter_mut().map(round).collect()
    };
    (0..parts).map(part).collect()
}

/// GFLOP/s by the fastest of many calls: other work beside them only slows.
fn speed(product: &Product, threads: usize, mut call: impl FnMut(&mut [f32]) + Send) -> f64 {
    let mut c = vec![0.0; product.m * product.n];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let time = pool.expect("a thread pool").install(|| {
        call(&mut c);
        let (mut fastest, start, mut calls) = (f64::INFINITY, Instant::now(), 0);
        while calls < 11 || start.elapsed().as_secs_f64() < 0.5 {
            let begin = Instant::now();
            call(black_box(&mut c));
            fastest = fastest.min(begin.elapsed().as_secs_f64());
            calls += 1;
        }
        fastest
    });
    2.0 * (product.m * product.k * product.n) as f64 / time / 1e9
}

fn main() {
    println!("GFLOP/s of products, rows x inner x outputs");
    for threads in [1, 2] {
        for shape @ [m, k, n] in SHAPES {
            let product = Product::new(shape);
            let float32 = speed(&product, threads, |c| product.float32(c));
            print!("{m} x {k} x {n}, {threads} threads: float32 {float32:.0}");
            for form in forms() {
                let bf16 = speed(&product, threads, |c| product.bf16(form, c));
                print!(", bf16 by {} {bf16:.0}", form.name());
            }
            println!();
        }
    }
    println!(
        "errors against float64, in units of 2^-24: largest over the terms' sizes, root mean square"
    );
    for shape @ [m, k, n] in [[64, 128, 512], [64, 512, 128], [64, 4096, 64]] {
        let product = Product::new(shape);
        let mut c = vec![0.0; m * n];
        let show = |name: &str, c: &[f32]| {
            let [largest, mean] = product.errors(c);
            println!("{m} x {k} x {n}, {name}: {largest:.2}, {mean:.2}");
        };
        product.float32(&mut c);
        show("float32", &c);
        for form in forms() {
            for (parts, name) in [
                (1, "one product"),
                (2, "two parts, three products"),
                (3, "three parts, six products"),
            ] {
                product.of_parts(form, parts, &mut c);
                show(&format!("{} by {}", name, form.name()), &c);
            }
        }
    }
}
