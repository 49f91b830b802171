// Tables over positions of an implicit filter (arXiv 2302.10866, section 3.3): features, or a window that decays.
// One thread a value, in double precision, since angles grow with the rows. No shared memory; any sizes.

KERNEL(256, position_table, PositionTable) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index >= (u64)p.rows * p.cols) return;
    const u32 col = index % p.cols, half = p.cols / 2;
    const double row = (double)(index / p.cols), t = row / p.last;
    double y = t;
    if (p.kind == 1) {
        y = exp(-(p.first + p.step * col) * t) + p.shift;
    } else if (col > 0) {
        const double angle = 6.283185307179586 * row / p.length;
        y = col <= half ? cos((p.first + p.step * (col - 1)) * angle) : -sin((p.first + p.step * (col - 1 - half)) * angle);
    }
    p.y[index] = (float)y;
}
