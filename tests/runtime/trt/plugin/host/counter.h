// What a launch costs, counted while the shim runs it: tensor products, wavefronts of shared
// memory, bytes of global memory.
//
// Shared memory has 32 banks of 4 bytes. An instruction of a warp takes one wavefront (a clock) for
// each 128 bytes, and one more for each further word that a bank has to give in the same phase. A
// phase is 32 lanes of an access of up to 4 bytes, 16 of 8, 8 of 16, and a matrix of an ldmatrix.
// The i-th execution of a line by each lane of a warp is taken for one instruction.
#ifndef FINEDGE_COUNTER_H
#define FINEDGE_COUNTER_H

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <vector>

namespace simt {

enum Kind { MATRIX, LOAD, STORE, ASYNC, KINDS };  // ldmatrix, loads, stores, cp.async

// All of a launch's blocks, between one barrier and the next. Read by counters.py as long long[8].
struct Counts {
    long long wavefronts[KINDS];
    long long conflicts;  // of all those, the ones that other banks would have saved
    long long products;   // mma.m16n8k16: 2048 multiplications each
    long long read, written;  // bytes of global memory that threads asked for
};
static_assert(sizeof(Counts) == 8 * sizeof(long long), "counters.py reads it so");

struct Access {
    const void* at[32] = {};
    int bytes = 0;
};

struct Counter {
    bool on = false;
    std::vector<Counts> intervals;
    size_t interval = 0;
    // By warp, line and kind: the executions of that line.
    struct Site {
        std::vector<Access> executions;
        int seen[32] = {};
    };
    std::map<std::tuple<int, int, Kind>, Site> sites;

    Counts& now() {
        if (intervals.size() <= interval) intervals.resize(interval + 1);
        return intervals[interval];
    }

    // One phase: how many wavefronts `lanes` of an access take, beside how many their bytes would.
    void phase(Kind kind, const void* const* at, int lanes, int bytes) {
        std::set<uintptr_t> words[32];
        size_t asked = 0, deepest = 0;
        for (int i = 0; i < lanes; i++)
            for (int b = 0; at[i] && b < bytes; b += 4) {
                const uintptr_t word = (reinterpret_cast<uintptr_t>(at[i]) + b) / 4;
                asked += words[word % 32].insert(word).second;
            }
        for (const auto& bank : words) deepest = std::max(deepest, bank.size());
        now().wavefronts[kind] += deepest;
        now().conflicts += deepest - (asked + 31) / 32;
    }

    void touch(Kind kind, int thread, const void* at, int bytes, int line) {
        if (!on) return;
        Site& site = sites[{thread / 32, line, kind}];
        const size_t i = site.seen[thread % 32]++;
        if (site.executions.size() <= i) site.executions.resize(i + 1);
        site.executions[i].at[thread % 32] = at;
        site.executions[i].bytes = bytes;
    }

    void matrices(const void* const* rows) {
        for (int i = 0; on && i < 4; i++) phase(MATRIX, rows + 8 * i, 8, 16);
    }

    // The block has come to a barrier, or to its end.
    void close(bool last) {
        if (!on) return;
        for (const auto& [key, site] : sites)
            for (const Access& access : site.executions) {
                const int lanes = access.bytes == 16 ? 8 : access.bytes == 8 ? 16 : 32;
                for (int i = 0; i < 32; i += lanes)
                    phase(std::get<2>(key), access.at + i, lanes, access.bytes);
            }
        sites.clear();
        now();
        interval = last ? 0 : interval + 1;
    }
};
static Counter counter;

}  // namespace simt

#endif
