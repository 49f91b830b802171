// Products of matrices in tiles of 64 rows and 32 or 64 columns, by 64 or 128 threads, in two forms of one
// interface: fused multiply-adds in float32, or, where TF32_PRODUCTS is defined in front of this text (and
// mma.cuh), on tensor cores with factors rounded to TF32 and float32 sums.
//
// Both factors come through shared memory in slabs of 32 of the inner size. A thread holds 32 values of the
// tile in registers; rows, cols, row(i), col(j) and at(i, j) say which, and are all that is known outside
// of this file. A tile goes out to memory through the slabs' room, row by row.

#define SLAB 32u

struct alignas(8) Pair {
    float v[2];
};

struct alignas(16) Quad {
    float v[4];
};

#ifdef TF32_PRODUCTS

// Values from one row of a tile in shared memory to the next, and from an inner index of a slab whose rows are
// neighbours to the next: 8 more than a multiple of 32. Lane (g, t) reads (row g, inner t), so 8 t + g is another
// bank for each; and it writes a tile's (row g, columns 2 t and 2 t + 1), half a warp at a time, no bank twice.
#define STRIDE 72u

// From one row to the next of a slab whose inner indices are neighbours, read at 36 g + t: 4 g + t is another
// bank for each lane as well.
#define ROW_STRIDE 36u

// Of a slab, either way.
#define SLAB_VALUES 2304u

// Of a tile [64, COLS]: a warp has 32 x 32 values in 2 x 4 products of 16 x 8, whose sums lie as mma.cuh says.
template <u32 COLS>
struct Tile {
    static const u32 rows = 4, cols = 8;
    float v[2][4][4];

    // The warp's first row and column.
    static __device__ __forceinline__ u32 first_row() { return threadIdx.x / WARP / (COLS / 32) * 32; }
    static __device__ __forceinline__ u32 first_col() { return threadIdx.x / WARP % (COLS / 32) * 32; }

    static __device__ __forceinline__ u32 row(u32 i) { return first_row() + 8 * i + threadIdx.x % WARP / 4; }
    static __device__ __forceinline__ u32 col(u32 j) { return first_col() + j / 2 * 8 + threadIdx.x % 4 * 2 + j % 2; }
    __device__ __forceinline__ float& at(u32 i, u32 j) { return v[i / 2][j / 2][i % 2 * 2 + j % 2]; }

    // Behind the last row of those that multiply together.
    static __device__ __forceinline__ u32 end_row() { return first_row() + 32; }
};

// A value as it becomes a factor.
__device__ __forceinline__ float factor(float value) { return __uint_as_float(to_tf32(value)); }

#else

// Values from one row of a tile in shared memory to the next, and from an inner index of a slab: neither turned
// writes, four rows of eight inner indices a warp, nor reads of four values collide.
#define STRIDE 68u
#define SLAB_VALUES 2176u

// Of a tile [64, COLS]: a thread has 8 x 4 values beside each other.
template <u32 COLS>
struct Tile {
    static const u32 rows = 8, cols = 4;
    float v[8][4];

    static __device__ __forceinline__ u32 first_row() { return threadIdx.x / (COLS / 4) * 8; }
    static __device__ __forceinline__ u32 first_col() { return threadIdx.x % (COLS / 4) * 4; }

    static __device__ __forceinline__ u32 row(u32 i) { return first_row() + i; }
    static __device__ __forceinline__ u32 col(u32 j) { return first_col() + j; }
    __device__ __forceinline__ float& at(u32 i, u32 j) { return v[i][j]; }

    static __device__ __forceinline__ u32 end_row() { return first_row() + 8; }
};

__device__ __forceinline__ float factor(float value) { return value; }

#endif

// Every value of a slab or tile, in a number of turns that the compiler knows: the reads of several turns then
// go out together.
#define FOR_EACH(index, count, threads) \
    _Pragma("unroll 8") for (u32 turn = 0, index = threadIdx.x; turn < (count) / (threads); turn++, index += (threads))

// Which index of a factor's neighbours in memory differ by: rows (of a; columns of b) or the inner one. The other counts
// its lines.
enum Along { ALONG_ROWS, ALONG_INNER };

// A matrix in memory, `stride` values from line to line, 0 past its lines and columns. It is read four neighbours at a
// time: where all fours are `whole` by one load, else value by value. A factor is this or another type with `whole` and
// `read`.
template <class T>
struct Lines {
    const T* data;
    u32 line_bytes, lines, cols;
    bool whole;

    template <bool WHOLE>
    __device__ __forceinline__ Quad read(u32 line, u32 col) const {
        const T* from = (const T*)((const char*)data + (u64)line * line_bytes) + col;
        Quad quad = {};
        if (WHOLE) {
            if (line < lines && col < cols) {
                const Float4 four = load4(from);
                quad = {{four.x, four.y, four.z, four.w}};
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < 4; i++) quad.v[i] = line < lines && col + i < cols ? from[i] : 0.0f;
        }
        return quad;
    }
};

// Whether load4 may read all fours of neighbours and none reaches past the last column.
template <class T>
__device__ __forceinline__ bool are_whole(const T* data, u64 stride, u32 cols) { return ((u64)data / sizeof(T) | stride | cols) % 4 == 0; }

template <class T>
__device__ __forceinline__ Lines<T> lines_of(const T* data, u64 stride, u32 lines, u32 cols) {
    return {data, (u32)(stride * sizeof(T)), lines, cols, are_whole(data, stride, cols)};
}

// The same times weight(line, col), which is the same for a whole four and asked for its first.
template <class T, class Weight>
struct Weighted {
    Lines<T> of;
    Weight weight;
    bool whole;

    template <bool WHOLE>
    __device__ __forceinline__ Quad read(u32 line, u32 col) const {
        Quad quad = of.template read<WHOLE>(line, col);
        const float first = line < of.lines && col < of.cols ? weight(line, col) : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            quad.v[i] *= WHOLE || i == 0 ? first : line < of.lines && col + i < of.cols ? weight(line, col + i) : 0.0f;
        return quad;
    }
};

template <class T, class Weight>
__device__ __forceinline__ Weighted<T, Weight> weighted(const Lines<T>& of, Weight weight) { return {of, weight, of.whole}; }

// Values that are asked for one by one, value(row, inner).
template <Along ALONG, class Value>
struct Each {
    Value value;
    static const bool whole = true;

    template <bool WHOLE>
    __device__ __forceinline__ Quad read(u32 line, u32 col) const {
        Quad quad;
#pragma unroll
        for (u32 i = 0; i < 4; i++) quad.v[i] = ALONG == ALONG_ROWS ? value(col + i, line) : value(line, col + i);
        return quad;
    }
};

template <Along ALONG, class Value>
__device__ __forceinline__ Each<ALONG, Value> each(Value value) { return {value}; }

// Where a value of a slab lies.
template <Along ALONG>
__device__ __forceinline__ u32 slab_place(u32 row, u32 inner) {
#ifdef TF32_PRODUCTS
    if (ALONG == ALONG_INNER) return row * ROW_STRIDE + inner;
#endif
    return inner * STRIDE + row;
}

// Fours of a slab, TURNS of them read before the first is kept. A thread has the same columns in all turns, or in every
// other, so that only lines have to be counted. Reads are of whole sectors, writes hit no bank twice: fours that have to
// be turned, which are written value by value, come two of each of sixteen lines a warp.
template <bool WHOLE, u32 ROWS, u32 THREADS, Along ALONG, u32 TURNS, class Factor>
__device__ __forceinline__ void fill_fours(float* slab, u32 start, const Factor& source) {
    const u32 across = (ALONG == ALONG_ROWS ? ROWS : SLAB) / 4;
#ifdef TF32_PRODUCTS
    const bool turned = false;
#else
    const bool turned = ALONG == ALONG_INNER;
#endif
    // Where four neighbours of a turn are.
    const auto place = [&](u32 turn, u32& line, u32& col) {
        line = threadIdx.x / across + turn * (THREADS / across), col = threadIdx.x % across * 4;
        if (!turned) return;
        const u32 warps = THREADS / WARP, beside = 4 / warps;
        line = threadIdx.x % WARP / 2 + turn / beside * 16;
        col = (threadIdx.x % 2 + threadIdx.x / WARP * 2 + turn % beside * warps * 2) * 4;
    };
#pragma unroll 1
    for (u32 first = 0; first < SLAB * ROWS / 4 / THREADS; first += TURNS) {
        Quad quads[TURNS];
        u32 line, col;
#pragma unroll
        for (u32 turn = 0; turn < TURNS; turn++) {
            place(first + turn, line, col);
            quads[turn] = ALONG == ALONG_ROWS ? source.template read<WHOLE>(start + line, col) : source.template read<WHOLE>(line, start + col);
        }
#pragma unroll
        for (u32 turn = 0; turn < TURNS; turn++) {
            place(first + turn, line, col);
#pragma unroll
            for (u32 i = 0; i < 4; i++) quads[turn].v[i] = factor(quads[turn].v[i]);
            if (turned) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) slab[slab_place<ALONG>(line, col + i)] = quads[turn].v[i];
            } else {
                *(Quad*)(slab + (ALONG == ALONG_ROWS ? slab_place<ALONG>(col, line) : slab_place<ALONG>(line, col))) = quads[turn];
            }
        }
    }
}

// A slab of a factor with so many rows, from inner index `start` on.
template <u32 ROWS, u32 THREADS, Along ALONG, u32 BATCH, class Factor>
__device__ __forceinline__ void fill_slab(float* slab, u32 start, const Factor& source) {
    if (source.whole) fill_fours<true, ROWS, THREADS, ALONG, BATCH / 4>(slab, start, source);
    else fill_fours<false, ROWS, THREADS, ALONG, 1>(slab, start, source);
}

// tile += a b over a slab.
template <u32 COLS, Along A, Along B>
__device__ __forceinline__ void multiply(const float* a, const float* b, Tile<COLS>& tile) {
#ifdef TF32_PRODUCTS
    const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    a += slab_place<A>(Tile<COLS>::first_row() + g, t);
    b += slab_place<B>(Tile<COLS>::first_col() + g, t);
#pragma unroll
    for (u32 k = 0; k < SLAB; k += 8) {
        u32 left[2][4], right[4][2];
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) left[m][i] = __float_as_uint(a[slab_place<A>(16 * m + i % 2 * 8, k + i / 2 * 4)]);
        }
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
#pragma unroll
            for (u32 i = 0; i < 2; i++) right[n][i] = __float_as_uint(b[slab_place<B>(8 * n, k + 4 * i)]);
        }
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
#pragma unroll
            for (u32 n = 0; n < 4; n++) mma_16x8x8_tf32(tile.v[m][n], left[m], right[n]);
        }
    }
#else
    a += Tile<COLS>::first_row();
    b += Tile<COLS>::first_col();
#pragma unroll 4
    for (u32 k = 0; k < SLAB; k++) {
        const Quad low = *(const Quad*)(a + k * STRIDE), high = *(const Quad*)(a + k * STRIDE + 4);
        const Quad right = *(const Quad*)(b + k * STRIDE);
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                tile.v[i][j] += low.v[i] * right.v[j];
                tile.v[i + 4][j] += high.v[i] * right.v[j];
            }
        }
    }
#endif
}

// Where the left factor is not 0: slabs that none of the rows see that multiply together are left out.
enum Seen { ALL, LOWER, UPPER };  // everywhere, where inner <= row, where inner >= row

// tile += a b over an inner size. Each value is read once, by some thread, which reads BATCH of them before it keeps the
// first. `slabs` has room for two; when this returns other threads may still read them.
template <u32 COLS, Along A, Along B, Seen SEEN, u32 BATCH = 8, class Left, class Right>
__device__ __forceinline__ void add_product(u32 size, float* slabs, Tile<COLS>& tile, const Left& left, const Right& right) {
    float *a = slabs, *b = slabs + SLAB_VALUES;
    for (u32 start = 0; start < size; start += SLAB) {
        __syncthreads();
        fill_slab<64, 2 * COLS, A, BATCH>(a, start, left);
        fill_slab<COLS, 2 * COLS, B, BATCH>(b, start, right);
        __syncthreads();
        const bool seen = SEEN == ALL || (SEEN == LOWER ? Tile<COLS>::end_row() > start : Tile<COLS>::first_row() < start + SLAB);
        if (seen) multiply<COLS, A, B>(a, b, tile);
    }
}

// Lays the tile out in shared memory, [64, STRIDE], over the slabs or elsewhere.
template <u32 COLS>
__device__ __forceinline__ void lay_out(Tile<COLS>& tile, float* shared) {
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < Tile<COLS>::rows; i++) {
#pragma unroll
        for (u32 j = 0; j < Tile<COLS>::cols; j += 2)
            *(Pair*)(shared + Tile<COLS>::row(i) * STRIDE + Tile<COLS>::col(j)) = {tile.at(i, j), tile.at(i, j + 1)};
    }
    __syncthreads();
}

// Writes a tile that is laid out in shared memory to lines in memory, those and the columns that there are.
template <u32 THREADS>
__device__ __forceinline__ void write_lines(const float* shared, float* to, u64 stride, u32 lines, u32 cols) {
    const bool whole = are_whole(to, stride, cols);
    const u32 line_bytes = (u32)stride * 4, first = threadIdx.x / 16, col = threadIdx.x % 16 * 4;
#pragma unroll 4
    for (u32 line = first; line < 64; line += THREADS / 16) {
        const Quad quad = *(const Quad*)(shared + line * STRIDE + col);
        float* place = (float*)((char*)to + (u64)line * line_bytes) + col;
        if (whole) {
            if (line < lines && col < cols) *(Quad*)place = quad;
        } else {
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                if (line < lines && col + i < cols) place[i] = quad.v[i];
        }
    }
}
