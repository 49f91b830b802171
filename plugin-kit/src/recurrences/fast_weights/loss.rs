//! The gradient of the inner loss by what the model gave, and the gradients of that: of rows `[n, V]` of one head.

use super::super::state_matrix::fields::Part;
use crate::simd;
use crate::simd::{dot, sum, sum2};

/// A head's part of a LayerNorm.
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    /// `[V]` each.
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub epsilon: f32,
}

simd! {
    /// Puts `z - target` in the place of z.
    pub(super) fn squares(z: &mut [f32], target: Part<'_>) {
        for (t, z) in z.chunks_exact_mut(target.count).enumerate() {
            for (z, target) in z.iter_mut().zip(target.row(t, 0)) {
                *z -= target;
            }
        }
    }
}

/// u of a value: how the loss grows with what the LayerNorm makes before weight and bias.
#[inline(always)]
fn outer(normal: f32, weight: f32, bias: f32, target: f32) -> f32 {
    (normal.mul_add(weight, bias) - target) * weight
}

simd! {
    /// Puts the gradient of the loss in the place of z, and keeps z as normalised `[n, V]` and the reciprocals of its
    /// deviations `[n]`.
    pub(super) fn normal(z: &mut [f32], target: Part<'_>, norm: Norm<'_>, kept: &mut [f32], inverses: &mut [f32]) {
        let width = target.count;
        let over = 1.0 / width as f32;
        let rows = z.chunks_exact_mut(width).zip(kept.chunks_exact_mut(width));
        for (t, ((z, kept), inverse)) in rows.zip(inverses).enumerate() {
            let mean = sum(z) * over;
            for (kept, z) in kept.iter_mut().zip(&*z) {
                *kept = z - mean;
            }
            *inverse = 1.0 / dot(kept, kept).mul_add(over, norm.epsilon).sqrt();
            let target = target.row(t, 0);
            for i in 0..width {
                kept[i] *= *inverse;
                z[i] = outer(kept[i], norm.weight[i], norm.bias[i], target[i]);
            }
            let (mean, along) = (sum(z) * over, dot(z, kept) * over);
            for (z, kept) in z.iter_mut().zip(&*kept) {
                *z = *inverse * (*z - mean - kept * along);
            }
        }
    }
}

/// Where the gradients of a LayerNorm's rows go beside that of z.
pub(super) struct Back<'a> {
    /// `[n, V]`, overwritten.
    pub target: &'a mut [f32],
    /// `[2, V]`: weight and bias, added to.
    pub norm: &'a mut [f32],
    /// Scratch of 2 V values at least.
    pub room: &'a mut [f32],
}

simd! {
    /// Puts the gradient of z in the place of that of the loss's gradient, dg.
    pub(super) fn normal_back(
        dg: &mut [f32],
        target: Part<'_>,
        norm: Norm<'_>,
        kept: &[f32],
        inverses: &[f32],
        back: Back<'_>,
    ) {
        let width = target.count;
        let over = 1.0 / width as f32;
        let (u, dn) = back.room[..2 * width].split_at_mut(width);
        let (grad_weight, grad_bias) = back.norm.split_at_mut(width);
        let rows = dg.chunks_exact_mut(width).zip(kept.chunks_exact(width));
        for (t, ((dg, n), grad_target)) in rows.zip(back.target.chunks_exact_mut(width)).enumerate() {
            let (target, inverse) = (target.row(t, 0), inverses[t]);
            for i in 0..width {
                u[i] = outer(n[i], norm.weight[i], norm.bias[i], target[i]);
            }
            let (mean, along) = (sum(u) * over, dot(u, n) * over);
            // g = (u - mean - n along) / deviation; the gradients of u, n and the deviation.
            let (dg_mean, dg_along) = (sum(dg) * over, dot(dg, n) * over);
            let loss = sum2(dg, u, |dg, u| dg * u) - width as f32 * (mean * dg_mean + along * dg_along);
            let of_deviation = -loss * inverse * inverse;
            for i in 0..width {
                let du = inverse * (dg[i] - dg_mean - n[i] * dg_along);
                let weight = norm.weight[i];
                let loss = n[i].mul_add(weight, norm.bias[i]) - target[i];
                grad_weight[i] += du * (loss + n[i] * weight);
                grad_bias[i] += du * weight;
                grad_target[i] = -du * weight;
                dn[i] = du * weight * weight - inverse * (along * dg[i] + dg_along * u[i]);
            }
            let (dn_mean, dn_along) = (sum(dn) * over, dot(dn, n) * over);
            for i in 0..width {
                dg[i] = inverse * (dn[i] - dn_mean - n[i] * dn_along) + of_deviation * over * n[i];
            }
        }
    }
}
