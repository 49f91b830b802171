// From numbers λ and steps Δ to transitions and gains, all complex, and their gradients; see recurrences/diagonal/
// discretise.rs. With z = Δλ:
//
//   polar            a = e^λ
//   zero-order hold  a = e^z, gain = Δ (e^z - 1) / z
//   bilinear         a = (1 + z/2) / (1 - z/2), gain = Δ / (1 - z/2)
//
// In float64: there are few numbers where they are constants, and e^z - 1 cancels. One thread a number, in the step's
// gradient one a step, which adds those of its numbers in order; 256 a block; no shared memory.

enum { POLAR, ZERO_ORDER_HOLD, BILINEAR };

#define NEAR_ZERO 0.25  // |z| below which (e^z - 1) / z and its slope are sums of their series

struct Complex {
    double re, im;
};

__device__ inline Complex times(Complex x, Complex y) { return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re}; }
__device__ inline Complex plus(Complex x, Complex y) { return {x.re + y.re, x.im + y.im}; }
__device__ inline Complex scaled(Complex x, double factor) { return {x.re * factor, x.im * factor}; }
__device__ inline Complex conjugate(Complex x) { return {x.re, -x.im}; }
__device__ inline Complex inverse(Complex x) { return scaled(conjugate(x), 1.0 / (x.re * x.re + x.im * x.im)); }
__device__ inline Complex power(Complex x) { return scaled({cos(x.im), sin(x.im)}, exp(x.re)); }

// What a number becomes; the derivatives of both by z, the step within the gain taken as it is, and of the gain by the
// step itself.
struct Discretised {
    Complex transition, gain, transition_slope, gain_slope, by_step;
};

// (e^z - 1) / z and its derivative.
__device__ inline void mean_growth(Complex z, Complex* value, Complex* slope) {
    if (z.re * z.re + z.im * z.im >= NEAR_ZERO * NEAR_ZERO) {
        const Complex grown = power(z), over = inverse(z);
        *value = times(plus(grown, {-1.0, 0.0}), over);
        *slope = times(plus(grown, scaled(*value, -1.0)), over);
        return;
    }
    // The sum of z^k / (k + 1)!, and of k z^(k - 1) / (k + 1)!.
    Complex sum = {0.0, 0.0}, sloped = {0.0, 0.0};
    double coefficient = 1.0 / 6227020800.0;  // 1 / 13!
    for (int k = 12; k >= 1; k--) {
        sum = plus(times(sum, z), {coefficient, 0.0});
        sloped = plus(times(sloped, z), {coefficient * k, 0.0});
        coefficient *= k + 1;
    }
    *value = plus(times(sum, z), {1.0, 0.0});
    *slope = sloped;
}

__device__ inline Discretised discretised(u32 form, Complex number, double step) {
    const Complex z = scaled(number, step);
    Discretised at;
    if (form == BILINEAR) {
        const Complex half = scaled(z, 0.5), over = inverse(plus({1.0, 0.0}, scaled(half, -1.0)));
        at.transition = times(plus({1.0, 0.0}, half), over);
        at.gain = scaled(over, step);
        at.transition_slope = times(over, over);
        at.gain_slope = scaled(at.transition_slope, 0.5 * step);
        at.by_step = over;
        return at;
    }
    at.transition = at.transition_slope = power(z);
    mean_growth(z, &at.by_step, &at.gain_slope);
    at.gain = scaled(at.by_step, step);
    at.gain_slope = scaled(at.gain_slope, step);
    return at;
}

__device__ inline Complex number_of(const DiscretiseParams& p, u64 row, u32 column) {
    return {p.re[row * p.re_stride + column], p.im[row * p.im_stride + column]};
}

__device__ inline double step_of(const DiscretiseParams& p, u32 column) {
    return p.step ? p.step[column % p.steps] : 1.0;
}

__device__ inline stored* place_of(const DiscretiseParams& p, u64 row, u32 column) {
    return p.y + row * (p.step ? 4 : 2) * p.width + column;
}

KERNEL(256, discretise_forward, DiscretiseParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / p.width;
    const u32 column = index % p.width;
    if (row >= p.rows) return;
    const Discretised at = discretised(p.form, number_of(p, row, column), step_of(p, column));
    stored* y = place_of(p, row, column);
    y[0] = (float)at.transition.re;
    y[p.width] = (float)at.transition.im;
    if (p.step) {
        y[2 * p.width] = (float)at.gain.re;
        y[3 * p.width] = (float)at.gain.im;
    }
}

// The gradient of z, and of the step itself within the gain.
__device__ inline Complex gradient_of(const DiscretiseParams& p, u64 row, u32 column, double* by_step) {
    const Discretised at = discretised(p.form, number_of(p, row, column), step_of(p, column));
    const stored* dy = place_of(p, row, column);
    const Complex transition = {dy[0], dy[p.width]};
    Complex gain = {0.0, 0.0};
    if (p.step) gain = {dy[2 * p.width], dy[3 * p.width]};
    *by_step = times(conjugate(at.by_step), gain).re;
    return plus(times(conjugate(at.transition_slope), transition), times(conjugate(at.gain_slope), gain));
}

KERNEL(256, discretise_backward, DiscretiseParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / p.width;
    const u32 column = index % p.width;
    if (row >= p.rows) return;
    double by_step;
    const Complex grad = scaled(gradient_of(p, row, column, &by_step), step_of(p, column));
    stored *re = p.dre + row * p.dre_stride + column, *im = p.dim + row * p.dim_stride + column;
    *re = (p.add_re ? *re : 0.0f) + (float)grad.re;
    *im = (p.add_im ? *im : 0.0f) + (float)grad.im;
}

KERNEL(256, discretise_step_backward, DiscretiseParams) {
    const u32 step = blockIdx.x * blockDim.x + threadIdx.x;
    if (step >= p.steps) return;
    double sum = 0.0;
    for (u32 column = step; column < p.width; column += p.steps) {
        double by_step;
        const Complex grad = gradient_of(p, 0, column, &by_step);
        sum += times(conjugate(number_of(p, 0, column)), grad).re + by_step;
    }
    p.dstep[step] = (p.add_step ? p.dstep[step] : 0.0f) + (float)sum;
}
