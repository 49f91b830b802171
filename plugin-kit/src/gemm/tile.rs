//! What multiplies tiles of bfloat16 factors: AMX where the processor has it, AVX512-BF16, or plain loops. It knows
//! nothing of matrices.
//!
//! Sources: Intel's Architectures Software Developer's Manual, volume 2, LDTILECFG, TILELOADD, TDPBF16PS and
//! VDPBF16PS; the Linux kernel's Documentation/arch/x86/xstate.rst for the permission.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::sync::OnceLock;

use crate::simd::{Level, level};

/// Rows of a tile, and words in one of them.
pub(super) const SIDE: usize = 16;

/// Factors along k in a tile: two a word.
pub(super) const DEPTH: usize = 2 * SIDE;

/// Rows and columns of what a unit multiplies at a time: two tiles by two.
pub(super) const BLOCK: usize = 2 * SIDE;

/// 16 rows of 16 words, a word being two factors that follow each other along k, the first in its low half. A tile of
/// a has a row of a in each row, one of b a column of b in each column. None holds a factor between 0 and 2^-126.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile(pub [[u32; SIDE]; SIDE]);

impl Tile {
    pub const ZERO: Self = Self([[0; SIDE]; SIDE]);

    /// Rows as columns.
    pub fn turned(&self) -> Self {
        let mut turned = Self::ZERO;
        for (at, row) in self.0.iter().enumerate() {
            for (turned, &word) in turned.0.iter_mut().zip(row) {
                turned[at] = word;
            }
        }
        turned
    }
}

/// Sums of products.
#[derive(Clone, PartialEq, Debug)]
#[repr(C, align(64))]
pub(super) struct Block(pub [[f32; BLOCK]; BLOCK]);

impl Block {
    pub const ZERO: Self = Self([[0.0; BLOCK]; BLOCK]);
}

/// What multiplies tiles.
pub(super) trait Unit: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Calls `work`, which multiplies on the calling thread only.
    fn within(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Sums of products of two strips of rows and two of columns; a strip is as many tiles along k as the other, at
    /// least one. Only the first `rows` and `cols` of `sums` need be written. Called from what
    /// [`within`](Unit::within) calls.
    fn multiply(&self, a: &[Tile], b: &[Tile], rows: usize, cols: usize, sums: &mut Block);
}

/// Those of this processor, the fastest first, below what `LONGHAUL_SIMD` allows.
pub(super) fn units() -> &'static [&'static dyn Unit] {
    static UNITS: OnceLock<Vec<&'static dyn Unit>> = OnceLock::new();
    UNITS.get_or_init(|| {
        let mut units: Vec<&'static dyn Unit> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if level() == Level::V4 {
            #[cfg(target_os = "linux")]
            units.extend(Amx::here().map(|unit| unit as &dyn Unit));
            units.extend(Avx512::here().map(|unit| unit as &dyn Unit));
        }
        units.push(&Plain);
        units
    })
}

/// Loops for the vectoriser. Sums are taken in the order of AMX, so they are the same bytes, save that here nothing is
/// flushed to 0: for every 32 along k those of even and of odd places on their own, upwards, then both together to what
/// was there. Products of two factors are exact, so there is no need of fused multiply-adds.
pub(super) struct Plain;

impl Unit for Plain {
    fn name(&self) -> &'static str {
        match level() {
            Level::V4 => "AVX-512",
            Level::V3 => "AVX2",
            Level::Baseline => "plain loops",
        }
    }

    fn multiply(&self, a: &[Tile], b: &[Tile], rows: usize, cols: usize, sums: &mut Block) {
        plain(a, b, rows, cols, sums);
    }
}

/// Rows and columns whose sums stay in registers.
const ROWS: usize = 4;
const LANES: usize = 8;

crate::simd! {
    fn plain(a: &[Tile], b: &[Tile], rows: usize, cols: usize, sums: &mut Block) {
        *sums = Block::ZERO;
        let steps = a.len() / 2;
        for step in 0..steps {
            for top in (0..rows).step_by(SIDE) {
                let tile = &a[top / SIDE * steps + step];
                let (mut even, mut odd) = ([[0.0f32; SIDE]; SIDE], [[0.0f32; SIDE]; SIDE]);
                for row in 0..SIDE {
                    for pair in 0..SIDE {
                        even[row][pair] = low(tile.0[row][pair]);
                        odd[row][pair] = high(tile.0[row][pair]);
                    }
                }
                for left in (0..cols).step_by(LANES) {
                    let tile = &b[left / SIDE * steps + step];
                    for row in (top..rows.min(top + SIDE)).step_by(ROWS) {
                        let (even, odd) = (&even[row - top..][..ROWS], &odd[row - top..][..ROWS]);
                        let mut evens = [[0.0f32; LANES]; ROWS];
                        let mut odds = [[0.0f32; LANES]; ROWS];
                        for (pair, words) in tile.0.iter().enumerate() {
                            let words = &words[left % SIDE..][..LANES];
                            for r in 0..ROWS {
                                for lane in 0..LANES {
                                    evens[r][lane] += even[r][pair] * low(words[lane]);
                                    odds[r][lane] += odd[r][pair] * high(words[lane]);
                                }
                            }
                        }
                        for r in 0..ROWS {
                            let sums = &mut sums.0[row + r][left..left + LANES];
                            for lane in 0..LANES {
                                sums[lane] += evens[r][lane] + odds[r][lane];
                            }
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn low(word: u32) -> f32 {
    f32::from_bits(word << 16)
}

#[inline(always)]
fn high(word: u32) -> f32 {
    f32::from_bits(word & 0xffff_0000)
}

/// AVX512-BF16, `vdpbf16ps`: a pair's odd product is added, then its even one, each rounded; what is below 2^-126 is
/// flushed to 0.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// Where the processor has it.
    pub fn here() -> Option<&'static Self> {
        let is_here = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        is_here.then_some(&Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Unit for Avx512 {
    fn name(&self) -> &'static str {
        "AVX512-BF16"
    }

    fn multiply(&self, a: &[Tile], b: &[Tile], rows: usize, _: usize, sums: &mut Block) {
        // SAFETY: `here` alone makes one, where the processor has the instruction.
        unsafe { dot_products(a, b, rows, sums) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_products(a: &[Tile], b: &[Tile], rows: usize, sums: &mut Block) {
    /// Rows whose sums stay in registers, two each: enough to have a sum ready when its next term is.
    const ROWS: usize = 8;
    let steps = a.len() / 2;
    // SAFETY: the type says how 512 bits are read, and any bits will do.
    let factors = |words: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(words) };
    // SAFETY: a tile's row is 512 bits.
    let load = |row: &[u32; SIDE]| factors(unsafe { _mm512_loadu_si512(row.as_ptr().cast()) });
    for row in (0..rows).step_by(ROWS) {
        let mut block = [[_mm512_setzero_ps(); 2]; ROWS];
        for step in 0..steps {
            let lines = &a[row / SIDE * steps + step].0[row % SIDE..][..ROWS];
            let (left, right) = (&b[step].0, &b[steps + step].0);
            for pair in 0..SIDE {
                let (left, right) = (load(&left[pair]), load(&right[pair]));
                for (sums, line) in block.iter_mut().zip(lines) {
                    let line = factors(_mm512_set1_epi32(line[pair] as i32));
                    sums[0] = _mm512_dpbf16_ps(sums[0], line, left);
                    sums[1] = _mm512_dpbf16_ps(sums[1], line, right);
                }
            }
        }
        for (sums, block) in sums.0[row..].iter_mut().zip(block) {
            let (left, right) = sums.split_at_mut(SIDE);
            // SAFETY: either half of a row of 32 values is 512 bits.
            unsafe {
                _mm512_storeu_ps(left.as_mut_ptr(), block[0]);
                _mm512_storeu_ps(right.as_mut_ptr(), block[1]);
            }
        }
    }
}

/// AMX, `tdpbf16ps`: eight registers of a tile each, four of sums, two of a and two of b. Sums are [`Plain`]'s, save
/// that what is below 2^-126 is flushed to 0.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) struct Amx(());

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
impl Amx {
    /// Where the processor has it, and the system lets this process use it.
    pub fn here() -> Option<&'static Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        let allowed = *ALLOWED.get_or_init(|| Self::is_offered() && Self::is_allowed());
        allowed.then_some(&Self(()))
    }

    /// Leaf 7 says AMX-BF16 (EDX, bit 22) and AMX-TILE (bit 24), and the system keeps both of its states (bits 17 and
    /// 18 of XCR0).
    fn is_offered() -> bool {
        if !is_x86_feature_detected!("xsave") || __cpuid(0).eax < 7 {
            return false;
        }
        let (bf16, tile) = (1 << 22, 1 << 24);
        let states = 3 << 17;
        // SAFETY: the processor has xsave, and the system lets it be used: both are part of the detection.
        let kept = unsafe { _xgetbv(0) };
        __cpuid_count(7, 0).edx & (bf16 | tile) == bf16 | tile && kept & states == states
    }

    /// Asks for the tiles' 8 KiB of state, once for all threads.
    fn is_allowed() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
        const XFEATURE_XTILEDATA: i64 = 18;
        let mut result = ARCH_PRCTL;
        // SAFETY: the call reads no memory of this process; it returns 0 or an error.
        unsafe {
            std::arch::asm!(
                "syscall",
                inout("rax") result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }
}

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
static SHAPES: Shapes = Shapes {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
impl Unit for Amx {
    fn name(&self) -> &'static str {
        "AMX"
    }

    fn within(&self, work: &mut dyn FnMut()) {
        struct Release;
        impl Drop for Release {
            fn drop(&mut self) {
                // SAFETY: there is AMX, or nothing would have been set up.
                unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) }
            }
        }
        // SAFETY: `here` alone makes a unit, where there is AMX; the shapes are 64 bytes that palette 1 allows.
        unsafe {
            std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly));
        }
        let _release = Release;
        work();
    }

    fn multiply(&self, a: &[Tile], b: &[Tile], _: usize, _: usize, sums: &mut Block) {
        let steps = a.len() / 2;
        assert!(steps > 0 && a.len() == 2 * steps && b.len() == a.len());
        // SAFETY: `here` alone makes a unit, where there is AMX, and `within` has set the tiles up. Both sides are two
        // strips of `steps` tiles of 1,024 bytes, which the loop goes through once; the block is four tiles whose rows
        // are 128 bytes apart. The compiler keeps nothing in tiles, and is told which are changed.
        unsafe {
            std::arch::asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b} + {row}]",
                "tileloadd tmm7, [{b_right} + {row}]",
                "tileloadd tmm5, [{a_below} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 1024",
                "add {a_below}, 1024",
                "add {b}, 1024",
                "add {b_right}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {sums_row}], tmm0",
                "tilestored [{sums} + {sums_row} + 64], tmm1",
                "tilestored [{sums} + {sums_row} + 2048], tmm2",
                "tilestored [{sums} + {sums_row} + 2112], tmm3",
                a = inout(reg) a.as_ptr() => _,
                a_below = inout(reg) a[steps..].as_ptr() => _,
                b = inout(reg) b.as_ptr() => _,
                b_right = inout(reg) b[steps..].as_ptr() => _,
                steps = inout(reg) steps => _,
                row = in(reg) 64usize,
                sums = in(reg) sums.0.as_mut_ptr(),
                sums_row = in(reg) 128usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

#[cfg(test)]
pub(super) mod emulated {
    //! The instructions' documented arithmetic, element by element: factors and sums below 2^-126 are 0, every
    //! multiply-add is rounded once, to the nearest even.

    use super::*;

    /// A value as the units take it and give it.
    fn flushed(value: f32) -> f32 {
        if value.abs() < f32::MIN_POSITIVE {
            0.0f32.copysign(value)
        } else {
            value
        }
    }

    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        flushed(flushed(a).mul_add(flushed(b), flushed(c)))
    }

    fn add(a: f32, b: f32) -> f32 {
        flushed(flushed(a) + flushed(b))
    }

    /// `tdpbf16ps`: sums of even and of odd places on their own, then both together to what was there.
    pub fn tile_products(a: &Tile, b: &Tile, sums: &mut [[f32; SIDE]; SIDE]) {
        for (line, sums) in a.0.iter().zip(sums) {
            for (column, sum) in sums.iter_mut().enumerate() {
                let (mut even, mut odd) = (0.0, 0.0);
                for (&a, b) in line.iter().zip(&b.0) {
                    even = multiply_add(low(a), low(b[column]), even);
                    odd = multiply_add(high(a), high(b[column]), odd);
                }
                *sum = add(*sum, add(even, odd));
            }
        }
    }

    /// Two tiles by two, step by step.
    pub struct Amx;

    impl Unit for Amx {
        fn name(&self) -> &'static str {
            "emulated AMX"
        }

        fn multiply(&self, a: &[Tile], b: &[Tile], _: usize, _: usize, block: &mut Block) {
            let steps = a.len() / 2;
            for (i, a) in a.chunks(steps).enumerate() {
                for (j, b) in b.chunks(steps).enumerate() {
                    let mut sums = [[0.0; SIDE]; SIDE];
                    a.iter()
                        .zip(b)
                        .for_each(|(a, b)| tile_products(a, b, &mut sums));
                    for (to, from) in block.0[i * SIDE..].iter_mut().zip(sums) {
                        to[j * SIDE..][..SIDE].copy_from_slice(&from);
                    }
                }
            }
        }
    }

    /// `vdpbf16ps`: of every pair the odd product is added first.
    pub struct Avx512;

    impl Unit for Avx512 {
        fn name(&self) -> &'static str {
            "emulated AVX512-BF16"
        }

        fn multiply(&self, a: &[Tile], b: &[Tile], _: usize, _: usize, block: &mut Block) {
            let steps = a.len() / 2;
            for (row, sums) in block.0.iter_mut().enumerate() {
                for (column, sum) in sums.iter_mut().enumerate() {
                    *sum = 0.0;
                    for step in 0..steps {
                        let line = &a[row / SIDE * steps + step].0[row % SIDE];
                        let tile = &b[column / SIDE * steps + step].0;
                        for (&a, b) in line.iter().zip(tile) {
                            let b = b[column % SIDE];
                            *sum = multiply_add(high(a), high(b), *sum);
                            *sum = multiply_add(low(a), low(b), *sum);
                        }
                    }
                }
            }
        }
    }
}

/// The instructions of [`Amx`] by a handler of the signal that a processor without them sends, so that the very lines
/// that run elsewhere run in tests: what they load, where from, and what they do with it.
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(super) mod trapped {
    use std::cell::UnsafeCell;

    use super::*;

    struct Tiles {
        set_up: bool,
        registers: [Tile; 8],
    }

    thread_local! {
        static TILES: UnsafeCell<Tiles> = const {
            UnsafeCell::new(Tiles { set_up: false, registers: [Tile::ZERO; 8] })
        };
    }

    /// Lets the instructions work from here on, and gives the unit that is made of them.
    pub fn unit() -> &'static Amx {
        // SAFETY: a handler of that form is what SA_SIGINFO asks for; all else of the action is zero, which is allowed.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(
                libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()),
                0
            );
        }
        &Amx(())
    }

    /// Steps over the instruction after doing what it says; ends the process at any other.
    extern "C" fn handle(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the system gives the context of the thread that stopped, which no one else looks at, and its
        // instruction pointer is at the bytes of the instruction. The tiles are this thread's.
        unsafe {
            let values = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
            let at = values[libc::REG_RIP as usize] as *const u8;
            let done = TILES.with(|tiles| step(&mut *tiles.get(), at, values));
            match done {
                Some(length) => values[libc::REG_RIP as usize] += length as i64,
                None => libc::abort(),
            }
        }
    }

    /// A general register by its number in an instruction.
    fn register(values: &[i64], number: u8) -> i64 {
        use libc::*;
        const ORDER: [i32; 16] = [
            REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9,
            REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
        ];
        values[ORDER[usize::from(number)] as usize]
    }

    /// Does the instruction at `at`, and gives its length; none where it is not one of them.
    ///
    /// # Safety
    /// There is an instruction, and it may read and write what it says.
    unsafe fn step(tiles: &mut Tiles, at: *const u8, values: &[i64]) -> Option<usize> {
        // SAFETY: an instruction has as many bytes as are asked for here, one after the other.
        let byte = |index: usize| unsafe { *at.add(index) };
        // Three bytes of VEX with the map 0F38, 128 bits, W0; of the inverted bits, R must be set: tiles are eight.
        if byte(0) != 0xc4 || byte(1) & 0x9f != 0x82 || byte(2) & 0x84 != 0 {
            return None;
        }
        let (prefix, other) = (byte(2) & 3, usize::from(!byte(2) >> 3 & 15));
        let (mode, reg, rm) = (
            byte(4) >> 6,
            usize::from(byte(4) >> 3 & 7),
            usize::from(byte(4) & 7),
        );
        match (prefix, byte(3), mode) {
            (3, 0x49, 3) if rm == 0 && tiles.set_up => tiles.registers[reg] = Tile::ZERO,
            (0, 0x49, 3) if reg == 0 && rm == 0 => tiles.set_up = false,
            (2, 0x5c, 3) if tiles.set_up && reg != rm && reg != other && rm != other => {
                let mut sums = tiles.registers[reg].0.map(|row| row.map(f32::from_bits));
                emulated::tile_products(&tiles.registers[rm], &tiles.registers[other], &mut sums);
                tiles.registers[reg] = Tile(sums.map(|row| row.map(f32::to_bits)));
            }
            (_, _, 3) => return None,
            (0, 0x49, _) if reg == 0 => {
                let (from, length) = address(&byte, values)?;
                // SAFETY: by the caller.
                let shapes = unsafe { *(from as *const [u8; 64]) };
                let mut expected = [0; 64];
                expected[0] = 1;
                expected[48..56].fill(16);
                expected[16..32].as_chunks_mut::<2>().0.fill([64, 0]);
                assert_eq!(shapes, expected, "eight tiles of 16 rows of 64 bytes");
                (tiles.set_up, tiles.registers) = (true, [Tile::ZERO; 8]);
                return Some(length);
            }
            (3 | 2, 0x4b, _) if rm == 4 && tiles.set_up => {
                let (start, length) = address(&byte, values)?;
                let index = byte(5) >> 3 & 7 | (!byte(1) >> 3 & 8);
                let stride = register(values, index) << (byte(5) >> 6);
                for (line, words) in tiles.registers[reg].0.iter_mut().enumerate() {
                    let place = (start + line as i64 * stride) as *mut [u32; SIDE];
                    // SAFETY: by the caller.
                    unsafe {
                        match prefix {
                            3 => *words = place.read_unaligned(),
                            _ => place.write_unaligned(*words),
                        }
                    }
                }
                return Some(length);
            }
            _ => return None,
        }
        Some(5)
    }

    /// Base and displacement, and the length of an instruction with them; a row's distance, the index, is left out.
    fn address(byte: &impl Fn(usize) -> u8, values: &[i64]) -> Option<(i64, usize)> {
        let (mode, rm) = (byte(4) >> 6, byte(4) & 7);
        let (base, next) = if rm == 4 { (byte(5) & 7, 6) } else { (rm, 5) };
        let displacement = match mode {
            0 if base == 5 => return None,
            0 => (0, 0),
            1 => (i64::from(byte(next) as i8), 1),
            _ => (
                i64::from(i32::from_le_bytes(
                    [0, 1, 2, 3].map(|index| byte(next + index)),
                )),
                4,
            ),
        };
        let base = register(values, base | (!byte(1) >> 2 & 8));
        Some((base + displacement.0, next + displacement.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(low: f32, high: f32) -> u32 {
        assert_eq!((low.to_bits() | high.to_bits()) & 0xffff, 0);
        low.to_bits() >> 16 | high.to_bits()
    }

    /// Strips of any bits: normal values of every size, infinities, NaN, and what is below 2^-126.
    fn any(steps: usize, seed: u64) -> Vec<Tile> {
        let mut state = seed;
        let mut tiles = vec![Tile::ZERO; 2 * steps];
        for word in tiles.iter_mut().flat_map(|tile| tile.0.as_flattened_mut()) {
            // Knuth's constants of MMIX, of which the upper half is good.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *word = (state >> 32) as u32;
        }
        tiles
    }

    /// Bits of a block, all NaN being one.
    fn bits(block: &Block) -> Vec<u32> {
        let values = block.0.as_flattened().iter();
        values
            .map(|value| {
                if value.is_nan() {
                    f32::NAN.to_bits()
                } else {
                    value.to_bits()
                }
            })
            .collect()
    }

    fn hold(unit: Option<&dyn Unit>, emulated: &dyn Unit) {
        let Some(unit) = unit else {
            eprintln!("not run: this processor is not one for {}", emulated.name());
            return;
        };
        for (steps, spread) in [
            (1, 0xffff_ffff),
            (2, 0xbfff_bfff),
            (5, 0x3fff_3fff),
            (33, 0xbfff_bfff),
        ] {
            let [a, b] = [1, 2].map(|seed| {
                let mut tiles = any(steps, seed + steps as u64);
                // A spread without the top bit of the exponent has no infinities.
                tiles
                    .iter_mut()
                    .flat_map(|tile| tile.0.as_flattened_mut())
                    .for_each(|word| *word &= spread);
                tiles
            });
            let (mut got, mut expected) = (Block([[f32::NAN; BLOCK]; BLOCK]), Block::ZERO);
            unit.within(&mut || unit.multiply(&a, &b, BLOCK, BLOCK, &mut got));
            emulated.multiply(&a, &b, BLOCK, BLOCK, &mut expected);
            let pairs = bits(&got).into_iter().zip(bits(&expected));
            let differing = pairs.filter(|(got, expected)| got != expected).count();
            assert_eq!(differing, 0, "{}, {steps} steps", unit.name());
        }
    }

    #[test]
    fn instructions_do_what_their_documentation_says() {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        hold(
            Some(Amx::here().unwrap_or_else(trapped::unit)),
            &emulated::Amx,
        );
        #[cfg(target_arch = "x86_64")]
        hold(
            Avx512::here().map(|unit| unit as &dyn Unit),
            &emulated::Avx512,
        );
    }

    #[test]
    fn emulated_instructions_take_sums_in_their_order_and_flush() {
        let sum = |unit: &dyn Unit, pairs: [[f32; 4]; 2]| {
            let (mut a, mut b) = (vec![Tile::ZERO; 2], vec![Tile::ZERO; 2]);
            // Row 17 and column 3.
            for (at, [a_low, a_high, b_low, b_high]) in pairs.into_iter().enumerate() {
                a[1].0[1][at] = word(a_low, a_high);
                b[0].0[at][3] = word(b_low, b_high);
            }
            let mut sums = Block::ZERO;
            unit.multiply(&a, &b, BLOCK, BLOCK, &mut sums);
            assert!(sums.0[17][4] == 0.0 && sums.0[16][3] == 0.0);
            sums.0[17][3]
        };
        let large = 2.0f32.powi(30);
        // 2^30, then 1 in an even place and -2^30 in the odd one after it: the 1 is lost where it is added first, or to
        // sums of even places.
        let order = [[large, 0.0, 1.0, 0.0], [1.0, -large, 1.0, 1.0]];
        assert_eq!(sum(&emulated::Amx, order), 0.0);
        assert_eq!(sum(&Plain, order), 0.0);
        assert_eq!(sum(&emulated::Avx512, order), 1.0);
        // Half of the least normal number is none.
        let least = f32::MIN_POSITIVE;
        let flushed = [[least, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]];
        assert_eq!(sum(&emulated::Amx, flushed), 0.0);
        assert_eq!(sum(&emulated::Avx512, flushed), 0.0);
        assert_eq!(sum(&Plain, flushed), least / 2.0);
        // A factor below 2^-126, times 2^60.
        let zero = [[least / 2.0, 0.0, 2.0f32.powi(60), 0.0], [0.0; 4]];
        assert_eq!(sum(&emulated::Amx, zero), 0.0);
        assert_eq!(sum(&emulated::Avx512, zero), 0.0);
    }
}
