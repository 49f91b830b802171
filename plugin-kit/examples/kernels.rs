//! Compiles CUDA sources for cards that need not be here, and says what their kernels are as machine code: registers and
//! spills on three generations of cards, on one of them with activations in bfloat16 too, and for that one how much of it an
//! SM holds and which instructions it is made of. `tests/emulator/compile.sh` holds that against `tests/emulator/kernels.csv`.
//!
//! `kernels rows tests/emulator/kernels.csv target/kernel-sources/*.cu` prints a row a kernel, as the table has them. A text
//! is compiled once: the table keeps the hash of what its rows were made of, and where a source has it still, they stand.
//! With `LONGHAUL_COMPILE_ALL=1` all are compiled.
//!
//! `kernels compare tests/emulator/kernels.csv` reads such rows and fails where a kernel grew or is missing; with
//! `LONGHAUL_WRITE_TABLE=1` it writes them into the table.
//!
//! Sources are as the tests leave them with `LONGHAUL_KERNEL_SOURCES=target/kernel-sources`: some are put together of
//! several files, or made for several widths. Needs NVRTC (libnvrtc.so) on LD_LIBRARY_PATH and `nvdisasm` on PATH, and no
//! card.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitCode};

use longhaul_plugin_kit::cuda::compiler;
use longhaul_plugin_kit::cuda::device::KernelSource;
use longhaul_plugin_kit::cuda::source::whole_text;
use longhaul_plugin_kit::cuda::storage::Storage;
use sha2::{Digest, Sha256};

/// What is compiled for: compute capabilities of the A100, H100 and B200; for the second also with activations in bfloat16.
const FORMS: [(u32, Storage); 4] = [
    (80, Storage::Float32),
    (90, Storage::Float32),
    (100, Storage::Float32),
    (90, Storage::Bf16),
];

/// Which of these instructions are of.
const SHOWN: usize = 1;

/// Where the registers of the shown one stand among a row's numbers of machine code, and how many of its launch precede these.
const SHOWN_REGISTERS: usize = 2 * SHOWN;
const LAUNCH: usize = 4;

/// Where the threads of its launch stand among them.
const THREADS: usize = 0;

/// What an SM of the shown architecture has, by NVIDIA's table of compute capabilities.
const SM_REGISTERS: u32 = 65_536;
const SM_SHARED_BYTES: u32 = 228 * 1024;
const SM_WARPS: u32 = 64;
const SM_BLOCKS: u32 = 32;

/// A value may grow by one part in so many before that is an error.
const MARGIN: u64 = 20;

/// The table's columns: a row's name, the first digits of its text's SHA-256, then numbers. Of loads from memory `wide` are of 8 or 16 bytes, `constant` past the
/// coherent cache; `local` are loads and stores of spills and arrays; `integer` all that counts and compares.
const COLUMNS: &str = "source,kernel,text,threads,shared_bytes,blocks,warps,registers_80,spills_80,registers_90,spills_90,\
     registers_100,spills_100,registers_90_bf16,spills_90_bf16,stack,instructions,ldg,wide,constant,lds,sts,local,call,mufu,ffma,hmma,integer,bar";

/// Columns that must not grow. Nothing runs with activations in bfloat16 yet: such kernels only have to compile.
const HELD: [&str; 7] = [
    "registers_80",
    "spills_80",
    "registers_90",
    "spills_90",
    "registers_100",
    "spills_100",
    "instructions",
];

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((verb, [table, files @ ..])) if verb == "rows" => kept(Path::new(table))
            .and_then(|kept| files.iter().try_for_each(|file| rows(file, &kept))),
        Some((verb, [table])) if verb == "compare" => compare(Path::new(table)),
        _ => Err("kernels rows TABLE SOURCE.. | kernels compare TABLE".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernels: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One kernel as the assembler sees it.
#[derive(Default, Clone, Copy)]
struct Found {
    registers: u32,
    spills: u32,
    stack: u32,
}

/// Rows that need not be made again where a text is what it was.
fn kept(table: &Path) -> Result<Table> {
    if std::env::var_os("LONGHAUL_COMPILE_ALL").is_some() {
        return Ok(Table::new());
    }
    let text = std::fs::read_to_string(table);
    table_of(
        text.map_err(|error| format!("{}: {error}", table.display()))?
            .lines(),
    )
}

/// Prints a row a kernel of a source.
fn rows(path: &str, kept: &Table) -> Result<()> {
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let label = label_of(&text, &name);
    // The program ends soon: what a source's lifetime wants may stay.
    let source = KernelSource {
        file: name.leak(),
        text: text.leak(),
        params: &[],
    };
    let hash = Sha256::digest(whole_text(&source, Storage::Float32));
    let hash: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let of_source = kept.iter().filter(|([file, _], _)| *file == label);
    let of_source: Vec<_> = of_source.collect();
    if !of_source.is_empty() && of_source.iter().all(|(_, row)| row.text == hash) {
        for ([_, kernel], row) in of_source {
            let of_code = &row.numbers[LAUNCH..];
            print_row(path, [&label, kernel, &hash], of_code)?;
        }
        return Ok(());
    }
    let mut found: BTreeMap<String, [Found; FORMS.len()]> = BTreeMap::new();
    let mut instructions = BTreeMap::new();
    for (form, (architecture, storage)) in FORMS.into_iter().enumerate() {
        let (code, log) = compiler::report(&source, storage, architecture)
            .map_err(|error| error.message.clone())?;
        for (kernel, one) in kernels_of(&log) {
            found.entry(kernel).or_default()[form] = one;
        }
        if form == SHOWN {
            instructions = disassembled(&code)?;
        }
    }
    for (kernel, by_form) in found {
        let of_form = |found: &Found| [found.registers, found.spills].map(u64::from);
        let mut numbers: Vec<u64> = by_form.iter().flat_map(of_form).collect();
        numbers.push(by_form[SHOWN].stack.into());
        let mix = instructions
            .get(&kernel)
            .ok_or(format!("{path}: {kernel} was not disassembled"))?;
        numbers.extend(mix.iter().copied().map(u64::from));
        print_row(path, [&label, &kernel, &hash], &numbers)?;
    }
    Ok(())
}

/// A row: how the kernel was launched and what an SM holds of it, before what it is as machine code.
fn print_row(path: &str, [label, kernel, hash]: [&str; 3], of_code: &[u64]) -> Result<()> {
    let (threads, shared) = launch_of(path, kernel)?;
    let (blocks, warps) = occupancy(of_code[SHOWN_REGISTERS], threads, shared);
    let numbers = [threads, shared, blocks, warps].into_iter().map(u64::from);
    let numbers = numbers.chain(of_code.iter().copied());
    let numbers: Vec<String> = numbers.map(|value| value.to_string()).collect();
    println!("{label},{kernel},{hash},{}", numbers.join(","));
    Ok(())
}

/// A source's file, and the definitions that are put in front of it.
fn label_of(text: &str, name: &str) -> String {
    let mut lines = text
        .lines()
        .skip_while(|line| !line.starts_with("#line 1 "));
    let file = lines
        .next()
        .and_then(|line| line.split('"').nth(1))
        .unwrap_or(name);
    let front = lines.take_while(|line| line.is_empty() || line.starts_with('#'));
    let definitions = front.filter_map(|line| line.strip_prefix("#define "));
    let definitions = definitions.filter_map(|line| line.split_once(' '));
    definitions.fold(file.to_owned(), |label, (name, value)| {
        format!("{label} {name}={value}")
    })
}

/// Threads and bytes of shared memory of the largest launch that the tests left a note of, see the emulator; 0 of none.
fn launch_of(path: &str, kernel: &str) -> Result<(u32, u32)> {
    let path = Path::new(path);
    let (folder, name) = (
        path.parent()
            .filter(|folder| *folder != Path::new(""))
            .unwrap_or(Path::new(".")),
        path.file_stem().unwrap_or_default(),
    );
    let start = format!("{}.{kernel}.", name.to_string_lossy());
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let notes = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let rest = name
            .to_str()?
            .strip_prefix(&start)?
            .strip_suffix(".launch")?;
        let (threads, shared) = rest.split_once('.')?;
        Some((threads.parse().ok()?, shared.parse().ok()?))
    });
    Ok(notes.max().unwrap_or_default())
}

/// Blocks and warps that an SM holds at a time. Registers are given to warps in steps of 256, and a block takes 1 KiB of
/// shared memory for itself.
fn occupancy(registers: u64, threads: u32, shared: u32) -> (u32, u32) {
    let warps = threads.div_ceil(32);
    if warps == 0 {
        return (0, 0);
    }
    let of_warp = (registers as u32 * 32).next_multiple_of(256).max(256);
    let by_registers = SM_REGISTERS / (of_warp * warps);
    let by_shared = SM_SHARED_BYTES / (shared + 1024).next_multiple_of(128);
    let blocks = SM_BLOCKS
        .min(SM_WARPS / warps)
        .min(by_registers)
        .min(by_shared);
    (blocks, blocks * warps)
}

/// The columns from `instructions` on, of each kernel of a cubin.
fn disassembled(code: &[u8]) -> Result<BTreeMap<String, [u32; 13]>> {
    let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    std::fs::write(file.path(), code).map_err(|error| error.to_string())?;
    let output = Command::new("nvdisasm").arg("-c").arg(file.path()).output();
    let output = output
        .map_err(|error| format!("nvdisasm: {error}; it is in the package nvidia-cuda-nvdisasm"))?;
    if !output.status.success() {
        return Err(format!(
            "nvdisasm: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let (mut kernels, mut kernel) = (BTreeMap::<String, [u32; 13]>::new(), String::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(name) = line.trim_start().strip_prefix(".section\t.text.") {
            kernel = name.split(',').next().unwrap_or(name).to_owned();
            kernels.insert(kernel.clone(), [0; 13]);
        } else if let (Some(mix), Some(instruction)) = (kernels.get_mut(&kernel), instruction(line))
        {
            count(mix, instruction);
        }
    }
    Ok(kernels)
}

/// The instruction of a line `/*0010*/  @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;`.
fn instruction(line: &str) -> Option<&str> {
    let (_, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    let mut words = rest.split_whitespace();
    let first = words.next()?;
    let name = if first.starts_with('@') {
        words.next()?
    } else {
        first
    };
    let name = name.trim_end_matches(';');
    name.starts_with(|c: char| c.is_ascii_uppercase())
        .then_some(name)
}

fn count(mix: &mut [u32; 13], instruction: &str) {
    let mut parts = instruction.split('.');
    let base = parts.next().unwrap_or_default();
    // What code is filled up with behind its end.
    if base == "NOP" {
        return;
    }
    mix[0] += 1;
    let own = match base {
        "LDG" => {
            mix[2] += u32::from(instruction.contains(".64") || instruction.contains(".128"));
            mix[3] += u32::from(instruction.contains(".CONSTANT"));
            1
        }
        "LDS" | "LDSM" => 4,
        "STS" => 5,
        "LDL" | "STL" => 6,
        "CALL" => 7,
        "MUFU" => 8,
        "FFMA" => 9,
        "HMMA" => 10,
        "BAR" => 12,
        _ if is_integer(base.trim_start_matches('U')) => 11,
        _ => return,
    };
    mix[own] += 1;
}

fn is_integer(base: &str) -> bool {
    [
        "IMAD", "IADD", "IABS", "ISETP", "IMNMX", "VI", "LEA", "LOP", "SHF", "SEL", "PRMT", "MOV",
        "BMSK", "SGXT", "FLO", "POPC",
    ]
    .iter()
    .any(|start| base.starts_with(start))
}

/// Reads the assembler's log: a line names the function, a later one its stack and spills, a later one its registers.
fn kernels_of(log: &str) -> Vec<(String, Found)> {
    let number_before = |line: &str, what: &str| -> Option<u32> {
        let before = &line[..line.find(what)?];
        before.split_whitespace().last()?.parse().ok()
    };
    let (mut found, mut kernel, mut now) = (Vec::new(), String::new(), Found::default());
    for line in log.lines() {
        if let Some(at) = line.find("Compiling entry function '") {
            kernel = line[at..].split('\'').nth(1).unwrap_or_default().to_owned();
            now = Found::default();
        } else if let Some(stores) = number_before(line, " bytes spill stores") {
            now.spills = stores + number_before(line, " bytes spill loads").unwrap_or(0);
            now.stack = number_before(line, " bytes stack frame").unwrap_or(0);
        } else if let Some(registers) = number_before(line, " registers")
            && !kernel.is_empty()
        {
            now.registers = registers;
            found.push((std::mem::take(&mut kernel), now));
        }
    }
    found
}

/// What is known of a kernel whose source's text has this hash.
#[derive(PartialEq, Clone)]
struct Row {
    text: String,
    numbers: Vec<u64>,
}

/// By source and kernel.
type Table = BTreeMap<[String; 2], Row>;

fn table_of<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Table> {
    let mut table = Table::new();
    for line in lines.filter(|line| !line.starts_with("source,")) {
        let refused = || format!("not a row of the table: {line}");
        let mut cells = line.split(',').map(str::to_owned);
        let key = [
            cells.next().ok_or_else(refused)?,
            cells.next().ok_or_else(refused)?,
        ];
        let text = cells.next().ok_or_else(refused)?;
        let numbers: std::result::Result<Vec<u64>, _> = cells.map(|cell| cell.parse()).collect();
        let numbers = numbers.map_err(|_| refused())?;
        if numbers.len() + 3 != COLUMNS.split(',').count() {
            return Err(refused());
        }
        let row = Row { text, numbers };
        if let Some(other) = table.insert(key, row.clone())
            && other != row
        {
            return Err(format!(
                "two sources of one name, one of them old? Empty the folder and run the tests again: {line}"
            ));
        }
    }
    Ok(table)
}

/// Holds rows from standard input against the table, or writes them into it.
fn compare(path: &Path) -> Result<()> {
    let input = std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())?;
    let now = table_of(input.lines())?;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut table = table_of(text.lines())?;
    if std::env::var_os("LONGHAUL_WRITE_TABLE").is_some() {
        let sources: BTreeSet<&String> = now.keys().map(|[source, _]| source).collect();
        table.retain(|[source, _], _| !sources.contains(source));
        table.extend(now);
        let lines = table
            .iter()
            .map(|([source, kernel], Row { text, numbers })| {
                let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                format!("{source},{kernel},{text},{}\n", numbers.join(","))
            });
        let text: String = std::iter::once(format!("{COLUMNS}\n"))
            .chain(lines)
            .collect();
        return std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
    }
    let mut wrong = Vec::new();
    for (key, then) in &table {
        match now.get(key) {
            Some(row) => {
                let grown = grown(&then.numbers, &row.numbers);
                wrong.extend(grown.map(|what| format!("{}: {what}", key.join(", "))))
            }
            None => wrong.push(format!("{} was not compiled", key.join(", "))),
        }
    }
    wrong.extend(
        now.keys()
            .filter(|key| !table.contains_key(*key))
            .map(|key| format!("{} is not in the table", key.join(", "))),
    );
    println!(
        "{} kernels compiled, {} in the table, {} differ for the worse",
        now.len(),
        table.len(),
        wrong.len()
    );
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nThis is what the tests launched. If it has to be so, run all tests with LONGHAUL_KERNEL_SOURCES set and then \
         LONGHAUL_WRITE_TABLE=1 tests/emulator/compile.sh, and commit {}; rows of what is gone are taken out by hand.",
        wrong.join("\n"),
        path.display()
    ))
}

/// What of a kernel is more than the table says and the margin allows, or, of the blocks that an SM holds of a launch of as
/// many threads, less.
fn grown<'a>(then: &'a [u64], now: &'a [u64]) -> impl Iterator<Item = String> + use<'a> {
    let names = COLUMNS.split(',').skip(3);
    let both = names.zip(then.iter().copied().zip(now.iter().copied()));
    let same_launch = then[THREADS] == now[THREADS] && now[THREADS] > 0;
    both.filter(move |(name, (then, now))| match *name {
        "blocks" => same_launch && now < then,
        name => HELD.contains(&name) && *now > then + then / MARGIN,
    })
    .map(|(name, (then, now))| format!("{name} {then}, now {now}"))
}
