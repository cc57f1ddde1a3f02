/* A libcuda of CUDA 11.4 with one device, as a board has it whose driver was never updated: it
   lacks what the newer bindings look for. */
int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDriverGetVersion(int* version) { return *version = 11040, 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
