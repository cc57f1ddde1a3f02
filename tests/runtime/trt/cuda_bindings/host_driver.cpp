// A libcuda.so.1 of CUDA 12.6 whose device is the CPU's memory. cuda-python 12.6 and cuda-bindings
// 12.8 implement CUDA's runtime API themselves, over these functions of the driver. Work on a
// stream runs when the stream is waited for; a capture keeps it for the launches of its graph.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <map>
#include <set>
#include <vector>

namespace {

using Work = std::vector<std::function<void()>>;

struct Stream {
  Work queue;
  Work* capture = nullptr;
};

std::set<void*> alive;  // memory, streams and graphs; what is left at the end is a leak
std::map<uintptr_t, size_t> device, host;
constexpr uintptr_t ALIAS = uintptr_t(1) << 52;  // added to mapped memory's name on the device
constexpr size_t LARGEST = size_t(1) << 30;
int context = 0;
constexpr int INVALID = 1, OUT_OF_MEMORY = 2, CAPTURE_UNSUPPORTED = 900;

int enqueue(void* stream, std::function<void()> work) {
  auto* target = static_cast<Stream*>(stream);
  if (!alive.count(stream)) return INVALID;
  (target->capture ? *target->capture : target->queue).push_back(std::move(work));
  return 0;
}

template <typename T>
T* made(T* object) {
  alive.insert(object);
  return object;
}

template <typename T>
int destroyed(void* object) {
  if (!alive.erase(object)) return INVALID;
  return delete static_cast<T*>(object), 0;
}

int allocate(size_t size, std::map<uintptr_t, size_t>* kind, uintptr_t* pointer) {
  if (size > LARGEST) return OUT_OF_MEMORY;
  void* memory = aligned_alloc(256, (size + 255) / 256 * 256);
  *pointer = reinterpret_cast<uintptr_t>(memory);
  (*kind)[*pointer] = size;
  alive.insert(memory);
  return 0;
}

int release(uintptr_t pointer, std::map<uintptr_t, size_t>* kind) {
  if (!kind->erase(pointer)) return INVALID;
  void* memory = reinterpret_cast<void*>(pointer);
  alive.erase(memory);
  return free(memory), 0;
}

// Both are as the name of the copy says, or the copy is refused.
bool holds(const std::map<uintptr_t, size_t>& kind, uintptr_t pointer, size_t size) {
  auto next = kind.upper_bound(pointer);
  if (next == kind.begin()) return false;
  auto [start, length] = *--next;
  return pointer + size <= start + length;
}

int copy(uintptr_t target, uintptr_t source, size_t size, void* stream) {
  return enqueue(stream, [=] {
    memcpy(reinterpret_cast<void*>(target), reinterpret_cast<void*>(source), size);
  });
}

}  // namespace

extern "C" {

// --- for the tests ---
size_t standin_alive() { return alive.size(); }
int standin_enqueue(void* stream, void (*kernel)(int), int argument) {
  return enqueue(stream, [=] { kernel(argument); });
}

// --- device and context ---
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 12060, 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal ? 101 : 0; }
int cuDeviceGetName(char* name, int size, int) { return strncpy(name, "Stand-in", size), 0; }
int cuDeviceGetUuid(void* uuid, int) { return memset(uuid, 7, 16), 0; }
int cuDeviceGetUuid_v2(void* uuid, int) { return memset(uuid, 7, 16), 0; }
int cuDeviceGetLuid(char*, unsigned*, int) { return 801; }  // Windows only
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t(8) << 30, 0; }
int cuDeviceGetPCIBusId(char* id, int size, int) { return strncpy(id, "0000:01:00.0", size), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  // Multiprocessors, integrated, maps memory, compute capability.
  const std::map<int, int> values = {
      {16, 8}, {18, getenv("STANDIN_INTEGRATED") != nullptr}, {19, 1}, {75, 8}, {76, 7}};
  auto place = values.find(attribute);
  return *value = place == values.end() ? 0 : place->second, 0;
}
int cuDevicePrimaryCtxRetain(void** result, int) { return *result = &context, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  return *flags = 0, *active = 1, 0;
}
int cuCtxGetCurrent(void** result) { return *result = &context, 0; }
int cuCtxSetCurrent(void*) { return 0; }
int cuCtxGetDevice(int* device) { return *device = 0, 0; }
int cuCtxGetApiVersion(void*, unsigned* version) { return *version = 3020, 0; }
int cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR", 0; }
int cuGetErrorString(int, const char** text) { return *text = "stand-in failure", 0; }

// --- memory ---
int cuMemGetInfo_v2(size_t* rest, size_t* total) {
  return *rest = size_t(123) << 20, *total = size_t(8) << 30, 0;
}
int cuMemAlloc_v2(uintptr_t* pointer, size_t size) { return allocate(size, &device, pointer); }
int cuMemFree_v2(uintptr_t pointer) { return release(pointer, &device); }
int cuMemHostAlloc(uintptr_t* pointer, size_t size, unsigned) {
  return allocate(size, &host, pointer);
}
int cuMemFreeHost(uintptr_t pointer) { return release(pointer, &host); }
int cuMemHostGetDevicePointer_v2(uintptr_t* mapped, uintptr_t pointer, unsigned) {
  return *mapped = pointer + ALIAS, host.count(pointer) ? 0 : INVALID;
}
int cuMemcpyHtoDAsync_v2(uintptr_t target, uintptr_t source, size_t size, void* stream) {
  bool right = holds(device, target, size) && holds(host, source, size);
  return right ? copy(target, source, size, stream) : INVALID;
}
int cuMemcpyDtoHAsync_v2(uintptr_t target, uintptr_t source, size_t size, void* stream) {
  bool right = holds(host, target, size) && holds(device, source, size);
  return right ? copy(target, source, size, stream) : INVALID;
}

// --- streams and graphs ---
int cuStreamCreate(void** stream, unsigned) { return *stream = made(new Stream), 0; }
int cuStreamDestroy_v2(void* stream) { return destroyed<Stream>(stream); }
int cuStreamSynchronize(void* stream) {
  auto* target = static_cast<Stream*>(stream);
  if (!alive.count(stream)) return INVALID;
  if (target->capture) return CAPTURE_UNSUPPORTED;
  for (auto& work : target->queue) work();
  return target->queue.clear(), 0;
}
int cuStreamBeginCapture_v2(void* stream, int) {
  return static_cast<Stream*>(stream)->capture = made(new Work), 0;
}
int cuStreamEndCapture(void* stream, void** graph) {
  auto* target = static_cast<Stream*>(stream);
  *graph = target->capture;
  return target->capture = nullptr, *graph ? 0 : INVALID;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  return *executable = made(new Work(*static_cast<Work*>(graph))), 0;
}
int cuGraphLaunch(void* executable, void* stream) {
  auto& queue = static_cast<Stream*>(stream)->queue;
  auto& work = *static_cast<Work*>(executable);
  return queue.insert(queue.end(), work.begin(), work.end()), 0;
}
int cuGraphDestroy(void* graph) { return destroyed<Work>(graph); }
int cuGraphExecDestroy(void* executable) { return destroyed<Work>(executable); }

}  // extern "C"
