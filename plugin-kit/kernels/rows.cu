// Copies and sums over row-major matrices. One thread a value, except sums of columns: a block takes 32
// columns of one part of the rows, 8 rows at a time, with 256 values of shared memory.

template <class Copy>
__device__ __forceinline__ void copy(const Copy& p) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    leave(&p.to[row * p.to_stride + col], p.factor * p.from[row * p.from_stride + col], p.accumulate);
}

KERNEL(256, copy_rows, CopyRows) { copy(p); }
KERNEL(256, store_rows, StoreRows) { copy(p); }
KERNEL(256, read_rows, ReadRows) { copy(p); }

// y = a + b.
KERNEL(256, add_rows, AddRows) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row < p.rows) p.y[index] = p.a[row * p.a_stride + col] + p.b[row * p.b_stride + col];
}

KERNEL(256, broadcast_row, BroadcastRow) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row < p.rows) p.to[row * p.to_stride + col] = p.row[col];
}

template <class Sums>
__device__ __forceinline__ void sum_columns(const Sums& p) {
    SHARED(sums);  // [8, 32]
    const u32 lane = threadIdx.x % 32, line = threadIdx.x / 32;
    const u32 col = blockIdx.x * 32 + lane, part = blockIdx.y;
    float sum = 0.0f;
    if (col < p.cols)
        for (u64 row = part * 8 + line; row < p.rows; row += p.part_count * 8) sum += p.from[row * p.from_stride + col];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (line == 0 && col < p.cols) {
        for (u32 other = 1; other < 8; other++) sum += sums[other * 32 + lane];
        // A single part is added to the sums themselves.
        leave(&p.to[(u64)part * p.cols + col], sum, p.part_count == 1);
    }
}

KERNEL(256, column_sums, ColumnSums) { sum_columns(p); }
KERNEL(256, share_sums, ShareSums) { sum_columns(p); }
KERNEL(256, grad_sums, GradSums) { sum_columns(p); }
KERNEL(256, share_grad_sums, ShareGradSums) { sum_columns(p); }

template <class Parts>
__device__ __forceinline__ void add(const Parts& p) {
    const u32 col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= p.cols) return;
    float sum = p.sums[col];
    for (u32 part = 0; part < p.part_count; part++) sum += p.parts[(u64)part * p.cols + col];
    p.sums[col] = sum;
}

KERNEL(256, add_parts, AddParts) { add(p); }
KERNEL(256, add_grad_parts, AddGradParts) { add(p); }
