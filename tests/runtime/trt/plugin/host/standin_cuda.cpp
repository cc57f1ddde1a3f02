// A libcuda.so.1 for machines without a GPU: the part of the driver API a plugin needs, with kernels run by the shim, on the CPU, at once.
//
// Device pointers are host pointers. What a real driver would refuse is refused with the same code: an image it cannot load, a kernel that is
// not in the table, more than 48 KB of dynamic shared memory without cuFuncSetAttribute, more than the device has, any call before cuInit.
// Environment, read at each call: STANDIN_DRIVER_VERSION (12060), STANDIN_CC (8.7), STANDIN_PROCESSORS (8), STANDIN_RESIDENT (what
// fits, see below), and STANDIN_LOG, a file that gets one line a call: name, then the arguments that matter.
// Compiled with STANDIN_WITHOUT_OCCUPANCY it lacks cuOccupancyMaxActiveBlocksPerMultiprocessor.
#include "host_kernel.cpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

namespace standin {

// CUresult
constexpr int SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209,
              INVALID_PTX = 218, UNSUPPORTED_PTX_VERSION = 222, INVALID_HANDLE = 400, NOT_FOUND = 500, LAUNCH_FAILED = 719;
constexpr int WITHOUT_ASKING = 49152;  // bytes of dynamic shared memory

struct Function {
    std::string name;
    int dynamic_shared = WITHOUT_ASKING;
};
struct Module {
    std::map<std::string, Function> functions;
};

static bool initialised = false;
static int primary;
static void* context = &primary;  // TensorRT has made one current by the time it calls a plugin

inline std::string setting(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value && *value ? value : otherwise;
}
inline int driver_version() { return atoi(setting("STANDIN_DRIVER_VERSION", "12060").c_str()); }
inline int compute_capability() {  // 87 for 8.7
    const std::string text = setting("STANDIN_CC", "8.7");
    return atoi(text.c_str()) * 10 + atoi(text.c_str() + text.find('.') + 1);
}
inline int shared_per_block() {
    const int cc = compute_capability();
    if (cc == 80 || cc == 87) return 166912;
    return cc >= 90 && cc < 120 ? 232448 : 101376;
}
// Blocks that fit a multiprocessor, by shared memory (1 KB of each block is the driver's) and by threads. Registers are not known here.
inline int resident(int threads, int dynamic_shared) {
    const int cc = compute_capability();
    const int shared = cc == 80 || cc == 87 ? 167936 : cc >= 90 && cc < 120 ? 233472 : 102400;
    const int most_threads = cc == 80 || (cc >= 90 && cc < 120) ? 2048 : 1536;
    const int fit = std::min(shared / (dynamic_shared + 1024), most_threads / threads);
    return atoi(setting("STANDIN_RESIDENT", std::to_string(fit).c_str()).c_str());
}
// Newest PTX ISA of a driver: 8.(minor) up to CUDA 12.5, 8.5 for 12.6, then one more each; 9.(minor) for CUDA 13.
inline int newest_ptx() {
    const int major = driver_version() / 1000, minor = driver_version() % 1000 / 10;
    if (major != 12) return major < 12 ? 78 : 90 + minor;
    return 80 + (minor <= 5 ? minor : minor - 1);
}

inline void log(const char* format, ...) {
    const std::string path = setting("STANDIN_LOG", "");
    FILE* file = path.empty() ? nullptr : fopen(path.c_str(), "a");
    if (!file) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fclose(file);
}

// A cubin has to be of this very architecture and, before CUDA 12.8, of the old ELF ABI; PTX must be no newer than driver and device.
inline int judge_elf(const unsigned char* image) {
    const bool old_abi = image[7] == 0x33 && image[8] == 7, new_abi = image[7] == 0x41 && image[8] == 8;
    unsigned flags;
    memcpy(&flags, image + 48, 4);
    const int arch = static_cast<int>(new_abi ? flags >> 8 & 0xff : flags & 0xff);
    if (!old_abi && !(new_abi && driver_version() >= 12080)) return NO_BINARY_FOR_GPU;
    return arch == compute_capability() ? SUCCESS : NO_BINARY_FOR_GPU;
}
inline int judge_ptx(const char* text) {
    const char *version = strstr(text, ".version "), *target = strstr(text, ".target sm_");
    if (!version || !target) return INVALID_PTX;
    if (atoi(version + 9) * 10 + atoi(strchr(version, '.') ? strchr(version + 1, '.') + 1 : "0") > newest_ptx()) return UNSUPPORTED_PTX_VERSION;
    return atoi(target + 11) <= compute_capability() ? SUCCESS : NO_BINARY_FOR_GPU;
}
inline int judge(const void* image) { return memcmp(image, "\177ELF", 4) ? judge_ptx(static_cast<const char*>(image)) : judge_elf(static_cast<const unsigned char*>(image)); }

inline int ready() { return !initialised ? NOT_INITIALIZED : !context ? INVALID_CONTEXT : SUCCESS; }

}  // namespace standin

using namespace standin;

extern "C" {

int cuInit(unsigned) {
    log("cuInit");
    initialised = true;
    return SUCCESS;
}
int cuDriverGetVersion(int* version) {
    log("cuDriverGetVersion");
    *version = driver_version();
    return SUCCESS;
}
int cuDeviceGetCount(int* count) {
    log("cuDeviceGetCount");
    *count = 1;
    return initialised ? SUCCESS : NOT_INITIALIZED;
}
int cuDeviceGet(int* device, int ordinal) {
    log("cuDeviceGet %d", ordinal);
    *device = 0;
    return !initialised ? NOT_INITIALIZED : ordinal ? INVALID_DEVICE : SUCCESS;
}
int cuDeviceGetName(char* name, int length, int) {
    log("cuDeviceGetName");
    snprintf(name, length, "stand-in %s", setting("STANDIN_CC", "8.7").c_str());
    return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
    log("cuDeviceGetAttribute %d", attribute);
    const int cc = compute_capability();
    const std::map<int, int> values = {
        {1, 1024}, {8, WITHOUT_ASKING}, {10, 32}, {16, atoi(setting("STANDIN_PROCESSORS", "8").c_str())}, {18, 1}, {75, cc / 10}, {76, cc % 10}, {97, shared_per_block()}};
    const auto found = values.find(attribute);
    if (found == values.end()) return INVALID_VALUE;
    *value = found->second;
    return initialised ? SUCCESS : NOT_INITIALIZED;
}

int cuDevicePrimaryCtxRetain(void** held, int) {
    log("cuDevicePrimaryCtxRetain");
    *held = &primary;
    return initialised ? SUCCESS : NOT_INITIALIZED;
}
int cuDevicePrimaryCtxRelease_v2(int) {
    log("cuDevicePrimaryCtxRelease_v2");
    return SUCCESS;
}
int cuCtxSetCurrent(void* wanted) {
    log("cuCtxSetCurrent");
    context = wanted;
    return initialised ? SUCCESS : NOT_INITIALIZED;
}
int cuCtxGetCurrent(void** current) {
    log("cuCtxGetCurrent");
    *current = context;
    return initialised ? SUCCESS : NOT_INITIALIZED;
}
int cuCtxGetId(void* of, unsigned long long* number) {
    log("cuCtxGetId");
    *number = reinterpret_cast<uintptr_t>(of ? of : context);
    return of ? SUCCESS : ready();
}
int cuCtxGetDevice(int* device) {
    log("cuCtxGetDevice");
    *device = 0;
    return ready();
}
int cuCtxSynchronize() {
    log("cuCtxSynchronize");
    return ready();
}
int cuStreamSynchronize(void*) {
    log("cuStreamSynchronize");
    return ready();
}

int cuMemAlloc_v2(void** at, size_t bytes) {
    log("cuMemAlloc_v2 %zu", bytes);
    *at = bytes ? aligned_alloc(256, (bytes + 255) / 256 * 256) : nullptr;
    if (*at) memset(*at, 0xff, bytes);
    return *at ? ready() : bytes ? OUT_OF_MEMORY : INVALID_VALUE;
}
int cuMemFree_v2(void* at) {
    log("cuMemFree_v2");
    free(at);
    return ready();
}
static int copy(const char* name, void* to, const void* from, size_t bytes) {
    log("%s %zu", name, bytes);
    memcpy(to, from, bytes);
    return ready();
}
int cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) { return copy("cuMemcpyHtoD_v2", to, from, bytes); }
int cuMemcpyDtoH_v2(void* to, const void* from, size_t bytes) { return copy("cuMemcpyDtoH_v2", to, from, bytes); }
int cuMemcpyDtoD_v2(void* to, const void* from, size_t bytes) { return copy("cuMemcpyDtoD_v2", to, from, bytes); }
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) { return copy("cuMemcpyHtoDAsync_v2", to, from, bytes); }
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void*) { return copy("cuMemcpyDtoHAsync_v2", to, from, bytes); }
int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void*) { return copy("cuMemcpyDtoDAsync_v2", to, from, bytes); }
int cuMemsetD8Async(void* at, unsigned char value, size_t bytes, void*) {
    log("cuMemsetD8Async %zu", bytes);
    memset(at, value, bytes);
    return ready();
}

int cuModuleLoadData(void** module, const void* image) {
    const int verdict = ready() ? ready() : judge(image);
    log("cuModuleLoadData %s %d", memcmp(image, "\177ELF", 4) ? "ptx" : "cubin", verdict);
    if (verdict == SUCCESS) *module = new Module;
    return verdict;
}
int cuModuleUnload(void* module) {
    log("cuModuleUnload");
    delete static_cast<Module*>(module);
    return ready();
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
    log("cuModuleGetFunction %s", name);
    if (!module) return INVALID_HANDLE;
    if (!find_kernel(name)) return NOT_FOUND;
    *function = &static_cast<Module*>(module)->functions.try_emplace(name, Function{name}).first->second;
    return ready();
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    auto* f = static_cast<Function*>(function);
    log("cuFuncSetAttribute %s %d %d", f->name.c_str(), attribute, value);
    if (attribute != 8) return SUCCESS;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    if (value > shared_per_block()) return INVALID_VALUE;
    f->dynamic_shared = value;
    return ready();
}
#ifndef STANDIN_WITHOUT_OCCUPANCY
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t shared) {
    const auto* f = static_cast<Function*>(function);
    log("cuOccupancyMaxActiveBlocksPerMultiprocessor %s %d %zu", f->name.c_str(), threads, shared);
    if (threads <= 0 || shared > static_cast<size_t>(f->dynamic_shared)) return INVALID_VALUE;
    *blocks = resident(threads, static_cast<int>(shared));
    return ready();
}
#endif

int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* stream, void** parameters, void** extra) {
    const auto* f = static_cast<Function*>(function);
    log("cuLaunchKernel %s grid %u %u %u block %u %u %u shared %u stream %llu", f->name.c_str(), gx, gy, gz, bx, by, bz, shared,
        static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(stream)));
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || bx != static_cast<unsigned>(find_kernel(f->name.c_str())->threads) || by != 1 || bz != 1 || static_cast<int>(shared) > f->dynamic_shared || !parameters || extra)
        return INVALID_VALUE;
    if (ready()) return ready();
    return run(f->name.c_str(), gx, gy, gz, bx, shared, static_cast<const Problem*>(parameters[0])) ? LAUNCH_FAILED : SUCCESS;
}

static const char* error_name(int error) {
    static const std::map<int, const char*> names = {{SUCCESS, "CUDA_SUCCESS"},
                                                     {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
                                                     {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
                                                     {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
                                                     {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
                                                     {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
                                                     {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
                                                     {INVALID_PTX, "CUDA_ERROR_INVALID_PTX"},
                                                     {UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
                                                     {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
                                                     {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
                                                     {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"}};
    const auto found = names.find(error);
    return found == names.end() ? nullptr : found->second;
}
int cuGetErrorString(int error, const char** text) {
    *text = error_name(error);
    return *text ? SUCCESS : INVALID_VALUE;
}
int cuGetErrorName(int error, const char** text) { return cuGetErrorString(error, text); }

}  // extern "C"
