// The data that TensorRT's interfaces exchange, as 64-bit Linux lays it out; and the interfaces of
// slots.txt, which interfaces.py writes into interfaces.h for one version. Never beside a real
// libnvinfer: these are our own words for a foreign ABI.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

using Text = char const*;

// A call that nothing of ours made when the mock was written: it must show.
[[noreturn]] inline void missing(Text slot) {
    std::fprintf(stderr, "the mock of libnvinfer does not implement %s\n", slot);
    std::fflush(nullptr);
    std::abort();
}

enum DataType { FLOAT = 0, HALF = 1, INT8 = 2, UINT8 = 5 };
enum FieldType { FIELD_FLOAT32 = 1, FIELD_INT32 = 5, FIELD_CHAR = 6 };
enum Capability { CORE = 0, BUILD = 1, RUNTIME = 2 };
enum Severity { ERROR = 1 };
constexpr int HWC8 = 2, FORMATS = 13;  // TensorFormat

struct Dims {
    int count;
    int64_t size[8];
};
struct PluginField {
    Text name;
    void const* data;
    int type, length;
};
struct PluginFieldCollection {
    int count;
    PluginField const* fields;
};
struct InterfaceInfo {
    Text kind;
    int major, minor;
};
struct TensorDesc {
    Dims shape;
    int type, format;
    float scale;
};
struct DynamicTensor {
    TensorDesc desc;
    Dims min, max, opt;
};

// What Python owns is an outer object with one pointer to the interface that does the work.
template <class V>
struct Outer {
    virtual ~Outer() = default;
    V* implementation = nullptr;
};
#define OUTER(NAME, V)     \
    struct V;              \
    struct NAME : Outer<V> {}
OUTER(IDimensionExpr, VDimensionExpr);
OUTER(IExprBuilder, VExprBuilder);
OUTER(IRuntime, VRuntime);
OUTER(ICudaEngine, VCudaEngine);
OUTER(IExecutionContext, VExecutionContext);
OUTER(IEngineInspector, VEngineInspector);
OUTER(IBuilder, VBuilder);
OUTER(IBuilderConfig, VBuilderConfig);
OUTER(INetworkDefinition, VNetworkDefinition);
OUTER(ITensor, VTensor);
OUTER(IOptimizationProfile, VOptimizationProfile);
OUTER(ITimingCache, VTimingCache);
OUTER(IHostMemory, VHostMemory);

struct DimsExprs {
    int count;
    IDimensionExpr const* size[8];
};

#include "interfaces.h"

#define EXPORT extern "C" __attribute__((visibility("default")))
