// The TensorRT plugin of finedge::CrossLayerAttention for programs without Python: trtexec, DeepStream, Triton Inference Server.
// Does what runtime/trt/plugin/cross_layer_attention.py does, with the same fields, formats and images.

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

void report(char const* text) noexcept {
    ILogger* const logger = logger_finder ? logger_finder->findLogger() : nullptr;
    std::string const line = std::string(kNamespace) + "::" + kName + ": " + text;
    if (logger) logger->log(ILogger::Severity::kERROR, line.c_str());
    else std::fprintf(stderr, "%s\n", line.c_str());
}

// No exception may reach TensorRT: 0, or 1 and a line in the log.
template <class Work>
int32_t guarded(Work&& work) noexcept try {
    work();
    return 0;
} catch (std::exception const& error) {
    report(error.what());
    return 1;
}

// The node's attributes, which are also what an engine keeps. step[i]: what one step of input i is worth where it is INT8, else 0.
// shared: k and v are one tensor, which TensorRT does not tell a plugin.
struct Settings {
    float scale = 0, step[3] = {0, 0, 0};
    int32_t shared = 0;

    std::array<PluginField, 5> fields() const {
        auto const number = [](char const* name, float const& value) { return PluginField(name, &value, PluginFieldType::kFLOAT32, 1); };
        return {number("scale", scale), number("q_scale", step[kQ]), number("k_scale", step[kK]), number("v_scale", step[kV]),
                PluginField("shared", &shared, PluginFieldType::kINT32, 1)};
    }

    static Settings of(PluginFieldCollection const& given) {
        Settings read;
        bool has_scale = false;
        for (PluginField const* field = given.fields; field != given.fields + given.nbFields; ++field) {
            for (PluginField const& known : read.fields()) {  // other attributes (plugin_version) are left alone
                if (std::strcmp(field->name, known.name) != 0) continue;
                if (field->type != known.type || !field->data) throw Trouble(std::string("attribute ") + known.name + " is of another type");
                std::memcpy(const_cast<void*>(known.data), field->data, sizeof(float));
                has_scale |= known.data == &read.scale;
            }
        }
        if (!has_scale) throw Trouble("the node has no attribute scale");
        if (read.shared && read.step[kK] != read.step[kV]) throw Trouble("one tensor is both key and value, with two scales");
        return read;
    }
};
static_assert(sizeof(float) == sizeof(int32_t));

struct Size {
    int channels, positions;
    explicit Size(Dims const& dims) : channels(static_cast<int>(dims.d[1])), positions(static_cast<int>(dims.d[2] * dims.d[3])) {}
};

Kind kind_of(PluginTensorDesc const& desc) { return desc.type == DataType::kINT8 ? kInt8 : kHalf; }

// Empty: the kernel does not read such a map.
std::optional<Form> form_of(PluginTensorDesc const& desc) {
    constexpr std::pair<TensorFormat, Form> known[] = {
        {TensorFormat::kLINEAR, Form::kLinear}, {TensorFormat::kHWC, Form::kHwc}, {TensorFormat::kHWC8, Form::kHwc8}, {TensorFormat::kCHW32, Form::kChw32}};
    if (desc.type != DataType::kHALF && desc.type != DataType::kINT8) return {};
    Size const size(desc.dims);
    for (auto const& [format, form] : known) {
        if (format == desc.format && is_readable(form, kind_of(desc), size.channels, size.positions)) return form;
    }
    return {};
}

void need_kernel(Kernel const* kernel, Size const& q, Size const& v) {
    if (!kernel) throw Trouble("no kernel holds " + std::to_string(std::max(q.channels, v.channels)) + " channels");
}

// A problem all of whose numbers are known but the addresses, and the loaded kernels that solve it.
struct Ready {
    Problem problem;
    Launch launch;
    Driver const* driver;
    void *attend, *combine;

    Ready(Settings const& settings, PluginTensorDesc const* in, PluginTensorDesc const& out) {
        Kernels const& kernels = Kernels::here();
        Size const q(in[kQ].dims), k(in[kK].dims), v(in[kV].dims);
        int const batch = static_cast<int>(in[kQ].dims.d[0]);
        launch = plan({batch, q.positions, k.positions, q.channels, v.channels}, settings.shared, kernels.processors);
        need_kernel(launch.kernel, q, v);
        problem = {map(in[kQ], settings.step[kQ]), map(in[kK], settings.step[kK]), map(in[kV], settings.step[kV]), map(out, 0),
                   nullptr, q.positions, k.positions, q.channels, v.channels, launch.splits, batch, settings.scale, 0};
        driver = &kernels.driver;
        attend = kernels.function(launch.kernel->name, launch.kernel->shared_bytes);
        combine = launch.splits > 1 ? kernels.function(kCombine, 0) : nullptr;
    }

    // Only records launches: nothing is allocated and nothing waits, so the stream may be under capture.
    void record(void const* const* inputs, void* output, void* workspace, cudaStream_t stream) {
        problem.q.data = const_cast<void*>(inputs[kQ]);
        problem.k.data = const_cast<void*>(inputs[kK]);
        problem.v.data = const_cast<void*>(inputs[kV]);
        problem.y.data = output;
        problem.partial = static_cast<float*>(workspace);
        void* parameters[] = {&problem};
        auto const start = [&](void* kernel, int rows, int splits, int shared) {
            driver->check(driver->cuLaunchKernel(kernel, rows, splits, problem.batch, kThreads, 1, 1, shared, stream, parameters, nullptr), "cuLaunchKernel");
        };
        start(attend, launch.rows, launch.splits, launch.kernel->shared_bytes);
        if (combine) start(combine, problem.queries, 1, 0);
    }

private:
    static Map map(PluginTensorDesc const& desc, float step) {
        auto const form = form_of(desc);
        if (!form) throw Trouble("a map in a format that was never offered");
        Size const size(desc.dims);
        return lay_out(*form, kind_of(desc), size.channels, size.positions, step);
    }
};

class Attention final : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
public:
    explicit Attention(Settings const& given) : settings(given), fields(settings.fields()), collection{static_cast<int32_t>(fields.size()), fields.data()} {}
    Attention(Attention const&) = delete;  // its fields point into it

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
        if (type == PluginCapabilityType::kCORE) return static_cast<IPluginV3OneCore*>(this);
        if (type == PluginCapabilityType::kBUILD) return static_cast<IPluginV3OneBuild*>(this);
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    IPluginV3* clone() noexcept override { return new (std::nothrow) Attention(settings); }
    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

    AsciiChar const* getPluginName() const noexcept override { return kName; }
    AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t getNbOutputs() const noexcept override { return 1; }

    int32_t getOutputDataTypes(DataType* outputs, int32_t, DataType const*, int32_t) const noexcept override {
        outputs[0] = DataType::kHALF;
        return 0;
    }

    int32_t getOutputShapes(DimsExprs const* in, int32_t, DimsExprs const*, int32_t, DimsExprs* out, int32_t, IExprBuilder&) noexcept override {
        *out = in[kQ];
        out->d[1] = in[kV].d[1];
        return 0;
    }

    // Each map in a format of its own: FP16 anywhere, INT8 where an input has a scale.
    bool supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* io, int32_t, int32_t) noexcept override {
        PluginTensorDesc const& desc = io[position].desc;
        if (desc.type == DataType::kINT8 && (position == kY || settings.step[position] == 0)) return false;
        return form_of(desc).has_value();
    }

    int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t, DynamicPluginTensorDesc const*, int32_t) noexcept override {
        return guarded([&] {
            Size const q(in[kQ].desc.dims), v(in[kV].desc.dims);
            need_kernel(kernel_for(q.channels, v.channels, settings.shared), q, v);
        });
    }

    size_t getWorkspaceSize(DynamicPluginTensorDesc const* in, int32_t, DynamicPluginTensorDesc const*, int32_t) const noexcept override {
        Size const q(in[kQ].max), k(in[kK].max), v(in[kV].max);
        return static_cast<size_t>(workspace_bound({static_cast<int>(in[kQ].max.d[0]), q.positions, k.positions, q.channels, v.channels}));
    }

    int32_t onShapeChange(PluginTensorDesc const* in, int32_t, PluginTensorDesc const* out, int32_t) noexcept override {
        return guarded([&] { ready.emplace(settings, in, *out); });
    }

    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const* out, void const* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override {
        return guarded([&] {
            if (!ready) ready.emplace(settings, in, *out);
            ready->record(inputs, outputs[0], workspace, stream);
        });
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &collection; }

private:
    Settings const settings;
    std::array<PluginField, 5> const fields;
    PluginFieldCollection const collection;
    std::optional<Ready> ready;
};

class Creator final : public IPluginCreatorV3One {
public:
    IPluginV3* createPlugin(AsciiChar const*, PluginFieldCollection const* given, TensorRTPhase) noexcept override {
        IPluginV3* made = nullptr;
        guarded([&] { made = new Attention(Settings::of(*given)); });
        return made;
    }
    PluginFieldCollection const* getFieldNames() noexcept override { return &collection; }
    AsciiChar const* getPluginName() const noexcept override { return kName; }
    AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

private:
    Settings const defaults;
    std::array<PluginField, 5> const fields = defaults.fields();
    PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
};

}  // namespace
}  // namespace finedge

// What IPluginRegistry::loadLibrary and trtexec look for.
extern "C" __attribute__((visibility("default"))) IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static finedge::Creator creator;
    static IPluginCreatorInterface* const creators[] = {&creator};
    count = 1;
    return creators;
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(ILoggerFinder* finder) { finedge::logger_finder = finder; }
