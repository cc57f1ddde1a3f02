// Into how many ranges the keys of an attention are split: the model of the time, in integers, that
// runtime/trt/plugin/splits.py explains. tests/runtime/trt/plugin/plans.json tests both.
#pragma once

#include <algorithm>
#include <cstdint>

namespace finedge {

constexpr int64_t kMaxSplits = 32, kMaxWorkspace = 32 << 20;
constexpr int64_t kBytesPerNs = 16, kCombineNs = 3000, kSplitNs = 225, kPassChannels = 256;

constexpr int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Bytes of a query's partial result: dv values, the maximum, and the sum.
constexpr int64_t row_bytes(int64_t dv) { return (dv + 2) * int64_t{sizeof(float)}; }

// An attention on one GPU, whose keys are not split yet.
struct Workload {
    int64_t blocks;   // tiles of queries of all images
    int64_t tiles;    // tiles of keys
    int64_t tile_ns;  // time of a tile of keys, for a block alone on a multiprocessor
    int64_t rows;     // queries of all images
    int64_t dv;
    int64_t processors, resident;  // multiprocessors, and the blocks that fit one at a time

    int64_t nanoseconds(int64_t splits) const {
        int64_t const attend = rounds(splits) * ceil_div(tiles, splits) * tile_ns / (resident + 1);
        return attend + (splits > 1 ? combine(splits) : 0);
    }

private:
    // Rounds of the busiest multiprocessor, in 1 / (resident + 1).
    int64_t rounds(int64_t splits) const {
        int64_t const most = ceil_div(blocks * splits, processors), rest = most % resident;
        return most / resident * 2 * resident + (rest ? resident + rest : 0);
    }

    int64_t combine(int64_t splits) const {
        int64_t const passes = ceil_div(dv, kPassChannels);
        int64_t const moved = 2 * splits * rows * row_bytes(dv);
        return kCombineNs + splits * passes * kSplitNs + moved / (processors * kBytesPerNs);
    }
};

// The number of ranges with the least time; of equal ones the smallest. A range is
// ceil(tiles / splits) tiles, so no number is taken that would leave a range empty.
inline int64_t best_splits(Workload const& work) {
    int64_t const room = kMaxWorkspace / (work.rows * row_bytes(work.dv));
    int64_t const limit = std::min({work.tiles, kMaxSplits, room});
    int64_t best = 1;
    for (int64_t number = 2; number <= limit; ++number) {
        int64_t const splits = ceil_div(work.tiles, ceil_div(work.tiles, number));
        if (work.nanoseconds(splits) < work.nanoseconds(best)) best = splits;
    }
    return best;
}

}  // namespace finedge
