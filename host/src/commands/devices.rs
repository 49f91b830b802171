//! `longhaul devices`: what plugins could use on this machine; and the refusal, in one sentence, of what
//! it does not have.

use longhaul_plugin_api::kernels;

use crate::commands::print;
use crate::cuda::Cuda;
use crate::device::Devices;
use crate::exit::CommandError;
use crate::number::size;
use crate::run::machine;
use crate::table::columns;

/// Prints the processor, CUDA's parts, the cards, and where compiled kernels are kept.
///
/// # Errors
/// Standard output's.
pub fn run() -> Result<u8, CommandError> {
    let row = |name: &str, what: String| vec![name.to_owned(), what];
    let mut rows = vec![row("cpu", processor())];
    match Cuda::probe() {
        Ok(cuda) => {
            let (major, minor) = cuda.driver;
            let driver = format!("NVIDIA's, for CUDA up to {major}.{minor}");
            rows.push(row("driver", driver));
            let part = |part: &Result<String, String>| match part {
                Ok(version) => version.clone(),
                Err(reason) => format!("not available: {reason}"),
            };
            rows.push(row("nvrtc", part(&cuda.compiler)));
            rows.push(row("cublaslt", part(&cuda.products)));
            for (index, card) in cuda.cards.iter().enumerate() {
                let (major, minor) = card.capability;
                let memory = size(card.memory_bytes as u64);
                let what = format!("{}, {memory}, compute {major}.{minor}", card.name);
                rows.push(row(&format!("cuda:{index}"), what));
            }
            if cuda.cards.is_empty() {
                rows.push(row(
                    "cuda",
                    "not available: the NVIDIA driver sees no card".into(),
                ));
            }
        }
        Err(reason) => rows.push(row("cuda", format!("not available: {reason}"))),
    }
    rows.push(row("kernels", cache()));
    print(&columns(&rows)).map(|()| 0)
}

/// Refuses devices that this machine does not have, in one sentence.
///
/// # Errors
/// What is missing.
pub fn require(devices: &Devices) -> Result<(), String> {
    require_all(devices.names())
}

/// Refuses a device that this machine does not have, in one sentence.
///
/// # Errors
/// What is missing.
pub fn require_one(device: &str) -> Result<(), String> {
    require_all(&[device])
}

/// CUDA is asked once, however many cards are named; each of `names` is checked.
fn require_all<S: AsRef<str>>(names: &[S]) -> Result<(), String> {
    let names = || names.iter().map(AsRef::as_ref);
    let Some(first) = names().find(|name| name.starts_with("cuda:")) else {
        return Ok(());
    };
    let unusable = |reason: String| {
        format!("{first} was asked for, and CUDA is not available: {reason}; use --device cpu")
    };
    let cuda = Cuda::probe().map_err(unusable)?;
    if let Some(missing) = cuda.missing() {
        return Err(unusable(missing));
    }
    let count = cuda.cards.len();
    let is_here = |name: &str| (0..count).any(|index| name == format!("cuda:{index}"));
    let Some(missing) = names().find(|name| !is_here(name)) else {
        return Ok(());
    };
    let cards = if count == 1 {
        "1 card"
    } else {
        &format!("{count} cards")
    };
    Err(format!(
        "{missing} was asked for, and this machine has {cards}; `longhaul devices` lists what is here"
    ))
}

/// Where compiled kernels are kept, and how many there are.
fn cache() -> String {
    let Some(folder) = kernels::cache_folder() else {
        return format!(
            "not kept: neither {} nor HOME is set",
            kernels::CACHE_VARIABLE
        );
    };
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let sizes: Vec<u64> = files
        .filter(|file| file.path().extension().is_some_and(|end| end == "cubin"))
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .collect();
    let (count, folder) = (sizes.len(), folder.display());
    format!("{folder}: {count} compiled, {}", size(sizes.iter().sum()))
}

fn processor() -> String {
    let cores = machine::cores();
    let model = machine::processor().unwrap_or_else(|| "unknown processor".to_owned());
    let memory = machine::memory_bytes();
    let memory = memory.map_or_else(String::new, |bytes| format!(", {} memory", size(bytes)));
    format!("{model}, {cores} cores{memory}, vectors {}", vectors())
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
        "AVX-512"
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        "AVX2"
    } else {
        "SSE2"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> &'static str {
    "baseline"
}

#[cfg(test)]
mod tests {
    use super::require;
    use crate::device::Devices;

    #[test]
    fn a_card_that_is_not_there_is_refused_by_name() {
        let require = |text: &str| require(&Devices::parse(text).unwrap());
        assert_eq!(require("cpu"), Ok(()));
        let refusal = require("cuda:99").unwrap_err();
        assert!(refusal.contains("cuda:99 was asked for"), "{refusal}");
    }
}
