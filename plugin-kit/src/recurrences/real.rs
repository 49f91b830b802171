//! What a naive form computes with: real numbers as float64 values, or as values whose gradients a
//! [tape](super::tape) keeps.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// A real number of float64 precision. A function that is generic over it is its own gradient: the kit calls
/// it with numbers that remember how they were made. Constants come in through `N::from(1.0)`, or as the right
/// side of an operator: `x * 2.0`.
pub trait Real:
    Copy
    + From<f64>
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Add<f64, Output = Self>
    + Sub<f64, Output = Self>
    + Mul<f64, Output = Self>
    + Div<f64, Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
{
    /// The plain value, without what is known of its gradient.
    fn value(self) -> f64;

    /// e to its power.
    fn exp(self) -> Self;

    /// e to its power, minus 1, exact also near 0.
    fn exp_m1(self) -> Self;

    /// The natural logarithm.
    fn ln(self) -> Self;

    /// The natural logarithm of 1 plus it, exact also near 0.
    fn ln_1p(self) -> Self;

    /// The square root.
    fn sqrt(self) -> Self;

    /// The hyperbolic tangent.
    fn tanh(self) -> Self;

    /// The sine.
    fn sin(self) -> Self;

    /// The cosine.
    fn cos(self) -> Self;

    /// The absolute value; its gradient at 0 is 0.
    fn abs(self) -> Self;

    /// The larger of the two; the gradient is all the larger one's, and `self`'s where they are equal.
    fn max(self, other: Self) -> Self;

    /// 1 / (1 + e^-x).
    fn sigmoid(self) -> Self {
        Self::from(1.0) / ((-self).exp() + 1.0)
    }

    /// ln(1 + e^x), without overflow or loss.
    fn softplus(self) -> Self {
        // (x + |x|) / 2 is the larger of x and 0, with a gradient of a half at 0.
        (-self.abs()).exp().ln_1p() + (self + self.abs()) * 0.5
    }

    /// ln(sigmoid(x)), without underflow.
    fn log_sigmoid(self) -> Self {
        -(-self).softplus()
    }

    /// x sigmoid(x).
    fn silu(self) -> Self {
        self * self.sigmoid()
    }
}

impl Real for f64 {
    fn value(self) -> f64 {
        self
    }

    fn exp(self) -> Self {
        self.exp()
    }

    fn exp_m1(self) -> Self {
        self.exp_m1()
    }

    fn ln(self) -> Self {
        self.ln()
    }

    fn ln_1p(self) -> Self {
        self.ln_1p()
    }

    fn sqrt(self) -> Self {
        self.sqrt()
    }

    fn tanh(self) -> Self {
        self.tanh()
    }

    fn sin(self) -> Self {
        self.sin()
    }

    fn cos(self) -> Self {
        self.cos()
    }

    fn abs(self) -> Self {
        self.abs()
    }

    fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}
