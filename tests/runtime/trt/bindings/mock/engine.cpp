// A runtime, and engines that are read from text: tests write it (inside/mock_engine.py).
//
//     mock engine
//     tensor frames in 5 -1 4 4 3        name, direction, DataType, shape
//     profile 1 1 4                      smallest, best and largest batch
//     scratch 5000                       bytes
//     refuse set_input_shape             a call that fails; as often as wanted
//     log these words                    an error that is logged for each new context, and where
//                                        the engine itself is refused
#include <cstring>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "abi.h"

namespace {

struct Tensor {
    std::string name;
    bool input;
    int type;
    Dims shape;
};

struct Description {
    std::vector<Tensor> tensors;
    int64_t profile[3] = {1, 1, 1}, scratch = 0;
    std::set<std::string> refused;
    std::string log;

    explicit Description(std::istream& text) {
        for (std::string line; std::getline(text, line);) {
            std::istringstream words(line);
            std::string word;
            words >> word;
            if (word == "tensor") tensors.push_back(tensor(words));
            if (word == "profile") words >> profile[0] >> profile[1] >> profile[2];
            if (word == "scratch") words >> scratch;
            if (word == "refuse" && words >> word) refused.insert(word);
            if (word == "log") log = line.substr(4);
        }
    }
    static Tensor tensor(std::istringstream& words) {
        Tensor made{};
        std::string direction;
        words >> made.name >> direction >> made.type;
        made.input = direction == "in";
        while (words >> made.shape.size[made.shape.count]) made.shape.count++;
        return made;
    }
    Tensor const& named(Text name) const {
        for (auto const& tensor : tensors)
            if (tensor.name == name) return tensor;
        missing(name);
    }
    bool takes(std::string const& call) const { return !refused.count(call); }
};

// What is alive, and what died too early.
int contexts = 0, engines = 0, runtimes = 0, too_early = 0;
enum Creation { GOOD, NOTHING, AFTER_AN_ERROR };
int creation = GOOD;
int (*compute)(int context, void* stream) = nullptr;

struct Context final : IExecutionContext, VExecutionContext {
    ICudaEngine const* const handle;
    Description const& engine;
    int const id;
    int active_profile = -1;
    int64_t batch = -1, scratch_size = 0;
    void* scratch = nullptr;
    IProfiler* profiler = nullptr;
    std::map<std::string, void*> addresses;
    static inline std::map<int, Context*> alive;
    static inline int next = 0;

    Context(ICudaEngine const* handle, Description const& engine)
        : handle(handle), engine(engine), id(next++) {
        implementation = this;
        // The first context of an engine has its first profile, others have none.
        active_profile = contexts++ ? -1 : 0;
        alive[id] = this;
    }
    ~Context() override {
        alive.erase(id);
        contexts--;
    }
    void setProfiler(IProfiler* other) override { profiler = other; }
    IProfiler* getProfiler() override { return profiler; }
    ICudaEngine const* getEngine() override { return handle; }
    int getOptimizationProfile() override { return active_profile; }
    bool setOptimizationProfileAsync(int profile, void*) override {
        active_profile = profile;
        return engine.takes("set_optimization_profile_async");
    }
    void setDeviceMemoryV2(void* memory, long size) override {
        scratch = memory;
        scratch_size = size;
    }
    bool setInputShape(Text name, Dims const* shape) override {
        auto const& tensor = engine.named(name);
        batch = shape->size[0];
        bool fits = active_profile == 0 && shape->count == tensor.shape.count;
        int64_t const fixed = tensor.shape.size[0];
        fits &= fixed > 0 ? batch == fixed
                          : batch >= engine.profile[0] && batch <= engine.profile[2];
        return fits && engine.takes("set_input_shape");
    }
    bool setTensorAddress(Text name, void* address) override {
        addresses[engine.named(name).name] = address;
        return engine.takes("set_tensor_address");
    }
    int inferShapes(int, Text* names) override {
        if (!engine.takes("infer_shapes_with_a_negative_code")) return -1;
        if (batch > 0 && engine.takes("infer_shapes")) return 0;
        names[0] = engine.tensors[0].name.c_str();
        return 1;
    }
    bool enqueueV3(void* stream) override {
        bool const ready = scratch && scratch_size >= engine.scratch && batch > 0 &&
                           addresses.size() == engine.tensors.size();
        if (!ready || !engine.takes("execute_async_v3") || compute(id, stream)) return false;
        if (profiler) {
            profiler->reportLayerTime("conv", 0.25F);
            profiler->reportLayerTime("gemm", 0.5F);
        }
        return true;
    }
};

struct Inspector final : IEngineInspector, VEngineInspector {
    Inspector() { implementation = this; }
    Text getEngineInformation(int) override {
        return R"({"Layers": [{"Name": "c", "LayerType": "CaskConvolution",)"
               R"( "Inputs": [], "Outputs": []}]})";
    }
};

struct Engine final : ICudaEngine, VCudaEngine {
    Description description;
    ILogger* logger;

    Engine(std::istream& text, ILogger* logger) : description(text), logger(logger) {
        implementation = this;
        engines++;
    }
    ~Engine() override {
        too_early += contexts > 0;
        engines--;
    }
    int getNbIOTensors() override { return static_cast<int>(description.tensors.size()); }
    Text getIOTensorName(int index) override { return description.tensors[index].name.c_str(); }
    int getTensorDataType(Text name) override { return description.named(name).type; }
    int getTensorIOMode(Text name) override { return description.named(name).input ? 1 : 2; }
    Dims getTensorShape(Text name) override { return description.named(name).shape; }
    Dims getProfileShape(Text name, int, int selector) override {
        Dims shape = description.named(name).shape;
        shape.size[0] = description.profile[selector];
        return shape;
    }
    long getDeviceMemorySizeV2() override { return description.scratch; }
    IExecutionContext* createExecutionContext(int strategy) override {
        constexpr int USER_MANAGED = 2;
        if (!description.log.empty()) logger->log(ERROR, description.log.c_str());
        bool const good =
            strategy == USER_MANAGED && description.takes("create_execution_context");
        return good ? new Context(this, description) : nullptr;
    }
    IEngineInspector* createEngineInspector() override { return new Inspector; }
};

struct Runtime final : IRuntime, VRuntime {
    ILogger* logger;
    bool const usable;

    Runtime(ILogger* logger, bool usable) : logger(logger), usable(usable) {
        implementation = this;
        runtimes += usable;
    }
    ~Runtime() override {
        if (!usable) missing("the destruction of a runtime whose creation logged an error");
        too_early += engines > 0;
        runtimes--;
    }
    ICudaEngine* deserializeCudaEngine(void const* data, size_t size) override {
        if (!usable) missing("a call of a runtime whose creation logged an error");
        std::istringstream text(std::string(static_cast<Text>(data), size));
        std::string head;
        std::getline(text, head);
        if (head != "mock engine") return refuse("these bytes are no engine of the mock");
        auto* engine = new Engine(text, logger);
        if (engine->description.takes("deserialize_cuda_engine")) return engine;
        std::string const words = engine->description.log;
        delete engine;
        return refuse(words.c_str());
    }
    ICudaEngine* refuse(Text words) {
        logger->log(ERROR, words);
        return nullptr;
    }
};

}  // namespace

// A driver that is too old: the library logs an error, and returns nothing or an object that must
// be neither used nor destroyed (both end the process with TensorRT 11.4).
EXPORT void* createInferRuntime_INTERNAL(void* logger, int) {
    auto* log = static_cast<ILogger*>(logger);
    if (creation != GOOD) log->log(ERROR, "CUDA initialization failure with error: 35");
    return creation == NOTHING ? nullptr
                               : static_cast<IRuntime*>(new Runtime(log, creation == GOOD));
}

EXPORT void create(int how) { creation = how; }
EXPORT int how_created() { return creation; }
EXPORT void on_enqueue(int (*callback)(int, void*)) { compute = callback; }
EXPORT long context_batch(int id) { return Context::alive.at(id)->batch; }
EXPORT void* context_scratch(int id) { return Context::alive.at(id)->scratch; }
EXPORT long context_scratch_size(int id) { return Context::alive.at(id)->scratch_size; }
EXPORT void* context_address(int id, Text name) {
    auto const& addresses = Context::alive.at(id)->addresses;
    auto const place = addresses.find(name);
    return place == addresses.end() ? nullptr : place->second;
}
EXPORT int context_has_profiler(int id) { return Context::alive.at(id)->profiler != nullptr; }
// Ids of the contexts that are alive, at most `room`; returns how many.
EXPORT int context_ids(int* ids, int room) {
    int count = 0;
    for (auto const& [id, context] : Context::alive)
        if (count < room) ids[count++] = id;
    return count;
}
EXPORT int count_contexts() { return contexts; }
EXPORT int count_engines() { return engines; }
EXPORT int count_runtimes() { return runtimes; }
EXPORT int count_too_early() { return too_early; }
