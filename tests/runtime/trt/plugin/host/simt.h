// Runs a CUDA kernel on the CPU as it stands: include this, then the .cu file.
//
// Every CUDA thread is a fiber (ucontext). A fiber runs until it meets __syncthreads or a warp-wide
// instruction, which are the only places where threads of a block can tell each other anything.
// Which warp runs next is chosen by `order`: the first that can, the last that can, or any (seeded,
// and switched at every warp-wide instruction too), so that a missing barrier shows as a wrong
// result. Shared memory is all NaN (0xff) when a block starts, and what lies past the bytes the
// launch asked for has to be so still at its end.
// mma and ldmatrix follow the fragment layout in the PTX manual ("Matrix fragments for
// mma.m16n8k16", "ldmatrix"). The 16 bytes that a cp.async writes are NaN from the moment it is
// issued until its thread waits for it, so that a reader that is too early sees NaN, and so does
// one that should have been done with what was there before. counter.h counts what all this costs.
//
// Not modelled: the rounding order of the tensor core's sums, time, memory ordering finer than the
// barrier.
#ifndef FINEDGE_SIMT_H
#define FINEDGE_SIMT_H

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "counter.h"

// --- what the compiler and cuda_fp16.h give a kernel --------------------------------------------

#if defined(__aarch64__)
typedef __fp16 __half;  // g++ 12 has no _Float16 in C++ there
#else
typedef _Float16 __half;
#endif
struct alignas(4) __half2 { __half x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct dim3 { unsigned x, y, z; };

#define __global__
#define __device__
#define __shared__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

namespace simt {
constexpr int LARGEST = 232448;  // bytes of shared memory of a block on any GPU (sm_90: 227 KB)
constexpr int GUARD = 4096;
}
alignas(128) static unsigned char shared_memory[simt::LARGEST + simt::GUARD];
static dim3 threadIdx, blockIdx;

namespace simt {
template <typename To, typename From>
To bits_of(From x) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
// A table, since many CPUs convert halves by a function call.
struct Floats {
    float of[65536];
    Floats() {
        for (unsigned i = 0; i < 65536; i++)
            of[i] = static_cast<float>(bits_of<__half>(static_cast<uint16_t>(i)));
    }
};
static const Floats floats;
}  // namespace simt
inline float __half2float(__half x) { return simt::floats.of[simt::bits_of<uint16_t>(x)]; }
inline __half __float2half_rn(float x) { return static_cast<__half>(x); }
inline __half2 __floats2half2_rn(float x, float y) {
    return {static_cast<__half>(x), static_cast<__half>(y)};
}
inline float __low2float(__half2 x) { return __half2float(x.x); }
inline float __high2float(__half2 x) { return __half2float(x.y); }
inline float __int_as_float(unsigned bits) { return simt::bits_of<float>(bits); }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a < b ? b : a; }

// --- fibers -------------------------------------------------------------------------------------

namespace simt {

enum Order { FIRST, LAST, RANDOM };
enum State { READY, AT_BARRIER, DONE };
// STUCK: not every thread came to a barrier or a warp-wide instruction. COPIES_PENDING: a thread
// ended before it had waited for its copies. MISALIGNED: an address of shared memory, or of a
// cp.async's source, is no multiple of the access.
enum Failure {
    OK, UNKNOWN_KERNEL, STUCK, PAST_SHARED, TOO_MUCH_SHARED, WRONG_BLOCK, COPIES_PENDING, MISALIGNED
};

constexpr int THREADS_AT_MOST = 256;
constexpr size_t STACK = 128 * 1024;

struct Copy {
    void* to;
    const void* from;
    int bytes, group;  // bytes to read: the rest of 16 become zero
};

struct Fiber {
    ucontext_t context;
    alignas(16) char stack[STACK];
    State state;
    int round;  // of the warp-wide instructions it has been through
    std::vector<Copy> copies;  // not yet in shared memory
    int groups;                // committed
};

struct Warp {
    int round, arrived;          // instructions completed; lanes that wait for the next
    const void* given[32];       // what each lane brought
    void* taken[32];             // where each lane wants its result
};

struct Machine {
    Fiber fibers[THREADS_AT_MOST];
    Warp warps[THREADS_AT_MOST / 32];
    ucontext_t scheduler;
    void (*kernel)(const void*);
    const void* parameter;
    int current, threads, waiting, done;
    bool misaligned;
    Order order = FIRST;
    uint64_t seed = 1;
};
static Machine machine;

inline void aligned(const void* at, size_t bytes) {
    machine.misaligned |= reinterpret_cast<uintptr_t>(at) % bytes != 0;
}

inline unsigned any(unsigned n) {
    machine.seed = machine.seed * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>(machine.seed >> 33) % n;
}

inline void yield() { swapcontext(&machine.fibers[machine.current].context, &machine.scheduler); }

inline void enter() {
    machine.kernel(machine.parameter);
    machine.fibers[machine.current].state = DONE;
    machine.done++;
    for (;;) yield();
}

// A warp-wide instruction: the last lane to come does the work for all 32.
template <typename Work>
void together(const void* given, void* taken, Work work) {
    Fiber& fiber = machine.fibers[machine.current];
    Warp& warp = machine.warps[machine.current / 32];
    const int lane = machine.current % 32;
    warp.given[lane] = given;
    warp.taken[lane] = taken;
    fiber.round++;
    if (++warp.arrived == 32) {
        work(warp);
        warp.arrived = 0;
        warp.round++;
        if (machine.order == RANDOM) yield();
    }
    while (warp.round < fiber.round) yield();
}

// One turn of a warp: each of its lanes runs to its next stop. False: none of them could run.
inline bool turn(int warp) {
    bool ran = false;
    for (int lane = 0; lane < 32; lane++) {
        const int thread = warp * 32 + lane;
        if (machine.fibers[thread].state != READY) continue;
        machine.current = thread;
        threadIdx = {static_cast<unsigned>(thread), 0, 0};
        swapcontext(&machine.scheduler, &machine.fibers[thread].context);
        ran = true;
    }
    return ran;
}

inline bool pick_and_turn() {
    const int warps = machine.threads / 32, start = machine.order == RANDOM ? any(warps) : 0;
    for (int i = 0; i < warps; i++)
        if (turn(machine.order == LAST ? warps - 1 - i : (start + i) % warps)) return true;
    return false;
}

inline void start_block(int shared) {
    memset(shared_memory, 0xff, shared + GUARD);
    machine.waiting = machine.done = 0;
    machine.misaligned = false;
    for (int i = 0; i < machine.threads / 32; i++) machine.warps[i] = {};
    for (int i = 0; i < machine.threads; i++) {
        Fiber& fiber = machine.fibers[i];
        fiber.state = READY;
        fiber.round = fiber.groups = 0;
        fiber.copies.clear();
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
}

inline Failure run_block(int shared) {
    start_block(shared);
    // A turn in which every lane only found that it still has to wait is no progress; a thousand in
    // a row mean that what they wait for never comes.
    for (int idle = 0, before = -1; machine.done < machine.threads;) {
        if (machine.waiting == machine.threads) {
            machine.waiting = 0;
            for (int i = 0; i < machine.threads; i++) machine.fibers[i].state = READY;
            counter.close(false);
        }
        if (!pick_and_turn()) return STUCK;
        int now = machine.waiting + machine.done;
        for (int i = 0; i < machine.threads / 32; i++)
            now += machine.warps[i].round + machine.warps[i].arrived;
        idle = now == before ? idle + 1 : 0;
        before = now;
        if (idle > 1000) return STUCK;
    }
    counter.close(true);
    for (int i = shared; i < shared + GUARD; i++)
        if (shared_memory[i] != 0xff) return PAST_SHARED;
    for (int i = 0; i < machine.threads; i++)
        if (!machine.fibers[i].copies.empty()) return COPIES_PENDING;
    return machine.misaligned ? MISALIGNED : OK;
}

// Runs `kernel(parameter)` in every thread of a grid of blocks of `threads`, a multiple of 32. LAST
// also turns the order of the blocks.
inline Failure launch(void (*kernel)(const void*), const void* parameter, dim3 grid, int threads,
                      int shared) {
    if (shared > LARGEST) return TOO_MUCH_SHARED;
    machine.kernel = kernel;
    machine.parameter = parameter;
    machine.threads = threads;
    const unsigned blocks = grid.x * grid.y * grid.z;
    for (unsigned i = 0; i < blocks; i++) {
        const unsigned at = machine.order == LAST ? blocks - 1 - i : i;
        blockIdx = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
        if (Failure failure = run_block(shared)) return failure;
    }
    return OK;
}

inline void barrier() {
    machine.fibers[machine.current].state = AT_BARRIER;
    machine.waiting++;
    yield();
}

// The copies of the current thread's groups before `group` arrive.
inline void land(int group) {
    auto& copies = machine.fibers[machine.current].copies;
    size_t kept = 0;
    for (const Copy& copy : copies) {
        if (copy.group >= group) {
            copies[kept++] = copy;
            continue;
        }
        memset(copy.to, 0, 16);
        if (copy.bytes) memcpy(copy.to, copy.from, copy.bytes);
    }
    copies.resize(kept);
}

struct Fragments {
    const unsigned* a;
    unsigned b[2];
};

// d += a b over the 32 fragments of a warp: lane i holds rows i / 4 (+ 8) and columns or depths
// i % 4 * 2 (+ 1, + 8).
inline void multiply(Warp& warp) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const auto* given = static_cast<const Fragments*>(warp.given[lane]);
        const int row = lane / 4, column = lane % 4 * 2;
        for (int i = 0; i < 2; i++) {
            const auto half = [i](unsigned word) { return floats.of[word >> 16 * i & 0xffff]; };
            for (int r = 0; r < 4; r++)
                a[row + r % 2 * 8][column + i + r / 2 * 8] = half(given->a[r]);
            for (int r = 0; r < 2; r++) b[column + i + r * 8][row] = half(given->b[r]);
        }
    }
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float& sum = static_cast<float*>(warp.taken[lane])[i];
            for (int depth = 0; depth < 16; depth++) sum += a[row][depth] * b[depth][column];
        }
    if (counter.on) counter.now().products++;
}

// Four 8 x 8 matrices of halves: lane i gives the address of row i % 8 of matrix i / 8.
inline void load_matrices(Warp& warp, bool transposed) {
    for (int lane = 0; lane < 32; lane++)
        for (int matrix = 0; matrix < 4; matrix++) {
            uint16_t pair[2];
            for (int i = 0; i < 2; i++) {
                const int row = transposed ? lane % 4 * 2 + i : lane / 4;
                const int column = transposed ? lane / 4 : lane % 4 * 2 + i;
                pair[i] = static_cast<const uint16_t*>(warp.given[matrix * 8 + row])[column];
            }
            static_cast<unsigned*>(warp.taken[lane])[matrix] =
                pair[0] | static_cast<unsigned>(pair[1]) << 16;
        }
    for (const void* row : warp.given) aligned(row, 16);
    counter.matrices(warp.given);
}

}  // namespace simt

// --- what a kernel calls ------------------------------------------------------------------------

inline void __syncthreads() { simt::barrier(); }

inline float __shfl_xor_sync(unsigned, float x, int mask) {
    float y;
    simt::together(&x, &y, [mask](simt::Warp& warp) {
        for (int lane = 0; lane < 32; lane++)
            *static_cast<float*>(warp.taken[lane]) =
                *static_cast<const float*>(warp.given[lane ^ mask]);
    });
    return y;
}

inline float __shfl_sync(unsigned, float x, int from) {
    float y;
    simt::together(&x, &y, [from](simt::Warp& warp) {
        for (void* taken : warp.taken)
            *static_cast<float*>(taken) = *static_cast<const float*>(warp.given[from]);
    });
    return y;
}

inline bool __all_sync(unsigned, bool x) {
    bool y;
    simt::together(&x, &y, [](simt::Warp& warp) {
        bool all = true;
        for (const void* given : warp.given) all &= *static_cast<const bool*>(given);
        for (void* taken : warp.taken) *static_cast<bool*>(taken) = all;
    });
    return y;
}

inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const simt::Fragments given{a, {b0, b1}};
    simt::together(&given, d, simt::multiply);
}

inline void ldmatrix(unsigned (&x)[4], const __half* row) {
    simt::together(row, x, [](simt::Warp& warp) { simt::load_matrices(warp, false); });
}

inline void ldmatrix_transposed(unsigned (&x)[4], const __half* row) {
    simt::together(row, x, [](simt::Warp& warp) { simt::load_matrices(warp, true); });
}

template <typename T>
T load_shared(const T* at, int line = __builtin_LINE()) {
    simt::aligned(at, sizeof(T));
    simt::counter.touch(simt::LOAD, simt::machine.current, at, sizeof(T), line);
    return *at;
}

template <typename T>
void store_shared(T* at, T x, int line = __builtin_LINE()) {
    simt::aligned(at, sizeof(T));
    simt::counter.touch(simt::STORE, simt::machine.current, at, sizeof(T), line);
    *at = x;
}

template <typename T>
T __ldg(const T* at) {
    if (simt::counter.on) simt::counter.now().read += sizeof(T);
    return *at;
}

template <typename T>
void store_global(T* at, T x) {
    if (simt::counter.on) simt::counter.now().written += sizeof(T);
    *at = x;
}

inline void copy_async(__half* to, const __half* from, int bytes, bool on,
                       int line = __builtin_LINE()) {
    if (!on) return;
    simt::aligned(to, 16);
    if (bytes) simt::aligned(from, 16);
    simt::counter.touch(simt::ASYNC, simt::machine.current, to, 16, line);
    if (simt::counter.on) simt::counter.now().read += bytes;
    memset(static_cast<void*>(to), 0xff, 16);
    auto& fiber = simt::machine.fibers[simt::machine.current];
    fiber.copies.push_back({to, from, bytes, fiber.groups});
}

inline void commit_copies() { simt::machine.fibers[simt::machine.current].groups++; }

template <int N>
void wait_copies() { simt::land(simt::machine.fibers[simt::machine.current].groups - N); }

#endif
