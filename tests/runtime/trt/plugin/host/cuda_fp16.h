// What a kernel's #include <cuda_fp16.h> finds on the CPU.
#include "simt.h"
