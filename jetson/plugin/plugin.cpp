// The TensorRT plugin of finedge::CrossLayerAttention for programs without Python: trtexec,
// DeepStream and Triton Inference Server. It has the same fields, formats and images as
// runtime/trt/plugin/cross_layer_attention.py.

#include <NvInferRuntime.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "driver.h"
#include "launch.h"

using namespace nvinfer1;

namespace finedge {
namespace {

constexpr char const *kName = "CrossLayerAttention", *kVersion = "1", *kNamespace = "finedge";
enum Tensor { kQ, kK, kV, kY };

ILoggerFinder* logger_finder = nullptr;  // set once, by setLoggerFinder, before any plugin exists

void report(char const* text, ILogger::Severity severity = ILogger::Severity::kERROR) noexcept {
    ILogger* const logger = logger_finder ? logger_finder->findLogger() : nullptr;
    std::string const line = std::string(kNamespace) + "::" + kName + ": " + text;
    if (logger) logger->log(severity, line.c_str());
    else std::fprintf(stderr, "%s\n", line.c_str());
}

// Calls `work`; returns 0, or after an exception 1. The exception goes to the log, never to
// TensorRT.
template <class Work>
int32_t guarded(Work&& work) noexcept try {
    work();
    return 0;
} catch (std::exception const& error) {
    report(error.what());
    return 1;
}

// The node's attributes, which an engine keeps too. step[i] is the scale of input i where it is
// INT8, else 0. shared: k and v are one tensor; TensorRT gives a plugin no other sign of that.
struct AttentionAttributes {
    float scale = 0, step[3] = {0, 0, 0};
    int32_t shared = 0;

    std::array<PluginField, 5> fields() const {
        auto const number = [](char const* name, float const& value) {
            return PluginField(name, &value, PluginFieldType::kFLOAT32, 1);
        };
        return {number("scale", scale), number("q_scale", step[kQ]), number("k_scale", step[kK]),
                number("v_scale", step[kV]),
                PluginField("shared", &shared, PluginFieldType::kINT32, 1)};
    }

    static AttentionAttributes of(PluginFieldCollection const& node) {
        AttentionAttributes attributes;
        bool has_scale = false;
        PluginField const* const end = node.fields + node.nbFields;
        for (PluginField const* field = node.fields; field != end; ++field) {
            // Other attributes, e.g. plugin_version, are ignored.
            for (PluginField const& target : attributes.fields()) {
                if (std::strcmp(field->name, target.name) != 0) continue;
                if (field->type != target.type || !field->data) {
                    std::string const name = target.name;
                    throw PluginError("attribute " + name + " is of another type");
                }
                std::memcpy(const_cast<void*>(target.data), field->data, sizeof(float));
                has_scale |= target.data == &attributes.scale;
            }
        }
        if (!has_scale) throw PluginError("the node has no attribute scale");
        if (attributes.shared && attributes.step[kK] != attributes.step[kV]) {
            throw PluginError("one tensor is both key and value, with two scales");
        }
        return attributes;
    }
};
static_assert(sizeof(float) == sizeof(int32_t));

struct Size {
    int channels, positions;
    explicit Size(Dims const& dims)
        : channels(static_cast<int>(dims.d[1])),
          positions(static_cast<int>(dims.d[2] * dims.d[3])) {}
};

Kind kind_of(PluginTensorDesc const& desc) {
    return desc.type == DataType::kINT8 ? kInt8 : kHalf;
}

// The format of a map, or nothing where the kernel does not read such a map.
std::optional<Form> form_of(PluginTensorDesc const& desc) {
    constexpr std::pair<TensorFormat, Form> forms[] = {{TensorFormat::kLINEAR, Form::kLinear},
                                                       {TensorFormat::kHWC, Form::kHwc},
                                                       {TensorFormat::kHWC8, Form::kHwc8},
                                                       {TensorFormat::kCHW32, Form::kChw32}};
    if (desc.type != DataType::kHALF && desc.type != DataType::kINT8) return {};
    Size const size(desc.dims);
    for (auto const& [format, form] : forms) {
        if (format != desc.format) continue;
        if (is_readable(form, kind_of(desc), size.channels, size.positions)) return form;
    }
    return {};
}

Kernel const& require_kernel(Size const& q, Size const& v, bool one_map) {
    Kernel const* const kernel = kernel_for(q.channels, v.channels, one_map);
    if (kernel) return *kernel;
    int const channels = std::max(q.channels, v.channels);
    throw PluginError("no kernel holds " + std::to_string(channels) + " channels");
}

// The kernels' parameters for one set of shapes, without the five addresses, and the loaded
// kernels.
struct PreparedLaunch {
    Problem problem;
    Kernel const* kernel;
    Launch launch;
    Driver const* driver;
    void *attend, *combine;

    PreparedLaunch(AttentionAttributes const& attributes, PluginTensorDesc const* in,
                   PluginTensorDesc const& out) {
        Kernels const& kernels = Kernels::of_context();
        Size const q(in[kQ].dims), k(in[kK].dims), v(in[kV].dims);
        int const batch = static_cast<int>(in[kQ].dims.d[0]);
        driver = &kernels.driver;
        kernel = &require_kernel(q, v, attributes.shared);
        attend = kernels.function(kernel->name, kernel->shared_bytes);
        warn_without_occupancy(*driver);
        launch = plan(*kernel, {batch, q.positions, k.positions, q.channels, v.channels},
                      {kernels.processors, kernels.resident(*kernel, attend)});
        float const* const step = attributes.step;
        problem = {map(in[kQ], step[kQ]), map(in[kK], step[kK]), map(in[kV], step[kV]), map(out, 0),
                   nullptr, q.positions, k.positions, q.channels, v.channels, launch.splits, batch,
                   attributes.scale, 0};
        combine = launch.splits > 1 ? kernels.function(kCombine, 0) : nullptr;
    }

    // Only records launches. It allocates nothing and waits for nothing, so a CUDA graph may
    // capture the stream.
    void record(void const* const* inputs, void* output, void* workspace, cudaStream_t stream) {
        problem.q.data = const_cast<void*>(inputs[kQ]);
        problem.k.data = const_cast<void*>(inputs[kK]);
        problem.v.data = const_cast<void*>(inputs[kV]);
        problem.y.data = output;
        problem.partial = static_cast<float*>(workspace);
        void* parameters[] = {&problem};
        auto const start = [&](void* function, int rows, int splits, int threads, int shared) {
            int const status =
                driver->cuLaunchKernel(function, rows, splits, problem.batch, threads, 1, 1, shared,
                                       stream, parameters, nullptr);
            driver->check(status, "cuLaunchKernel");
        };
        start(attend, launch.rows, launch.splits, kernel->threads, kernel->shared_bytes);
        if (combine) start(combine, problem.queries, 1, kCombineThreads, 0);
    }

private:
    static void warn_without_occupancy(Driver const& driver) {
        if (driver.cuOccupancyMaxActiveBlocksPerMultiprocessor) return;
        report("the CUDA driver has no cuOccupancyMaxActiveBlocksPerMultiprocessor",
               ILogger::Severity::kWARNING);
    }

    static Map map(PluginTensorDesc const& desc, float step) {
        auto const form = form_of(desc);
        if (!form) throw PluginError("a map has a format that supportsFormatCombination refused");
        Size const size(desc.dims);
        return lay_out(*form, kind_of(desc), size.channels, size.positions, step);
    }
};

class CrossLayerAttentionPlugin final : public IPluginV3,
                                        public IPluginV3OneCore,
                                        public IPluginV3OneBuild,
                                        public IPluginV3OneRuntime {
public:
    explicit CrossLayerAttentionPlugin(AttentionAttributes const& node)
        : attributes(node),
          fields(attributes.fields()),
          collection{static_cast<int32_t>(fields.size()), fields.data()} {}
    // Its fields point into it.
    CrossLayerAttentionPlugin(CrossLayerAttentionPlugin const&) = delete;

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
        if (type == PluginCapabilityType::kCORE) return static_cast<IPluginV3OneCore*>(this);
        if (type == PluginCapabilityType::kBUILD) return static_cast<IPluginV3OneBuild*>(this);
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    IPluginV3* clone() noexcept override {
        return new (std::nothrow) CrossLayerAttentionPlugin(attributes);
    }
    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

    AsciiChar const* getPluginName() const noexcept override { return kName; }
    AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t getNbOutputs() const noexcept override { return 1; }

    int32_t getOutputDataTypes(DataType* outputs, int32_t, DataType const*,
                               int32_t) const noexcept override {
        outputs[0] = DataType::kHALF;
        return 0;
    }

    int32_t getOutputShapes(DimsExprs const* in, int32_t, DimsExprs const*, int32_t, DimsExprs* out,
                            int32_t, IExprBuilder&) noexcept override {
        *out = in[kQ];
        out->d[1] = in[kV].d[1];
        return 0;
    }

    // Each map has its own format: FP16 anywhere, INT8 where an input has a scale.
    bool supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* io, int32_t,
                                   int32_t) noexcept override {
        PluginTensorDesc const& desc = io[position].desc;
        bool const has_scale = position != kY && attributes.step[position] != 0;
        if (desc.type == DataType::kINT8 && !has_scale) return false;
        if (!form_of(desc)) return false;
        PluginTensorDesc const& keys = io[kK].desc;
        if (position != kV || keys.type != desc.type || keys.format == desc.format) return true;
        // Values are in the keys' format where they can be: each combination is timed.
        PluginTensorDesc like_keys = desc;
        like_keys.format = keys.format;
        return !form_of(like_keys);
    }

    int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t,
                            DynamicPluginTensorDesc const*, int32_t) noexcept override {
        return guarded([&] {
            Size const q(in[kQ].desc.dims), v(in[kV].desc.dims);
            require_kernel(q, v, attributes.shared);
        });
    }

    size_t getWorkspaceSize(DynamicPluginTensorDesc const* in, int32_t,
                            DynamicPluginTensorDesc const*, int32_t) const noexcept override {
        Size const q(in[kQ].max), k(in[kK].max), v(in[kV].max);
        int const batch = static_cast<int>(in[kQ].max.d[0]);
        AttentionShape const shape{batch, q.positions, k.positions, q.channels, v.channels};
        Kernel const* const kernel = kernel_for(q.channels, v.channels, attributes.shared);
        // configurePlugin has refused the rest.
        return kernel ? static_cast<size_t>(workspace_bound(*kernel, shape)) : 0;
    }

    int32_t onShapeChange(PluginTensorDesc const* in, int32_t, PluginTensorDesc const* out,
                          int32_t) noexcept override {
        return guarded([&] { launch.emplace(attributes, in, *out); });
    }

    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const* out,
                    void const* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override {
        return guarded([&] {
            if (!launch) launch.emplace(attributes, in, *out);
            launch->record(inputs, outputs[0], workspace, stream);
        });
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &collection; }

private:
    AttentionAttributes const attributes;
    std::array<PluginField, 5> const fields;
    PluginFieldCollection const collection;
    std::optional<PreparedLaunch> launch;
};

class Creator final : public IPluginCreatorV3One {
public:
    IPluginV3* createPlugin(AsciiChar const*, PluginFieldCollection const* node,
                            TensorRTPhase) noexcept override {
        IPluginV3* plugin = nullptr;
        guarded([&] { plugin = new CrossLayerAttentionPlugin(AttentionAttributes::of(*node)); });
        return plugin;
    }
    PluginFieldCollection const* getFieldNames() noexcept override { return &collection; }
    AsciiChar const* getPluginName() const noexcept override { return kName; }
    AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

private:
    AttentionAttributes const defaults;
    std::array<PluginField, 5> const fields = defaults.fields();
    PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
};

}  // namespace
}  // namespace finedge

#define FINEDGE_EXPORT extern "C" __attribute__((visibility("default")))

// The two entry points that IPluginRegistry::loadLibrary and trtexec look for.
FINEDGE_EXPORT IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static finedge::Creator creator;
    static IPluginCreatorInterface* const creators[] = {&creator};
    count = 1;
    return creators;
}

FINEDGE_EXPORT void setLoggerFinder(ILoggerFinder* finder) { finedge::logger_finder = finder; }
