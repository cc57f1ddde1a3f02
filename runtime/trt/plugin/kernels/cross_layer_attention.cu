// Cross-layer attention: y[b] = v[b] softmax(scale q[b]^T k[b])^T over key positions (finedge.ops.cross_layer_attention).
//
// One block computes 16 queries of one image. It reads its keys in tiles of 32, so that nothing of
// size queries x keys is ever in memory.
// Per tile (Milakov and Gimelshein, arXiv 1805.02867; Dao, arXiv 2307.08691):
//
//     s = q k^T scale log2(e)                  16 x 32, each of the 4 warps 8 keys over all channels
//     m' = max(m, max s);  w = 2^(s - m')      the weights, fp16 in shared memory
//     l = l 2^(m - m') + sum w;  o = o 2^(m - m') + w v      each warp a quarter of the channels over all 32 keys
//
// and y = o / l at the end. Products are fp16 on tensor cores (mma.sync m16n8k16, sm_80 and later),
// all sums are fp32.
//
//     kernel        head size D >= max(d, dv)      k and v             dynamic shared memory
//     cla_D         64, 128, 256, 512              two maps            160 (D + 8) + 1536 bytes
//     cla_shared_D  512, 1024                      one map, d == dv     96 (D + 8) + 1536 bytes
//     grid (ceil(queries / 16), splits, batch), block 128; cla_combine: grid (queries, 1, batch), block 128, no dynamic shared memory
//
// Channels past d and dv, keys past the end and queries past the end are zeros that were never read
// from memory.
// splits > 1: block y of the grid reads a contiguous run of ceil(tiles / splits) tiles, possibly
// none. It writes o, m, l (m in units of log2; -inf and l = 0 if it had no tile) to
// partial[batch][splits][queries][dv + 2] = {o[0..dv), m, l}. cla_combine then adds them up.
//
// There are six barriers; a comment at each says what it protects. The only include is cuda_fp16.h,
// so that NVRTC and nvcc compile this file as it is, and g++ with the shim of
// tests/runtime/trt/plugin/host.

#include <cuda_fp16.h>

// Element (t, c) of image b lies at data + batch b + token t + group (c / 32) + channel (c % 32), in elements of its type.
// channel == 1 means aligned groups of 8 channels (16 bytes, 8 for INT8), padded to a multiple of 8.
struct Map {
    void* data;
    long long batch;
    int token, group, channel;
    float scale;  // of INT8
    int kind;     // 0: fp16; 1: int8, value = int8 * scale
    int pad;
};

struct Problem {
    Map q, k, v, y;  // y is fp16
    float* partial;
    int queries, keys, d, dv, splits, batch;
    float scale;
    int pad;
};
static_assert(sizeof(Map) == 40 && sizeof(Problem) == 200, "runtime/trt/plugin/launch.py and jetson/plugin lay these out too");

static constexpr int QUERIES = 16, KEYS = 32, WARPS = 4, THREADS = 32 * WARPS;
static constexpr int SKEW = 8;  // a row of a tile is 8 halves longer than its channels: eight rows then start in eight different groups of banks
static constexpr int WEIGHTS_PITCH = KEYS + SKEW;
static constexpr float LOG2_E = 1.4426950408889634f;

#ifndef FINEDGE_SIMT_H  // the shim emulates these three from the fragment layout in the PTX manual
// d += a b: a is 16 x 16 row-major, b is 16 x 8 column-major, d is 16 x 8. Lane i holds rows i / 4 and i / 4 + 8, columns i % 4 * 2 and the next.
__device__ inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of halves: lane i gives the address of row i % 8 of matrix i / 8 and gets row i / 4, columns i % 4 * 2 and the next, of each.
__device__ inline void ldmatrix(unsigned (&x)[4], const __half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}

__device__ inline void ldmatrix_transposed(unsigned (&x)[4], const __half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}
#endif

__device__ inline float minus_infinity() { return __int_as_float(0xff800000); }
__device__ inline int lane() { return threadIdx.x % 32; }
__device__ inline int warp() { return threadIdx.x / 32; }

__device__ inline float as_float(__half x, float) { return __half2float(x); }
__device__ inline float as_float(signed char x, float scale) { return x * scale; }
__device__ inline unsigned packed(float x0, float x1) {
    const __half2 pair = __floats2half2_rn(x0, x1);
    return reinterpret_cast<const unsigned&>(pair);
}

// Eight neighbouring channels in one load: unchanged if fp16, scaled if INT8.
__device__ inline uint4 eight(const __half* at, float) { return __ldg(reinterpret_cast<const uint4*>(at)); }
__device__ inline uint4 eight(const signed char* at, float scale) {
    const uint2 raw = __ldg(reinterpret_cast<const uint2*>(at));
    const auto two = [scale](unsigned word) { return packed(static_cast<signed char>(word) * scale, static_cast<signed char>(word >> 8) * scale); };
    return make_uint4(two(raw.x), two(raw.x >> 16), two(raw.y), two(raw.y >> 16));
}

// Tile of ROWS tokens by D channels from a map with neighbouring channels (kHWC8, kCHW32): a thread
// keeps its eight channels and steps over tokens.
template <int ROWS, int D, typename T>
__device__ void load_wide(__half* tile, const Map& map, const T* data, int rows, int channels) {
    constexpr int CHUNKS = D / 8;
    static_assert(CHUNKS <= THREADS && ROWS % (THREADS / CHUNKS) == 0, "every thread has the same number of rows");
    const int c = threadIdx.x % CHUNKS * 8;
    data += map.group * (c / 32) + c % 32;
    unsigned keep[4];  // the padding of the map may hold anything
#pragma unroll
    for (int i = 0; i < 4; i++) keep[i] = (c + 2 * i < channels ? 0xffffu : 0) | (c + 2 * i + 1 < channels ? 0xffff0000u : 0);
#pragma unroll (D > 256 || sizeof(T) == 1 ? 4 : 8)  // loads in flight; in a wide head the registers hold o
    for (int row = threadIdx.x / CHUNKS; row < ROWS; row += THREADS / CHUNKS) {
        const uint4 x = row < rows && c < channels ? eight(data + map.token * row, map.scale) : make_uint4(0, 0, 0, 0);
        *reinterpret_cast<uint4*>(tile + row * (D + SKEW) + c) = make_uint4(x.x & keep[0], x.y & keep[1], x.z & keep[2], x.w & keep[3]);
    }
}

// The same from a map with neighbouring tokens (kLINEAR), one element per load: a thread keeps its
// token and steps over channels.
template <int ROWS, int D, typename T>
__device__ void load_planes(__half* tile, const Map& map, const T* data, int rows, int channels) {
    const int row = threadIdx.x % ROWS;
#pragma unroll 1
    for (int c = threadIdx.x / ROWS * 8; c < D; c += THREADS / ROWS * 8) {
        const T* at = data + map.token * row + map.group * (c / 32) + map.channel * (c % 32);
        float x[8];
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = row < rows && c + i < channels ? as_float(__ldg(at + map.channel * i), map.scale) : 0;
        *reinterpret_cast<uint4*>(tile + row * (D + SKEW) + c) = make_uint4(packed(x[0], x[1]), packed(x[2], x[3]), packed(x[4], x[5]), packed(x[6], x[7]));
    }
}

// Tokens first to first + ROWS of image blockIdx.z as fp16 [ROWS][D + SKEW]. Tokens from `end` on
// and channels past `channels` are zero.
template <int ROWS, int D>
__device__ void load(__half* tile, const Map& map, int first, int end, int channels) {
    const long long start = map.batch * blockIdx.z + static_cast<long long>(map.token) * first;
    const __half* halves = static_cast<const __half*>(map.data) + start;
    const signed char* bytes = static_cast<const signed char*>(map.data) + start;
    if (map.channel == 1 && map.kind == 0) load_wide<ROWS, D>(tile, map, halves, end - first, channels);
    else if (map.channel == 1) load_wide<ROWS, D>(tile, map, bytes, end - first, channels);
    else if (map.kind == 0) load_planes<ROWS, D>(tile, map, halves, end - first, channels);
    else load_planes<ROWS, D>(tile, map, bytes, end - first, channels);
}

// s = q k^T for the 16 queries and this warp's 8 keys. Two sums, so that one product does not wait
// for the previous one.
template <int D>
__device__ void scores(float (&s)[4], const __half* q, const __half* k) {
    float odd[4] = {0, 0, 0, 0};
    q += lane() % 16 * (D + SKEW) + lane() / 16 * 8;
    k += (warp() * 8 + lane() % 8) * (D + SKEW) + lane() / 8 * 8;
#pragma unroll 4
    for (int c = 0; c < D; c += 32) {
        unsigned a[4], b[4];
        ldmatrix(b, k + c);
        ldmatrix(a, q + c);
        mma(s, a, b[0], b[1]);
        ldmatrix(a, q + c + 16);
        mma(odd, a, b[2], b[3]);
    }
    for (int i = 0; i < 4; i++) s[i] += odd[i];
}

// The two rows of queries that a thread holds, lane / 4 and that plus 8: running maximum (log2), sum
// of this thread's weights, o of this warp's channels.
template <int D>
struct Rows {
    float peak[2], mass[2], o[D / 32][4];
};

// The weights of a tile from its scores: fp16 to shared memory; maximum, sum and o are updated.
template <int D>
__device__ void weigh(Rows<D>& rows, float (&s)[4], __half* weights, float* exchange) {
    const int row = lane() / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float peak = fmaxf(s[2 * r], s[2 * r + 1]);
        peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 1));
        peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 2));
        if (lane() % 4 == 0) exchange[warp() * QUERIES + row + 8 * r] = peak;
    }
    __syncthreads();  // 3: every warp's maxima are in `exchange` before any is read
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float peak = rows.peak[r];
        for (int w = 0; w < WARPS; w++) peak = fmaxf(peak, exchange[w * QUERIES + row + 8 * r]);
        const float rescale = exp2f(rows.peak[r] - peak);
        const __half2 pair = __floats2half2_rn(exp2f(s[2 * r] - peak), exp2f(s[2 * r + 1] - peak));
        *reinterpret_cast<__half2*>(weights + (row + 8 * r) * WEIGHTS_PITCH + warp() * 8 + lane() % 4 * 2) = pair;
        rows.mass[r] = rows.mass[r] * rescale + __low2float(pair) + __high2float(pair);  // as rounded: what v is multiplied by
        rows.peak[r] = peak;
#pragma unroll
        for (int n = 0; n < D / 32; n++) {
            rows.o[n][2 * r] *= rescale;
            rows.o[n][2 * r + 1] *= rescale;
        }
    }
}

// o += weights v for this warp's quarter of the channels.
template <int D>
__device__ void gather(float (&o)[D / 32][4], const __half* weights, const __half* v) {
    unsigned early[4], late[4];  // keys 0..15 and 16..31
    weights += lane() % 16 * WEIGHTS_PITCH + lane() / 16 * 8;
    ldmatrix(early, weights);
    ldmatrix(late, weights + 16);
    v += lane() * (D + SKEW) + warp() * (D / WARPS);
#pragma unroll
    for (int n = 0; n < D / 32; n++) {
        unsigned b[4];
        ldmatrix_transposed(b, v + n * 8);
        mma(o[n], early, b[0], b[1]);
        mma(o[n], late, b[2], b[3]);
    }
}

// Neighbouring channels c and c + 1 (c even) of a query. The padding up to a multiple of 8 channels
// is written too: it is zero, as a reader may expect.
__device__ inline void store(const Problem& p, int query, int c, float x0, float x1) {
    const Map& y = p.y;
    __half* at = static_cast<__half*>(y.data) + y.batch * blockIdx.z + static_cast<long long>(y.token) * query + y.group * (c / 32) + y.channel * (c % 32);
    if (y.channel == 1) {
        if (c < (p.dv + 7) / 8 * 8) *reinterpret_cast<__half2*>(at) = __floats2half2_rn(x0, x1);
        return;
    }
    if (c < p.dv) at[0] = __float2half_rn(x0);
    if (c + 1 < p.dv) at[y.channel] = __float2half_rn(x1);
}

__device__ inline float* partial(const Problem& p, int split, int query) {
    return p.partial + ((static_cast<long long>(blockIdx.z) * p.splits + split) * p.queries + query) * (p.dv + 2);
}

// The block's result from shared memory (o not yet divided by mass) to y, or to this split's part
// where the keys are split.
template <int D>
__device__ void write(const Problem& p, const float* o, const float* peaks, const float* masses) {
#pragma unroll 1
    for (int i = threadIdx.x; i < QUERIES * D / 2; i += THREADS) {
        const int row = p.y.channel == 1 ? i / (D / 2) : i % QUERIES, c = 2 * (p.y.channel == 1 ? i % (D / 2) : i / QUERIES);  // neighbours together
        const int query = blockIdx.x * QUERIES + row;
        if (query >= p.queries) continue;
        float mass = 0;
        for (int w = 0; w < WARPS; w++) mass += masses[w * QUERIES + row];
        const float2 x = *reinterpret_cast<const float2*>(o + row * (D + SKEW / 2) + c);
        if (p.splits == 1) {
            store(p, query, c, x.x / mass, x.y / mass);
            continue;
        }
        float* part = partial(p, blockIdx.y, query);
        if (c < p.dv) part[c] = x.x;
        if (c + 1 < p.dv) part[c + 1] = x.y;
        if (c == 0) part[p.dv] = peaks[row], part[p.dv + 1] = mass;
    }
}

// After the last tile: o, maxima and sums go to shared memory, then to y. `o` takes the place of k,
// `peaks` that of the weights.
template <int D>
__device__ void conclude(const Problem& p, const Rows<D>& rows, float* o, float* peaks, float* masses) {
    __syncthreads();  // 5: every warp is done with the last v and weights before o and peaks take their place
    const int row = lane() / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float mass = rows.mass[r];
        mass += __shfl_xor_sync(~0u, mass, 1);
        mass += __shfl_xor_sync(~0u, mass, 2);
        if (lane() % 4 == 0) masses[warp() * QUERIES + row + 8 * r] = mass;
        if (warp() == 0 && lane() % 4 == 0) peaks[row + 8 * r] = rows.peak[r];
#pragma unroll
        for (int n = 0; n < D / 32; n++) {
            float* at = o + (row + 8 * r) * (D + SKEW / 2) + warp() * (D / WARPS) + n * 8 + lane() % 4 * 2;
            *reinterpret_cast<float2*>(at) = make_float2(rows.o[n][2 * r], rows.o[n][2 * r + 1]);
        }
    }
    __syncthreads();  // 6: o and the sums are whole before they are divided and written
    write<D>(p, o, peaks, masses);
}

template <int D, bool SHARED>
__device__ void attend(const Problem& p) {
    extern __shared__ __align__(16) unsigned char arena[];
    __half* q = reinterpret_cast<__half*>(arena);         // [16][D + SKEW]
    __half* k = q + QUERIES * (D + SKEW);                 // [32][D + SKEW]
    __half* v = SHARED ? k : k + KEYS * (D + SKEW);       // [32][D + SKEW]
    __half* weights = v + KEYS * (D + SKEW);              // [16][32 + SKEW]
    float* exchange = reinterpret_cast<float*>(weights + QUERIES * WEIGHTS_PITCH);  // [4][16]: a number of each warp for each query

    const int tiles = (p.keys + KEYS - 1) / KEYS, run = (tiles + p.splits - 1) / p.splits * KEYS;
    const int begin = run * blockIdx.y, end = min(begin + run, p.keys);
    Rows<D> rows = {{minus_infinity(), minus_infinity()}, {0, 0}, {}};
    load<QUERIES, D>(q, p.q, blockIdx.x * QUERIES, p.queries, p.d);
    for (int first = begin; first < end; first += KEYS) {
        __syncthreads();  // 1: every warp is done with the k, v and weights of the tile before
        load<KEYS, D>(k, p.k, first, end, p.d);
        if (!SHARED) load<KEYS, D>(v, p.v, first, end, p.dv);
        __syncthreads();  // 2: q, k and v are whole before any warp reads them
        float s[4] = {0, 0, 0, 0};
        scores<D>(s, q, k);
        for (int i = 0; i < 4; i++) {
            const int key = first + warp() * 8 + lane() % 4 * 2 + i % 2;
            s[i] = key < end ? s[i] * (p.scale * LOG2_E) : minus_infinity();
        }
        weigh<D>(rows, s, weights, exchange);
        __syncthreads();  // 4: all 32 weights of a query are there before they meet v
        gather<D>(rows.o, weights, v);
    }
    conclude<D>(p, rows, reinterpret_cast<float*>(k), reinterpret_cast<float*>(weights), exchange);
}

extern "C" __global__ void __launch_bounds__(THREADS) cla_64(const Problem p) { attend<64, false>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) cla_128(const Problem p) { attend<128, false>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) cla_256(const Problem p) { attend<256, false>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) cla_512(const Problem p) { attend<512, false>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) cla_shared_512(const Problem p) { attend<512, true>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) cla_shared_1024(const Problem p) { attend<1024, true>(p); }

// y = sum over splits of 2^(m - max m) o / sum over splits of 2^(m - max m) l, one query per block.
extern "C" __global__ void __launch_bounds__(THREADS) cla_combine(const Problem p) {
    const int query = blockIdx.x;
    float peak = minus_infinity(), mass = 0;
    for (int s = 0; s < p.splits; s++) peak = fmaxf(peak, partial(p, s, query)[p.dv]);
    for (int s = 0; s < p.splits; s++) mass += exp2f(partial(p, s, query)[p.dv] - peak) * partial(p, s, query)[p.dv + 1];
#pragma unroll 1
    for (int c = threadIdx.x * 2; c < (p.dv + 7) / 8 * 8; c += THREADS * 2) {
        float x0 = 0, x1 = 0;
        for (int s = 0; s < p.splits; s++) {
            const float* part = partial(p, s, query);
            const float share = exp2f(part[p.dv] - peak) / mass;
            x0 += c < p.dv ? share * part[c] : 0;
            x1 += c + 1 < p.dv ? share * part[c + 1] : 0;
        }
        store(p, query, c, x0, x1);
    }
}
