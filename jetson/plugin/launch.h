// The arithmetic of a launch: strides, kernel choice, grid, workspace. It gives the same numbers as
// runtime/trt/plugin/launch.py; tests/runtime/trt/plugin/plans.json tests both. It needs neither
// CUDA nor TensorRT.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "splits.h"

namespace finedge {

// Both structs are also in runtime/trt/plugin/kernels/cross_layer_attention.cu, which explains
// them.
struct Map {
    void* data;
    long long batch;
    int token, group, channel;
    float scale;
    int kind, pad;
};

struct Problem {
    Map q, k, v, y;
    float* partial;
    int queries, keys, d, dv, splits, batch;
    float scale;
    int pad;
};
static_assert(sizeof(Map) == 40 && sizeof(Problem) == 200, "the layout that the kernels read");

enum Kind { kHalf = 0, kInt8 = 1 };
enum class Form { kLinear, kHwc, kHwc8, kChw32 };

// Where channels are neighbours, the kernel relies on whole groups of 8. HWC has them only with a
// multiple of 8 channels, and so has a linear map of one position.
constexpr bool is_readable(Form form, Kind kind, int channels, int positions) {
    bool const has_type = form == Form::kLinear || (form == Form::kChw32) == (kind == kInt8);
    bool const needs_groups = form == Form::kHwc || (form == Form::kLinear && positions == 1);
    return has_type && !(needs_groups && channels % 8);
}

// The strides of a map [B, channels, H, W] in TensorRT's memory; `positions` = H W. HWC8 and CHW32
// pad the channels to 8 and to 32.
inline Map lay_out(Form form, Kind kind, int channels, int positions, float scale) {
    auto const map = [=](int64_t batch, int token, int group, int channel) {
        return Map{nullptr, batch, token, group, channel, scale, kind, 0};
    };
    int const padded = static_cast<int>(ceil_div(channels, 8) * 8);
    int64_t const groups = ceil_div(channels, 32);
    bool const is_hwc = form == Form::kHwc8 || form == Form::kHwc;
    if (is_hwc) return map(int64_t{padded} * positions, padded, 32, 1);
    if (form == Form::kChw32) return map(groups * 32 * positions, 32, 32 * positions, 1);
    return map(int64_t{channels} * positions, 1, 32 * positions, positions);
}

struct Kernel {
    char const* name;
    int size;     // the most channels that it holds
    int queries;  // that a block computes
    int keys;     // that a block reads at once
    int threads, shared_bytes;
    int resident;  // the most blocks that fit a multiprocessor of any GPU
    int tile_ns;   // of a tile of keys, for a block alone on a multiprocessor of an H200
};

// Shared memory is in bytes, as the head of the .cu file counts it.
constexpr Kernel kSeparate[] = {{"cla_64", 64, 32, 32, 128, 15616, 3, 465},
                                {"cla_128", 128, 32, 32, 128, 23808, 3, 531},
                                {"cla_256", 256, 32, 32, 128, 44288, 2, 662},
                                {"cla_512", 512, 32, 32, 256, 77056, 1, 924}};
constexpr Kernel kShared[] = {{"cla_shared_512", 512, 32, 32, 256, 77056, 1, 924},
                              {"cla_shared_1024", 1024, 32, 16, 256, 83712, 1, 924}};
constexpr char const* kCombine = "cla_combine";
constexpr int kCombineThreads = 128;

// The smallest kernel that holds the channels; null where none does. `one_map`: one map is both key
// and value. Up to 256 channels such a map is read as two, because the separate kernel is smaller.
inline Kernel const* kernel_for(int d, int dv, bool one_map) {
    int const channels = std::max(d, dv);
    bool const is_shared = one_map && channels > 256;
    Kernel const* const begin = is_shared ? std::begin(kShared) : std::begin(kSeparate);
    Kernel const* const end = is_shared ? std::end(kShared) : std::end(kSeparate);
    auto const holds = [channels](Kernel const& kernel) { return kernel.size >= channels; };
    Kernel const* const kernel = std::find_if(begin, end, holds);
    return kernel == end ? nullptr : kernel;
}

struct AttentionShape {
    int batch, queries, keys, d, dv;
};

struct Gpu {
    int processors;  // multiprocessors
    int resident;    // blocks of the kernel that fit one of them
};

struct Launch {
    // The grid is (rows, splits, batch). With more than one split, kCombine follows on the grid
    // (queries, 1, batch).
    int rows, splits;
    int64_t workspace_bytes;
};

// The keys are split into as many ranges as best_splits says. A range is a whole number of the
// kernel's key tiles; no range is empty.
inline Launch plan(Kernel const& kernel, AttentionShape const& s, Gpu const& gpu) {
    int64_t const rows = ceil_div(s.queries, kernel.queries), queries = int64_t{s.batch} * s.queries;
    Workload const work{rows * s.batch, ceil_div(s.keys, kernel.keys), kernel.tile_ns, queries,
                        s.dv, gpu.processors, gpu.resident};
    int64_t const splits = best_splits(work);
    int64_t const workspace = splits > 1 ? splits * queries * row_bytes(s.dv) : 0;
    return {static_cast<int>(rows), static_cast<int>(splits), workspace};
}

// Bytes that are enough for this shape and all smaller ones on every GPU.
inline int64_t workspace_bound(Kernel const& kernel, AttentionShape const& s) {
    int64_t const splits = std::min(ceil_div(s.keys, kernel.keys), kMaxSplits);
    if (splits <= 1) return 0;
    return std::min(splits * s.batch * s.queries * row_bytes(s.dv), kMaxWorkspace);
}

}  // namespace finedge
