// The loop that runs a plan.
#pragma once

#include <cstdint>
#include <vector>

#include "network.hpp"

namespace ditzoo {

// The latents [N, C, H, W] of N images under `labels`, which a model without labels only counts. Image i has the noise of
// (seed, i). `shape` is that of the latents of one image. Raises std::runtime_error if a value is not finite.
Tensor sample(const Bundle& bundle, const std::vector<std::int64_t>& labels, std::uint64_t seed,
              const std::vector<std::int64_t>& shape, int threads);

}  // namespace ditzoo
