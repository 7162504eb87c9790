// Files of pictures and of latents.
#pragma once

#include <filesystem>

#include "network.hpp"

namespace ditzoo {

// Writes images [N, 1 or 3, H, W] from −1 to 1 as one PNG: ten in a row, and small ones enlarged, as `ditzoo sample` does.
// Raises InputError if the file cannot be written.
void write_png(const std::filesystem::path& path, const Tensor& images);

// Writes a tensor as numpy's .npy. Raises InputError if the file cannot be written.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

}  // namespace ditzoo
