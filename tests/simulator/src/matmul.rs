//! The C functions of cuBLASLt that Longhaul calls. Matrices are float32 in columns; alpha and beta are on
//! the host. Everything else is refused.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::calls::Out;
use crate::products::{Epilogue, Layout, Product, Rounding, Shape};
use crate::settings::SETTINGS;
use crate::work::Work;
use crate::world::{current, world};

const NOT_INITIALIZED: c_int = 1;
const INVALID_VALUE: c_int = 7;
const EXECUTION_FAILED: c_int = 13;
const NOT_SUPPORTED: c_int = 15;

/// Why a call fails: a number of `cublasStatus_t`.
type Answer<T = ()> = Result<T, c_int>;

fn refuse<T>(status: c_int, why: impl Display) -> Answer<T> {
    eprintln!("simulated cuBLASLt: {why} (status {status})");
    Err(status)
}

/// What a handle stands for.
enum Object {
    Library,
    Description {
        rounding: Rounding,
        transpose_a: bool,
        transpose_b: bool,
        epilogue: Epilogue,
        /// The row that the epilogue reads or writes.
        bias: u64,
    },
    Layout(Layout),
    Preference(Preference),
}

/// What an algorithm must be content with.
#[derive(Debug, Clone, Copy)]
struct Preference {
    workspace_bytes: u64,
    /// Multiples at which A, B, C and D begin, in bytes.
    alignments: [u32; 4],
}

static OBJECTS: LazyLock<Mutex<HashMap<usize, Object>>> = LazyLock::new(Mutex::default);

fn objects() -> MutexGuard<'static, HashMap<usize, Object>> {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(place: Out<usize>, object: Object) -> Answer {
    let handle = world().handle();
    objects().insert(handle, object);
    place.put(handle).map_err(|_| INVALID_VALUE)
}

fn remove(handle: usize, what: &str) -> Answer {
    match objects().remove(&handle) {
        Some(_) => Ok(()),
        None => refuse(
            INVALID_VALUE,
            format!("{what} {handle:#x} is destroyed and is not there"),
        ),
    }
}

fn layout(handle: usize, name: &str) -> Answer<Layout> {
    match objects().get(&handle) {
        Some(Object::Layout(layout)) => Ok(*layout),
        _ => refuse(
            INVALID_VALUE,
            format!("{handle:#x}, the layout of {name}, is none"),
        ),
    }
}

fn require_library(handle: usize) -> Answer {
    match objects().get(&handle) {
        Some(Object::Library) => Ok(()),
        _ => refuse(
            NOT_INITIALIZED,
            format!("{handle:#x} is no handle of the library"),
        ),
    }
}

/// An attribute's value, of the size that its type has.
fn attribute<T: Copy>(value: *const c_void, given: usize) -> Answer<T> {
    if value.is_null() || given != size_of::<T>() {
        return refuse(
            INVALID_VALUE,
            format!("an attribute of {} bytes is set by {given}", size_of::<T>()),
        );
    }
    // SAFETY: the contract of the call: `value` points to `given` bytes.
    Ok(unsafe { value.cast::<T>().read_unaligned() })
}

/// A shape whose sizes fit each other, and the row of its epilogue.
fn shape(description: usize, layouts: [usize; 4]) -> Answer<(Shape, u64)> {
    let [a, b, c, d] = layouts;
    let (a, b) = (layout(a, "A")?, layout(b, "B")?);
    let (c, d) = (layout(c, "C")?, layout(d, "D")?);
    let objects = objects();
    let Some(Object::Description {
        rounding,
        transpose_a,
        transpose_b,
        epilogue,
        bias,
    }) = objects.get(&description)
    else {
        return refuse(
            INVALID_VALUE,
            format!("{description:#x} is no description of a product"),
        );
    };
    let shape = Shape {
        a,
        b,
        c,
        d,
        transpose_a: *transpose_a,
        transpose_b: *transpose_b,
        rounding: *rounding,
        epilogue: *epilogue,
    };
    if shape.epilogue != Epilogue::None && *bias == 0 {
        return refuse(
            INVALID_VALUE,
            format!("{epilogue:?} without the address of its vector"),
        );
    }
    let turned = |layout: Layout, turn| {
        if turn {
            (layout.columns, layout.rows)
        } else {
            (layout.rows, layout.columns)
        }
    };
    let (height, inner) = turned(a, shape.transpose_a);
    let (also_inner, width) = turned(b, shape.transpose_b);
    let plain = (d.rows, d.columns);
    if inner != also_inner || plain != (height, width) || plain != (c.rows, c.columns) {
        return refuse(
            INVALID_VALUE,
            format!("sizes do not fit each other: {shape:?}"),
        );
    }
    for one in [a, b, c, d] {
        if one.leading < one.rows.max(1) as i64 {
            return refuse(INVALID_VALUE, format!("columns overlap: {one:?}"));
        }
        if one.count != d.count || one.count < 1 || one.step < 0 {
            return refuse(
                INVALID_VALUE,
                format!("batches do not fit each other: {shape:?}"),
            );
        }
    }
    Ok((shape, *bias))
}

/// Whether there is an algorithm. One vector has no room for the sums of several matrices, and
/// `SIMULATED_CUDA_LACKS` takes away what a real library may not have either.
fn has_algorithm(shape: &Shape) -> bool {
    let batch_of_sums = shape.epilogue == Epilogue::GradB && shape.d.count > 1;
    let lacks = &SETTINGS.lacks;
    !batch_of_sums
        && (shape.epilogue == Epilogue::None || !lacks.iter().any(|word| word == "epilogues"))
        && (shape.rounding == Rounding::None || !lacks.iter().any(|word| word == "rounding"))
}

/// An algorithm as the caller keeps it: what it was chosen for.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Algorithm {
    mark: u64,
    shape: u64,
    workspace_bytes: u64,
    alignments: [u32; 4],
    rest: [u64; 3],
}

const MARK: u64 = 0x51_4d_55_4c_41_54_45_44;

fn hash(shape: &Shape) -> u64 {
    let mut hasher = DefaultHasher::new();
    shape.hash(&mut hasher);
    hasher.finish()
}

/// What is known of a chosen algorithm.
#[repr(C)]
pub struct Heuristic {
    algorithm: Algorithm,
    workspace_bytes: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// The number that a call answers with.
fn answer(call: impl FnOnce() -> Answer) -> c_int {
    call().err().unwrap_or(0)
}

c_functions! {
    answer;

    fn cublasLtCreate(handle: Out<usize>) {
        current("cublasLtCreate").map_err(|_| NOT_INITIALIZED)?;
        add(handle, Object::Library)
    }

    fn cublasLtDestroy(handle: usize) {
        require_library(handle)?;
        remove(handle, "a library handle")
    }

    fn cublasLtMatmulDescCreate(place: Out<usize>, compute: c_int, scale: c_int) {
        let rounding = match compute {
            68 => Rounding::None,
            75 => Rounding::Bf16,
            77 => Rounding::Tf32,
            other => return refuse(NOT_SUPPORTED, format!("compute type {other}")),
        };
        if scale != 0 {
            return refuse(NOT_SUPPORTED, format!("alpha and beta of type {scale}"));
        }
        add(place, Object::Description {
            rounding,
            transpose_a: false,
            transpose_b: false,
            epilogue: Epilogue::None,
            bias: 0,
        })
    }

    fn cublasLtMatmulDescSetAttribute(handle: usize, which: c_int, value: *const c_void, bytes: usize) {
        let mut objects = objects();
        let Some(Object::Description { transpose_a, transpose_b, epilogue, bias, .. }) = objects.get_mut(&handle) else {
            return refuse(INVALID_VALUE, format!("{handle:#x} is no description of a product"));
        };
        let side = match which {
            3 => transpose_a,
            4 => transpose_b,
            7 => {
                *epilogue = match attribute::<u32>(value, bytes)? {
                    1 => Epilogue::None,
                    4 => Epilogue::Bias,
                    512 => Epilogue::GradB,
                    other => return refuse(NOT_SUPPORTED, format!("epilogue {other}")),
                };
                return Ok(());
            }
            8 => {
                *bias = attribute(value, bytes)?;
                return Ok(());
            }
            other => return refuse(NOT_SUPPORTED, format!("attribute {other} of a product")),
        };
        *side = match attribute::<i32>(value, bytes)? {
            0 => false,
            1 => true,
            other => return refuse(NOT_SUPPORTED, format!("operation {other} on a factor")),
        };
        Ok(())
    }

    fn cublasLtMatmulDescDestroy(handle: usize) {
        remove(handle, "a product's description")
    }

    fn cublasLtMatrixLayoutCreate(place: Out<usize>, kind: c_int, rows: u64, columns: u64, leading: i64) {
        if kind != 0 {
            return refuse(NOT_SUPPORTED, format!("a matrix of type {kind}"));
        }
        add(place, Object::Layout(Layout { rows, columns, leading, count: 1, step: 0 }))
    }

    fn cublasLtMatrixLayoutSetAttribute(handle: usize, which: c_int, value: *const c_void, bytes: usize) {
        let mut objects = objects();
        let Some(Object::Layout(layout)) = objects.get_mut(&handle) else {
            return refuse(INVALID_VALUE, format!("{handle:#x} is no layout"));
        };
        match which {
            5 => layout.count = attribute(value, bytes)?,
            6 => layout.step = attribute(value, bytes)?,
            other => return refuse(NOT_SUPPORTED, format!("attribute {other} of a layout")),
        }
        Ok(())
    }

    fn cublasLtMatrixLayoutDestroy(handle: usize) {
        remove(handle, "a layout")
    }

    fn cublasLtMatmulPreferenceCreate(place: Out<usize>) {
        add(place, Object::Preference(Preference { workspace_bytes: 0, alignments: [256; 4] }))
    }

    fn cublasLtMatmulPreferenceSetAttribute(handle: usize, which: c_int, value: *const c_void, bytes: usize) {
        let mut objects = objects();
        let Some(Object::Preference(preference)) = objects.get_mut(&handle) else {
            return refuse(INVALID_VALUE, format!("{handle:#x} is no preference"));
        };
        match which {
            1 => preference.workspace_bytes = attribute(value, bytes)?,
            side @ 5..=8 => preference.alignments[side as usize - 5] = attribute(value, bytes)?,
            other => return refuse(NOT_SUPPORTED, format!("preference {other}")),
        }
        Ok(())
    }

    fn cublasLtMatmulPreferenceDestroy(handle: usize) {
        remove(handle, "a preference")
    }

    fn cublasLtMatmulAlgoGetHeuristic(
        library: usize, description: usize, a: usize, b: usize, c: usize, d: usize,
        preference: usize, wanted: c_int, results: Out<Heuristic>, found: Out<c_int>,
    ) {
        require_library(library)?;
        let (shape, _) = shape(description, [a, b, c, d])?;
        let preference = match objects().get(&preference) {
            Some(Object::Preference(preference)) => *preference,
            _ => return refuse(INVALID_VALUE, format!("{preference:#x} is no preference")),
        };
        if wanted < 1 {
            return refuse(INVALID_VALUE, format!("{wanted} algorithms are asked for"));
        }
        if let Some(alignment) = preference.alignments.iter().find(|bytes| **bytes < 4) {
            return refuse(NOT_SUPPORTED, format!("float32 values at multiples of {alignment} bytes"));
        }
        if !has_algorithm(&shape) {
            return refuse(NOT_SUPPORTED, format!("no algorithm for {shape:?}"));
        }
        let workspace_bytes = preference.workspace_bytes.min(4096);
        let algorithm = Algorithm {
            mark: MARK,
            shape: hash(&shape),
            workspace_bytes,
            alignments: preference.alignments,
            rest: [0; 3],
        };
        let (state, waves, reserved) = (0, 1.0, [0; 4]);
        let workspace_bytes = workspace_bytes as usize;
        results
            .put(Heuristic { algorithm, workspace_bytes, state, waves, reserved })
            .and_then(|()| found.put(1))
            .map_err(|_| INVALID_VALUE)
    }

    fn cublasLtMatmul(
        library: usize, description: usize, alpha: *const f32, a: u64, a_layout: usize, b: u64, b_layout: usize,
        beta: *const f32, c: u64, c_layout: usize, d: u64, d_layout: usize, algorithm: *const Algorithm,
        workspace: u64, workspace_bytes: usize, stream: usize,
    ) {
        require_library(library)?;
        let (shape, bias) = shape(description, [a_layout, b_layout, c_layout, d_layout])?;
        if alpha.is_null() || beta.is_null() || algorithm.is_null() {
            return refuse(INVALID_VALUE, "alpha, beta or the algorithm is null");
        }
        // SAFETY: the contract of the call: each points to a value of its type.
        let (alpha, beta, algorithm) = unsafe { (*alpha, *beta, *algorithm) };
        if algorithm.mark != MARK || algorithm.shape != hash(&shape) {
            return refuse(NOT_SUPPORTED, format!("the algorithm was not chosen for {shape:?}"));
        }
        for (address, alignment) in [a, b, c, d].into_iter().zip(algorithm.alignments) {
            if !address.is_multiple_of(u64::from(alignment)) {
                return refuse(NOT_SUPPORTED, format!(
                    "a matrix at {address:#x}, and the algorithm was chosen for multiples of {alignment} bytes"
                ));
            }
        }
        // Nothing is promised of the vector by itself.
        if shape.epilogue != Epilogue::None && !bias.is_multiple_of(u64::from(algorithm.alignments[3])) {
            return refuse(NOT_SUPPORTED, format!("an epilogue's vector at {bias:#x}, unlike what was said of D"));
        }
        if workspace_bytes < algorithm.workspace_bytes as usize || !workspace.is_multiple_of(16) {
            return refuse(INVALID_VALUE, format!(
                "a workspace of {workspace_bytes} bytes at {workspace:#x}; the algorithm takes {} and a multiple of 16",
                algorithm.workspace_bytes
            ));
        }
        if c == d && shape.c != shape.d {
            return refuse(INVALID_VALUE, "C and D are in one place with two layouts");
        }
        let workspace = (workspace, algorithm.workspace_bytes as usize);
        let product = Product { shape, a, b, c, d, bias, alpha, beta, workspace };
        crate::calls::stream("cublasLtMatmul", stream)
            .and_then(|stream| stream.submit("a product", Work::Product(product)))
            .map_err(|_| EXECUTION_FAILED)
    }
}

/// The library's version, as `longhaul devices` asks for it: 13.0.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    130_000
}
