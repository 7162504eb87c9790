// The noise of each image. It depends only on the seed, the number of the image and the number of the draw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ditzoo {

// `size` standard normal numbers: the noise of image `image` for the draw `draw` under `seed`, in the order of its memory.
//
// Philox 4x64-10 with the key (seed, image) gives 64-bit integers from the counter (1, 0, draw, 0) on (Salmon et al., Parallel
// random numbers: as easy as 1, 2, 3, 2011). Each pair of integers becomes two normal numbers (Box-Muller).
std::vector<float> gaussian(std::uint64_t seed, std::uint64_t image, std::uint64_t draw, std::size_t size);

}  // namespace ditzoo
