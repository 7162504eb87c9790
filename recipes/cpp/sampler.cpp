#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>

#include "noise.hpp"

namespace ditzoo {
namespace {

using Numbers = std::vector<double>;

// The same draw for every image, one image behind the other.
std::vector<float> draw_noise(std::uint64_t seed, std::uint64_t draw, std::size_t images, std::size_t size) {
    std::vector<float> noise;
    for (std::size_t image = 0; image < images; ++image) {
        const auto one = gaussian(seed, image, draw, size);
        noise.insert(noise.end(), one.begin(), one.end());
    }
    return noise;
}

// The channels from `first` up to `last` of a tensor [N, C, H, W], one image behind the other.
Numbers channels(const Tensor& tensor, std::int64_t first, std::int64_t last) {
    const std::size_t plane = tensor.shape[2] * tensor.shape[3];
    Numbers taken;
    for (std::int64_t image = 0; image < tensor.shape[0]; ++image) {
        const auto begin = tensor.values.begin() + image * tensor.shape[1] * plane;
        taken.insert(taken.end(), begin + first * plane, begin + last * plane);
    }
    return taken;
}

// cond − uncond on the first `guided` channels, one image behind the other.
Numbers difference_of(const Tensor& cond, const Tensor& uncond, std::int64_t guided) {
    Numbers difference = channels(cond, 0, guided);
    const Numbers other = channels(uncond, 0, guided);
    for (std::size_t i = 0; i < difference.size(); ++i) difference[i] -= other[i];
    return difference;
}

// Adds Σ weights[l] · terms[l] to `sum`.
void add(Numbers& sum, const std::vector<double>& weights, const std::deque<Numbers>& terms) {
    for (std::size_t l = 0; l < weights.size(); ++l)
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weights[l] * terms[l][i];
}

// The standard deviation of each value's noise. The network's variance channels choose it where the row leaves it open
// (arXiv 2102.09672, eq. 15).
Numbers deviation(const Row& row, const Numbers& variance, std::size_t size) {
    if (!row.log_variance) return Numbers(size, row.noise);
    const auto [low, high] = *row.log_variance;
    Numbers sigma;
    for (const double v : variance) sigma.push_back(std::exp(0.25 * ((1 + v) * high + (1 - v) * low)));
    return sigma;
}

// The network with guidance, for the rows of one plan in their order.
class Predictor {
  public:
    Predictor(const Bundle& bundle, const std::vector<std::int64_t>& labels, int threads)
        : bundle_(bundle), sessions_(load_network(bundle, threads)), conditional_(sessions_, labels),
          unconditional_(sessions_, std::vector<std::int64_t>(labels.size(), bundle.null_label.value_or(0))) {}

    // The output [N, channels, H, W] under the condition. If the row evaluates the null condition, and there is one, the
    // difference of the two is kept.
    Tensor evaluate(const Tensor& x, const Row& row) {
        Tensor output = conditional_(x, row.time, row.reuses);
        check(output, x, row);
        if (row.evaluates_null() && bundle_.null_label)
            difference_ = difference_of(output, unconditional_(x, row.time, row.reuses), bundle_.plan.guided_channels);
        return output;
    }

    // e of an output: uncond + s · (cond − uncond) = cond + (s − 1) · (cond − uncond) on the guided channels (arXiv 2207.12598),
    // and cond on the others. A row that evaluated cond alone takes the last difference.
    Numbers prediction(const Tensor& output, const Row& row) const {
        Numbers e = channels(output, 0, bundle_.plan.channels);
        const std::size_t plane = output.shape[2] * output.shape[3];
        const std::size_t image = bundle_.plan.channels * plane, guided = bundle_.plan.guided_channels * plane;
        if (row.guidance == 1 || !bundle_.null_label) return e;
        for (std::size_t i = 0; i < difference_.size(); ++i)
            e[i / guided * image + i % guided] += (row.guidance - 1) * difference_[i];
        return e;
    }

  private:
    // Raises InputError unless the output has the shape of x, and the variance channels that the row asks for.
    static void check(const Tensor& output, const Tensor& x, const Row& row) {
        const auto needed = x.shape[1] * (row.log_variance ? 2 : 1);
        auto expected = x.shape;
        expected[1] = needed;
        if (!row.log_variance && output.shape.size() == 4) expected[1] = std::max(output.shape[1], needed);
        if (output.shape != expected) throw InputError("the graph backbone does not give the channels that the plan needs");
    }

    const Bundle& bundle_;
    std::shared_ptr<Sessions> sessions_;
    Network conditional_, unconditional_;
    Numbers difference_;
};

// x after a row: the sum of the row's weights times the newest states and predictions, and fresh noise.
Numbers step(const Row& row, const std::deque<Numbers>& states, const std::deque<Numbers>& predictions, const Numbers& variance,
             const std::function<std::vector<float>()>& draw) {
    Numbers x(states[0].size());
    add(x, row.states, states);
    add(x, row.predictions, predictions);
    if (row.noise != 0 || row.log_variance) {
        const auto sigma = deviation(row, variance, x.size());
        const auto noise = draw();
        for (std::size_t i = 0; i < x.size(); ++i) x[i] += sigma[i] * noise[i];
    }
    return x;
}

void keep_newest(std::deque<Numbers>& list, Numbers newest, std::size_t count) {
    list.push_front(std::move(newest));
    if (list.size() > count) list.pop_back();
}

void check_finite(const Numbers& x, const Bundle& bundle, std::size_t done) {
    if (!std::all_of(x.begin(), x.end(), [](double value) { return std::isfinite(value); }))
        throw std::runtime_error("NaN or infinity after row " + std::to_string(done) + " of the plan of " + bundle.model);
}

}  // namespace

Tensor sample(const Bundle& bundle, const std::vector<std::int64_t>& labels, std::uint64_t seed,
              const std::vector<std::int64_t>& shape, int threads) {
    const Plan& plan = bundle.plan;
    const auto draw = [&](std::uint64_t number) { return draw_noise(seed, number, labels.size(), volume(shape)); };
    Predictor network(bundle, labels, threads);
    const auto start = draw(0);
    std::deque<Numbers> states{Numbers(start.begin(), start.end())}, predictions;
    for (double& value : states[0]) value *= plan.initial;
    Tensor x{{static_cast<std::int64_t>(labels.size()), shape[0], shape[1], shape[2]}, {}};

    for (std::size_t i = 0; i < plan.rows.size(); ++i) {
        x.values.assign(states[0].begin(), states[0].end());
        const Tensor output = network.evaluate(x, plan.rows[i]);
        keep_newest(predictions, network.prediction(output, plan.rows[i]), plan.window());
        const Numbers variance = channels(output, plan.channels, output.shape[1]);
        keep_newest(states, step(plan.rows[i], states, predictions, variance, [&] { return draw(i + 1); }), plan.window());
        check_finite(states[0], bundle, i + 1);
    }
    x.values.assign(states[0].begin(), states[0].end());
    return x;
}

}  // namespace ditzoo
