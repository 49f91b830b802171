//! What this machine has of CUDA, asked of its libraries by their own names; nothing is linked. Plugins
//! open the libraries themselves; this is for saying beforehand what they will find.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::mem::ManuallyDrop;

use libloading::Library;

/// The driver, what plugins need beside it, and the cards.
#[derive(Debug, Clone, PartialEq)]
pub struct Cuda {
    /// Newest CUDA version that the driver serves, major and minor.
    pub driver: (i32, i32),
    /// The runtime compiler's version, or why there is none.
    pub compiler: Result<String, String>,
    /// The library of matrix products' version, or why there is none.
    pub products: Result<String, String>,
    /// The cards in the driver's order.
    pub cards: Vec<Card>,
}

/// Oldest CUDA that plugins are built for.
const LEAST_MAJOR: i32 = 13;

/// One card.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Product name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Memory in bytes.
    pub memory_bytes: usize,
}

impl Cuda {
    /// Asks the driver and looks for the libraries.
    ///
    /// # Errors
    /// No driver; what the driver refused.
    pub fn probe() -> Result<Self, String> {
        let driver = Driver::open()?;
        // SAFETY: both functions have this type.
        let ask = |get: Number, to| unsafe { get(to) };
        let count = driver.number("cuDeviceGetCount", ask)?;
        let version = driver.number("cuDriverGetVersion", ask)?;
        Ok(Self {
            driver: (version / 1000, version % 1000 / 10),
            compiler: compiler(),
            products: products(),
            cards: (0..count)
                .map(|index| driver.card(index))
                .collect::<Result<_, _>>()?,
        })
    }

    /// What keeps plugins from using the cards, if anything.
    pub fn missing(&self) -> Option<String> {
        let (major, minor) = self.driver;
        let old = (major < LEAST_MAJOR).then(|| {
            format!("the driver serves CUDA up to {major}.{minor}, and {LEAST_MAJOR}.0 is needed; update it")
        });
        let libraries = [&self.compiler, &self.products].map(|library| library.as_ref().err());
        let missing: Vec<String> = old
            .into_iter()
            .chain(libraries.into_iter().flatten().cloned())
            .collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }
}

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
type ErrorName = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
type CompilerVersion = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type ProductsVersion = unsafe extern "C" fn() -> usize;

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: (c_int, c_int) = (75, 76);

/// The driver's library, initialised. It stays open, as all of NVIDIA's: they are not made to be closed.
struct Driver(ManuallyDrop<Library>);

impl Driver {
    fn open() -> Result<Self, String> {
        // SAFETY: opening the driver runs its initialisers, which is what using it means.
        let library = unsafe { Library::new("libcuda.so.1") }
            .map_err(|_| "no NVIDIA driver (libcuda.so.1 was not found)".to_owned())?;
        let driver = Self(ManuallyDrop::new(library));
        // SAFETY: the function has this type.
        driver.call("cuInit", |init: Init| unsafe { init(0) })?;
        Ok(driver)
    }

    /// Calls a function of the driver API, whose type the caller vouches for.
    fn call<F: Copy>(&self, name: &str, call: impl FnOnce(F) -> c_int) -> Result<(), String> {
        // SAFETY: names and types are those of the CUDA driver API.
        let function = unsafe { self.0.get::<F>(name.as_bytes()) }
            .map_err(|_| format!("the NVIDIA driver has no {name}"))?;
        match call(*function) {
            0 => Ok(()),
            code => Err(format!("{name} failed with {}", self.error_name(code))),
        }
    }

    /// Calls a function that writes a number.
    fn number<F: Copy>(
        &self,
        name: &str,
        call: impl FnOnce(F, *mut c_int) -> c_int,
    ) -> Result<i32, String> {
        let mut number = 0;
        self.call(name, |function: F| call(function, &raw mut number))?;
        Ok(number)
    }

    fn error_name(&self, code: c_int) -> String {
        let mut name = std::ptr::null();
        // SAFETY: the function has this type; the name it gives is a constant of the driver.
        let named = unsafe {
            self.0
                .get::<ErrorName>(b"cuGetErrorName")
                .is_ok_and(|get| get(code, &raw mut name) == 0 && !name.is_null())
                .then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        };
        named.unwrap_or_else(|| format!("CUDA error {code}"))
    }

    fn card(&self, index: c_int) -> Result<Card, String> {
        // SAFETY: here and below, the functions have these types, and pointers are to locals of the
        // right size; the name is NUL-terminated within 128 bytes.
        let get = |get: Get, to| unsafe { get(to, index) };
        let device = self.number("cuDeviceGet", get)?;
        let attribute = |which| {
            // SAFETY: as above.
            let call = |get: Attribute, to| unsafe { get(to, which, device) };
            self.number("cuDeviceGetAttribute", call)
        };
        let (mut text, mut memory_bytes) = ([0 as c_char; 128], 0);
        let to = text.as_mut_ptr();
        // SAFETY: as above.
        self.call("cuDeviceGetName", |get: Name| unsafe {
            get(to, 128, device)
        })?;
        // SAFETY: as above.
        self.call("cuDeviceTotalMem_v2", |get: Memory| unsafe {
            get(&raw mut memory_bytes, device)
        })?;
        Ok(Card {
            // SAFETY: as above.
            name: unsafe { CStr::from_ptr(text.as_ptr()) }
                .to_string_lossy()
                .into_owned(),
            capability: (attribute(CAPABILITY.0)?, attribute(CAPABILITY.1)?),
            memory_bytes,
        })
    }
}

/// Opens the first library that is there, by the names under which it is installed.
fn first(names: &[&str]) -> Option<ManuallyDrop<Library>> {
    // SAFETY: opening NVIDIA's libraries runs their initialisers, which is what using them means.
    let open = |name: &&str| unsafe { Library::new(*name) }.ok();
    names.iter().find_map(open).map(ManuallyDrop::new)
}

/// A library's version, where plugins can use it: one of an older CUDA may be found first.
fn new_enough(library: &str, file: &str, (major, minor): (i32, i32)) -> Result<String, String> {
    if major < LEAST_MAJOR {
        return Err(format!(
            "{library} {major}.{minor} was found first, and {LEAST_MAJOR}.0 is needed; put the folder of {file} first on \
             LD_LIBRARY_PATH, with a link to it by that name without `.13` where there is none"
        ));
    }
    Ok(format!("{major}.{minor}"))
}

fn compiler() -> Result<String, String> {
    let missing = "no NVRTC (libnvrtc.so.13); put its folder on LD_LIBRARY_PATH";
    let library = first(&["libnvrtc.so", "libnvrtc.so.13"]).ok_or(missing)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the function has this type, and both pointers are to locals.
    let code = unsafe {
        let version = library.get::<CompilerVersion>(b"nvrtcVersion");
        version.map_err(|_| "NVRTC has no nvrtcVersion")?(&raw mut major, &raw mut minor)
    };
    match code {
        0 => new_enough("NVRTC", "libnvrtc.so.13", (major, minor)),
        code => Err(format!("nvrtcVersion failed with error {code}")),
    }
}

fn products() -> Result<String, String> {
    let missing = "no cuBLASLt (libcublasLt.so.13); put its folder on LD_LIBRARY_PATH";
    let library = first(&["libcublasLt.so", "libcublasLt.so.13"]);
    let library = library.ok_or(missing)?;
    // SAFETY: the function has this type.
    let version = unsafe { library.get::<ProductsVersion>(b"cublasLtGetVersion") };
    // SAFETY: as above; it takes nothing.
    let version = version.map(|version| unsafe { version() });
    let version = version.map_err(|_| "cuBLASLt has no cublasLtGetVersion")?;
    let version = (version / 10_000, version / 100 % 100);
    let version = (version.0 as i32, version.1 as i32);
    new_enough("cuBLASLt", "libcublasLt.so.13", version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_an_older_cuda_that_is_found_first_is_refused() {
        let version = |major| new_enough("NVRTC", "libnvrtc.so.13", (major, 4));
        assert_eq!(version(13), Ok("13.4".to_owned()));
        let why = version(12).expect_err("an older one");
        assert!(why.starts_with("NVRTC 12.4 was found first"), "{why}");
    }
}
