// The kernels of cross_layer_attention.cu as a library for ctypes: g++ -O1 -std=c++17 -shared -fPIC -DKERNEL_FILE='"...cu"' host_kernel.cpp
#include "simt.h"

#include KERNEL_FILE

static_assert(offsetof(Map, batch) == 8 && offsetof(Map, token) == 16 && offsetof(Map, scale) == 28 && offsetof(Map, kind) == 32, "Map");
static_assert(offsetof(Problem, partial) == 160 && offsetof(Problem, queries) == 168 && offsetof(Problem, scale) == 192, "Problem");

#ifndef KERNELS  // a mutant is built with fewer
#define KERNELS K(cla_64) K(cla_128) K(cla_256) K(cla_512) K(cla_shared_512) K(cla_shared_1024) K(cla_combine)
#endif

struct Kernel {
    const char* name;
    void (*entry)(const void* problem);
};

#define K(name) {#name, [](const void* problem) { name(*static_cast<const Problem*>(problem)); }},
static const Kernel kernels[] = {KERNELS};
#undef K

static const Kernel* find_kernel(const char* name) {
    for (const Kernel& kernel : kernels)
        if (!strcmp(kernel.name, name)) return &kernel;
    return nullptr;
}

// Order of the warps (simt::Order) in every later launch.
extern "C" void order(int kind, unsigned long long seed) {
    simt::machine.order = static_cast<simt::Order>(kind);
    simt::machine.seed = seed;
}

// Runs a kernel over a grid of 128-thread blocks; returns a simt::Failure, 0 if all went well.
extern "C" int run(const char* name, int gx, int gy, int gz, int shared, const Problem* problem) {
    const Kernel* kernel = find_kernel(name);
    if (!kernel) return simt::UNKNOWN_KERNEL;
    const dim3 grid{static_cast<unsigned>(gx), static_cast<unsigned>(gy), static_cast<unsigned>(gz)};
    return simt::launch(kernel->entry, problem, grid, 128, shared);
}
