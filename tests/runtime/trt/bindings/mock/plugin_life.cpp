// A plugin registry, and the life of a plugin in the order in which a builder and a runtime call it.
#include <cstring>
#include <string>
#include <vector>

#include "abi.h"

namespace {

IPluginCreatorV3One* registered = nullptr;
// What load_library() runs: the caller is then inside a bound function, as it is when a builder
// calls back. Only there may pybind make temporaries.
int (*armed)() = nullptr;
void (*report)(Text step, int passed) = nullptr;
int failures = 0;

void must(bool passed, Text step) {
    failures += !passed;
    if (report) report(step, passed);
    if (!passed && !report) std::fprintf(stderr, "FAILED %s\n", step);
}

struct Registry final : IPluginRegistry {
    void* loadLibrary(Text) override {
        if (armed) armed();
        return nullptr;
    }
    bool registerCreator(IPluginCreatorV3One* creator, Text) override {
        registered = creator;
        return true;
    }
    IPluginCreatorV3One* const* getAllCreators(int* count) override {
        *count = registered != nullptr;
        return &registered;
    }
    IPluginCreatorV3One* getCreator(Text name, Text version, Text domain) override {
        auto same = [](Text a, Text b) { return !std::strcmp(a, b); };
        bool const fits = registered && same(name, registered->getPluginName()) &&
                          same(version, registered->getPluginVersion()) &&
                          same(domain, registered->getPluginNamespace());
        return fits ? registered : nullptr;
    }
    bool deregisterCreator(IPluginCreatorV3One const*) override {
        registered = nullptr;
        return true;
    }
} registry;

struct Dimension final : IDimensionExpr {
    VDimensionExpr unused;
    Dimension() { implementation = &unused; }
};
struct Expressions final : IExprBuilder {
    VExprBuilder unused;
    Expressions() { implementation = &unused; }
};

Dims square(int64_t batch, int64_t channels, int64_t side) {
    return {4, {batch, channels, side, side}};
}

// One attention: q, k, v and y in half, HWC8, a batch that the profile leaves open.
struct Tensors {
    DynamicTensor dynamic[4]{};
    TensorDesc exact[4]{};

    Tensors(int batch, int channels, int query_side, int key_side) {
        for (int i = 0; i < 4; i++) {
            Dims const shape = square(batch, channels, i == 1 || i == 2 ? key_side : query_side);
            dynamic[i].min = dynamic[i].opt = dynamic[i].max = dynamic[i].desc.shape = shape;
            dynamic[i].desc.shape.size[0] = -1;
            exact[i].shape = shape;
            reset(i);
            exact[i].type = HALF;
            exact[i].format = HWC8;
        }
    }
    void reset(int i) {
        dynamic[i].desc.type = HALF;
        dynamic[i].desc.format = HWC8;
    }
};

// What the parser makes of the node's attributes; plugin_version and plugin_namespace are among them.
struct Fields {
    float scale, zero = 0;
    int32_t shared = 0;
    std::vector<PluginField> list;

    explicit Fields(float scale) : scale(scale) {
        list = {{"scale", &this->scale, FIELD_FLOAT32, 1}, {"q_scale", &zero, FIELD_FLOAT32, 1},
                {"k_scale", &zero, FIELD_FLOAT32, 1},      {"v_scale", &zero, FIELD_FLOAT32, 1},
                {"shared", &shared, FIELD_INT32, 1},       {"plugin_version", "1", FIELD_CHAR, 1},
                {"plugin_namespace", "finedge", FIELD_CHAR, 7}};
    }
};

struct Life {
    IPluginCreatorV3One* creator;
    Tensors tensors;
    Fields fields;
    IPluginV3 *plugin = nullptr, *timed = nullptr, *loaded = nullptr, *attached = nullptr;
    IPluginV3OneCore* core = nullptr;
    IPluginV3OneBuild* build = nullptr;
    IPluginV3OneRuntime* runtime = nullptr;

    template <class T>
    static T* capability(IPluginV3* plugin, int kind) {
        return plugin ? static_cast<T*>(plugin->getCapabilityInterface(kind)) : nullptr;
    }

    bool create() {
        auto const* names = creator->getFieldNames();
        bool same = names && names->count == 5;
        for (int i = 0; same && i < names->count; i++)
            same = !std::strcmp(names->fields[i].name, fields.list[i].name);
        must(same, "getFieldNames");
        PluginFieldCollection const collection{static_cast<int>(fields.list.size()),
                                               fields.list.data()};
        plugin = creator->createPlugin("attend", &collection, BUILD - 1);  // TensorRTPhase::kBUILD
        must(plugin, "createPlugin(BUILD)");
        core = capability<IPluginV3OneCore>(plugin, CORE);
        build = capability<IPluginV3OneBuild>(plugin, BUILD);
        runtime = capability<IPluginV3OneRuntime>(plugin, RUNTIME);
        must(core && build && runtime, "getCapabilityInterface");
        return core && build && runtime;
    }

    void describe() {
        must(!std::strcmp(core->getInterfaceInfo().kind, "PLUGIN_V3ONE_CORE") &&
                 !std::strcmp(build->getInterfaceInfo().kind, "PLUGIN_V3ONE_BUILD") &&
                 !std::strcmp(runtime->getInterfaceInfo().kind, "PLUGIN_V3ONE_RUNTIME"),
             "getInterfaceInfo");
        must(!std::strcmp(core->getPluginName(), creator->getPluginName()), "getPluginName");
        must(!std::strcmp(core->getPluginVersion(), "1"), "getPluginVersion");
        must(!std::strcmp(core->getPluginNamespace(), "finedge"), "getPluginNamespace");
        must(build->getNbOutputs() == 1, "getNbOutputs");
        int const types[3] = {HALF, HALF, HALF};
        int result[1] = {-1};
        must(!build->getOutputDataTypes(result, 1, types, 3) && result[0] == HALF,
             "getOutputDataTypes");
        shapes();
    }

    void shapes() {
        static Dimension sizes[12];
        static Expressions expressions;
        DimsExprs inputs[3]{}, output[1]{};
        for (int i = 0; i < 12; i++) {
            inputs[i / 4].count = 4;
            inputs[i / 4].size[i % 4] = &sizes[i];
        }
        int const code = build->getOutputShapes(inputs, 3, nullptr, 0, output, 1, &expressions);
        auto const* size = output[0].size;
        must(!code && output[0].count == 4 && size[0] == &sizes[0] && size[1] == &sizes[9] &&
                 size[2] == &sizes[2] && size[3] == &sizes[3],
             "getOutputShapes");
    }

    void configure() {
        must(build->getFormatCombinationLimit() > 0, "getFormatCombinationLimit");
        int accepted[4]{};
        for (int position = 0; position < 4; position++) {
            auto& desc = tensors.dynamic[position].desc;
            for (desc.format = 0; desc.format < FORMATS; desc.format++)
                for (int type : {FLOAT, HALF, INT8}) {
                    desc.type = type;
                    accepted[position] +=
                        build->supportsFormatCombination(position, tensors.dynamic, 3, 1);
                }
            tensors.reset(position);
        }
        must(accepted[0] && accepted[1] && accepted[2] && accepted[3],
             "supportsFormatCombination");
        auto const *in = tensors.dynamic, *out = tensors.dynamic + 3;
        must(!build->configurePlugin(in, 3, out, 1), "configurePlugin");
        must(build->getWorkspaceSize(in, 3, out, 1) < (1u << 30), "getWorkspaceSize");
        must(build->getNbTactics() == 0, "getNbTactics");
        // Without one TensorRT times the plugin in every build.
        Text const identity = build->getTimingCacheID();
        must(identity && *identity, "getTimingCacheID");
        build->getMetadataString();
        must(true, "getMetadataString");
    }

    // The builder times a clone. "If no custom tactics were advertised, this will have a value of
    // 0" (NvInferRuntime.h, setTactic): it is called anyway.
    void time() {
        timed = plugin->clone();
        must(timed, "clone");
        auto* one = capability<IPluginV3OneRuntime>(timed, RUNTIME);
        must(one && !one->setTactic(0), "setTactic");
    }

    void serialise() {
        auto const* written = runtime->getFieldsToSerialize();
        must(written && written->count == 5, "getFieldsToSerialize");
        if (!written) return;
        bool same = true;
        for (int i = 0; i < written->count; i++) {
            auto const &field = written->fields[i], &before = fields.list[i];
            same &= !std::strcmp(field.name, before.name) && field.type == before.type &&
                    field.length == 1 && !std::memcmp(field.data, before.data, 4);
        }
        must(same, "the fields are what they were");
        loaded = creator->createPlugin("attend", written, RUNTIME - 1);  // TensorRTPhase::kRUNTIME
        must(loaded, "createPlugin(RUNTIME)");
    }

    void enqueue(void* const maps[4], void* workspace, void* stream) {
        auto* of_engine = capability<IPluginV3OneRuntime>(loaded, RUNTIME);
        attached = of_engine ? of_engine->attachToContext(nullptr) : nullptr;
        must(attached, "attachToContext");
        auto* run = capability<IPluginV3OneRuntime>(attached, RUNTIME);
        must(run && !run->setTactic(0), "setTactic of the engine's plugin");
        auto const *in = tensors.exact, *out = tensors.exact + 3;
        must(run && !run->onShapeChange(in, 3, out, 1), "onShapeChange");
        void const* const inputs[3] = {maps[0], maps[1], maps[2]};
        void* const output[1] = {maps[3]};
        must(run && !run->enqueue(in, out, inputs, output, workspace, stream), "enqueue");
    }

    ~Life() {
        delete attached;
        delete loaded;
        delete timed;
        delete plugin;
        must(true, "delete");
    }
};

}  // namespace

EXPORT IPluginRegistry* getPluginRegistry() { return &registry; }
EXPORT IPluginRegistry* getBuilderPluginRegistry(int) { return &registry; }
EXPORT bool initLibNvInferPlugins(void*, Text) { return true; }

EXPORT void arm(int (*work)()) { armed = work; }
EXPORT void on_step(void (*callback)(Text, int)) { report = callback; }

// Live a whole life. q, k, v and y are HWC8 half maps of `channels` channels (a multiple of 8) and
// of query_side^2 or key_side^2 positions. Returns how many steps failed.
EXPORT int drive(void* q, void* k, void* v, void* y, void* workspace, int batch, int channels,
                 int query_side, int key_side, float scale, void* stream) {
    failures = 0;
    must(registered, "register_creator");
    if (!registered) return failures;
    {
        Life life{registered, Tensors(batch, channels, query_side, key_side), Fields(scale)};
        if (life.create()) {
            life.describe();
            life.configure();
            life.time();
            life.serialise();
            void* const maps[4] = {q, k, v, y};
            life.enqueue(maps, workspace, stream);
        }
    }
    return failures;
}
