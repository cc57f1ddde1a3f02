// Cross-layer attention: y[b] = v[b] softmax(scale q[b]^T k[b])^T over key positions
// (finedge.ops.cross_layer_attention).
//
// One block computes 32 queries of one image, in two groups of the 16 rows of an mma. It reads its
// keys in tiles, so that nothing of size queries x keys is ever in memory. For each tile:
//
//     s = q k^T scale log2(e)     each warp a slice of the channels, for some of the keys
//     m' = max(m, max s), or m where that is near (SLACK);  w = 2^(s - m')
//     l = l 2^(m - m') + sum w    each warp some of the queries
//     o = o 2^(m - m') + w v      each warp 1 / WARPS of the channels, for all queries and keys
//
// and y = o / l at the end. Products are fp16 on tensor cores (mma.sync m16n8k16, sm_80 and later),
// all sums are fp32. A group that has no query is not multiplied.
//
// Where it comes from: the running maximum and sum are Milakov and Gimelshein's (arXiv 1805.02867),
// the tiling, the queries that stay in registers and the order of the copies FlashAttention-2's
// (arXiv 2307.08691). FlashAttention stops at 256 channels, where the rows of one warp fill its
// registers. Beyond, the channels are divided over the warps as in FlashMLA (DeepSeek), whose head
// this is too: 512 channels, keys and values in one map. The warps' parts of s then meet in shared
// memory. That costs little beside what it saves: each byte of k and v is read from shared memory
// once for 32 queries, and q never again.
//
//     kernel           head D  k and v   keys  warps  slices  registers of q, o   shared memory
//     cla_64               64  two maps    32      4       1       32,  16             15,616
//     cla_128             128  two maps    32      4       1       64,  32             23,808
//     cla_256             256  two maps    32      4       2       64,  64             44,288
//     cla_512             512  two maps    32      8       2      128,  64             77,056
//     cla_shared_512      512  one map     32      8       2      128,  64             77,056
//     cla_shared_1024    1024  one map     16      8       8       64, 128             83,712
//
//     D >= max(d, dv); one map means d == dv
//     shared memory: 4 keys (D + 8) + 128 keys slices + 64 keys + 256 bytes, all of it dynamic
//     grid (ceil(queries / 32), splits, batch), block 32 x warps
//     cla_combine: grid (queries, 1, batch), block 128, no dynamic shared memory
//
// There are two buffers for tiles, of which cp.async fills one while the other is read. With one
// map they take turns. With two maps one is for keys, the other for values: a tile of values
// arrives during q k^T and the softmax, the next tile of keys during the softmax and w v. INT8 maps
// and maps of neighbouring tokens (kLINEAR) need conversion; threads read and store these at the
// same places of the loop.
//
// Clocks of a tile of cla_shared_512 on Orin, where a multiprocessor does 1024 multiplications a
// clock and moves 128 bytes of shared memory: 1024 for the 512 products; 1080 for shared memory, of
// which k 256, v 256, the copies 256, the parts of s 128, w 144, the rest 40. So tensor cores are
// busy at most 94.8 % of the time; 87 %, as barriers keep q k^T, the softmax and w v apart.
// `python -m tests.runtime.trt.plugin.bounds` counts this, and a test asserts it. A block of 8
// warps takes all registers of a multiprocessor.
//
// Channels past d and dv, keys past the end and queries past the end are zeros that were never read
// from memory.
// splits > 1: block y of the grid reads a contiguous run of ceil(tiles / splits) tiles, possibly
// none. It writes o, m, l (m in units of log2; -inf and l = 0 if it had no tile) to
// partial[batch][splits][queries][dv + 2] = {o[0..dv), m, l}. cla_combine then adds up at most 32.
//
// There are six barriers; a comment at each says what it protects. The only include is cuda_fp16.h,
// so that NVRTC and nvcc compile this file as it is, and g++ with the shim of
// tests/runtime/trt/plugin/host.

#include <cuda_fp16.h>

// Element (t, c) of image b lies at data + batch b + token t + group (c / 32) + channel (c % 32),
// in elements of its type. channel == 1 means aligned groups of 8 channels (16 bytes, 8 for INT8),
// padded to a multiple of 8.
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
static_assert(sizeof(Map) == 40 && sizeof(Problem) == 200, "launch.py and jetson/plugin repeat it");

static constexpr int GROUP = 16, QUERIES = 2 * GROUP;
static constexpr int COMBINE_THREADS = 128;
static constexpr float LOG2_E = 1.4426950408889634f;
// The maximum m of a query is what its weights are relative to. It follows the true one only when
// that is larger by more than this (log2, FlashAttention-4): weights then reach 2^8, fp16 holds
// 2^15, and o is seldom multiplied.
static constexpr float SLACK = 8;
// A row of a tile is 8 halves longer than its channels: eight rows then start in eight different
// groups of banks.
static constexpr int SKEW = 8;

// N neighbours, moved by one instruction.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
    T of[N];
};

// What touches shared memory, a tensor core or the answer in memory is in this section. The shim of
// the tests has its own: it emulates the PTX manual's fragments and counts wavefronts, bytes and
// products.
#ifndef FINEDGE_SIMT_H
// d += a b: a is 16 x 16 row-major, b is 16 x 8 column-major, d is 16 x 8. Lane i holds rows i / 4
// and i / 4 + 8, columns i % 4 * 2 and the next.
__device__ inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline unsigned shared_address(const void* at) {
    return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

// Four 8 x 8 matrices of halves: lane i gives the address of row i % 8 of matrix i / 8 and gets row
// i / 4, columns i % 4 * 2 and the next, of each.
__device__ inline void ldmatrix(unsigned (&x)[4], const __half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline void ldmatrix_transposed(unsigned (&x)[4], const __half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
}

template <typename T>
__device__ inline T load_shared(const T* at) { return *at; }
template <typename T>
__device__ inline void store_shared(T* at, T x) { *at = x; }
template <typename T>
__device__ inline void store_global(T* at, T x) { *at = x; }

// If `on`, 16 bytes from global to shared memory, which are there after a wait: `bytes` of them,
// then zeros. A predicate, where a branch would keep the products before and after it apart.
__device__ inline void copy_async(__half* to, const __half* from, int bytes, bool on) {
    asm volatile(
        "{.reg .pred on; setp.ne.b32 on, %3, 0; @on cp.async.cg.shared.global [%0], [%1], 16, %2;}"
        ::"r"(shared_address(to)), "l"(from), "r"(bytes), "r"(static_cast<int>(on))
        : "memory");
}
// This thread's copies since the last commit become a group.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all of this thread's groups but the newest N.
template <int N>
__device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
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

// A kernel: heads of at most D_ channels; whether k and v are one map; how many warps; into how
// many slices they divide the channels for q k^T; keys of a tile; blocks that the registers of a
// multiprocessor have to hold.
template <int D_, bool ONE_MAP_, int WARPS_, int SLICES_, int KEYS_, int RESIDENT_>
struct Kernel {
    static constexpr int RESIDENT = RESIDENT_;
    static constexpr int D = D_, WARPS = WARPS_, SLICES = SLICES_, KEYS = KEYS_;
    static constexpr bool ONE_MAP = ONE_MAP_;
    static constexpr int THREADS = 32 * WARPS, PITCH = D + SKEW;
    // q k^T: a warp has BLOCKS times 8 keys and STEPS times 16 channels.
    static constexpr int BLOCKS = KEYS * SLICES / WARPS / 8, STEPS = D / SLICES / 16;
    __device__ static int slice() { return warp() % SLICES; }
    __device__ static int key() { return warp() / SLICES * (8 * BLOCKS); }
    // Softmax: a warp owns ROWS queries. WARPS lanes share a row, each has OWN keys of it.
    static constexpr int ROWS = QUERIES / WARPS, OWN = KEYS / WARPS;
    // w v: a warp has COLUMNS channels.
    static constexpr int COLUMNS = D / WARPS;
    static_assert((BLOCKS == 1 && STEPS % 2 == 0) || BLOCKS == 2, "an ldmatrix feeds two products");
    static_assert(COLUMNS % 16 == 0 && KEYS % 16 == 0, "an ldmatrix takes 16 keys x 16 channels");
    static_assert(KEYS == 16 || KEYS == 32, "the swizzles are made for these");
};

// --- a tile from global memory -----------------------------------------------------------------

// ROWS tokens by D channels from an fp16 map of neighbouring channels, in PIECES copies of a
// thread: it keeps its eight channels and steps over tokens.
template <class K, int ROWS>
struct Copies {
    static constexpr int CHUNKS = K::D / 8, STEP = K::THREADS / CHUNKS, PIECES = ROWS / STEP;
    static_assert(K::THREADS % CHUNKS == 0 && ROWS % STEP == 0, "a thread has as many as the next");

    __half* to;
    const __half* from;
    int step, rows, bytes;  // elements between pieces; tokens left from the first; of a token
    bool on = false;

    __device__ void prepare(__half* tile, const Map& map, const __half* data, int count,
                            int channels) {
        const int row = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS * 8;
        to = tile + row * K::PITCH + c;
        from = data + map.token * row + map.group * (c / 32) + c % 32;
        step = map.token * STEP, rows = count - row;
        bytes = 2 * min(max(channels - c, 0), 8);
        on = true;
    }
    // A copy of no bytes does not look at its source.
    __device__ void piece(int i) const {
        copy_async(to + i * STEP * K::PITCH, from + i * step, i * STEP < rows ? bytes : 0, on);
    }
    __device__ void all() const {
#pragma unroll
        for (int i = 0; i < PIECES; i++) piece(i);
        commit_copies();
    }
};

// The same from INT8 (kCHW32): 8 bytes become 16.
template <class K, int ROWS>
__device__ void widen(__half* tile, const Map& map, const signed char* data, int rows,
                      int channels) {
    constexpr int CHUNKS = K::D / 8, STEP = K::THREADS / CHUNKS;
    const int c = threadIdx.x % CHUNKS * 8;
    const signed char* at = data + map.group * (c / 32) + c % 32;
    const auto value = [=](unsigned word, int i) {  // the padding of the map may hold anything
        const auto byte = static_cast<signed char>(word >> i % 4 * 8);
        return c + i < channels ? as_float(byte, map.scale) : 0;
    };
#pragma unroll(K::D > 256 ? 2 : 4)  // loads in flight
    for (int row = threadIdx.x / CHUNKS; row < ROWS; row += STEP) {
        const auto* source = reinterpret_cast<const uint2*>(at + map.token * row);
        const uint2 raw = row < rows && c < channels ? __ldg(source) : make_uint2(0, 0);
        Pack<unsigned, 4> x;
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            const unsigned word = i < 4 ? raw.x : raw.y;
            x.of[i / 2] = packed(value(word, i), value(word, i + 1));
        }
        store_shared(reinterpret_cast<Pack<unsigned, 4>*>(tile + row * K::PITCH + c), x);
    }
}

// The same from a map of neighbouring tokens (kLINEAR), one element per load: a thread keeps its
// token and steps over channels.
template <class K, int ROWS, typename T>
__device__ void gather_planes(__half* tile, const Map& map, const T* data, int rows, int channels) {
    const int row = threadIdx.x % ROWS;
#pragma unroll 1
    for (int c = threadIdx.x / ROWS * 8; c < K::D; c += K::THREADS / ROWS * 8) {
        const T* at = data + map.token * row + map.group * (c / 32) + map.channel * (c % 32);
        const auto value = [=](int i) {
            const bool inside = row < rows && c + i < channels;
            return inside ? as_float(__ldg(at + map.channel * i), map.scale) : 0;
        };
        Pack<unsigned, 4> x;
#pragma unroll
        for (int i = 0; i < 4; i++) x.of[i] = packed(value(2 * i), value(2 * i + 1));
        store_shared(reinterpret_cast<Pack<unsigned, 4>*>(tile + row * K::PITCH + c), x);
    }
}

// Tokens first to first + ROWS of image blockIdx.z as fp16 [ROWS][PITCH]. Tokens from `end` on and
// channels past `channels` are zero. Returns the copies that remain to be made: none from a map
// that is converted, and none past the end.
template <class K, int ROWS>
__device__ Copies<K, ROWS> fetch(__half* tile, const Map& map, int first, int end, int channels) {
    Copies<K, ROWS> copies;
    const long long start = map.batch * blockIdx.z + static_cast<long long>(map.token) * first;
    const __half* halves = static_cast<const __half*>(map.data) + start;
    const signed char* bytes = static_cast<const signed char*>(map.data) + start;
    if (first >= end) return copies;
    if (map.channel == 1 && map.kind == 0) copies.prepare(tile, map, halves, end - first, channels);
    else if (map.channel == 1) widen<K, ROWS>(tile, map, bytes, end - first, channels);
    else if (map.kind == 0) gather_planes<K, ROWS>(tile, map, halves, end - first, channels);
    else gather_planes<K, ROWS>(tile, map, bytes, end - first, channels);
    return copies;
}

// --- shared memory -----------------------------------------------------------------------------

// What a block holds. Rows of s and w have no skew: their columns are swizzled by the row, so that
// every access below is free of bank conflicts.
template <class K>
struct Arena {
    unsigned char* start;

    // Two buffers of [KEYS][PITCH] halves.
    __device__ __half* tile(int i) const {
        return reinterpret_cast<__half*>(start) + i * (K::KEYS * K::PITCH);
    }
    // [SLICES][QUERIES][KEYS]: the part of s of a slice of the channels. A store is four rows by 8
    // keys; a load two rows of 16, or one of 32.
    __device__ float* part(int slice, int row, int key) const {
        const int swizzle = K::KEYS == 32 ? row % 4 * 8 + row % 2 * 4 : row / 2 % 2 * 8;
        float* parts = reinterpret_cast<float*>(tile(2));
        return parts + (slice * QUERIES + row) * K::KEYS + (key ^ swizzle);
    }
    // [QUERIES][KEYS] halves, in chunks of 8: an ldmatrix reads one chunk of eight rows.
    __device__ __half* weight(int row, int key) const {
        const int swizzle = K::KEYS == 32 ? row / 2 % 4 * 8 : row / 4 % 2 * 8;
        __half* weights = reinterpret_cast<__half*>(part(K::SLICES, 0, 0));
        return weights + row * K::KEYS + (key ^ swizzle);
    }
    // [QUERIES]: what o is multiplied by before this tile is added.
    __device__ float* rescale(int row) const {
        return reinterpret_cast<float*>(weight(QUERIES, 0)) + row;
    }
    // [QUERIES]: the sum of a query's weights, at the end.
    __device__ float* mass(int row) const { return rescale(QUERIES) + row; }
};

// --- one tile ----------------------------------------------------------------------------------

// This warp's slice of the channels of the queries, as a operands: read once, kept for all tiles.
template <class K>
__device__ void keep(unsigned (&q)[2][K::STEPS][4], const __half* tile) {
    tile += lane() % 16 * K::PITCH + K::slice() * (K::D / K::SLICES) + lane() / 16 * 8;
#pragma unroll
    for (int g = 0; g < 2; g++)
#pragma unroll
        for (int i = 0; i < K::STEPS; i++) ldmatrix(q[g][i], tile + g * GROUP * K::PITCH + i * 16);
}

// s = q k^T over this warp's slice of the channels, for its keys. `both`: the second group has
// queries. Two sums for each group, so that one product does not wait for the previous one: of 8
// keys each, or of every other step. `copies` start between the products, for the tensor cores do
// not wait for them.
template <class K>
__device__ void score(float (&s)[2][2][4], const unsigned (&q)[2][K::STEPS][4], const __half* k,
                      bool both, const Copies<K, K::KEYS>& copies) {
    constexpr int LOADS = K::STEPS * K::BLOCKS / 2;
    static_assert(LOADS == Copies<K, K::KEYS>::PIECES, "a copy for each load of k");
    constexpr int EACH = K::WARPS / 4;  // a block that is alone starts them in the first half
    const int row = K::BLOCKS == 1 ? lane() % 8 : lane() % 8 + lane() / 16 * 8;
    const int column = K::BLOCKS == 1 ? lane() / 8 * 8 : lane() / 8 % 2 * 8;
    k += (K::key() + row) * K::PITCH + K::slice() * (K::D / K::SLICES) + column;
    unsigned b[2][4];
    ldmatrix(b[0], k);
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
#pragma unroll
        for (int j = EACH * i; j < EACH * i + EACH && j < LOADS; j++) copies.piece(j);
        if (i + 1 < LOADS) ldmatrix(b[(i + 1) % 2], k + (i + 1) * (32 / K::BLOCKS));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int step = K::BLOCKS == 1 ? 2 * i + half : i;
            const unsigned b0 = b[i % 2][2 * half], b1 = b[i % 2][2 * half + 1];
            mma(s[0][half], q[0][step], b0, b1);
            if (both) mma(s[1][half], q[1][step], b0, b1);
        }
    }
    commit_copies();
}

// This warp's part of s to shared memory.
template <class K>
__device__ void leave(const Arena<K>& arena, const float (&s)[2][2][4], bool both) {
#pragma unroll
    for (int i = 0; i < 4 * K::BLOCKS; i++) {
        const int g = i / (2 * K::BLOCKS), n = i / 2 % K::BLOCKS, r = i % 2;
        if (g == 1 && !both) continue;
        Pack<float, 2> pair = {{s[g][n][2 * r], s[g][n][2 * r + 1]}};
        if (K::BLOCKS == 1) pair.of[0] += s[g][1][2 * r], pair.of[1] += s[g][1][2 * r + 1];
        const int row = g * GROUP + lane() / 4 + 8 * r, key = K::key() + n * 8 + lane() % 4 * 2;
        store_shared(reinterpret_cast<Pack<float, 2>*>(arena.part(K::slice(), row, key)), pair);
    }
}

// The query that a lane owns with its neighbours: running maximum (log2) and sum of weights, the
// sum over this lane's keys only.
struct Row {
    float peak, mass;
};

// Sum or maximum over LANES neighbouring lanes.
template <int LANES, typename Operation>
__device__ float over(float x, Operation operation) {
#pragma unroll
    for (int mask = 1; mask < LANES; mask *= 2) x = operation(x, __shfl_xor_sync(~0u, x, mask));
    return x;
}
__device__ inline float larger(float x, float y) { return fmaxf(x, y); }
__device__ inline float sum(float x, float y) { return x + y; }

// The weights of a tile from the parts of its scores, with `keys` of its keys before the end.
template <class K>
__device__ void weigh(const Arena<K>& arena, Row& own, int keys, float scale) {
    constexpr int WIDTH = K::OWN < 4 ? K::OWN : 4;
    const int row = warp() * K::ROWS + lane() / K::WARPS, key = lane() % K::WARPS * K::OWN;
    float s[K::OWN] = {};
#pragma unroll
    for (int slice = 0; slice < K::SLICES; slice++)
#pragma unroll
        for (int i = 0; i < K::OWN; i += WIDTH) {
            const float* at = arena.part(slice, row, key + i);
            const auto part = load_shared(reinterpret_cast<const Pack<float, WIDTH>*>(at));
#pragma unroll
            for (int j = 0; j < WIDTH; j++) s[i + j] += part.of[j];
        }
    float peak = minus_infinity();
#pragma unroll
    for (int i = 0; i < K::OWN; i++) {
        s[i] = key + i < keys ? s[i] * scale : minus_infinity();
        peak = fmaxf(peak, s[i]);
    }
    peak = over<K::WARPS>(peak, larger);
    if (peak <= own.peak + SLACK) peak = own.peak;
    const float rescale = exp2f(own.peak - peak);
    own = {peak, own.mass * rescale};
    Pack<unsigned, K::OWN / 2> weights;
#pragma unroll
    for (int i = 0; i < K::OWN / 2; i++) {
        const __half2 pair = __floats2half2_rn(exp2f(s[2 * i] - peak), exp2f(s[2 * i + 1] - peak));
        weights.of[i] = reinterpret_cast<const unsigned&>(pair);
        own.mass += __low2float(pair) + __high2float(pair);  // as rounded: what v is multiplied by
    }
    store_shared(reinterpret_cast<Pack<unsigned, K::OWN / 2>*>(arena.weight(row, key)), weights);
    if (lane() % K::WARPS == 0) store_shared(arena.rescale(row), rescale);
}

// o = o 2^(m - m') for this warp's channels. Few tiles have a query whose maximum follows.
template <class K>
__device__ void rescale(const Arena<K>& arena, float (&o)[2][K::COLUMNS / 8][4], bool both) {
    float by[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {  // the rows of a thread: two of each group
        const int row = i / 2 * GROUP + lane() / 4 + i % 2 * 8;
        by[i] = i < 2 || both ? load_shared(arena.rescale(row)) : 1;
    }
    if (__all_sync(~0u, by[0] * by[1] * by[2] * by[3] == 1)) return;  // none is larger than 1
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int n = 0; n < K::COLUMNS / 8; n++) {
            o[i / 2][n][i % 2 * 2] *= by[i];
            o[i / 2][n][i % 2 * 2 + 1] *= by[i];
        }
}

// o = o + w v for this warp's channels.
template <class K>
__device__ void gather(const Arena<K>& arena, float (&o)[2][K::COLUMNS / 8][4], const __half* v,
                       bool both) {
    unsigned w[2][K::KEYS / 16][4];
#pragma unroll
    for (int h = 0; h < K::KEYS / 16; h++) {
        const int row = lane() % 16, key = h * 16 + lane() / 16 * 8;
        ldmatrix(w[0][h], arena.weight(row, key));
        if (both) ldmatrix(w[1][h], arena.weight(GROUP + row, key));
    }
    v += lane() % 16 * K::PITCH + warp() * K::COLUMNS + lane() / 16 * 8;
#pragma unroll
    for (int n = 0; n < K::COLUMNS / 8; n += 2)
#pragma unroll
        for (int h = 0; h < K::KEYS / 16; h++) {
            unsigned b[4];
            ldmatrix_transposed(b, v + h * 16 * K::PITCH + n * 8);
#pragma unroll
            for (int g = 0; g < 2; g++) {
                if (g == 1 && !both) continue;
                mma(o[g][n], w[g][h], b[0], b[1]);
                mma(o[g][n + 1], w[g][h], b[2], b[3]);
            }
        }
}

// --- the answer --------------------------------------------------------------------------------

// What a thread writes of one query: channels c and c + 1, c even. The padding of the map up to a
// multiple of 8 channels is written too: it is zero, as a reader may expect.
struct Answer {
    const Map& y;
    __half* start;
    int channels;

    __device__ Answer(const Problem& p, int query)
        : y(p.y),
          start(static_cast<__half*>(y.data) + y.batch * blockIdx.z +
                static_cast<long long>(y.token) * query),
          channels(y.channel == 1 ? (p.dv + 7) / 8 * 8 : p.dv) {}

    __device__ void put(int c, float x0, float x1) const {
        __half* at = start + y.group * (c / 32) + y.channel * (c % 32);
        if (y.channel == 1 && c < channels) {
            store_global(reinterpret_cast<__half2*>(at), __floats2half2_rn(x0, x1));
        } else {
            if (c < channels) store_global(at, __float2half_rn(x0));
            if (c + 1 < channels) store_global(at + y.channel, __float2half_rn(x1));
        }
    }
};

__device__ inline float* partial(const Problem& p, int split, int query) {
    const long long image = static_cast<long long>(blockIdx.z) * p.splits;
    return p.partial + ((image + split) * p.queries + query) * (p.dv + 2);
}

// The owner of a query leaves its sum for all warps and, where the keys are split, maximum and sum
// to cla_combine.
template <class K>
__device__ void conclude(const Problem& p, const Arena<K>& arena, const Row& own) {
    const int row = warp() * K::ROWS + lane() / K::WARPS, query = blockIdx.x * QUERIES + row;
    const float mass = over<K::WARPS>(own.mass, sum);
    if (lane() % K::WARPS) return;
    store_shared(arena.mass(row), mass);
    if (p.splits == 1 || query >= p.queries) return;
    float* part = partial(p, blockIdx.y, query) + p.dv;
    store_global(part, own.peak);
    store_global(part + 1, mass);
}

// This warp's channels of o, divided, to y, or as they are to this split's part.
template <class K>
__device__ void write(const Problem& p, const Arena<K>& arena,
                      const float (&o)[2][K::COLUMNS / 8][4]) {
    const int first = warp() * K::COLUMNS + lane() % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; i++) {  // the rows of a thread: two of each group
        const int g = i / 2, r = i % 2, row = g * GROUP + lane() / 4 + 8 * r;
        const int query = blockIdx.x * QUERIES + row;
        if (query >= p.queries) continue;
        if (p.splits == 1) {
            const float share = 1 / load_shared(arena.mass(row));
            const Answer answer(p, query);
#pragma unroll
            for (int n = 0; n < K::COLUMNS / 8; n++)
                answer.put(first + n * 8, o[g][n][2 * r] * share, o[g][n][2 * r + 1] * share);
        } else {
            float* part = partial(p, blockIdx.y, query);
#pragma unroll
            for (int n = 0; n < K::COLUMNS / 8; n++) {
                const int c = first + n * 8;
                if (c < p.dv) store_global(part + c, o[g][n][2 * r]);
                if (c + 1 < p.dv) store_global(part + c + 1, o[g][n][2 * r + 1]);
            }
        }
    }
}

template <class K>
__device__ void attend(const Problem& p) {
    extern __shared__ __align__(16) unsigned char shared_memory[];
    const Arena<K> arena = {shared_memory};
    const int tiles = (p.keys + K::KEYS - 1) / K::KEYS;
    const int run = (tiles + p.splits - 1) / p.splits * K::KEYS;
    const int begin = run * blockIdx.y, end = min(begin + run, p.keys);
    const int query = blockIdx.x * QUERIES;
    const bool both = p.queries - query > GROUP;
    const bool owner = both || warp() < K::WARPS / 2;  // of rows of a group that has queries
    // The queries pass through the second buffer while the first keys arrive, or through both.
    constexpr bool BESIDE = K::KEYS >= QUERIES;

    if (BESIDE) fetch<K, K::KEYS>(arena.tile(0), p.k, begin, end, p.d).all();
    fetch<K, QUERIES>(arena.tile(BESIDE), p.q, query, p.queries, p.d).all();
    wait_copies<0>();  // q, and the first tile if it is on its way
    __syncthreads();  // 1: the queries are whole before any warp reads them
    unsigned q[2][K::STEPS][4];
    keep<K>(q, arena.tile(BESIDE));
    if (!BESIDE) {
        __syncthreads();  // 2: every warp has its queries before keys take their place
        fetch<K, K::KEYS>(arena.tile(0), p.k, begin, end, p.d).all();
    }

    Row own = {minus_infinity(), 0};
    float o[2][K::COLUMNS / 8][4] = {};
    for (int first = begin, turn = 0; first < end; first += K::KEYS, turn ^= K::ONE_MAP) {
        const __half* k = arena.tile(turn);
        wait_copies<0>();  // k
        __syncthreads();  // 3: k is whole; every warp is done with the tile of the other buffer
        const auto copies =
            K::ONE_MAP ? fetch<K, K::KEYS>(arena.tile(turn ^ 1), p.k, first + K::KEYS, end, p.d)
                       : fetch<K, K::KEYS>(arena.tile(1), p.v, first, end, p.dv);
        float s[2][2][4] = {};
        score<K>(s, q, k, both, copies);
        leave<K>(arena, s, both);
        __syncthreads();  // 4: the parts of s are whole; every warp is done with the keys
        if (!K::ONE_MAP) fetch<K, K::KEYS>(arena.tile(0), p.k, first + K::KEYS, end, p.d).all();
        if (owner) weigh<K>(arena, own, end - first, p.scale * LOG2_E);
        if (!K::ONE_MAP) wait_copies<1>();  // the values, not the next keys
        __syncthreads();  // 5: the weights, and the values, are whole
        rescale<K>(arena, o, both);
        gather<K>(arena, o, K::ONE_MAP ? k : arena.tile(1), both);
    }
    if (owner) conclude<K>(p, arena, own);
    __syncthreads();  // 6: the sums are there before o is divided by them
    write<K>(p, arena, o);
}

using Cla64 = Kernel<64, false, 4, 1, 32, 3>;
using Cla128 = Kernel<128, false, 4, 1, 32, 3>;
using Cla256 = Kernel<256, false, 4, 2, 32, 2>;
using Cla512 = Kernel<512, false, 8, 2, 32, 1>;
using ClaShared512 = Kernel<512, true, 8, 2, 32, 1>;
using ClaShared1024 = Kernel<1024, true, 8, 8, 16, 1>;

#define KERNEL(name, K)                                                                           \
    extern "C" __global__ void __launch_bounds__(K::THREADS, K::RESIDENT) name(const Problem p) { \
        attend<K>(p);                                                                             \
    }
KERNEL(cla_64, Cla64)
KERNEL(cla_128, Cla128)
KERNEL(cla_256, Cla256)
KERNEL(cla_512, Cla512)
KERNEL(cla_shared_512, ClaShared512)
KERNEL(cla_shared_1024, ClaShared1024)

// y = sum over splits of 2^(m - max m) o / sum over splits of 2^(m - max m) l, a query per block.
// Lane s has maximum and sum of split s, of at most 32, and all loads of o are independent.
extern "C" __global__ void __launch_bounds__(COMBINE_THREADS) cla_combine(const Problem p) {
    const int query = blockIdx.x, pitch = p.queries * (p.dv + 2);  // from one split to the next
    const float* parts = partial(p, 0, query);
    const Answer answer(p, query);
    const bool mine = lane() < p.splits;
    const float* last = parts + lane() * pitch + p.dv;
    const float peak = mine ? __ldg(last) : minus_infinity(), mass = mine ? __ldg(last + 1) : 0;
    const float weight = exp2f(peak - over<32>(peak, larger));
    const float share = weight / over<32>(weight * mass, sum);
#pragma unroll 1
    for (int first = 0; first < p.dv; first += COMBINE_THREADS * 2) {
        const int c = first + threadIdx.x * 2;
        const float* part = parts + c;
        float x0 = 0, x1 = 0;
#pragma unroll 8  // loads in flight
        for (int s = 0; s < p.splits; s++, part += pitch) {
            const float by = __shfl_sync(~0u, share, s);
            x0 += c < p.dv ? by * __ldg(part) : 0;
            x1 += c + 1 < p.dv ? by * __ldg(part + 1) : 0;
        }
        answer.put(c, x0, x1);
    }
}
