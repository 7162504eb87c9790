// Draws pictures from a bundle, without Python: see `usage`.

#include <getopt.h>

#include <charconv>
#include <iostream>
#include <sstream>

#include "output.hpp"
#include "sampler.hpp"

namespace {

using namespace ditzoo;

constexpr const char* usage =
    R"(Usage: ditzoo-client BUNDLE [--classes LIST | --count N] [--out FILE.png] [--latents FILE.npy] [options]

Draws pictures from a bundle of ditzoo with ONNX Runtime.

  --classes LIST    the classes to draw, such as 0,1 or 0-9
  --count N         how many pictures a model without classes draws (default: 1)
  --seed N          the seed of the noise (default: 0)
  --plan FILE       a plan in place of the bundle's plan.json
  --size HxW        height x width of the latents, for a bundle that takes any size
  --out FILE        write the pictures as one PNG
  --latents FILE    write the latents as float32 in numpy's .npy
  --threads N       threads of ONNX Runtime (default: one for each core)
)";

constexpr std::int64_t most_images = 10'000, longest_side = 4096;
constexpr double most_values = 1e9;

struct Request {
    std::string bundle, plan, out, latents, classes;
    std::int64_t count = 1, height = 0, width = 0;
    std::uint64_t seed = 0;
    int threads = 0;
};

template <typename T>
T parse(const std::string& option, std::string_view text, T low, T high) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high)
        throw InputError(option + ": '" + std::string(text) + "' is not a whole number from " + std::to_string(low) + " to " +
                         std::to_string(high));
    return value;
}

void parse_size(Request& request, const std::string& text) {
    const auto cross = text.find('x');
    if (cross == std::string::npos) throw InputError("--size: write height x width, such as 32x32");
    request.height = parse<std::int64_t>("--size", text.substr(0, cross), 1, longest_side);
    request.width = parse<std::int64_t>("--size", text.substr(cross + 1), 1, longest_side);
}

Request parse_options(int count, char** words) {
    static const option options[] = {
        {"classes", required_argument, nullptr, 'c'}, {"count", required_argument, nullptr, 'n'},
        {"seed", required_argument, nullptr, 's'},    {"plan", required_argument, nullptr, 'p'},
        {"size", required_argument, nullptr, 'z'},    {"out", required_argument, nullptr, 'o'},
        {"latents", required_argument, nullptr, 'l'}, {"threads", required_argument, nullptr, 't'},
        {"help", no_argument, nullptr, 'h'},          {nullptr, 0, nullptr, 0}};
    Request request;
    opterr = 0;
    for (int found; (found = getopt_long(count, words, "h", options, nullptr)) != -1;) {
        const std::string value = optarg ? optarg : "";
        switch (found) {
            case 'c': request.classes = value; break;
            case 'n': request.count = parse<std::int64_t>("--count", value, 1, most_images); break;
            case 's': request.seed = parse<std::uint64_t>("--seed", value, 0, UINT64_MAX); break;
            case 'p': request.plan = value; break;
            case 'z': parse_size(request, value); break;
            case 'o': request.out = value; break;
            case 'l': request.latents = value; break;
            case 't': request.threads = parse<int>("--threads", value, 1, 1024); break;
            case 'h': std::cout << usage; std::exit(0);
            default: throw InputError(std::string(words[optind - 1]) + " is unknown or lacks its value; see --help");
        }
    }
    if (optind != count - 1) throw InputError("name one bundle; see --help");
    request.bundle = words[optind];
    if (request.out.empty() && request.latents.empty()) throw InputError("nothing to write: add --out or --latents");
    return request;
}

// The labels of the images: the classes of the list, or as many zeros as images for a model without classes.
std::vector<std::int64_t> labels_of(const Request& request, const Bundle& bundle) {
    if (bundle.classes == 0 && !request.classes.empty()) throw InputError(bundle.model + " has no classes; use --count");
    if (bundle.classes == 0) return std::vector<std::int64_t>(request.count);
    if (request.classes.empty())
        throw InputError("choose --classes from 0 to " + std::to_string(bundle.classes - 1) + ", such as 0,1");
    std::vector<std::int64_t> labels;
    std::istringstream list(request.classes + ",");
    for (std::string part; std::getline(list, part, ',');) {
        const auto dash = part.find('-');
        const auto first = parse<std::int64_t>("--classes", part.substr(0, dash), 0, bundle.classes - 1);
        const auto last = dash == std::string::npos
                              ? first
                              : parse<std::int64_t>("--classes", part.substr(dash + 1), first, bundle.classes - 1);
        for (auto label = first; label <= last; ++label) labels.push_back(label);
        if (labels.size() > most_images)
            throw InputError("--classes: more than " + std::to_string(most_images) + " images at once");
    }
    return labels;
}

std::vector<std::int64_t> shape_of(const Request& request, const Bundle& bundle, std::size_t images) {
    auto shape = bundle.latent_shape();
    const std::int64_t wanted[] = {shape[0], request.height, request.width};
    for (int axis : {1, 2}) {
        if (request.height && shape[axis] != -1 && shape[axis] != wanted[axis])
            throw InputError("--size: the bundle takes " + std::to_string(shape[1]) + "x" + std::to_string(shape[2]));
        if (shape[axis] == -1 && !request.height) throw InputError("the bundle takes any size, so choose one with --size HxW");
        if (shape[axis] == -1) shape[axis] = wanted[axis];
    }
    if (static_cast<double>(volume(shape)) * static_cast<double>(images) > most_values)
        throw InputError("the latents have more than a billion values; draw fewer images at once");
    return shape;
}

void run(const Request& request) {
    const Bundle bundle = read_bundle(request.bundle, request.plan);
    const auto labels = labels_of(request, bundle);
    const auto shape = shape_of(request, bundle, labels.size());
    const Tensor latents = sample(bundle, labels, request.seed, shape, request.threads);
    if (!request.latents.empty()) write_npy(request.latents, latents);
    if (!request.out.empty()) write_png(request.out, decode(bundle, latents, request.threads));
}

}  // namespace

// Returns 0 for success, 2 if what the user gave is wrong, and 1 for any other error. An error is one line.
int main(int count, char** words) {
    try {
        run(parse_options(count, words));
        return 0;
    } catch (const InputError& error) {
        std::cerr << "ditzoo-client: " << error.what() << "\n";
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "ditzoo-client: " << error.what() << "\n";
        return 1;
    }
}
