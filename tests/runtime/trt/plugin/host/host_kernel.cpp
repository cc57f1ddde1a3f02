// The kernels of cross_layer_attention.cu as a library for ctypes:
// g++ -O1 -std=c++17 -shared -fPIC -DKERNEL_FILE='"...cu"' host_kernel.cpp
#include "simt.h"

#include KERNEL_FILE

static_assert(offsetof(Map, batch) == 8 && offsetof(Map, token) == 16, "Map");
static_assert(offsetof(Map, scale) == 28 && offsetof(Map, kind) == 32, "Map");
static_assert(offsetof(Problem, partial) == 160 && offsetof(Problem, queries) == 168, "Problem");
static_assert(offsetof(Problem, scale) == 192, "Problem");

#ifndef KERNELS  // a mutant is built with fewer
#define KERNELS                                                                           \
    K(cla_64, Cla64::THREADS) K(cla_128, Cla128::THREADS) K(cla_256, Cla256::THREADS)     \
    K(cla_512, Cla512::THREADS) K(cla_shared_512, ClaShared512::THREADS)                  \
    K(cla_shared_1024, ClaShared1024::THREADS) K(cla_combine, COMBINE_THREADS)
#endif

struct Entry {
    const char* name;
    int threads;
    void (*entry)(const void* problem);
};

#define K(name, threads) \
    {#name, threads, [](const void* problem) { name(*static_cast<const Problem*>(problem)); }},
static const Entry entries[] = {KERNELS};
#undef K

static const Entry* find_kernel(const char* name) {
    for (const Entry& kernel : entries)
        if (!strcmp(kernel.name, name)) return &kernel;
    return nullptr;
}

// Order of the warps (simt::Order) in every later launch.
extern "C" void order(int kind, unsigned long long seed) {
    simt::machine.order = static_cast<simt::Order>(kind);
    simt::machine.seed = seed;
}

// From here on launches are counted, from zero, or not.
extern "C" void count(int on) {
    simt::counter = {};
    simt::counter.on = on;
}

// The simt::Counts since then: of all blocks, from one barrier to the next. Returns how many there
// are; `out` takes at most `most`.
extern "C" int counts(simt::Counts* out, int most) {
    const auto& intervals = simt::counter.intervals;
    const int n = static_cast<int>(intervals.size());
    std::copy_n(intervals.begin(), min(n, most), out);
    return n;
}

// Runs a kernel over a grid of blocks; returns a simt::Failure, 0 if all went well.
extern "C" int run(const char* name, int gx, int gy, int gz, int threads, int shared,
                   const Problem* problem) {
    const Entry* kernel = find_kernel(name);
    if (!kernel) return simt::UNKNOWN_KERNEL;
    if (threads != kernel->threads) return simt::WRONG_BLOCK;
    const auto size = [](int n) { return static_cast<unsigned>(n); };
    return simt::launch(kernel->entry, problem, {size(gx), size(gy), size(gz)}, threads, shared);
}
