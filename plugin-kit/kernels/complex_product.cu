// y = a b of complex numbers, or a times the conjugate of b; real parts in the first half of a row, imaginary parts in
// the second. A stride of 0 is one row for all. One thread a number, 256 a block; no shared memory.

KERNEL(256, complex_product, ComplexProduct) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / p.width, column = index % p.width;
    if (row >= p.rows) return;
    const stored *a = p.a + row * p.a_stride + column, *b = p.b + row * p.b_stride + column;
    stored* y = p.y + row * p.y_stride + column;
    const float re = b[0], im = p.conjugate ? -b[p.width] : b[p.width];
    const float value_re = fmaf(a[0], re, -(a[p.width] * im)), value_im = fmaf(a[0], im, a[p.width] * re);
    leave(&y[0], value_re, p.add);
    leave(&y[p.width], value_im, p.add);
}
