// What the client needs of a bundle: the plan, the graphs with their tensors, and a few fields of the card.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace ditzoo {

// Something that the user gave is wrong: a file, an option, or a bundle that this client cannot run.
struct InputError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// One evaluation of the network and the step that follows it. The weights begin with the newest state and prediction.
struct Row {
    double time, guidance, noise;
    std::vector<double> states, predictions;
    std::optional<std::pair<double, double>> log_variance;  // low, high
    bool reuses;             // the middle blocks' residual of the last full row
    bool reuses_difference;  // cond − uncond of the last row that evaluated both

    // Whether the network is also evaluated under the null condition, if there is one.
    bool evaluates_null() const { return guidance != 1 && !reuses_difference; }
};

struct Plan {
    std::int64_t channels, guided_channels, outer_blocks;  // outer_blocks is 0 without reuse
    double initial;
    std::vector<Row> rows;

    // How many of the newest states and predictions have to be kept.
    std::size_t window() const;
};

// One input or output of a graph. An axis of any size is −1.
struct TensorSpec {
    std::string name, dtype;
    std::vector<std::int64_t> shape;
};

struct Graph {
    std::filesystem::path file;
    std::vector<TensorSpec> inputs, outputs;
    std::int64_t outer_blocks;  // 0 unless the graph reuses the middle blocks

    bool takes(const std::string& name) const;
};

struct Bundle {
    std::string model;
    Plan plan;
    std::map<std::string, Graph> graphs;
    std::int64_t classes;  // 0 without labels
    std::optional<std::int64_t> null_label;
    std::int64_t factor;   // the pixels of a side of the image for each latent; 1 without a decoder

    // The size of the latents [channels, height, width]. An axis that the graph leaves open is −1.
    std::vector<std::int64_t> latent_shape() const;
};

// Reads the bundle in the folder `path`, with the plan in the file `plan` if it is not empty. Raises InputError, which names
// the file and the field, if something is missing or wrong, or if the client cannot run the bundle.
Bundle read_bundle(const std::filesystem::path& path, const std::filesystem::path& plan);

}  // namespace ditzoo
