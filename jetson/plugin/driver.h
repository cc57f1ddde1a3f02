// The CUDA driver, opened at run time, and the kernels that are loaded into it. The library links
// to no CUDA, so it works with every driver and opens without one. TensorRT may ask for no more
// than shapes and formats while it builds an engine.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "image.h"
#include "launch.h"

namespace finedge {

// An error for TensorRT's log. Every function that TensorRT calls catches it.
struct PluginError : std::runtime_error {
    explicit PluginError(std::string const& problem)
        : std::runtime_error(problem +
                             "; `finedge build --attention decomposed` needs no plugin") {}
};

// From cuda.h.
enum Attribute { kMultiprocessors = 16, kMajor = 75, kMinor = 76, kSharedOptin = 97 };
constexpr int kFunctionShared = 8;
constexpr int kSharedByDefault = 48 * 1024;  // bytes a kernel has without kFunctionShared
// The blocks a multiprocessor that are assumed, at most, where the driver cannot count them.
constexpr int kUsualResident = 2;

struct Driver {
    int (*cuInit)(unsigned);
    int (*cuDriverGetVersion)(int*);
    int (*cuGetErrorName)(int, char const**);
    int (*cuCtxGetId)(void*, unsigned long long*);
    int (*cuCtxGetDevice)(int*);
    int (*cuDeviceGetAttribute)(int*, int, int);
    int (*cuModuleLoadData)(void**, void const*);
    int (*cuModuleGetFunction)(void**, void*, char const*);
    int (*cuFuncSetAttribute)(void*, int, int);
    // Null where the driver lacks it.
    int (*cuOccupancyMaxActiveBlocksPerMultiprocessor)(int*, void*, int, std::size_t);
    int (*cuLaunchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                          unsigned, void*, void**, void**);

    static Driver const& get() {
        static Driver const driver;
        return driver;
    }

    void check(int status, char const* call) const {
        if (status == 0) return;
        char const* name = nullptr;
        cuGetErrorName(status, &name);
        std::string const code = std::to_string(status) + " " + (name ? name : "");
        throw PluginError(std::string(call) + " failed with " + code);
    }

    int attribute(Attribute attribute) const {
        int device = 0, value = 0;
        check(cuCtxGetDevice(&device), "cuCtxGetDevice");
        check(cuDeviceGetAttribute(&value, attribute, device), "cuDeviceGetAttribute");
        return value;
    }

private:
    Driver() {
        void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        if (!library) throw PluginError(std::string("no CUDA driver: ") + dlerror());
        auto const seek = [library](auto& entry, char const* name) {
            using Entry = std::remove_reference_t<decltype(entry)>;
            entry = reinterpret_cast<Entry>(dlsym(library, name));
            return entry != nullptr;
        };
        auto const find = [&seek](auto& entry, char const* name) {
            if (seek(entry, name)) return;
            throw PluginError(std::string("the CUDA driver has no ") + name +
                              " (CUDA 12.0 or newer is needed)");
        };
        find(cuInit, "cuInit");
        find(cuDriverGetVersion, "cuDriverGetVersion");
        find(cuGetErrorName, "cuGetErrorName");
        find(cuCtxGetId, "cuCtxGetId");
        find(cuCtxGetDevice, "cuCtxGetDevice");
        find(cuDeviceGetAttribute, "cuDeviceGetAttribute");
        find(cuModuleLoadData, "cuModuleLoadData");
        find(cuModuleGetFunction, "cuModuleGetFunction");
        find(cuFuncSetAttribute, "cuFuncSetAttribute");
        find(cuLaunchKernel, "cuLaunchKernel");
        seek(cuOccupancyMaxActiveBlocksPerMultiprocessor,
             "cuOccupancyMaxActiveBlocksPerMultiprocessor");
        check(cuInit(0), "cuInit");
    }
};

// The kernels in one context. They stay until the process ends: TensorRT makes and deletes plugin
// objects while it measures, and with each load the driver might compile the PTX again.
class Kernels {
public:
    // The kernels of the calling thread's context; the first call loads them.
    static Kernels const& of_context() {
        static std::mutex mutex;
        // By the context's number, because an address may be used twice.
        static std::map<unsigned long long, Kernels> all;
        std::lock_guard<std::mutex> const lock(mutex);
        unsigned long long number = 0;
        Driver const& driver = Driver::get();
        driver.check(driver.cuCtxGetId(nullptr, &number), "cuCtxGetId");
        return all.try_emplace(number, driver).first->second;
    }

    explicit Kernels(Driver const& cuda)
        : driver(cuda),
          processors(cuda.attribute(kMultiprocessors)),
          shared_optin(cuda.attribute(kSharedOptin)) {
        int const capability = 10 * driver.attribute(kMajor) + driver.attribute(kMinor);
        int version = 0;
        driver.check(driver.cuDriverGetVersion(&version), "cuDriverGetVersion");
        Image const* const image = image_for(capability, version);
        std::string const device =
            "sm_" + std::to_string(capability) +
            " with a driver for CUDA " + std::to_string(version);
        if (!image) throw PluginError("no image of the attention kernel loads on " + device);
        driver.check(driver.cuModuleLoadData(&module, image->data), "cuModuleLoadData");
    }

    // A kernel that may be launched with `shared` bytes of dynamic shared memory.
    void* function(char const* name, int shared) const {
        if (shared > shared_optin) {
            throw PluginError(std::string(name) + " needs " + std::to_string(shared) +
                              " bytes of shared memory; this device has " +
                              std::to_string(shared_optin));
        }
        void* kernel = nullptr;
        driver.check(driver.cuModuleGetFunction(&kernel, module, name), "cuModuleGetFunction");
        if (shared > kSharedByDefault) {
            int const status = driver.cuFuncSetAttribute(kernel, kFunctionShared, shared);
            driver.check(status, "cuFuncSetAttribute");
        }
        return kernel;
    }

    // How many blocks of a kernel, which `function` returned, fit a multiprocessor.
    int resident(Kernel const& kernel, void* function) const {
        auto const ask = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor;
        if (!ask) return std::min(kernel.resident, kUsualResident);
        int blocks = 0;
        int const status = ask(&blocks, function, kernel.threads, kernel.shared_bytes);
        driver.check(status, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
        return std::max(1, blocks);
    }

    Driver const& driver;
    int const processors;

private:
    int const shared_optin;  // the most bytes that a block can have
    void* module = nullptr;
};

}  // namespace finedge
