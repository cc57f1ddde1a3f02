// DeepStream and Triton Inference Server only open a plugin's library, so this one registers the plugin of the library it is linked
// to. It lies apart because it needs getPluginRegistry of libnvinfer: the plugin itself then opens in programs that have none.

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
