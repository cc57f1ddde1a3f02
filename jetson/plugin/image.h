// The compiled kernels in this library, and which of them a device can load. The choice is the same
// as in runtime/trt/plugin/image.py.
#pragma once

#include <cstdlib>
#include <cstring>

namespace finedge {

// Machine code for one architecture, or PTX that the driver compiles for `architecture` and all
// later ones (87 is compute capability 8.7).
struct Image {
    int architecture;
    bool is_ptx;
    char const* data;  // PTX ends with a zero byte
};

extern Image const kImages[];  // written by embed.cmake
extern int const kImageCount;

// The lowest CUDA version of a driver that loads it, 12060 for 12.6. PTX 8.x came with CUDA 12.x,
// but 12.5 and 12.6 share 8.5. Machine code has the ABI of CUDA 13's assembler, or the one before.
inline int driver_for(Image const& image) {
    if (!image.is_ptx) return std::memcmp(image.data + 7, "\x41\x08", 2) == 0 ? 13000 : 12000;
    char const* const line = std::strstr(image.data, "\n.version ");
    char* end = nullptr;
    long const major = line ? std::strtol(line + 10, &end, 10) : 99;
    long const minor = end && *end == '.' ? std::strtol(end + 1, nullptr, 10) : 0;
    return static_cast<int>((major + 4) * 1000 + (minor + (major == 8 && minor > 5)) * 10);
}

// Machine code for exactly that device, else the newest PTX. Null where no image loads.
inline Image const* image_for(int capability, int driver) {
    Image const* best = nullptr;
    for (Image const* image = kImages; image != kImages + kImageCount; ++image) {
        bool const fits = image->is_ptx ? image->architecture <= capability
                                        : image->architecture == capability;
        if (!fits || driver_for(*image) > driver) continue;
        bool const is_newer = image->architecture > (best ? best->architecture : 0);
        if (!best || (best->is_ptx && (!image->is_ptx || is_newer))) best = image;
    }
    return best;
}

}  // namespace finedge
