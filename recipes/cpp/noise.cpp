#include "noise.hpp"

#include <array>
#include <cmath>

namespace ditzoo {
namespace {

using Block = std::array<std::uint64_t, 4>;

__extension__ using Wide = unsigned __int128;

// Philox 4x64 with ten rounds: the four integers of one counter.
Block philox(Block counter, std::uint64_t key0, std::uint64_t key1) {
    for (int round = 0; round < 10; ++round) {
        const Wide a = Wide{0xD2E7470EE14C6C93} * counter[0], b = Wide{0xCA5A826395121157} * counter[2];
        counter = {static_cast<std::uint64_t>(b >> 64) ^ counter[1] ^ key0, static_cast<std::uint64_t>(b),
                   static_cast<std::uint64_t>(a >> 64) ^ counter[3] ^ key1, static_cast<std::uint64_t>(a)};
        key0 += 0x9E3779B97F4A7C15;
        key1 += 0xBB67AE8584CAA73B;
    }
    return counter;
}

double uniform(std::uint64_t bits) { return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53; }  // inside (0, 1)

}  // namespace

std::vector<float> gaussian(std::uint64_t seed, std::uint64_t image, std::uint64_t draw, std::size_t size) {
    constexpr double two_pi = 6.283185307179586;
    std::vector<float> normal;
    normal.reserve(size + 4);
    for (std::uint64_t count = 1; normal.size() < size; ++count) {
        const Block bits = philox({count, 0, draw, 0}, seed, image);
        for (const std::size_t pair : {0, 2}) {
            const double radius = std::sqrt(-2 * std::log(uniform(bits[pair])));
            const double angle = two_pi * uniform(bits[pair + 1]);
            normal.push_back(static_cast<float>(radius * std::cos(angle)));
            normal.push_back(static_cast<float>(radius * std::sin(angle)));
        }
    }
    normal.resize(size);
    return normal;
}

}  // namespace ditzoo
