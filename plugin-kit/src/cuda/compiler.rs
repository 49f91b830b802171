//! CUDA C++ to machine code at first use, by NVRTC, for one architecture of cards; kept on disk under a
//! hash of everything that went in, with a hash of itself at its end. A file appears under its name when it
//! is whole, so several workers may compile the same source at the same time; one that was damaged since is
//! made again. No card is needed.

use std::ffi::{CStr, CString};

use cudarc::nvrtc::{result, sys};
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::kernels::cache_folder;
use sha2::{Digest, Sha256};

use super::device::KernelSource;
use super::source::whole_text;
use super::storage::Storage;

/// Options of every compilation. Fused multiply-adds stay on, approximate functions off.
const OPTIONS: [&str; 2] = ["--std=c++17", "--restrict"];

/// The version of the NVRTC that this process finds, such as 13.0.
///
/// # Errors
/// There is none.
pub fn version() -> Result<String> {
    // SAFETY: looks for the library, which runs its initialisers.
    if !unsafe { sys::is_culib_present() } {
        return Err(PluginError::device(
            "no NVRTC (libnvrtc.so) was found; install CUDA's runtime compiler and put its folder on LD_LIBRARY_PATH",
        ));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to locals.
    let code = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    match code {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(format!("{major}.{minor}")),
        other => Err(PluginError::device(format!(
            "nvrtcVersion failed: {other:?}"
        ))),
    }
}

/// Machine code of a source, with activations stored so, for cards of compute capability `architecture`, such as 90.
///
/// # Errors
/// The compiler's log, with the kernel's file and line; no compiler.
pub fn cubin(source: &KernelSource, storage: Storage, architecture: u32) -> Result<Vec<u8>> {
    let version = version()?;
    let text = whole_text(source, storage);
    let mut hash = Sha256::new();
    for part in [
        &text,
        &version,
        &architecture.to_string(),
        &OPTIONS.join(" "),
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let name: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let file = cache_folder().map(|folder| folder.join(format!("{name}.cubin")));
    if let Some(kept) = file.as_ref().and_then(|file| kept(file)) {
        return Ok(kept);
    }
    let (code, _) = compile(source.file, &text, architecture, &[])?;
    // A cache that cannot be written costs time, not the run.
    if let Some(file) = file {
        let _ = keep(&file, &code);
    }
    Ok(code)
}

/// The same without the cache, and what the assembler says of the kernels: registers, spills, shared memory.
///
/// # Errors
/// As [`cubin`].
pub fn report(
    source: &KernelSource,
    storage: Storage,
    architecture: u32,
) -> Result<(Vec<u8>, String)> {
    version()?;
    compile(
        source.file,
        &whole_text(source, storage),
        architecture,
        &["--ptxas-options=-v"],
    )
}

/// Bytes of the hash at a kept file's end.
const HASH_BYTES: usize = 32;

/// What [`keep`] kept, if it is there as it was.
fn kept(file: &std::path::Path) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(file).ok()?;
    let code = bytes.len().checked_sub(HASH_BYTES)?;
    if Sha256::digest(&bytes[..code])[..] != bytes[code..] {
        return None;
    }
    bytes.truncate(code);
    Some(bytes)
}

fn keep(file: &std::path::Path, code: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(std::path::Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut part = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut part, code)?;
    std::io::Write::write_all(&mut part, &Sha256::digest(code))?;
    part.as_file().sync_all()?;
    part.persist(file)?;
    Ok(())
}

/// Machine code, and the log.
fn compile(file: &str, text: &str, architecture: u32, more: &[&str]) -> Result<(Vec<u8>, String)> {
    let fail = |what: String| PluginError::device(format!("{file}: {what}"));
    let plain = |error: result::NvrtcError| fail(format!("NVRTC failed: {:?}", error.0));
    let text = CString::new(text).map_err(|_| fail("a NUL in the source".into()))?;
    let name = CString::new(file).map_err(|_| fail("a NUL in the file's name".into()))?;
    let program = Program(result::create_program(&text, Some(&name)).map_err(plain)?);
    let mut options: Vec<String> = OPTIONS
        .iter()
        .chain(more)
        .map(|&option| option.to_owned())
        .collect();
    options.push(format!("--gpu-architecture=sm_{architecture}"));
    // SAFETY: the program was just made and lives until the end of this function.
    let compiled = unsafe { result::compile_program(program.0, &options) };
    // SAFETY: as above.
    let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
    let bytes: Vec<u8> = log
        .iter()
        .map(|&c| c as u8)
        .take_while(|&c| c != 0)
        .collect();
    let log = String::from_utf8_lossy(&bytes).into_owned();
    if let Err(error) = compiled {
        return Err(fail(format!(
            "does not compile for sm_{architecture} ({:?}):\n{log}",
            error.0
        )));
    }
    let mut size = 0;
    // SAFETY: the program is compiled; the pointers are to a local and to a buffer of the size asked for.
    unsafe {
        sys::nvrtcGetCUBINSize(program.0, &raw mut size)
            .result()
            .map_err(plain)?;
        let mut code = vec![0u8; size];
        sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast())
            .result()
            .map_err(plain)?;
        Ok((code, log))
    }
}

/// A program of NVRTC's, given back at the end.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program` and not destroyed before.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// A name of the driver's or the compiler's as text.
pub(crate) fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::{keep, kept};

    #[test]
    fn only_what_is_whole_is_taken_from_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.cubin");
        assert_eq!(kept(&file), None, "nothing is there");
        let code = b"\x7fELF and more".to_vec();
        keep(&file, &code).unwrap();
        assert_eq!(kept(&file), Some(code));
        let whole = std::fs::read(&file).unwrap();
        for damage in [&whole[..whole.len() - 1], &whole[..8], b""] {
            std::fs::write(&file, damage).unwrap();
            assert_eq!(kept(&file), None, "{} bytes", damage.len());
        }
        let mut flipped = whole;
        flipped[6] ^= 1;
        std::fs::write(&file, flipped).unwrap();
        assert_eq!(kept(&file), None, "another byte");
    }
}
