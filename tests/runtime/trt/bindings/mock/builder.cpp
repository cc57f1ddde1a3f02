// A builder, its network, configuration and parser. It writes what it was told into a list of
// calls, and builds an engine of mock/engine.cpp. What the parser finds in any ONNX file is text:
//
//     input frames -1 4 4 3              name and shape of the network's input
//     error 0 stem Conv why it fails     place of the node, its name and op, the message
#include <sstream>
#include <string>
#include <vector>

#include "abi.h"

EXPORT int how_created();

namespace {

std::string calls, model;

template <class... T>
void note(T const&... words) {
    std::ostringstream line;
    ((line << words << ' '), ...);
    std::string text = line.str();
    text.back() = '\n';
    calls += text;
}
std::string text_of(Dims const& shape) {
    std::string text;
    for (int i = 0; i < shape.count; i++) text += (i ? "," : "") + std::to_string(shape.size[i]);
    return text;
}

struct Memory final : IHostMemory, VHostMemory {
    std::string bytes;

    explicit Memory(std::string bytes) : bytes(std::move(bytes)) { implementation = this; }
    void* data() override { return bytes.data(); }
    size_t size() override { return bytes.size(); }
    int type() override { return INT8; }
};

struct TimingCache final : ITimingCache, VTimingCache {
    std::string bytes;

    explicit TimingCache(std::string bytes) : bytes(std::move(bytes)) { implementation = this; }
    IHostMemory* serialize() override { return new Memory(bytes + "+timings"); }
};

struct Profile final : IOptimizationProfile, VOptimizationProfile {
    Dims shapes[3]{};

    Profile() { implementation = this; }
    bool setDimensions(Text name, int selector, Dims const* shape) override {
        note("setDimensions", name, selector, text_of(*shape));
        shapes[selector] = *shape;
        return selector == 0 || shape->size[0] >= shapes[selector - 1].size[0];
    }
};

struct Config final : IBuilderConfig, VBuilderConfig {
    IProgressMonitor* monitor = nullptr;
    ITimingCache const* timings = nullptr;
    Profile const* profile = nullptr;

    Config() { implementation = this; }
    void clearFlag(int flag) override { note("clearFlag", flag); }
    void setFlag(int flag) override { note("setFlag", flag); }
    int addOptimizationProfile(IOptimizationProfile const* added) override {
        profile = static_cast<Profile const*>(added);
        return 0;
    }
    void setProfilingVerbosity(int level) override { note("setProfilingVerbosity", level); }
    ITimingCache* createTimingCache(void const* data, size_t size) override {
        note("createTimingCache", size);
        return new TimingCache(std::string(static_cast<Text>(data), size));
    }
    bool setTimingCache(ITimingCache const* cache, bool ignore_mismatch) override {
        note("setTimingCache", ignore_mismatch);
        timings = cache;
        return static_cast<TimingCache const*>(cache)->bytes != "another machine's";
    }
    ITimingCache const* getTimingCache() override { return timings; }
    void setMemoryPoolLimit(int pool, size_t size) override {
        note("setMemoryPoolLimit", pool, size);
    }
    void setProgressMonitor(IProgressMonitor* other) override { monitor = other; }
};

struct Input final : ITensor, VTensor {
    std::string name;
    Dims shape{};

    explicit Input(std::istringstream& words) {
        implementation = this;
        words >> name;
        while (words >> shape.size[shape.count]) shape.count++;
    }
    Text getName() override { return name.c_str(); }
    Dims getDimensions() override { return shape; }
};

struct Network final : INetworkDefinition, VNetworkDefinition {
    std::vector<Input*> inputs;

    Network() { implementation = this; }
    ~Network() override {
        for (auto* input : inputs) delete input;
    }
    int getNbInputs() override { return static_cast<int>(inputs.size()); }
    ITensor* getInput(int index) override { return inputs[index]; }
};

struct ParserError final : IParserError {
    int place = -1;
    std::string name, op, why;

    explicit ParserError(std::istringstream& words) {
        words >> place >> name >> op;
        std::getline(words >> std::ws, why);
    }
    Text desc() override { return why.c_str(); }
    Text file() override { return "ModelImporter.cpp"; }
    int node() override { return place; }
    Text nodeName() override { return name.c_str(); }
    Text nodeOperator() override { return op.c_str(); }
    Text const* localFunctionStack() override {
        static Text const function = "Block";
        return &function;
    }
    int localFunctionStackSize() override { return 1; }
};

struct Parser final : IParser {
    Network* network;
    std::vector<ParserError> errors;

    explicit Parser(Network* network) : network(network) {}
    bool parse(void const*, size_t size, Text) override { return read("parse", size); }
    bool supportsModelV2(void const*, size_t size, Text) override {
        return read("supportsModelV2", size);
    }
    int getNbErrors() override { return static_cast<int>(errors.size()); }
    IParserError const* getError(int index) override { return &errors[index]; }

    bool read(Text call, size_t size) {
        note(call, size);
        std::istringstream text(model);
        for (std::string line; std::getline(text, line);) {
            std::istringstream words(line);
            std::string word;
            words >> word;
            if (word == "input") network->inputs.push_back(new Input(words));
            if (word == "error") errors.emplace_back(words);
        }
        return errors.empty();
    }
};

struct Builder final : IBuilder, VBuilder {
    ILogger* logger;
    bool const usable;

    Builder(ILogger* logger, bool usable) : logger(logger), usable(usable) {
        implementation = this;
    }
    ~Builder() override {
        if (!usable) missing("the destruction of a builder whose creation logged an error");
    }
    IBuilderConfig* createBuilderConfig() override { return new Config; }
    INetworkDefinition* createNetworkV2(unsigned flags) override {
        if (!usable) missing("a call of a builder whose creation logged an error");
        note("createNetworkV2", flags);
        return new Network;
    }
    IOptimizationProfile* createOptimizationProfile() override { return new Profile; }
    IHostMemory* buildSerializedNetwork(INetworkDefinition*, IBuilderConfig* made) override {
        auto* config = static_cast<Config*>(made);
        auto* monitor = config->monitor;
        if (monitor) monitor->phaseStart("Building", nullptr, 2);
        for (int step = 0; monitor && step < 2; step++)
            if (!monitor->stepComplete("Building", step)) return refuse("stopped");
        if (monitor) monitor->phaseFinish("Building");
        if (model.find("fails") != std::string::npos) return refuse("no kernel for node stem");
        std::string text = "mock engine\ntensor frames in 5 -1 4 4 3\ntensor logits out 0 -1 3\n";
        text += "profile";
        for (auto const& shape : config->profile->shapes)
            text += " " + std::to_string(shape.size[0]);
        return new Memory(text + "\nscratch 5000\n");
    }
    IHostMemory* refuse(Text words) {
        logger->log(ERROR, words);
        return nullptr;
    }
};

}  // namespace

EXPORT void* createInferBuilder_INTERNAL(void* made, int) {
    auto* logger = static_cast<ILogger*>(made);
    bool const usable = how_created() == 0, nothing = how_created() == 1;
    if (!usable) logger->log(ERROR, "CUDA initialization failure with error: 35");
    return nothing ? nullptr : static_cast<IBuilder*>(new Builder(logger, usable));
}
EXPORT void* createNvOnnxParser_INTERNAL(void* network, void*, int) {
    auto* made = static_cast<Network*>(static_cast<INetworkDefinition*>(network));
    return how_created() == 1 ? nullptr : static_cast<IParser*>(new Parser(made));
}
// What the parser finds from now on, and the calls since then.
EXPORT void set_model(Text text) {
    model = text;
    calls.clear();
}
EXPORT Text builder_calls() { return calls.c_str(); }
