//! Reverse-mode differentiation of a naive form: its numbers write on this thread's tape what they were made
//! of, and the tape is read backward once.

use std::cell::RefCell;
use std::iter::Sum;
use std::marker::PhantomData;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use super::real::Real;

/// Most results on a tape (3 GiB): one that would be larger is refused rather than left to the system.
const MOST: usize = 1 << 27;

/// The place of a number that nothing is derived by.
const CONSTANT: u32 = u32::MAX;

/// What one result was made of: up to two numbers, and how fast it grows with each.
struct Made {
    of: [u32; 2],
    slopes: [f64; 2],
}

thread_local! {
    static TAPE: RefCell<Vec<Made>> = const { RefCell::new(Vec::new()) };
}

/// A number with a place on this thread's tape; [`gradients`] makes the first ones.
#[derive(Clone, Copy)]
pub struct Taped {
    value: f64,
    place: u32,
    /// Its place means nothing on another thread.
    on_this_thread: PhantomData<*const ()>,
}

impl Taped {
    fn at(value: f64, place: u32) -> Self {
        Self {
            value,
            place,
            on_this_thread: PhantomData,
        }
    }

    fn made(value: f64, of: [u32; 2], slopes: [f64; 2]) -> Self {
        if of == [CONSTANT; 2] {
            return Self::at(value, CONSTANT);
        }
        TAPE.with_borrow_mut(|tape| {
            assert!(
                tape.len() < MOST,
                "the naive form makes more than {MOST} numbers of one piece of a sequence, too many to \
                 differentiate: use fewer tokens or a smaller width, or give the recurrence a fast form"
            );
            tape.push(Made { of, slopes });
            Self::at(value, (tape.len() - 1) as u32)
        })
    }

    fn of_one(self, value: f64, slope: f64) -> Self {
        Self::made(value, [self.place, CONSTANT], [slope, 0.0])
    }

    fn of_two(self, other: Self, value: f64, slopes: [f64; 2]) -> Self {
        Self::made(value, [self.place, other.place], slopes)
    }
}

/// What `function` gives for numbers with these values, and the gradient of a sum over it by each of them:
/// `weigh` is given the results' values and says how much each counts in the sum.
///
/// # Panics
/// If `weigh` gives another number of weights; if the tape grows too long.
pub fn gradients(
    values: impl IntoIterator<Item = f64>,
    function: impl FnOnce(&[Taped]) -> Vec<Taped>,
    weigh: impl FnOnce(&[f64]) -> Vec<f64>,
) -> Vec<f64> {
    // Whoever is on this tape already gets it back, also where `function` panics.
    struct Outer(Vec<Made>);
    impl Drop for Outer {
        fn drop(&mut self) {
            TAPE.set(std::mem::take(&mut self.0));
        }
    }
    let _outer = Outer(TAPE.take());
    let first: Vec<Taped> = values
        .into_iter()
        .enumerate()
        .map(|(place, value)| Taped::at(value, place as u32))
        .collect();
    let leaf = |_: &Taped| Made {
        of: [CONSTANT; 2],
        slopes: [0.0; 2],
    };
    TAPE.set(first.iter().map(leaf).collect());
    let results = function(&first);
    let plain: Vec<f64> = results.iter().map(|result| result.value).collect();
    let weights = weigh(&plain);
    assert_eq!(weights.len(), results.len(), "a weight for each result");
    let tape = TAPE.take();
    let mut sums = vec![0.0; tape.len()];
    for (result, weight) in results.iter().zip(weights) {
        if result.place != CONSTANT {
            sums[result.place as usize] += weight;
        }
    }
    for (place, made) in tape.iter().enumerate().skip(first.len()).rev() {
        let sum = sums[place];
        // What does not count has no part in a gradient, also where its slope is infinite.
        if sum == 0.0 {
            continue;
        }
        for (&of, slope) in made.of.iter().zip(made.slopes) {
            if of != CONSTANT {
                sums[of as usize] += sum * slope;
            }
        }
    }
    sums.truncate(first.len());
    sums
}

impl From<f64> for Taped {
    fn from(value: f64) -> Self {
        Self::at(value, CONSTANT)
    }
}

impl Neg for Taped {
    type Output = Self;

    fn neg(self) -> Self {
        self.of_one(-self.value, -1.0)
    }
}

/// An operator between two numbers and between a number and a constant, with its assigning form.
macro_rules! operator {
    ($operator:ident $function:ident $assign:ident $assigning:ident: |$a:ident, $b:ident| $value:expr, $slopes:expr) => {
        impl $operator for Taped {
            type Output = Self;

            fn $function(self, other: Self) -> Self {
                let ($a, $b) = (self.value, other.value);
                self.of_two(other, $value, $slopes)
            }
        }

        impl $operator<f64> for Taped {
            type Output = Self;

            fn $function(self, other: f64) -> Self {
                $operator::$function(self, Self::from(other))
            }
        }

        impl $assign for Taped {
            fn $assigning(&mut self, other: Self) {
                *self = $operator::$function(*self, other);
            }
        }
    };
}

operator!(Add add AddAssign add_assign: |a, b| a + b, [1.0, 1.0]);
operator!(Sub sub SubAssign sub_assign: |a, b| a - b, [1.0, -1.0]);
operator!(Mul mul MulAssign mul_assign: |a, b| a * b, [b, a]);
operator!(Div div DivAssign div_assign: |a, b| a / b, [1.0 / b, -a / (b * b)]);

impl Sum for Taped {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::from(0.0), Add::add)
    }
}

impl Real for Taped {
    fn value(self) -> f64 {
        self.value
    }

    fn exp(self) -> Self {
        let value = self.value.exp();
        self.of_one(value, value)
    }

    fn exp_m1(self) -> Self {
        self.of_one(self.value.exp_m1(), self.value.exp())
    }

    fn ln(self) -> Self {
        self.of_one(self.value.ln(), 1.0 / self.value)
    }

    fn ln_1p(self) -> Self {
        self.of_one(self.value.ln_1p(), 1.0 / (1.0 + self.value))
    }

    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        self.of_one(value, 0.5 / value)
    }

    fn tanh(self) -> Self {
        let value = self.value.tanh();
        self.of_one(value, 1.0 - value * value)
    }

    fn sin(self) -> Self {
        self.of_one(self.value.sin(), self.value.cos())
    }

    fn cos(self) -> Self {
        self.of_one(self.value.cos(), -self.value.sin())
    }

    fn abs(self) -> Self {
        let slope = if self.value == 0.0 {
            0.0
        } else {
            self.value.signum()
        };
        self.of_one(self.value.abs(), slope)
    }

    fn max(self, other: Self) -> Self {
        if other.value > self.value {
            self.of_two(other, other.value, [0.0, 1.0])
        } else {
            self.of_two(other, self.value, [1.0, 0.0])
        }
    }
}
