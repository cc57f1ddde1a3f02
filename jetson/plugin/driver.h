// The CUDA driver, found at run time, and the kernels loaded into it. The library then links to no CUDA, fits every driver, and
// loads where there is none: while an engine is built it may be asked for shapes and formats only.
#pragma once

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "image.h"
#include "launch.h"

namespace finedge {

// What went wrong, for TensorRT's log. Thrown inside the library only; every function TensorRT calls catches.
struct Trouble : std::runtime_error {
    explicit Trouble(std::string const& what) : std::runtime_error(what + "; `finedge build --attention decomposed` does without the plugin") {}
};

// From cuda.h.
enum Attribute { kMultiprocessors = 16, kMajor = 75, kMinor = 76, kSharedOptin = 97 };
constexpr int kFunctionShared = 8;
constexpr int kSharedWithoutAsking = 48 * 1024;

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
    int (*cuLaunchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);

    static Driver const& get() {
        static Driver const driver;
        return driver;
    }

    void check(int status, char const* call) const {
        if (status == 0) return;
        char const* name = nullptr;
        cuGetErrorName(status, &name);
        throw Trouble(std::string(call) + " failed with " + std::to_string(status) + " " + (name ? name : ""));
    }

    int attribute(Attribute which) const {
        int device = 0, value = 0;
        check(cuCtxGetDevice(&device), "cuCtxGetDevice");
        check(cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
        return value;
    }

private:
    Driver() {
        void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        if (!library) throw Trouble(std::string("no CUDA driver: ") + dlerror());
        auto const find = [library](auto& entry, char const* name) {
            entry = reinterpret_cast<std::remove_reference_t<decltype(entry)>>(dlsym(library, name));
            if (!entry) throw Trouble(std::string("the CUDA driver has no ") + name + " (CUDA 12.0 or newer is needed)");
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
        check(cuInit(0), "cuInit");
    }
};

// The kernels in one context. Kept until the process ends: TensorRT makes and drops plugin objects while it times, and each load may
// have the driver compile the PTX again.
class Kernels {
public:
    // Those of the calling thread's context; loaded when first asked for.
    static Kernels const& here() {
        static std::mutex mutex;
        static std::map<unsigned long long, Kernels> all;  // by the context's number: an address may be used twice
        std::lock_guard<std::mutex> const lock(mutex);
        unsigned long long number = 0;
        Driver const& driver = Driver::get();
        driver.check(driver.cuCtxGetId(nullptr, &number), "cuCtxGetId");
        auto const found = all.find(number);
        return found == all.end() ? all.emplace(number, driver).first->second : found->second;
    }

    explicit Kernels(Driver const& from) : driver(from), processors(from.attribute(kMultiprocessors)), shared_optin(from.attribute(kSharedOptin)) {
        int const capability = 10 * driver.attribute(kMajor) + driver.attribute(kMinor);
        int version = 0;
        driver.check(driver.cuDriverGetVersion(&version), "cuDriverGetVersion");
        Image const* const image = image_for(capability, version);
        std::string const device = "sm_" + std::to_string(capability) + " with a driver for CUDA " + std::to_string(version);
        if (!image) throw Trouble("no image of the attention kernel loads on " + device);
        driver.check(driver.cuModuleLoadData(&module, image->data), "cuModuleLoadData");
    }

    // A kernel that may be launched with that much dynamic shared memory.
    void* function(char const* name, int shared) const {
        std::string const bytes = std::to_string(shared) + " bytes of shared memory; this device has " + std::to_string(shared_optin);
        if (shared > shared_optin) throw Trouble(std::string(name) + " takes " + bytes);
        void* found = nullptr;
        driver.check(driver.cuModuleGetFunction(&found, module, name), "cuModuleGetFunction");
        if (shared > kSharedWithoutAsking) driver.check(driver.cuFuncSetAttribute(found, kFunctionShared, shared), "cuFuncSetAttribute");
        return found;
    }

    Driver const& driver;
    int const processors;

private:
    int const shared_optin;  // bytes a block can have
    void* module = nullptr;
};

}  // namespace finedge
