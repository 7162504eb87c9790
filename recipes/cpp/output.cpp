#include "output.hpp"

#include <png.h>

#include <algorithm>
#include <fstream>

namespace ditzoo {
namespace {

constexpr std::int64_t columns = 10, cell = 64, gap = 4;  // the smallest side of a picture and the gap around it, in pixels

struct Sheet {
    std::int64_t width, height, channels;
    std::vector<png_byte> pixels;
};

// A value from −1 to 1 as a byte: 127.5 · value + 128, cut, not rounded, as in the authors' code.
png_byte to_byte(float value) { return static_cast<png_byte>(std::clamp(127.5F * value + 128, 0.0F, 255.0F)); }

Sheet contact_sheet(const Tensor& images) {
    const auto count = images.shape[0], channels = images.shape[1], height = images.shape[2], width = images.shape[3];
    const auto factor = std::max<std::int64_t>(1, (cell + std::max(height, width) - 1) / std::max(height, width));
    const auto across = width * factor + gap, down = height * factor + gap, in_row = std::min(count, columns);
    Sheet sheet{gap + in_row * across, gap + (count + in_row - 1) / in_row * down, channels, {}};
    sheet.pixels.assign(sheet.width * sheet.height * channels, 255);
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t row = 0; row < height * factor; ++row)
            for (std::int64_t column = 0; column < width * factor; ++column)
                for (std::int64_t c = 0; c < channels; ++c) {
                    const auto y = gap + i / in_row * down + row, x = gap + i % in_row * across + column;
                    const auto from = ((i * channels + c) * height + row / factor) * width + column / factor;
                    sheet.pixels[(y * sheet.width + x) * channels + c] = to_byte(images.values[from]);
                }
    return sheet;
}

}  // namespace

void write_png(const std::filesystem::path& path, const Tensor& images) {
    if (images.shape[1] != 1 && images.shape[1] != 3)
        throw InputError("a PNG has 1 or 3 channels, not " + std::to_string(images.shape[1]) +
                         "; the bundle has no decoder, so write --latents");
    const Sheet sheet = contact_sheet(images);
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    png.width = static_cast<png_uint_32>(sheet.width);
    png.height = static_cast<png_uint_32>(sheet.height);
    png.format = sheet.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
    if (!png_image_write_to_file(&png, path.c_str(), 0, sheet.pixels.data(), 0, nullptr))
        throw InputError("cannot write " + path.string() + ": " + png.message);
}

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
    for (const auto axis : tensor.shape) header += std::to_string(axis) + ",";
    header += "), }";
    header.append(63 - (10 + header.size()) % 64, ' ');  // the values begin at a multiple of 64 bytes
    header += '\n';
    std::ofstream file(path, std::ios::binary);
    file.write("\x93NUMPY\x01\x00", 8);
    file.put(static_cast<char>(header.size() & 255)).put(static_cast<char>(header.size() >> 8)) << header;
    file.write(reinterpret_cast<const char*>(tensor.values.data()),
               static_cast<std::streamsize>(tensor.values.size() * sizeof(float)));
    if (!file.flush()) throw InputError("cannot write " + path.string());
}

}  // namespace ditzoo
