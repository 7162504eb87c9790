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

// cond − uncond, of all channels.
Numbers subtract(const Tensor& cond, const Tensor& uncond) {
    Numbers difference;
    for (std::size_t i = 0; i < cond.values.size(); ++i) difference.push_back(double{cond.values[i]} - uncond.values[i]);
    return difference;
}

// Classifier-free guidance (arXiv 2207.12598) on the first channels of `cond`: cond + (s − 1) · (cond − uncond).
void guide(Tensor& cond, const Numbers& difference, double scale, std::int64_t guided) {
    const std::size_t image = volume(cond.shape) / cond.shape[0];
    const std::size_t changed = guided * cond.shape[2] * cond.shape[3];
    for (std::size_t i = 0; i < cond.values.size(); ++i)
        if (i % image < changed) cond.values[i] = static_cast<float>(cond.values[i] + (scale - 1) * difference[i]);
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

// The network with guidance: e for each row of a plan, and the variance channels.
class Predictor {
  public:
    Predictor(const Bundle& bundle, const std::vector<std::int64_t>& labels, int threads)
        : bundle_(bundle), sessions_(load_network(bundle, threads)), conditional_(sessions_, labels),
          unconditional_(sessions_, std::vector<std::int64_t>(labels.size(), bundle.null_label.value_or(0))) {}

    // The output [N, channels, H, W] at x. If the row is not guided, or there is no null label, only cond is evaluated. A row
    // may also take the difference of the conditions from the last row that evaluated both.
    Tensor operator()(const Tensor& x, const Row& row) {
        Tensor output = conditional_(x, row.time, row.reuses);
        check(output, x, row);
        if (!bundle_.null_label || row.guidance == 1) return output;
        if (row.evaluates_null()) difference_ = subtract(output, unconditional_(x, row.time, row.reuses));
        guide(output, difference_, row.guidance, bundle_.plan.guided_channels);
        return output;
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
    Predictor predict(bundle, labels, threads);
    const auto start = draw(0);
    std::deque<Numbers> states{Numbers(start.begin(), start.end())}, predictions;
    for (double& value : states[0]) value *= plan.initial;
    Tensor x{{static_cast<std::int64_t>(labels.size()), shape[0], shape[1], shape[2]}, {}};

    for (std::size_t i = 0; i < plan.rows.size(); ++i) {
        x.values.assign(states[0].begin(), states[0].end());
        const Tensor output = predict(x, plan.rows[i]);
        keep_newest(predictions, channels(output, 0, plan.channels), plan.window());
        const Numbers variance = channels(output, plan.channels, output.shape[1]);
        keep_newest(states, step(plan.rows[i], states, predictions, variance, [&] { return draw(i + 1); }), plan.window());
        check_finite(states[0], bundle, i + 1);
    }
    x.values.assign(states[0].begin(), states[0].end());
    return x;
}

}  // namespace ditzoo
