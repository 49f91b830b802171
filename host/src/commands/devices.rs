//! `longhaul devices`: what plugins could use on this machine. CUDA is only asked for after its
//! libraries were found; nothing is linked.

use std::ffi::{CStr, c_char, c_int, c_uint};

use crate::commands::print;
use crate::exit::CommandError;
use crate::table::columns;

/// Prints processor and CUDA devices.
///
/// # Errors
/// Standard output's.
pub fn run() -> Result<u8, CommandError> {
    let row = |name: &str, what: String| vec![name.to_owned(), what];
    let mut rows = vec![row("cpu", processor())];
    match cuda() {
        Ok(devices) => rows.extend(devices.into_iter().map(|(name, what)| row(&name, what))),
        Err(reason) => rows.push(row("cuda", format!("not available: {reason}"))),
    }
    print(&columns(&rows)).map(|()| 0)
}

/// Refuses a device that this machine does not have, in one sentence.
///
/// # Errors
/// What is missing.
pub fn require(device: &str) -> Result<(), String> {
    if device == "cpu" {
        return Ok(());
    }
    match cuda() {
        Ok(devices) if devices.iter().any(|(name, _)| name == device) => Ok(()),
        Ok(devices) => Err(format!(
            "{device} was asked for, and this machine has {} card{}; `longhaul devices` lists what is here",
            devices.len(),
            if devices.len() == 1 { "" } else { "s" }
        )),
        Err(reason) => Err(format!(
            "{device} was asked for, and CUDA is not available: {reason}; use --device cpu"
        )),
    }
}

fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches([' ', '\t', ':'])
    });
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let memory = memory.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let memory = memory.map_or_else(String::new, |kib| {
        format!(", {:.1} GiB memory", kib / 1048576.0)
    });
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

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int) -> c_int;
type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;

/// Name and description of every CUDA device, or why there is none.
fn cuda() -> Result<Vec<(String, String)>, String> {
    // SAFETY: opening the driver runs its initialisers, which is what using it means.
    let driver = unsafe { libloading::Library::new("libcuda.so.1") }
        .map_err(|_| "no NVIDIA driver (libcuda.so.1 was not found)".to_owned())?;
    let symbol = |name: &str| format!("the NVIDIA driver has no {name}");
    // SAFETY (here and below): names and types are those of the CUDA driver API, and every pointer
    // is to a local of the right size.
    let call = |what: &str, code: c_int| {
        if code == 0 {
            Ok(())
        } else {
            Err(format!("{what} failed with CUDA error {code}"))
        }
    };
    // SAFETY: as above.
    let (init, count, version, get, name, memory) = unsafe {
        (
            driver.get::<Init>("cuInit").map_err(|_| symbol("cuInit"))?,
            driver
                .get::<Count>("cuDeviceGetCount")
                .map_err(|_| symbol("cuDeviceGetCount"))?,
            driver
                .get::<Version>("cuDriverGetVersion")
                .map_err(|_| symbol("cuDriverGetVersion"))?,
            driver
                .get::<Get>("cuDeviceGet")
                .map_err(|_| symbol("cuDeviceGet"))?,
            driver
                .get::<Name>("cuDeviceGetName")
                .map_err(|_| symbol("cuDeviceGetName"))?,
            driver
                .get::<Memory>("cuDeviceTotalMem_v2")
                .map_err(|_| symbol("cuDeviceTotalMem_v2"))?,
        )
    };
    let (mut devices, mut driver_version) = (0, 0);
    // SAFETY: as above.
    unsafe {
        call("cuInit", init(0))?;
        call("cuDeviceGetCount", count(&mut devices))?;
        call("cuDriverGetVersion", version(&mut driver_version))?;
    }
    if devices == 0 {
        return Err("the NVIDIA driver sees no card".to_owned());
    }
    // SAFETY: as above.
    let compiler = unsafe { libloading::Library::new("libnvrtc.so.13") }
        .or_else(|_| unsafe { libloading::Library::new("libnvrtc.so.12") });
    let compiler = if compiler.is_ok() {
        "NVRTC found"
    } else {
        "no NVRTC (libnvrtc.so)"
    };
    let mut found = Vec::new();
    for index in 0..devices {
        let (mut device, mut bytes, mut text) = (0, 0usize, [0 as c_char; 128]);
        // SAFETY: as above; the name is NUL-terminated within 128 bytes.
        let card = unsafe {
            call("cuDeviceGet", get(&mut device, index))?;
            call("cuDeviceGetName", name(text.as_mut_ptr(), 128, device))?;
            call("cuDeviceTotalMem", memory(&mut bytes, device))?;
            CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
        };
        let what = format!(
            "{card}, {:.1} GiB, driver for CUDA {}.{}, {compiler}",
            bytes as f64 / (1u64 << 30) as f64,
            driver_version / 1000,
            driver_version % 1000 / 10
        );
        found.push((format!("cuda:{index}"), what));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::require;

    #[test]
    fn a_card_that_is_not_there_is_refused_by_name() {
        assert_eq!(require("cpu"), Ok(()));
        let refusal = require("cuda:99").unwrap_err();
        assert!(refusal.contains("cuda:99 was asked for"), "{refusal}");
    }
}
