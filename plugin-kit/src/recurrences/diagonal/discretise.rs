//! From a continuous diagonal system x' = λ x + u, or a logarithm, to what the scan multiplies by. All numbers are
//! complex, real parts in the first half of the columns; computed in float64, because they are few where they are
//! constants and (e^z - 1) / z cancels.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::run::CudaRun;
use crate::engine::graph::Graph;
use crate::engine::operation::{Operation, Run};
use crate::engine::tensor::{Buffer, Tensor};
use crate::kernel_params;

crate::options! {
    /// How a continuous system with steps Δ becomes `h = a h + gain u`.
    pub enum Discretisation => "from continuous to discrete: zero-order hold, or bilinear" {
        /// a = e^(Δλ), gain = (e^(Δλ) - 1) / λ: exact where u is constant within a step.
        ZeroOrderHold = "zoh",
        /// a = (1 + Δλ/2) / (1 - Δλ/2), gain = Δ / (1 - Δλ/2): Tustin's method.
        Bilinear = "bilinear",
    }
}

impl Graph {
    /// The complex transition `e^(re + i im)`, `[.., 2 W]`: re is the logarithm of its modulus, im its angle, `[.., W]`
    /// each, constants or not.
    ///
    /// # Panics
    /// If they are not equally wide, or one is a constant and the other is not.
    #[track_caller]
    pub fn polar(&mut self, re: Tensor, im: Tensor) -> Tensor {
        self.discretised(Form::Polar, re, im, None)
    }

    /// Transition and gain `[2 W]` of a continuous system, constants. λ has the real part `re` and the imaginary part
    /// `im`, `[W]` each; `step` is Δ, of as many columns or a divisor of them: its columns are then repeated.
    ///
    /// # Panics
    /// If sizes do not fit, or one is no constant.
    #[track_caller]
    pub fn discretise(
        &mut self,
        method: Discretisation,
        re: Tensor,
        im: Tensor,
        step: Tensor,
    ) -> (Tensor, Tensor) {
        let constants = [re, im, step].iter().all(|tensor| tensor.is_constant());
        assert!(constants, "a system and its steps are constants");
        assert!(
            step.cols() > 0 && re.cols().is_multiple_of(step.cols()),
            "{} steps for {} numbers",
            step.cols(),
            re.cols()
        );
        let form = match method {
            Discretisation::ZeroOrderHold => Form::ZeroOrderHold,
            Discretisation::Bilinear => Form::Bilinear,
        };
        let both = self.discretised(form, re, im, Some(step));
        let width = 2 * re.cols();
        (both.columns(0, width), both.columns(width, width))
    }

    #[track_caller]
    fn discretised(&mut self, form: Form, re: Tensor, im: Tensor, step: Option<Tensor>) -> Tensor {
        let alike = re.cols() == im.cols() && re.is_constant() == im.is_constant();
        assert!(alike, "real and imaginary parts are unlike");
        let parts = if step.is_some() { 4 } else { 2 };
        let y = self.tensor_like(re, parts * re.cols());
        self.push(Discretise {
            form,
            re,
            im,
            step,
            y,
        });
        y
    }
}

/// What is computed, by its number in the kernel.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Polar,
    ZeroOrderHold,
    Bilinear,
}

struct Discretise {
    form: Form,
    re: Tensor,
    im: Tensor,
    step: Option<Tensor>,
    y: Tensor,
}

static DISCRETISE: KernelSource = KernelSource {
    file: "discretise.cu",
    text: include_str!("../../../kernels/discretise.cu"),
    params: &[DiscretiseParams::CPP],
};

kernel_params! {
    struct DiscretiseParams {
        re: *const Stored, im: *const Stored, // [rows, W]: λ
        step: *const Stored,                  // [steps], or null: 1
        y: *mut Stored, // [rows, 2 W] or, where there are steps, [4 W]; the gradient of that in the backward pass
        dre: *mut Stored, dim: *mut Stored, dstep: *mut Stored, // the gradients of re, im and step
        re_stride: u64, im_stride: u64, dre_stride: u64, dim_stride: u64, rows: u64,
        width: u32, steps: u32, form: u32, add_re: u32, add_im: u32, add_step: u32,
    }
}

/// A complex number.
#[derive(Clone, Copy)]
struct Complex {
    re: f64,
    im: f64,
}

impl Complex {
    fn new(re: f32, im: f32) -> Self {
        Self {
            re: re.into(),
            im: im.into(),
        }
    }

    fn of(re: f64) -> Self {
        Self { re, im: 0.0 }
    }

    fn times(self, other: Self) -> Self {
        Self {
            re: self.re * other.re - self.im * other.im,
            im: self.re * other.im + self.im * other.re,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            re: self.re + other.re,
            im: self.im + other.im,
        }
    }

    fn scaled(self, factor: f64) -> Self {
        Self {
            re: self.re * factor,
            im: self.im * factor,
        }
    }

    fn conjugate(self) -> Self {
        Self {
            im: -self.im,
            ..self
        }
    }

    fn square(self) -> f64 {
        self.re * self.re + self.im * self.im
    }

    fn inverse(self) -> Self {
        self.conjugate().scaled(1.0 / self.square())
    }

    fn exp(self) -> Self {
        let (sin, cos) = self.im.sin_cos();
        Self { re: cos, im: sin }.scaled(self.re.exp())
    }
}

/// |z| below which (e^z - 1) / z and its slope are sums of their series: to its twelfth power, below rounding.
const NEAR_ZERO: f64 = 0.25;

/// (e^z - 1) / z and its derivative.
fn mean_growth(z: Complex) -> (Complex, Complex) {
    if z.square() >= NEAR_ZERO * NEAR_ZERO {
        let (power, inverse) = (z.exp(), z.inverse());
        let value = power.plus(Complex::of(-1.0)).times(inverse);
        return (value, power.plus(value.scaled(-1.0)).times(inverse));
    }
    // The sum of z^k / (k + 1)!, and of k z^(k - 1) / (k + 1)!.
    let (mut value, mut slope) = (Complex::of(0.0), Complex::of(0.0));
    let mut coefficient = 1.0 / 6_227_020_800.0; // 1 / 13!
    for k in (1..=12).rev() {
        value = value.times(z).plus(Complex::of(coefficient));
        slope = slope.times(z).plus(Complex::of(coefficient * f64::from(k)));
        coefficient *= f64::from(k + 1);
    }
    (value.times(z).plus(Complex::of(1.0)), slope)
}

/// What a number becomes, with what its gradients need.
struct Discretised {
    transition: Complex,
    gain: Complex,
    /// Derivatives by z = Δλ, the step within the gain taken as it is.
    transition_slope: Complex,
    gain_slope: Complex,
    /// The derivative of the gain by the step itself.
    by_step: Complex,
}

fn discretised(form: Form, number: Complex, step: f64) -> Discretised {
    let z = number.scaled(step);
    match form {
        Form::Polar | Form::ZeroOrderHold => {
            let (transition, (mean, slope)) = (z.exp(), mean_growth(z));
            Discretised {
                transition,
                gain: mean.scaled(step),
                transition_slope: transition,
                gain_slope: slope.scaled(step),
                by_step: mean,
            }
        }
        Form::Bilinear => {
            let half = z.scaled(0.5);
            let inverse = Complex::of(1.0).plus(half.scaled(-1.0)).inverse();
            let square = inverse.times(inverse);
            Discretised {
                transition: Complex::of(1.0).plus(half).times(inverse),
                gain: inverse.scaled(step),
                transition_slope: square,
                gain_slope: square.scaled(0.5 * step),
                by_step: inverse,
            }
        }
    }
}

impl Discretise {
    /// W.
    fn width(&self) -> usize {
        self.re.cols()
    }

    /// The place of a column's step.
    fn step_of(&self, column: usize) -> usize {
        column % self.step.map_or(1, Tensor::cols)
    }

    /// A column's gradients: of λ, and of its step.
    fn gradients(
        &self,
        number: Complex,
        step: f64,
        transition: Complex,
        gain: Complex,
    ) -> (Complex, f64) {
        let at = discretised(self.form, number, step);
        let of_z = at
            .transition_slope
            .conjugate()
            .times(transition)
            .plus(at.gain_slope.conjugate().times(gain));
        let of_step = number.conjugate().times(of_z).re + at.by_step.conjugate().times(gain).re;
        (of_z.scaled(step), of_step)
    }

    fn params(&self, run: &CudaRun<'_>, y: Ptr) -> DiscretiseParams {
        let (re, im) = (run.value(self.re), run.value(self.im));
        let step = self.step.map(|step| run.value(step).data);
        DiscretiseParams {
            re: re.data,
            im: im.data,
            step: step.unwrap_or_default(),
            y,
            dre: Ptr::default(),
            dim: Ptr::default(),
            dstep: Ptr::default(),
            re_stride: re.stride as u64,
            im_stride: im.stride as u64,
            dre_stride: 0,
            dim_stride: 0,
            rows: run.value(self.y).rows as u64,
            width: self.width() as u32,
            steps: self.step.map_or(1, Tensor::cols) as u32,
            form: self.form as u32,
            add_re: 0,
            add_im: 0,
            add_step: 0,
        }
    }
}

impl Operation for Discretise {
    fn name(&self) -> &'static str {
        match self.form {
            Form::Polar => "polar",
            _ => "discretise",
        }
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (re, im) = (run.value(self.re), run.value(self.im));
        let (re, im) = (re.get(), im.get());
        let step = self.step.map(|step| run.value(step));
        let steps = step.as_ref().map(|step| step.get().row(0));
        let width = self.width();
        let mut y = run.value_mut(self.y);
        for row in 0..y.rows() {
            let y = y.row_mut(row);
            for column in 0..width {
                let number = Complex::new(re.row(row)[column], im.row(row)[column]);
                let step = steps.map_or(1.0, |steps| steps[self.step_of(column)].into());
                let Discretised {
                    transition, gain, ..
                } = discretised(self.form, number, step);
                let all = [transition.re, transition.im, gain.re, gain.im];
                for (part, value) in y.chunks_exact_mut(width).zip(all) {
                    part[column] = value as f32;
                }
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let inputs = [Some(self.re), Some(self.im), self.step, Some(self.y)];
        Some(inputs.into_iter().flatten().map(Buffer::from).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (re, im) = (run.value(self.re), run.value(self.im));
        let (re, im) = (re.get(), im.get());
        let step = self.step.map(|step| run.value(step));
        let steps = step.as_ref().map(|step| step.get().row(0));
        let (width, grad) = (self.width(), run.grad(self.y));
        let of = |row: usize, column: usize| {
            let number = Complex::new(re.row(row)[column], im.row(row)[column]);
            let step = steps.map_or(1.0, |steps| steps[self.step_of(column)].into());
            let grad = |part: usize| match part * width < grad.get().cols {
                true => grad.get().row(row)[part * width + column],
                false => 0.0,
            };
            let transition = Complex::new(grad(0), grad(1));
            self.gradients(number, step, transition, Complex::new(grad(2), grad(3)))
        };
        for (tensor, is_re) in [(self.re, true), (self.im, false)] {
            let mut place = run.grad_mut(tensor);
            let accumulate = place.accumulate();
            for row in 0..place.rows() {
                for (column, place) in place.row_mut(row).iter_mut().enumerate() {
                    let (number, _) = of(row, column);
                    let value = if is_re { number.re } else { number.im } as f32;
                    *place = value + if accumulate { *place } else { 0.0 };
                }
            }
        }
        let Some(step) = self.step else { return Ok(()) };
        let mut place = run.grad_mut(step);
        if !place.accumulate() {
            place.row_mut(0).fill(0.0);
        }
        for column in 0..width {
            place.row_mut(0)[self.step_of(column)] += of(0, column).1 as f32;
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&DISCRETISE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let params = self.params(run, run.value(self.y).data);
        let launch = Launch::for_each(params.rows as usize * self.width());
        run.launch(&DISCRETISE, "discretise_forward", launch, &params)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let mut params = self.params(run, run.grad(self.y)?.data);
        let (re, add_re) = run.grad_mut(self.re)?;
        let (im, add_im) = run.grad_mut(self.im)?;
        (params.dre, params.dre_stride, params.add_re) = (re.data, re.stride as u64, add_re.into());
        (params.dim, params.dim_stride, params.add_im) = (im.data, im.stride as u64, add_im.into());
        let launch = Launch::for_each(params.rows as usize * self.width());
        run.launch(&DISCRETISE, "discretise_backward", launch, &params)?;
        let Some(step) = self.step else { return Ok(()) };
        let (place, add_step) = run.grad_mut(step)?;
        (params.dstep, params.add_step) = (place.data, add_step.into());
        let launch = Launch::for_each(step.cols());
        run.launch(&DISCRETISE, "discretise_step_backward", launch, &params)
    }
}
