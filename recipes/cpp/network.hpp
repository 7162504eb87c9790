// The graphs of a bundle, run by ONNX Runtime.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"

namespace ditzoo {

// A float32 tensor in the order of its memory.
struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
};

// The number of values in a tensor of `shape`.
std::size_t volume(const std::vector<std::int64_t>& shape);

// The loaded graphs of a network.
struct Sessions;

// Loads the graphs on `threads` threads (0: as many as ONNX Runtime chooses). Raises InputError if a graph cannot be loaded.
std::shared_ptr<Sessions> load_network(const Bundle& bundle, int threads);

// The network under one condition. It keeps the residual of the last full evaluation for evaluations that reuse it, so it is
// for the rows of one plan in their order.
class Network {
  public:
    // `labels` has one label for each image. A network without labels ignores them.
    Network(std::shared_ptr<Sessions> sessions, const std::vector<std::int64_t>& labels);
    ~Network();

    // The output [N, channels, H, W] at the latents `x` [N, C, H, W].
    Tensor operator()(const Tensor& x, double time, bool reuse);

  private:
    struct Known;
    std::shared_ptr<Sessions> sessions_;
    std::unique_ptr<Known> known_;
};

// Images [N, channels, H, W] from about −1 to 1 of latents. Without a graph "decoder", the latents are the images. Raises
// InputError if the graph cannot be loaded or does not take the latents.
Tensor decode(const Bundle& bundle, const Tensor& latents, int threads);

}  // namespace ditzoo
