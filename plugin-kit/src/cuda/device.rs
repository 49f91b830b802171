//! What the engine asks of a device: memory, launches, matrix products and recordings. The driver's
//! form is [`super::driver`]; the tests bring one that executes the same kernels on the CPU. Nothing
//! here knows an operation.

use std::any::Any;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::variables::GUARD;

use super::storage::Storage;
use crate::model::is_set;
use crate::precision::Precision;

/// An address in device memory; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Ptr(pub u64);

impl Ptr {
    /// The address of value `index` of float32 values (or of any four-byte type) from here on.
    pub fn value(self, index: usize) -> Self {
        Self(self.0 + 4 * index as u64)
    }
}

/// CUDA C++ of an operation, owned by whoever owns the operation. `common.cuh` of the kit is in front
/// of it when it is compiled, then the declarations of its kernels' parameters; a line `#include "mma.cuh"` brings the
/// kit's products on tensor cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSource {
    /// File name for compile errors.
    pub file: &'static str,
    /// The source text, by `include_str!`.
    pub text: &'static str,
    /// The structs in which its kernels take their parameters, made by [`kernel_params!`](crate::kernel_params!).
    pub params: &'static [Struct],
}

/// A kernel by name in its source.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Where it stands.
    pub source: &'static KernelSource,
    /// Its name there.
    pub name: &'static str,
}

/// Grid, block and dynamic shared memory of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

impl Launch {
    /// Blocks and threads in one dimension.
    pub fn flat(blocks: usize, threads: u32) -> Self {
        Self::of([blocks, 1, 1], threads)
    }

    /// A grid of blocks of `threads` in one dimension. What does not fit 32 bits is as much as does, which
    /// every device refuses.
    pub fn of(grid: [usize; 3], threads: u32) -> Self {
        Self {
            grid: grid.map(|blocks| u32::try_from(blocks).unwrap_or(u32::MAX)),
            block: [threads, 1, 1],
            shared_bytes: 0,
        }
    }

    /// One thread for each of `count` values, in blocks of 256.
    pub fn for_each(count: usize) -> Self {
        Self::flat(count.div_ceil(256), 256)
    }

    /// The same with dynamic shared memory for `values` float32 values. What does not fit 32 bits is as much
    /// as does, which every device refuses.
    pub fn with_shared(self, values: usize) -> Self {
        Self {
            shared_bytes: u32::try_from(values.saturating_mul(4)).unwrap_or(u32::MAX),
            ..self
        }
    }
}

/// A kernel's one parameter: plain data, laid out as the struct of the same name that its source begins with.
/// [`kernel_params!`](crate::kernel_params!) makes such types.
pub trait KernelParams: Copy + 'static {
    /// The bytes that the kernel reads.
    fn bytes(&self) -> &[u8];
}

/// A struct as C++ declares it. It is kept as the text of its declaration in Rust, which takes a library a tenth of what a
/// list of names and types does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Struct {
    /// Its name, which is that of the Rust struct.
    pub name: &'static str,
    /// The struct whose fields stand in front of its own, as if they were its own.
    pub base: Option<&'static str>,
    /// Type and name of each field, as `kernel_params!` got them, with a comma behind.
    pub fields: &'static str,
    /// How many of its type each field is: 1, or the length of an array.
    pub counts: &'static [u16],
}

impl std::fmt::Display for Struct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let base = self.base.map(|base| format!(" : {base}"));
        writeln!(f, "struct {}{} {{", self.name, base.unwrap_or_default())?;
        let fields = self.fields.split_terminator(',');
        for (field, &count) in fields.zip(self.counts) {
            let (kind, name) = field.rsplit_once(' ').ok_or(std::fmt::Error)?;
            let (kind, count) = match kind.strip_prefix('[') {
                Some(array) => {
                    let element = array.rsplit_once(';').ok_or(std::fmt::Error)?.0;
                    (element, format!("[{count}]"))
                }
                None => (kind, String::new()),
            };
            writeln!(f, "    {} {name}{count};", in_cpp(kind))?;
        }
        writeln!(f, "}};")
    }
}

/// A type of [`Field`] as C++ has it.
fn in_cpp(kind: &str) -> String {
    let of = |kind: &str| match in_cpp(kind) {
        // Which need not be declared before.
        name if name.starts_with(char::is_uppercase) => format!("struct {name}"),
        name => name,
    };
    if let Some(read) = kind.strip_prefix("*const ") {
        return format!("const {}*", of(read));
    }
    if let Some(written) = kind.strip_prefix("*mut ") {
        return format!("{}*", of(written));
    }
    let name = match kind {
        "u16" => "unsigned short",
        "i32" => "int",
        "f32" => "float",
        "f64" => "double",
        "Stored" => "stored",
        // `u32` and `u64` are of common.cuh, others structs; where they stand in Rust is not part of their name.
        other => other.rsplit("::").next().unwrap_or(other),
    };
    name.to_owned()
}

/// What a field is in Rust and in C++.
pub trait Field {
    /// Its type in Rust: of an address [`Ptr`], whatever it is of.
    type Value: Copy + std::fmt::Debug + 'static;
    /// How many of its type it is.
    const COUNT: u16 = 1;
}

/// What an address may be of.
pub trait Pointee {}

/// A value of an activation or of an activation's gradient, as the device stores them ([`Storage`]): `stored` in C++,
/// which kernels read as float32 and assign float32 to. There is none in Rust.
#[derive(Debug, Clone, Copy)]
pub enum Stored {}

impl Pointee for Stored {}

impl<T: Pointee> Field for *const T {
    type Value = Ptr;
}

impl<T: Pointee> Field for *mut T {
    type Value = Ptr;
}

impl<F: Field, const N: usize> Field for [F; N] {
    type Value = [F::Value; N];
    const COUNT: u16 = N as u16;
}

macro_rules! plain {
    ($($kind:ty),+) => {
        $(impl Pointee for $kind {}

        impl Field for $kind {
            type Value = Self;
        })+
    };
}

plain!(u16, u32, u64, i32, f32, f64);

/// A struct of addresses (`*const f32` of what a kernel reads, `*mut f32` of what it writes), `u64`, `f64`, `u32`, `i32`
/// and `f32` fields, arrays of these and other such structs, laid out as C does it, as a kernel's one parameter.
/// An address of an activation, of its gradient or of a copy of either is one of [`Stored`](crate::cuda::device::Stored)
/// values, which need not be float32; of parameters, their gradients, states, statistics, losses and sums one of `f32`. It is
/// the one declaration: in Rust an address is a [`Ptr`], and the struct in C++, its constant `CPP`, is put in front of
/// the sources that list it. Fields of eight bytes come first and those of four in an even number, so that there is no
/// padding; a struct with padding does not compile. `struct More: Base as base { .. }` has the fields of another such struct
/// in front of its own: in C++ it derives from it, in Rust they are its field `base`.
///
/// ```
/// use longhaul_plugin_kit::cuda::device::{KernelParams, Ptr, Stored};
/// longhaul_plugin_kit::kernel_params! {
///     /// y = w x.
///     struct Scaling { x: *const Stored, y: *mut Stored, w: *const f32, count: u32, unused: u32 }
/// }
/// let params = Scaling { x: Ptr(1), y: Ptr(2), w: Ptr(3), count: 3, unused: 0 };
/// assert_eq!(params.bytes().len(), 32);
/// assert!(Scaling::CPP.to_string().contains("const stored* x;"));
/// assert!(Scaling::CPP.to_string().contains("const float* w;"));
/// ```
#[macro_export]
macro_rules! kernel_params {
    (
        $(#[$meta:meta])* $visibility:vis struct $name:ident $(: $base:ident as $own:ident)?
        { $($(#[$field_meta:meta])* $field:ident: $kind:ty),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        #[repr(C)]
        $visibility struct $name {
            $(pub $own: $base,)?
            $($(#[$field_meta])* pub $field: <$kind as $crate::cuda::device::Field>::Value),+
        }

        const _: () = assert!(
            size_of::<$name>() == 0 $(+ size_of::<$base>())? $(+ size_of::<$kind>())+,
            "a kernel's parameters have padding: put fields of eight bytes first, then an even number of four"
        );

        impl $name {
            /// The struct in C++.
            $visibility const CPP: $crate::cuda::device::Struct = $crate::cuda::device::Struct {
                name: stringify!($name),
                base: $crate::cuda::device::first(&[$(stringify!($base))?]),
                fields: concat!($(stringify!($kind), " ", stringify!($field), ","),+),
                counts: &[$(<$kind as $crate::cuda::device::Field>::COUNT),+],
            };
        }

        impl $crate::cuda::device::KernelParams for $name {
            fn bytes(&self) -> &[u8] {
                $crate::cuda::device::plain_bytes(self)
            }
        }

        impl $crate::cuda::device::Field for $name {
            type Value = Self;
        }

        impl $crate::cuda::device::Pointee for $name {}
    };
}

/// The name of a list of one; none of an empty list.
#[doc(hidden)]
pub const fn first(names: &[&'static str]) -> Option<&'static str> {
    match names {
        [name, ..] => Some(name),
        [] => None,
    }
}

/// The bytes of a struct made by [`kernel_params!`](crate::kernel_params!).
#[doc(hidden)]
pub fn plain_bytes<P: Copy + 'static>(params: &P) -> &[u8] {
    // SAFETY: the struct is repr(C), Copy and without padding (the macro asserts it), so every byte is
    // initialised; it is borrowed for as long as the slice lives.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(params).cast::<u8>(), size_of::<P>()) }
}

/// A matrix in device memory: element (i, j) is value `i * row_stride + j`, or `j * row_stride + i`
/// where it is turned.
#[derive(Debug, Clone, Copy)]
pub struct DeviceMat {
    /// First value.
    pub data: Ptr,
    /// Rows as it is stored.
    pub rows: usize,
    /// Columns as it is stored.
    pub cols: usize,
    /// Distance from stored row to stored row, in values.
    pub row_stride: usize,
    /// Whether the transpose is meant.
    pub turned: bool,
}

impl DeviceMat {
    /// Rows of `cols` contiguous values, `row_stride` apart.
    pub fn new(data: Ptr, rows: usize, cols: usize, row_stride: usize) -> Self {
        Self {
            data,
            rows,
            cols,
            row_stride,
            turned: false,
        }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        Self {
            turned: !self.turned,
            ..self
        }
    }

    /// Rows as it is meant.
    pub fn height(self) -> usize {
        if self.turned { self.cols } else { self.rows }
    }

    /// Columns as it is meant.
    pub fn width(self) -> usize {
        if self.turned { self.rows } else { self.cols }
    }
}

/// What a product does besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// Adds this row, as wide as the result, to every row of the result.
    AddRow(Ptr),
    /// Leaves the sums of the left factor's rows here, as many as the result has rows: with `dyᵀ` for the left factor,
    /// the gradient of a bias.
    RowSums(Ptr),
}

/// A batch of products of the same sizes: `c = alpha a b + beta added` for each of `count`, with the
/// matrices' first values `a_step`, `b_step` and `c_step` values apart from one to the next. With
/// `beta` 0 the content of `added` is not read.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Left factor of the first product.
    pub a: DeviceMat,
    /// Right factor.
    pub b: DeviceMat,
    /// Place of the result, never turned.
    pub c: DeviceMat,
    /// What is added: c itself, as it was, or another matrix of c's sizes, of a batch as far apart.
    pub added: DeviceMat,
    /// Factor on the product.
    pub alpha: f32,
    /// Factor on what is added.
    pub beta: f32,
    /// What it does besides, not of a batch.
    pub epilogue: Epilogue,
    /// Products.
    pub count: usize,
    /// Values from a to the next a.
    pub a_step: usize,
    /// Values from b to the next b.
    pub b_step: usize,
    /// Values from c to the next c.
    pub c_step: usize,
}

impl Product {
    /// One product, `c = alpha a b + beta c`.
    pub fn one(a: DeviceMat, b: DeviceMat, c: DeviceMat, alpha: f32, beta: f32) -> Self {
        Self {
            a,
            b,
            c,
            added: c,
            alpha,
            beta,
            epilogue: Epilogue::None,
            count: 1,
            a_step: 0,
            b_step: 0,
            c_step: 0,
        }
    }

    /// The same, added to a matrix.
    pub fn plus(self, added: DeviceMat) -> Self {
        Self {
            added,
            beta: 1.0,
            ..self
        }
    }
}

/// What was recorded: a list of launches, products and copies that [`Device::replay`] runs as one.
pub trait Recording: Any + Send {
    /// How many launches, products, fills and copies it has: what a replay's time and a recording's memory grow with.
    fn nodes(&self) -> usize;
}

/// A device. Work is in order: everything is on one stream, and only [`Device::download`] and
/// [`Device::synchronize`] wait for it.
pub trait Device: Send + Sync {
    /// How exactly products are taken, [`Device::product`] and those inside kernels: strictly, unless the
    /// device was asked for less.
    fn precision(&self) -> Precision {
        Precision::Float32
    }

    /// How activations and their gradients are stored: as float32. Only the tests' devices store them otherwise.
    fn storage(&self) -> Storage {
        Storage::Float32
    }

    /// Whether buffers have bands between them, see [`super::guards`]: where `LONGHAUL_GUARD` asks for them.
    fn guarded(&self) -> bool {
        is_set(std::env::var(GUARD).ok().as_deref())
    }

    /// Memory for `bytes`, its content arbitrary.
    ///
    /// # Errors
    /// Memory is exhausted.
    fn allocate(&self, bytes: usize) -> Result<Ptr>;

    /// Gives back what [`Device::allocate`] gave.
    fn free(&self, memory: Ptr);

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// The device's.
    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()>;

    /// Waits for all work, then copies bytes from the device.
    ///
    /// # Errors
    /// The device's, also of earlier work.
    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()>;

    /// Copies inside the device.
    ///
    /// # Errors
    /// The device's.
    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()>;

    /// Writes a four-byte word over and over.
    ///
    /// # Errors
    /// The device's.
    fn fill(&self, to: Ptr, word: u32, count: usize) -> Result<()>;

    /// Writes a four-byte word into rows of columns; `sizes` are their numbers and the values from row to row.
    ///
    /// # Errors
    /// The device's.
    fn fill_rows(&self, to: Ptr, word: u32, sizes: [usize; 3]) -> Result<()>;

    /// Compiles sources, so that launches of their kernels find them.
    ///
    /// # Errors
    /// The compiler's log, with file and line.
    fn load(&self, sources: &[&'static KernelSource]) -> Result<()>;

    /// Runs a kernel with one parameter of these bytes.
    ///
    /// # Errors
    /// A limit that the launch passes; an unknown kernel.
    fn launch(&self, kernel: Kernel, launch: Launch, params: &[u8]) -> Result<()>;

    /// Matrix products of float32 values in the device's precision.
    ///
    /// # Errors
    /// The library's.
    fn product(&self, product: Product) -> Result<()>;

    /// Whether it has a way to take a product with its epilogue; without one it always has.
    ///
    /// # Errors
    /// The library's.
    fn takes(&self, _product: &Product) -> Result<bool> {
        Ok(true)
    }

    /// Calls `work` once and keeps what it does for [`Device::replay`]. Nothing of it has run yet.
    ///
    /// # Errors
    /// Those of `work`; the device's.
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Recording>>;

    /// Runs what was recorded.
    ///
    /// # Errors
    /// The device's.
    fn replay(&self, recording: &dyn Recording) -> Result<()>;

    /// Waits for all work.
    ///
    /// # Errors
    /// The device's, also of earlier work.
    fn synchronize(&self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::Ptr;

    const MOST: usize = 3;

    kernel_params! {
        struct Inner { scale: f64, shift: i32, unused: u32 }
    }

    kernel_params! {
        struct Outer: Inner as inner {
            read: [*const f32; MOST], written: *mut Inner, control: *const crate::cuda::run::Control, halves: *mut u16,
            own: Inner, sizes: [u32; MOST], count: u32,
        }
    }

    #[test]
    fn parameters_are_declared_in_cpp_as_in_rust() {
        let inner = "struct Inner {\n    double scale;\n    int shift;\n    u32 unused;\n};\n";
        assert_eq!(Inner::CPP.to_string(), inner);
        let outer = "struct Outer : Inner {\n    const float* read[3];\n    struct Inner* written;\n    \
                     const struct Control* control;\n    unsigned short* halves;\n    Inner own;\n    u32 sizes[3];\n    \
                     u32 count;\n};\n";
        assert_eq!(Outer::CPP.to_string(), outer);
        let inner = Inner {
            scale: 0.0,
            shift: 0,
            unused: 0,
        };
        let outer = Outer {
            inner,
            read: [Ptr::default(); MOST],
            written: Ptr::default(),
            control: Ptr::default(),
            halves: Ptr::default(),
            own: inner,
            sizes: [0; MOST],
            count: 0,
        };
        let bytes = super::KernelParams::bytes(&outer);
        assert_eq!(bytes.len(), 16 + 3 * 8 + 3 * 8 + 16 + 16);
    }
}
