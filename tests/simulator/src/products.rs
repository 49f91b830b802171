//! Matrix products as cuBLASLt documents them: D = alpha op(A) op(B) + beta C, where value (i, j) of a matrix
//! stands at `i + j * leading dimension`.

use longhaul_emulator::float32_sum;

use crate::code::Outcome;
use crate::work::check;
use crate::world::Context;

/// How a matrix, or a batch of them, lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    pub rows: u64,
    pub columns: u64,
    /// Values from a column to the next.
    pub leading: i64,
    pub count: i32,
    /// Values from a matrix to the next.
    pub step: i64,
}

impl Layout {
    /// Values from the first of the first matrix to the last of the last.
    fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        let one = (self.columns as usize - 1) * self.leading as usize + self.rows as usize;
        one + (self.count as usize - 1) * self.step as usize
    }
}

/// How factors are rounded before they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    None,
    /// To 10 bits after the leading one.
    Tf32,
    /// To 7.
    Bf16,
}

impl Rounding {
    fn apply(self, value: f32) -> f32 {
        let dropped = match self {
            Self::None => return value,
            Self::Tf32 => 13,
            Self::Bf16 => 16,
        };
        if !value.is_finite() {
            return value;
        }
        // To the nearest, ties to even.
        let bits = value.to_bits();
        let half = (1 << (dropped - 1)) - 1 + (bits >> dropped & 1);
        f32::from_bits((bits + half) >> dropped << dropped)
    }
}

/// What is done besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epilogue {
    None,
    /// A vector as long as D has rows is added to every column.
    Bias,
    /// The sums of op(B) over the inner dimension go into a vector as long as D has columns.
    GradB,
}

/// What is multiplied how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub a: Layout,
    pub b: Layout,
    pub c: Layout,
    pub d: Layout,
    pub transpose_a: bool,
    pub transpose_b: bool,
    pub rounding: Rounding,
    pub epilogue: Epilogue,
}

/// A batch of products.
pub struct Product {
    pub shape: Shape,
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub d: u64,
    /// The epilogue's vector.
    pub bias: u64,
    pub alpha: f32,
    pub beta: f32,
    /// Memory that the library uses, and how many bytes of it.
    pub workspace: (u64, usize),
}

impl Product {
    /// Computes it.
    pub fn run(&self, context: &Context) -> Outcome {
        let Shape { a, b, c, d, .. } = &self.shape;
        let places = [
            ("A", a, self.a),
            ("B", b, self.b),
            ("C", c, self.c),
            ("D", d, self.d),
        ];
        for (name, layout, address) in places {
            check(
                context,
                &format!("matrix {name} of a product"),
                address,
                4 * layout.extent(),
            )?;
        }
        let vector = match self.shape.epilogue {
            Epilogue::None => 0,
            Epilogue::Bias => d.rows,
            Epilogue::GradB => d.columns,
        };
        check(
            context,
            "an epilogue's vector",
            self.bias,
            4 * vector as usize,
        )?;
        let (workspace, bytes) = self.workspace;
        check(context, "a product's workspace", workspace, bytes)?;
        // Whoever else uses the workspace is to notice.
        // SAFETY: checked.
        unsafe { std::ptr::write_bytes(workspace as *mut u8, 0xff, bytes) };
        (0..d.count as usize).for_each(|index| self.one(index));
        Ok(())
    }

    fn one(&self, index: usize) {
        let Shape {
            a,
            b,
            c,
            d,
            transpose_a,
            transpose_b,
            rounding,
            epilogue,
        } = self.shape;
        let place = |address: u64, layout: Layout, row: usize, column: usize| {
            (address as *mut f32)
                .wrapping_add(index * layout.step as usize + row + column * layout.leading as usize)
        };
        // SAFETY: every place lies in the extent that `run` checked.
        let read = |address, layout, row, column| unsafe { *place(address, layout, row, column) };
        let inner = if transpose_a { a.rows } else { a.columns } as usize;
        let factor = |address, layout, turned, row, column| {
            let (row, column) = if turned { (column, row) } else { (row, column) };
            rounding.apply(read(address, layout, row, column))
        };
        let sizes = [d.rows as usize, d.columns as usize, inner];
        let vector = |at: usize| (self.bias as *mut f32).wrapping_add(at);
        if epilogue == Epilogue::GradB {
            for column in 0..d.columns as usize {
                let value = |k| match transpose_b {
                    true => read(self.b, b, column, k),
                    false => read(self.b, b, k, column),
                };
                // SAFETY: `run` checked the vector.
                unsafe { *vector(column) = float32_sum([1, sizes[1], inner], value) };
            }
        }
        for column in 0..d.columns as usize {
            for row in 0..d.rows as usize {
                let sum = float32_sum(sizes, |k| {
                    factor(self.a, a, transpose_a, row, k)
                        * factor(self.b, b, transpose_b, k, column)
                });
                let mut value = self.alpha * sum;
                // With a beta of 0, C may hold anything.
                if self.beta != 0.0 {
                    value += self.beta * read(self.c, c, row, column);
                }
                if epilogue == Epilogue::Bias {
                    // SAFETY: `run` checked the vector.
                    value += unsafe { *vector(row) };
                }
                // SAFETY: as above.
                unsafe { *place(self.d, d, row, column) = value };
            }
        }
    }
}
