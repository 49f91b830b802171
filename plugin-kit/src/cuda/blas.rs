//! Matrix products on a card by cuBLASLt. The library thinks in columns: a row-major product
//! `C = A B` is the column-major `Cᵀ = Bᵀ Aᵀ`, which needs no copies.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex};

use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::CUstream;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::{ErrorKind, PluginError};

use super::device::{DeviceMat, Epilogue, Product};
use super::turn::{Turn, Turns};
use crate::precision::Precision;

/// Memory that the library may work in: its recommendation for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// Captures and choices of all cards and threads of this process.
static ALONE: LazyLock<Turns> = LazyLock::new(Turns::default);

/// Waits until no other thread captures or chooses how to multiply: the library may refuse to be asked while any stream of
/// the process captures, not only that of its own card. It is the innermost of all locks.
pub fn alone() -> Turn<'static> {
    ALONE.take()
}

/// The library's handle on the current context.
pub struct Blas {
    index: u32,
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    compute: sys::cublasComputeType_t,
    /// None where it has no way.
    chosen: Mutex<HashMap<Kind, Option<Choice>>>,
}

/// How a kind of product is taken.
#[derive(Clone, Copy)]
pub struct Choice {
    compute: sys::cublasComputeType_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// What every card multiplies in.
const PLAIN: sys::cublasComputeType_t = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;

/// The library's name of a precision.
fn compute_type(precision: Precision) -> sys::cublasComputeType_t {
    use sys::cublasComputeType_t as Compute;
    match precision {
        Precision::Float32 => Compute::CUBLAS_COMPUTE_32F,
        Precision::Tf32 => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
        Precision::Bf16 => Compute::CUBLAS_COMPUTE_32F_FAST_16BF,
    }
}

impl Blas {
    /// A handle for the context that is current, for products of this precision.
    ///
    /// # Errors
    /// The library is not there, or has no memory.
    pub fn new(index: u32, precision: Precision) -> Result<Self> {
        // SAFETY: looks for the library, which runs its initialisers.
        if !unsafe { sys::is_culib_present() } {
            return Err(PluginError::device(
                "no cuBLASLt (libcublasLt.so) was found; put CUDA's libraries on LD_LIBRARY_PATH",
            ));
        }
        let handle =
            result::create_handle().map_err(|error| failed(index, "cublasLtCreate", &error))?;
        // SAFETY: used by products on one stream only, freed when this is dropped.
        let workspace = unsafe { cudarc::driver::result::malloc_sync(WORKSPACE_BYTES) };
        let workspace = workspace.map_err(|error| {
            // SAFETY: made above, given back once.
            let _ = unsafe { result::destroy_handle(handle) };
            super::driver::failed(&format!("cuda:{index}, a workspace of 32 MiB"), error)
        })?;
        Ok(Self {
            index,
            handle,
            workspace,
            compute: compute_type(precision),
            chosen: Mutex::default(),
        })
    }

    /// Chooses how to multiply, once for each kind of product: the first way that the library names. Which of several is
    /// the fastest only a clock could say, and then the same command would give other bytes from run to run, because
    /// they add in other orders; the library's order depends on its version, the card and the sizes alone. (Timing once
    /// and keeping the choice would only move that: two machines, or a machine and its emptied cache, would differ.)
    /// As documented, one algorithm on one stream gives the same bits every time.
    ///
    /// # Errors
    /// The library's; that it has no way.
    pub fn choose(&self, product: &Product) -> Result<Choice> {
        let none = || {
            let error = result::CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
            failed(
                self.index,
                &format!("choosing how to take {product:?}"),
                &error,
            )
        };
        self.find(product)?.ok_or_else(none)
    }

    /// Whether there is a way to take a product.
    ///
    /// # Errors
    /// The library's.
    pub fn takes(&self, product: &Product) -> Result<bool> {
        Ok(self.find(product)?.is_some())
    }

    fn find(&self, product: &Product) -> Result<Option<Choice>> {
        let kind = Kind::of(product);
        let poisoned = |_| PluginError::internal("an earlier product panicked");
        if let Some(known) = self.chosen.lock().map_err(poisoned)?.get(&kind) {
            return Ok(*known);
        }
        let mut found = self.ask(product, self.compute)?;
        // What has an epilogue is done in steps instead, each of them as exactly as it was asked for.
        if found.is_none() && self.compute != PLAIN && product.epilogue == Epilogue::None {
            found = self.ask(product, PLAIN)?;
            if found.is_some() {
                let (asked, sizes) = (self.compute, kind.sizes());
                eprintln!(
                    "cuda:{}: cuBLASLt has no {asked:?} for a product of {sizes}: it is taken in float32",
                    self.index
                );
            }
        }
        self.chosen.lock().map_err(poisoned)?.insert(kind, found);
        Ok(found)
    }

    /// The first way that the library names to take a product with this compute type.
    fn ask(&self, product: &Product, compute: sys::cublasComputeType_t) -> Result<Option<Choice>> {
        let fail = |what: &str, error: &result::CublasError| failed(self.index, what, error);
        let matmul = Matmul::new(product, compute)
            .map_err(|error| fail("a product's description", &error))?;
        let preference =
            Preference::new(product).map_err(|error| fail("a product's preference", &error))?;
        let [b, a, added, c] = &matmul.layouts;
        let _alone = alone();
        // SAFETY: the description and layouts are alive and say the sizes that the engine checked.
        let heuristic = unsafe {
            result::get_matmul_algo_heuristic(
                self.handle,
                matmul.description,
                b.0,
                a.0,
                added.0,
                c.0,
                preference.0,
            )
        };
        match heuristic {
            Ok(heuristic) => Ok(Some(Choice {
                compute,
                algorithm: heuristic.algo,
            })),
            Err(error) if error.0 == sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED => Ok(None),
            Err(error) => Err(fail("choosing how to multiply", &error)),
        }
    }

    /// Runs products on a stream.
    ///
    /// # Errors
    /// The library's.
    pub fn product(&self, product: &Product, stream: CUstream) -> Result<()> {
        let fail = |what: &str, error: &result::CublasError| failed(self.index, what, error);
        let Choice { compute, algorithm } = self.choose(product)?;
        let matmul = Matmul::new(product, compute)
            .map_err(|error| fail("a product's description", &error))?;
        let [b, a, added, c] = &matmul.layouts;
        let (alpha, beta) = (product.alpha, product.beta);
        let pointer = |mat: DeviceMat| mat.data.0 as *const c_void;
        // SAFETY: the description and layouts are alive and say the sizes that the engine checked; the
        // workspace is ours and as large as said.
        unsafe {
            result::matmul(
                self.handle,
                matmul.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(product.b),
                b.0,
                pointer(product.a),
                a.0,
                pointer(product.added),
                added.0,
                pointer(product.c).cast_mut(),
                c.0,
                &raw const algorithm,
                self.workspace as *mut c_void,
                WORKSPACE_BYTES,
                stream.cast(),
            )
            .map_err(|error| fail("a product", &error))
        }
    }
}

/// What the choice of an algorithm depends on.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    /// Rows, columns, distance of rows, turned, distance of the products, alignment; of a, b, c and what is added.
    sides: [(usize, usize, usize, bool, usize, u32); 4],
    /// Which epilogue, and the alignment of its row.
    epilogue: (u32, u32),
    count: usize,
}

impl Kind {
    fn of(product: &Product) -> Self {
        let side = |mat: DeviceMat, step| {
            (
                mat.rows,
                mat.cols,
                mat.row_stride,
                mat.turned,
                step,
                alignment(mat, step),
            )
        };
        Self {
            sides: [
                side(product.a, product.a_step),
                side(product.b, product.b_step),
                side(product.c, product.c_step),
                side(product.added, product.c_step),
            ],
            epilogue: match row(product.epilogue) {
                Some((which, row)) => (which as u32, aligned(row.0)),
                None => (0, 0),
            },
            count: product.count,
        }
    }

    /// Its sizes in words.
    fn sizes(&self) -> String {
        let [a, _, c, _] = self.sides;
        let inner = if a.3 { a.0 } else { a.1 };
        format!(
            "{} x {inner} by {inner} x {}, {} of them",
            c.0, c.1, self.count
        )
    }
}

/// An epilogue's name in the library, and the row that it reads or writes. Its matrices are turned, so that their rows
/// are ours: what is added to every row there is added to every column here, and its B is our left factor (cuBLAS
/// library, `cublasLtEpilogue_t`: a bias is as long as D has rows, BGRADB's as D has columns).
fn row(epilogue: Epilogue) -> Option<(sys::cublasLtEpilogue_t, super::device::Ptr)> {
    match epilogue {
        Epilogue::None => None,
        Epilogue::AddRow(row) => Some((sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS, row)),
        Epilogue::RowSums(row) => Some((sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BGRADB, row)),
    }
}

/// Bytes, a power of two up to 256, of which every matrix of a batch begins at a multiple.
fn alignment(mat: DeviceMat, step: usize) -> u32 {
    aligned(mat.data.0 | (4 * step as u64))
}

/// The largest power of two up to 256 that divides an address.
fn aligned(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once.
        unsafe {
            let _ = result::destroy_handle(self.handle);
            let _ = cudarc::driver::result::free_sync(self.workspace);
        }
    }
}

fn failed(index: u32, what: &str, error: &result::CublasError) -> PluginError {
    let kind = match error.0 {
        sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => ErrorKind::OutOfMemory,
        _ => ErrorKind::Device,
    };
    PluginError::new(kind, format!("cuda:{index}, {what}: {:?}", error.0))
}

/// A matrix's layout, given back at the end.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(
        mat: DeviceMat,
        count: usize,
        step: usize,
    ) -> std::result::Result<Self, result::CublasError> {
        use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
        let float = sys::cudaDataType::CUDA_R_32F;
        // A stored row is a column there.
        let layout = Self(result::create_matrix_layout(
            float,
            mat.cols as u64,
            mat.rows as u64,
            mat.row_stride.max(mat.cols) as i64,
        )?);
        if count > 1 {
            let (count, step) = (count as i32, step as i64);
            // SAFETY: the attributes have these types.
            unsafe {
                let batch = Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
                result::set_matrix_layout_attribute(layout.0, batch, (&raw const count).cast(), 4)?;
                let offset = Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
                result::set_matrix_layout_attribute(layout.0, offset, (&raw const step).cast(), 8)?;
            }
        }
        Ok(layout)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What a product is, given back at the end.
struct Matmul {
    description: sys::cublasLtMatmulDesc_t,
    /// Of b, a, what is added and c.
    layouts: [Layout; 4],
}

impl Matmul {
    fn new(
        product: &Product,
        compute: sys::cublasComputeType_t,
    ) -> std::result::Result<Self, result::CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let Product { a, b, c, count, .. } = *product;
        let layouts = [
            Layout::new(b, count, product.b_step)?,
            Layout::new(a, count, product.a_step)?,
            Layout::new(product.added, count, product.c_step)?,
            Layout::new(c, count, product.c_step)?,
        ];
        let matmul = Self {
            description: result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F)?,
            layouts,
        };
        let sides = [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, b.turned),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, a.turned),
        ];
        for (side, turned) in sides {
            // CUBLAS_OP_N is 0 and CUBLAS_OP_T is 1.
            matmul.set(side, i32::from(turned))?;
        }
        if let Some((which, row)) = row(product.epilogue) {
            matmul.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, which as u32)?;
            matmul.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, row.0)?;
        }
        Ok(matmul)
    }

    fn set<T: Copy>(
        &self,
        which: sys::cublasLtMatmulDescAttributes_t,
        value: T,
    ) -> std::result::Result<(), result::CublasError> {
        let (value, bytes) = ((&raw const value).cast(), size_of::<T>());
        // SAFETY: the attributes that are set have the types of the values.
        unsafe { result::set_matmul_desc_attribute(self.description, which, value, bytes) }
    }
}

impl Drop for Matmul {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once.
        let _ = unsafe { result::destroy_matmul_desc(self.description) };
    }
}

/// How the library is to choose, given back at the end.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(product: &Product) -> std::result::Result<Self, result::CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(result::create_matmul_pref()?);
        let bytes = WORKSPACE_BYTES;
        let which = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: the attribute has this type.
        unsafe {
            result::set_matmul_pref_attribute(
                preference.0,
                which,
                (&raw const bytes).cast(),
                size_of_val(&bytes),
            )?;
        }
        // The row of an epilogue has no preference of its own: what is promised of D holds for it too.
        let row = row(product.epilogue).map_or(u32::MAX, |(_, row)| aligned(row.0));
        let d = alignment(product.c, product.c_step).min(row);
        for (which, bytes) in [
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                alignment(product.b, product.b_step),
            ),
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                alignment(product.a, product.a_step),
            ),
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                alignment(product.added, product.c_step),
            ),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d),
        ] {
            // SAFETY: the attribute has this type.
            unsafe {
                result::set_matmul_pref_attribute(
                    preference.0,
                    which,
                    (&raw const bytes).cast(),
                    size_of_val(&bytes),
                )?;
            }
        }
        Ok(preference)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
