// The factories that the mock does not have: to call one ends the process.
#include "abi.h"

EXPORT void* createInferRefitter_INTERNAL(void*, void*, int) { missing("createInferRefitter"); }
EXPORT void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int) {
    missing("createNvOnnxParserRefitter");
}
EXPORT int getNvOnnxParserVersion() { return 0; }
