// Calls a plugin library as TensorRT does, from loading to enqueue, and prints its answers as JSON.
//
//   harness LIBRARY CASE   CASE is a folder. case.txt holds lines "field NAME VALUE" and
//                          "q|k|v|y B C H W TYPE FORMAT", and "shared" when values are the keys.
//                          q.bin, k.bin and v.bin hold the tensors as in memory. y.bin is written.
//   harness LIBRARY        only dlopen, as DeepStream and Triton do. Prints which creators were
//                          registered in which namespace.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

using namespace nvinfer1;
using Bytes = std::vector<unsigned char>;

static void require(bool ok, std::string const& what) {
    if (ok) return;
    std::fprintf(stderr, "harness: %s\n", what.c_str());
    std::exit(1);
}

struct Logger final : ILogger {
    void log(Severity, AsciiChar const* text) noexcept override { std::fprintf(stderr, "logged: %s\n", text); }
} logger;

struct Finder final : ILoggerFinder {
    ILogger* findLogger() override { return &logger; }
} finder;

// The registry a self-registering library finds in its process.
struct Registry final : IPluginRegistry {
    std::vector<std::string> seen;
    bool registerCreator(IPluginCreatorInterface& creator, AsciiChar const* space) noexcept override {
        seen.push_back(std::string(space) + "::" + static_cast<IPluginCreatorV3One&>(creator).getPluginName());
        return true;
    }
    bool registerCreator(IPluginCreator&, AsciiChar const*) noexcept override { return false; }
    IPluginCreator* const* getPluginCreatorList(int32_t*) const noexcept override { return nullptr; }
    IPluginCreator* getPluginCreator(AsciiChar const*, AsciiChar const*, AsciiChar const*) noexcept override { return nullptr; }
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    bool deregisterCreator(IPluginCreator const&) noexcept override { return false; }
    bool isParentSearchEnabled() const override { return false; }
    void setParentSearchEnabled(bool) override {}
    void* loadLibrary(AsciiChar const*) noexcept override { return nullptr; }
    void deregisterLibrary(void*) noexcept override {}
} registry;

extern "C" __attribute__((visibility("default"))) IPluginRegistry* getPluginRegistry() noexcept { return &registry; }

struct Case {
    std::map<std::string, float> fields;
    std::map<std::string, PluginTensorDesc> tensors;
    int32_t shared = 0;
};

static Case read_case(std::string const& folder) {
    Case read;
    std::ifstream file(folder + "/case.txt");
    for (std::string line, word, name; std::getline(file, line);) {
        std::istringstream words(line);
        words >> word;
        if (word == "shared") {
            read.shared = 1;
        } else if (word == "field") {
            words >> name;
            words >> read.fields[name];
        } else {
            PluginTensorDesc& t = read.tensors[word];
            int type, format;
            t.dims.nbDims = 4;
            for (int i = 0; i < 4; ++i) words >> t.dims.d[i];
            require(static_cast<bool>(words >> type >> format), "bad line: " + line);
            t.scale = -1;  // TensorRT's "unknown": the fields say what a step is worth
            t.type = static_cast<DataType>(type);
            t.format = static_cast<TensorFormat>(format);
        }
    }
    return read;
}

static size_t bytes_of(PluginTensorDesc const& t) {
    int64_t const unit = t.format == TensorFormat::kHWC8 ? 8 : t.format == TensorFormat::kCHW32 ? 32 : 1;
    return t.dims.d[0] * ((t.dims.d[1] + unit - 1) / unit * unit) * t.dims.d[2] * t.dims.d[3] * (t.type == DataType::kINT8 ? 1 : 2);
}

static Bytes read_tensor(std::string const& path, PluginTensorDesc const& t) {
    std::ifstream file(path, std::ios::binary);
    Bytes bytes{std::istreambuf_iterator<char>(file), {}};
    require(bytes.size() == bytes_of(t), path + " has another size than its description");
    return bytes;
}

// Every chain of formats the plugin accepts, asked the way TensorRT asks: position after position.
static void formats(IPluginV3OneBuild& build, std::vector<DynamicPluginTensorDesc> io, size_t pos, std::string const& chain) {
    static bool first = true;
    if (pos == io.size()) {
        std::printf("%s\"%s\"", first ? "" : ", ", chain.c_str());
        first = false;
        return;
    }
    for (auto type : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8}) {
        for (auto format : {TensorFormat::kLINEAR, TensorFormat::kHWC8, TensorFormat::kCHW32, TensorFormat::kHWC}) {
            io[pos].desc.type = type;
            io[pos].desc.format = format;
            std::string const name = std::to_string(static_cast<int>(type)) + "." + std::to_string(static_cast<int>(format));
            if (build.supportsFormatCombination(static_cast<int32_t>(pos), io.data(), 3, 1)) formats(build, io, pos + 1, chain + (pos ? " " : "") + name);
        }
    }
}

static void print_fields(char const* name, PluginFieldCollection const& fields) {
    std::printf(", \"%s\": {", name);
    for (int i = 0; i < fields.nbFields; ++i) {
        PluginField const& f = fields.fields[i];
        std::printf("%s\"%s\": ", i ? ", " : "", f.name);
        if (f.type == PluginFieldType::kINT32) std::printf("%d", *static_cast<int32_t const*>(f.data));
        else std::printf("%.9g", *static_cast<float const*>(f.data));
    }
    std::printf("}");
}

template <class Capability>
static Capability& capability(IPluginV3& plugin, PluginCapabilityType type) {
    auto* const found = plugin.getCapabilityInterface(type);
    require(found, "a capability is missing");
    return *static_cast<Capability*>(found);
}

// The build phase: types, shapes, formats, workspace, serialized fields. Returns the bytes of
// workspace.
static size_t built(IPluginV3& plugin, std::vector<DynamicPluginTensorDesc> const& io) {
    auto& build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
    auto& core = capability<IPluginV3OneCore>(plugin, PluginCapabilityType::kCORE);
    DataType const inputs[3] = {io[0].desc.type, io[1].desc.type, io[2].desc.type};
    DataType output{};
    require(build.getNbOutputs() == 1 && build.getOutputDataTypes(&output, 1, inputs, 3) == 0, "no output type");
    // Axis j of tensor i is the invalid address 10 i + j + 1: the plugin may only copy it.
    DimsExprs shapes[3], result;
    for (int i = 0; i < 3; ++i) {
        shapes[i].nbDims = 4;
        for (int j = 0; j < 4; ++j) shapes[i].d[j] = reinterpret_cast<IDimensionExpr const*>(static_cast<intptr_t>(10 * i + j + 1));
    }
    require(build.getOutputShapes(shapes, 3, nullptr, 0, &result, 1, *reinterpret_cast<IExprBuilder*>(1)) == 0, "no output shape");
    std::printf(", \"core\": \"%s::%s %s\"", core.getPluginNamespace(), core.getPluginName(), core.getPluginVersion());
    std::printf(", \"output\": {\"type\": %d, \"axes\": [", static_cast<int>(output));
    for (int j = 0; j < result.nbDims; ++j) std::printf("%s%d", j ? ", " : "", static_cast<int>(reinterpret_cast<intptr_t>(result.d[j])));
    std::printf("]}, \"formats\": [");
    formats(build, io, 0, "");
    require(build.configurePlugin(io.data(), 3, io.data() + 3, 1) == 0, "configurePlugin refused");
    size_t const workspace = build.getWorkspaceSize(io.data(), 3, io.data() + 3, 1);
    std::printf("], \"workspace\": %zu", workspace);
    return workspace;
}

// The CUDA driver: a real one (benchmarks/gpu) or the stand-in. Without one there is no context, and
// the plugin must report that; the maps then lie on the host.
struct Cuda {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    template <class... Arguments>
    void call(char const* name, Arguments... arguments) const {
        auto const function = reinterpret_cast<int (*)(Arguments...)>(dlsym(library, name));
        require(function && function(arguments...) == 0, name);
    }

    // TensorRT calls a plugin with a current context.
    void make_context() const {
        if (!library) return;
        void* context = nullptr;
        call("cuInit", 0u);
        call("cuDevicePrimaryCtxRetain", &context, 0);
        call("cuCtxSetCurrent", context);
    }

    void wait() const {
        if (library) call("cuCtxSynchronize");
    }
} cuda;

// Bytes where the plugin reads and writes them.
struct Memory {
    Bytes host;
    void* at = host.data();

    explicit Memory(Bytes bytes) : host(std::move(bytes)) {
        if (!cuda.library) return;
        cuda.call("cuMemAlloc_v2", &at, host.size());
        cuda.call("cuMemcpyHtoD_v2", at, static_cast<void const*>(host.data()), host.size());
    }
    Memory(Memory const&) = delete;
    ~Memory() {
        if (cuda.library) cuda.call("cuMemFree_v2", at);
    }

    Bytes const& read() {
        if (cuda.library) cuda.call("cuMemcpyDtoH_v2", static_cast<void*>(host.data()), at, host.size());
        return host;
    }
};

// The run phase, in an object that only knows what was serialized.
static int run(IPluginV3& plugin, Case const& c, std::string const& folder, size_t workspace_bytes) {
    IPluginV3* const attached = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME).attachToContext(nullptr);
    require(attached, "attachToContext returned nothing");
    auto& runtime = capability<IPluginV3OneRuntime>(*attached, PluginCapabilityType::kRUNTIME);
    PluginTensorDesc const in[3] = {c.tensors.at("q"), c.tensors.at("k"), c.tensors.at("v")}, out = c.tensors.at("y");
    Memory const q(read_tensor(folder + "/q.bin", in[0])), k(read_tensor(folder + "/k.bin", in[1])), v(read_tensor(folder + "/v.bin", in[2]));
    Memory y(Bytes(bytes_of(out), 0xCD)), workspace(Bytes(workspace_bytes + 4096, 0xCD));
    void const* const inputs[3] = {q.at, k.at, c.shared ? k.at : v.at};
    void* const outputs[1] = {y.at};
    int status = runtime.onShapeChange(in, 3, &out, 1);
    for (int i = 0; status == 0 && i < 2; ++i) status = runtime.enqueue(in, &out, inputs, outputs, workspace.at, nullptr);
    cuda.wait();
    Bytes const& after = workspace.read();
    for (size_t i = workspace_bytes; i < after.size(); ++i) require(after[i] == 0xCD, "wrote past the end of its workspace");
    Bytes const& result = y.read();
    std::ofstream(folder + "/y.bin", std::ios::binary).write(reinterpret_cast<char const*>(result.data()), static_cast<std::streamsize>(result.size()));
    delete attached;
    return status;
}

static IPluginCreatorV3One& creator_of(void* library) {
    auto const creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"));
    auto const set_finder = reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"));
    require(creators && set_finder, "getCreators or setLoggerFinder is not exported");
    set_finder(&finder);
    int32_t count = 0;
    auto const all = creators(count);
    require(count == 1 && std::strcmp(all[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0, "not one V3One creator");
    return static_cast<IPluginCreatorV3One&>(*all[0]);
}

static void walk(IPluginCreatorV3One& creator, std::string const& folder) {
    Case const c = read_case(folder);
    std::vector<DynamicPluginTensorDesc> io;
    for (auto name : {"q", "k", "v", "y"}) {
        PluginTensorDesc const& t = c.tensors.at(name);
        io.push_back({t, t.dims, t.dims, t.dims});
    }
    std::vector<PluginField> fields;
    for (auto const& [name, value] : c.fields) fields.emplace_back(name.c_str(), &value, PluginFieldType::kFLOAT32, 1);
    fields.emplace_back("shared", &c.shared, PluginFieldType::kINT32, 1);
    fields.emplace_back("plugin_namespace", "finedge", PluginFieldType::kCHAR, 7);  // the parser passes every attribute of the node
    PluginFieldCollection const given{static_cast<int32_t>(fields.size()), fields.data()};
    IPluginV3* const made = creator.createPlugin("node", &given, TensorRTPhase::kBUILD);
    std::printf("{\"creator\": \"%s::%s %s\"", creator.getPluginNamespace(), creator.getPluginName(), creator.getPluginVersion());
    print_fields("names", *creator.getFieldNames());
    if (!made) {
        std::printf(", \"status\": \"not created\"}\n");
        return;
    }
    IPluginV3* const clone = made->clone();
    delete made;
    size_t const workspace = built(*clone, io);
    auto const* const kept = capability<IPluginV3OneRuntime>(*clone, PluginCapabilityType::kRUNTIME).getFieldsToSerialize();
    print_fields("serialized", *kept);
    IPluginV3* const again = creator.createPlugin("node", kept, TensorRTPhase::kRUNTIME);
    require(again, "the serialized fields do not make the plugin again");
    std::fflush(stdout);
    std::printf(", \"status\": %d}\n", run(*again, c, folder, workspace));
    delete again;
    delete clone;
}

int main(int argc, char** argv) {
    require(argc == 2 || argc == 3, "usage: harness LIBRARY [CASE]");
    void* const library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    require(library, library ? "" : dlerror());
    if (argc == 2) {
        for (auto const& name : registry.seen) std::printf("%s\n", name.c_str());
    } else {
        cuda.make_context();
        walk(creator_of(library), argv[2]);
    }
}
