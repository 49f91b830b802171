//! Compiles CUDA sources for cards that need not be here, and says how many registers each kernel takes
//! and what it spills; fails where one does not compile, or spills more than its file allows by a line
//! `// spills: KERNEL BYTES`.
//!
//! `LONGHAUL_KERNEL_SOURCES=target/kernel-sources cargo test --release --workspace`
//! `cargo run --release -p longhaul-plugin-kit --example kernels -- target/kernel-sources/*.cu`
//!
//! The first leaves the sources as they are launched: some are put together of several files, or made for
//! several widths.
//!
//! Needs NVRTC (libnvrtc.so) on LD_LIBRARY_PATH, and no card.

use std::process::ExitCode;

use longhaul_plugin_kit::cuda::compiler;
use longhaul_plugin_kit::cuda::device::KernelSource;
use longhaul_plugin_kit::cuda::storage::Storage;

/// Compute capabilities of the cards compiled for: A100, H100, B200; one of them with activations in bfloat16 too.
const FORMS: [(u32, Storage); 4] = [
    (80, Storage::Float32),
    (90, Storage::Float32),
    (100, Storage::Float32),
    (90, Storage::Bf16),
];

/// One kernel as the assembler sees it.
struct Found {
    kernel: String,
    registers: u32,
    spills: u32,
}

fn main() -> ExitCode {
    match compiler::version() {
        Ok(version) => println!("NVRTC {version}"),
        Err(error) => {
            eprintln!("kernels: {error}");
            return ExitCode::from(2);
        }
    }
    println!(
        "{:<20} {:<28} {:>7} {:>9} {:>7}",
        "file", "kernel", "card", "registers", "spills"
    );
    let (mut count, mut bad) = (0, 0);
    let mut before = String::new();
    for path in std::env::args().skip(1) {
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("kernels: {path}: {error}");
                return ExitCode::from(2);
            }
        };
        // The program ends soon: what a source's lifetime wants may stay.
        let source = KernelSource {
            file: name.leak(),
            text: text.leak(),
            params: &[],
        };
        if source.file == "common.cuh" {
            continue;
        }
        // Of those that differ in numbers, as they are made for several widths, one is enough in bfloat16.
        let without_numbers = source.text.replace(|c: char| c.is_ascii_digit(), "");
        let is_new = without_numbers != before;
        let forms = &FORMS[..if is_new { 4 } else { 3 }];
        before = without_numbers;
        for &(architecture, storage) in forms {
            match compiler::report(&source, storage, architecture) {
                Ok(log) => {
                    for found in kernels_of(&log) {
                        let (allowed, card) = match storage {
                            Storage::Float32 => {
                                let allowed = allowance(source.text, &found.kernel);
                                (allowed, format!("sm_{architecture}"))
                            }
                            // Nothing runs so yet: it only has to compile.
                            Storage::Bf16 => (u32::MAX, format!("{architecture} bf16")),
                        };
                        let mark = if found.spills > allowed {
                            "  not listed"
                        } else {
                            ""
                        };
                        bad += usize::from(found.spills > allowed);
                        count += 1;
                        println!(
                            "{:<20} {:<28} {:>7} {:>9} {:>7}{mark}",
                            source.file, found.kernel, card, found.registers, found.spills
                        );
                    }
                }
                Err(error) => {
                    bad += 1;
                    println!("{}", error.message);
                }
            }
        }
    }
    println!("{count} kernels compiled, {bad} with errors or unlisted spills");
    if bad == 0 && count > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Bytes of spills that a file lists for a kernel.
fn allowance(text: &str, kernel: &str) -> u32 {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("// spills: "));
    let mut words = lines.map(|line| line.split_whitespace());
    words
        .find_map(|mut words| (words.next() == Some(kernel)).then(|| words.next()?.parse().ok())?)
        .unwrap_or(0)
}

/// Reads the assembler's log: a line names the function, a later one its spills, a later one its registers.
fn kernels_of(log: &str) -> Vec<Found> {
    let number_before = |line: &str, what: &str| -> Option<u32> {
        let before = &line[..line.find(what)?];
        before.split_whitespace().last()?.parse().ok()
    };
    let (mut found, mut kernel, mut spills) = (Vec::new(), String::new(), 0);
    for line in log.lines() {
        if let Some(at) = line.find("Compiling entry function '") {
            kernel = line[at..].split('\'').nth(1).unwrap_or_default().to_owned();
            spills = 0;
        } else if let Some(stores) = number_before(line, " bytes spill stores") {
            spills = stores + number_before(line, " bytes spill loads").unwrap_or(0);
        } else if let Some(registers) = number_before(line, " registers")
            && !kernel.is_empty()
        {
            found.push(Found {
                kernel: std::mem::take(&mut kernel),
                registers,
                spills,
            });
        }
    }
    found
}
