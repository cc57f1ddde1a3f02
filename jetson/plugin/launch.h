// The arithmetic of a launch: strides, kernel choice, splits over the keys, workspace. Repeats runtime/trt/plugin/launch.py number
// for number (tests/runtime/trt/plugin/plans.json holds both); no CUDA and no TensorRT here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

namespace finedge {

// Both structs mirror runtime/trt/plugin/kernels/cross_layer_attention.cu.
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
static_assert(sizeof(Map) == 40 && sizeof(Problem) == 200, "the kernels read these bytes");

enum Kind { kHalf = 0, kInt8 = 1 };
enum class Form { kLinear, kHwc, kHwc8, kChw32 };

constexpr int kQueryTile = 16, kKeyTile = 32, kThreads = 128, kMaxSplits = 32, kMaxProcessors = 192;

constexpr int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }

// To the kernel neighbouring channels are a promise of whole groups of 8, which HWC and a linear map of one position keep with a multiple of 8 only.
constexpr bool is_readable(Form form, Kind kind, int channels, int positions) {
    bool const known = form == Form::kLinear || (form == Form::kChw32) == (kind == kInt8);
    bool const promises = form == Form::kHwc || (form == Form::kLinear && positions == 1);
    return known && !(promises && channels % 8);
}

// A map [B, channels, H, W] with `positions` = H W as TensorRT lays it out; HWC8 and CHW32 pad the channels to 8 and to 32.
inline Map lay_out(Form form, Kind kind, int channels, int positions, float scale) {
    auto const map = [=](int64_t batch, int token, int group, int channel) { return Map{nullptr, batch, token, group, channel, scale, kind, 0}; };
    int const in_8 = static_cast<int>(ceil_div(channels, 8) * 8);
    if (form == Form::kHwc8 || form == Form::kHwc) return map(int64_t{in_8} * positions, in_8, 32, 1);
    if (form == Form::kChw32) return map(ceil_div(channels, 32) * 32 * positions, 32, 32 * positions, 1);
    return map(int64_t{channels} * positions, 1, 32 * positions, positions);
}

struct Kernel {
    char const* name;
    int size;  // channels it holds
    int shared_bytes;
};

// Shared memory as the head of the .cu file counts it: 16 queries, 32 keys and 32 values, or keys and values in one.
constexpr Kernel separate(char const* name, int size) { return {name, size, 160 * (size + 8) + 1536}; }
constexpr Kernel shared(char const* name, int size) { return {name, size, 96 * (size + 8) + 1536}; }
constexpr Kernel kSeparate[] = {separate("cla_64", 64), separate("cla_128", 128), separate("cla_256", 256), separate("cla_512", 512)};
constexpr Kernel kShared[] = {shared("cla_shared_512", 512), shared("cla_shared_1024", 1024)};
constexpr char const* kCombine = "cla_combine";

// Null: no kernel holds that many channels. A shared map of at most 256 channels is read as two: the kernel without the detour is smaller.
inline Kernel const* kernel_for(int d, int dv, bool one_map) {
    int const wanted = std::max(d, dv);
    bool const detour = one_map && wanted > 256;
    Kernel const *const begin = detour ? std::begin(kShared) : std::begin(kSeparate), *const end = detour ? std::end(kShared) : std::end(kSeparate);
    Kernel const* const found = std::find_if(begin, end, [wanted](Kernel const& kernel) { return kernel.size >= wanted; });
    return found == end ? nullptr : found;
}

struct Shape {
    int batch, queries, keys, d, dv;
};

struct Launch {
    Kernel const* kernel;  // null: none fits
    int rows, splits;  // grid (rows, splits, batch); with more than one split kCombine follows on grid (queries, 1, batch)
    int64_t workspace_bytes;
};

constexpr int64_t row_bytes(int dv) { return (dv + 2) * int64_t{sizeof(float)}; }

// The keys are split until there are two blocks a multiprocessor, into whole 32-key tiles, none of the ranges empty.
inline Launch plan(Shape const& s, bool one_map, int processors) {
    int64_t const rows = ceil_div(s.queries, kQueryTile), tiles = ceil_div(s.keys, kKeyTile);
    int64_t const wanted = std::clamp<int64_t>(2 * std::min(processors, kMaxProcessors) / (rows * s.batch), 1, std::min<int64_t>(tiles, kMaxSplits));
    int64_t const splits = ceil_div(tiles, ceil_div(tiles, wanted));
    int64_t const workspace = splits > 1 ? s.batch * splits * s.queries * row_bytes(s.dv) : 0;
    return {kernel_for(s.d, s.dv, one_map), static_cast<int>(rows), static_cast<int>(splits), workspace};
}

// Bytes that are enough for this shape and all smaller ones on every GPU: with s > 1 splits there are at most 2 kMaxProcessors blocks.
inline int64_t workspace_bound(Shape const& s) {
    int64_t const splits = std::min<int64_t>(ceil_div(s.keys, kKeyTile), kMaxSplits);
    int64_t const rows = splits > 1 ? std::min<int64_t>(int64_t{s.batch} * s.queries * splits, 2 * kMaxProcessors * kQueryTile) : 0;
    return rows * row_bytes(s.dv);
}

}  // namespace finedge
