//! The scan as papers write it, one token and one channel at a time.

use super::Kind;
use crate::recurrences::real::Real;

/// h `[T, W]` of one sequence from a and b of the same shape: h = a h + b, from the state `h` `[W]` of the token before,
/// in whose place the last token's is left. Complex numbers have real parts in the first half of a row and imaginary
/// parts in the second.
pub fn naive<N: Real>(kind: Kind, a: &[N], b: &[N], h: &mut [N]) -> Vec<N> {
    let width = h.len();
    let mut result = Vec::with_capacity(b.len());
    for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
        match kind {
            Kind::Log => (0..width).for_each(|c| h[c] = a[c].exp() * h[c] + b[c]),
            Kind::Signed => (0..width).for_each(|c| h[c] = a[c] * h[c] + b[c]),
            Kind::Complex => {
                for re in 0..width / 2 {
                    let im = re + width / 2;
                    let (was_re, was_im) = (h[re], h[im]);
                    h[re] = a[re] * was_re - a[im] * was_im + b[re];
                    h[im] = a[re] * was_im + a[im] * was_re + b[im];
                }
            }
        }
        result.extend_from_slice(h);
    }
    result
}
