// Registers the plugin when this library is opened: DeepStream and Triton Inference Server do no
// more than open a library. It is a library of its own because it needs getPluginRegistry of
// libnvinfer. The plugin's library then opens in programs without libnvinfer too.

#include <NvInferRuntime.h>

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

namespace {

struct Registration {
    Registration() {
        int32_t count = 0;
        auto const* const creators = getCreators(count);
        for (int32_t i = 0; i < count; ++i) {
            auto& creator = static_cast<nvinfer1::IPluginCreatorV3One&>(*creators[i]);
            getPluginRegistry()->registerCreator(creator, creator.getPluginNamespace());
        }
    }
} const registration;

}  // namespace
