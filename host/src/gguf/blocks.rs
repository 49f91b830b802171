//! How ggml stores values: in blocks of a fixed number of values that share scales. One function a format, each the
//! formula of ggml's `dequantize_row_*` (ggml-quants.c); `d` and `m` are float16 scale and minimum.

use half::{bf16, f16};

/// A format of blocks.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// ggml's name.
    pub name: &'static str,
    /// Values a block.
    pub values: usize,
    /// Bytes a block.
    pub bytes: usize,
    decode: fn(&[u8], &mut [f32]),
}

/// Formats that are read, by ggml's number.
const FORMATS: &[(u32, Block)] = &[
    (
        0,
        block("F32", 1, 4, |b, y| {
            y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])
        }),
    ),
    (1, block("F16", 1, 2, |b, y| y[0] = half_at(b, 0))),
    (2, block("Q4_0", 32, 18, q4_0)),
    (3, block("Q4_1", 32, 20, q4_1)),
    (6, block("Q5_0", 32, 22, q5_0)),
    (7, block("Q5_1", 32, 24, q5_1)),
    (8, block("Q8_0", 32, 34, q8_0)),
    (10, block("Q2_K", 256, 84, q2_k)),
    (11, block("Q3_K", 256, 110, q3_k)),
    (12, block("Q4_K", 256, 144, q4_k)),
    (13, block("Q5_K", 256, 176, q5_k)),
    (14, block("Q6_K", 256, 210, q6_k)),
    (
        30,
        block("BF16", 1, 2, |b, y| {
            y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()
        }),
    ),
];

/// Names of formats that are not read, for messages.
const OTHERS: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

const fn block(
    name: &'static str,
    values: usize,
    bytes: usize,
    decode: fn(&[u8], &mut [f32]),
) -> Block {
    Block {
        name,
        values,
        bytes,
        decode,
    }
}

impl Block {
    /// The format of ggml's number.
    ///
    /// # Errors
    /// One that is not read, with those that are.
    pub fn of(code: u32) -> Result<Self, String> {
        if let Some((_, format)) = FORMATS.iter().find(|(known, _)| *known == code) {
            return Ok(*format);
        }
        let name = OTHERS.iter().find(|(known, _)| *known == code);
        let known: Vec<&str> = FORMATS.iter().map(|(_, format)| format.name).collect();
        Err(format!(
            "its values are stored as {}, which is not read; read are {}",
            name.map_or_else(|| format!("type {code}"), |(_, name)| (*name).to_owned()),
            known.join(", ")
        ))
    }

    /// Decodes whole blocks; `values` has as many values as they hold.
    pub fn decode(&self, blocks: &[u8], values: &mut [f32]) {
        let blocks = blocks.chunks_exact(self.bytes);
        for (block, values) in blocks.zip(values.chunks_exact_mut(self.values)) {
            (self.decode)(block, values);
        }
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The 32 values of 4 bits: low halves of 16 bytes, then high halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let low = bytes[..16].iter().map(|byte| byte & 15);
    low.chain(bytes[..16].iter().map(|byte| byte >> 4))
}

fn q4_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for (y, q) in y.iter_mut().zip(nibbles(&b[2..])) {
        *y = d * f32::from(q as i8 - 8);
    }
}

fn q4_1(b: &[u8], y: &mut [f32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for (y, q) in y.iter_mut().zip(nibbles(&b[4..])) {
        *y = d * f32::from(q) + m;
    }
}

/// The fifth bit of value `index`.
fn fifth(bits: &[u8], index: usize) -> u8 {
    (bits[index / 8] >> (index % 8) & 1) << 4
}

fn q5_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for (index, (y, q)) in y.iter_mut().zip(nibbles(&b[6..])).enumerate() {
        *y = d * f32::from((q | fifth(&b[2..6], index)) as i8 - 16);
    }
}

fn q5_1(b: &[u8], y: &mut [f32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for (index, (y, q)) in y.iter_mut().zip(nibbles(&b[8..])).enumerate() {
        *y = d * f32::from(q | fifth(&b[4..8], index)) + m;
    }
}

fn q8_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for (y, &q) in y.iter_mut().zip(&b[2..]) {
        *y = d * f32::from(q as i8);
    }
}

/// Sixteen runs of 16 values of 2 bits: scale and minimum of each have 4 bits of a byte.
fn q2_k(b: &[u8], y: &mut [f32]) {
    let (scales, quants) = (&b[..16], &b[16..80]);
    let (d, m) = (half_at(b, 80), half_at(b, 82));
    for (run, y) in y.chunks_exact_mut(16).enumerate() {
        let (d, m) = (
            d * f32::from(scales[run] & 15),
            m * f32::from(scales[run] >> 4),
        );
        for (y, q) in y.iter_mut().zip(two_bits(quants, run)) {
            *y = d * f32::from(q) - m;
        }
    }
}

/// The 16 values of 2 bits of a run: of each 32 bytes, pairs of bits from the low end make four times 32 values.
fn two_bits(quants: &[u8], run: usize) -> impl Iterator<Item = u8> + '_ {
    let (bytes, shift) = (run / 8 * 32 + run % 2 * 16, run % 8 / 2 * 2);
    quants[bytes..bytes + 16]
        .iter()
        .map(move |byte| byte >> shift & 3)
}

/// As [`q2_k`], with a third bit in `high` (set: not less 4) and scales of 6 bits less 32.
fn q3_k(b: &[u8], y: &mut [f32]) {
    let (high, quants, scales) = (&b[..32], &b[32..96], &b[96..108]);
    let d = half_at(b, 108);
    for (run, y) in y.chunks_exact_mut(16).enumerate() {
        let low = match run < 8 {
            true => scales[run] & 15,
            false => scales[run - 8] >> 4,
        };
        let top = scales[8 + run % 4] >> (run / 4 * 2) & 3;
        let d = d * f32::from((low | top << 4) as i8 - 32);
        let high = &high[run % 2 * 16..];
        for (index, (y, q)) in y.iter_mut().zip(two_bits(quants, run)).enumerate() {
            let less = if high[index] >> (run / 2) & 1 == 1 {
                0
            } else {
                4
            };
            *y = d * f32::from(q as i8 - less);
        }
    }
}

/// Scale and minimum of 6 bits of the run `index` of eight, packed into 12 bytes.
fn scale_and_minimum(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = match index < 4 {
        true => (packed[index] & 63, packed[index + 4] & 63),
        false => (
            packed[index + 4] & 15 | packed[index - 4] >> 6 << 4,
            packed[index + 4] >> 4 | packed[index] >> 6 << 4,
        ),
    };
    (f32::from(scale), f32::from(minimum))
}

/// Eight runs of 32 values of 4 bits: of each 32 bytes, low halves, then high halves.
fn q4_k(b: &[u8], y: &mut [f32]) {
    k_runs(b, &b[16..144], y, |_, _| 0);
}

/// As [`q4_k`], with a fifth bit.
fn q5_k(b: &[u8], y: &mut [f32]) {
    k_runs(b, &b[48..176], y, |run, index| {
        (b[16 + index] >> run & 1) << 4
    });
}

fn k_runs(b: &[u8], quants: &[u8], y: &mut [f32], fifth: impl Fn(usize, usize) -> u8) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for (run, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&b[4..16], run);
        let (d, m) = (d * scale, m * minimum);
        let bytes = &quants[run / 2 * 32..][..32];
        for (index, (y, byte)) in y.iter_mut().zip(bytes).enumerate() {
            let q = byte >> (run % 2 * 4) & 15 | fifth(run, index);
            *y = d * f32::from(q) - m;
        }
    }
}

/// Sixteen runs of 16 values of 6 bits: low 4 in halves of bytes, high 2 in pairs of bits; scales are bytes.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 208);
    for (index, y) in y.iter_mut().enumerate() {
        // Two halves of 128 values: quarters of 32 values in each.
        let (half, quarter, l) = (index / 128, index % 128 / 32, index % 32);
        let low = b[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
        let high = b[128 + half * 32 + l] >> (quarter * 2) & 3;
        let scale = b[192 + index / 16] as i8;
        *y = d * f32::from(scale) * f32::from((low | high << 4) as i8 - 32);
    }
}
