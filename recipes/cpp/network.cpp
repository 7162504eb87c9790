#define ORT_API_MANUAL_INIT  // the version of the library is checked before its first use
#include "network.hpp"

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <functional>
#include <numeric>

namespace ditzoo {
namespace {

// ONNX Runtime's first line about an error. Its messages can have many lines.
std::string first_line(const Ort::Exception& error) {
    const std::string message = error.what();
    return message.substr(0, message.find('\n'));
}

Ort::Env& environment() {
    static Ort::Env env = [] {
        const OrtApiBase* base = OrtGetApiBase();
        if (!base->GetApi(ORT_API_VERSION))
            throw InputError(std::string("ONNX Runtime ") + base->GetVersionString() + " is older than the headers that " +
                             "this client was compiled with, 1." + std::to_string(ORT_API_VERSION));
        Ort::InitApi();
        return Ort::Env(ORT_LOGGING_LEVEL_FATAL, "ditzoo-client");
    }();
    return env;
}

template <typename T>
Ort::Value tensor(const std::vector<T>& values, const std::vector<std::int64_t>& shape) {
    Ort::AllocatorWithDefaultOptions allocator;
    Ort::Value made = Ort::Value::CreateTensor<T>(allocator, shape.data(), shape.size());
    std::copy(values.begin(), values.end(), made.template GetTensorMutableData<T>());
    return made;
}

Tensor floats(const Ort::Value& value) {
    const auto info = value.GetTensorTypeAndShapeInfo();
    if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) throw InputError("a graph's output is not float32");
    const float* data = value.GetTensorData<float>();
    return {info.GetShape(), {data, data + info.GetElementCount()}};
}

// A graph. It takes its inputs from the tensors that are known, by name, and adds its outputs to them.
class Session {
  public:
    Session(const Graph& graph, int threads) : file_(graph.file.string()), session_(load(graph, threads)) {
        Ort::AllocatorWithDefaultOptions allocator;
        for (std::size_t i = 0; i < session_.GetInputCount(); ++i)
            inputs_.emplace_back(session_.GetInputNameAllocated(i, allocator).get());
        for (std::size_t i = 0; i < session_.GetOutputCount(); ++i)
            outputs_.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
    }

    void run(std::map<std::string, Ort::Value>& known) {
        std::vector<const OrtValue*> given;
        std::vector<const char*> inputs, outputs;
        for (const std::string& name : inputs_) {
            if (!known.count(name)) throw InputError(file_ + " takes an input " + name + ", which this client does not know");
            inputs.push_back(name.c_str());
            given.push_back(known.at(name));
        }
        for (const std::string& name : outputs_) outputs.push_back(name.c_str());
        std::vector<OrtValue*> made(outputs.size());
        try {
            Ort::ThrowOnError(Ort::GetApi().Run(session_, nullptr, inputs.data(), given.data(), given.size(), outputs.data(),
                                                outputs.size(), made.data()));
        } catch (const Ort::Exception& error) {
            throw InputError("ONNX Runtime cannot run " + file_ + ": " + first_line(error));
        }
        for (std::size_t i = 0; i < made.size(); ++i) known.insert_or_assign(outputs_[i], Ort::Value(made[i]));
    }

  private:
    static Ort::Session load(const Graph& graph, int threads) {
        Ort::Env& env = environment();
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        try {
            return Ort::Session(env, graph.file.c_str(), options);
        } catch (const Ort::Exception& error) {
            throw InputError("ONNX Runtime cannot load " + graph.file.string() + ": " + first_line(error));
        }
    }

    std::string file_;
    std::vector<std::string> inputs_, outputs_;
    Ort::Session session_;
};

}  // namespace

struct Sessions {
    std::vector<Session> full, reusing;  // the graphs of a full evaluation, and of one that reuses the middle blocks
};

struct Network::Known {
    std::map<std::string, Ort::Value> tensors;
};

std::size_t volume(const std::vector<std::int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
}

std::shared_ptr<Sessions> load_network(const Bundle& bundle, int threads) {
    auto sessions = std::make_shared<Sessions>();
    const auto add = [&](std::vector<Session>& graphs, const char* name) {
        if (bundle.graphs.count(name)) graphs.emplace_back(bundle.graphs.at(name), threads);
    };
    for (const char* name : {"conditioning", "backbone"}) add(sessions->full, name);
    if (bundle.plan.outer_blocks)
        for (const char* name : {"conditioning", "backbone-reuse"}) add(sessions->reusing, name);
    return sessions;
}

Network::Network(std::shared_ptr<Sessions> sessions, const std::vector<std::int64_t>& labels)
    : sessions_(std::move(sessions)), known_(std::make_unique<Known>()) {
    known_->tensors.emplace("y", tensor(labels, {static_cast<std::int64_t>(labels.size())}));
}

Network::~Network() = default;

Tensor Network::operator()(const Tensor& x, double time, bool reuse) {
    const std::vector<float> times(x.shape[0], static_cast<float>(time));
    known_->tensors.insert_or_assign("x", tensor(x.values, x.shape));
    known_->tensors.insert_or_assign("t", tensor(times, {x.shape[0]}));
    for (Session& session : reuse ? sessions_->reusing : sessions_->full) session.run(known_->tensors);
    const auto prediction = known_->tensors.find("prediction");
    if (prediction == known_->tensors.end()) throw InputError("the graph backbone has no output prediction");
    return floats(prediction->second);
}

Tensor decode(const Bundle& bundle, const Tensor& latents, int threads) {
    const auto decoder = bundle.graphs.find("decoder");
    if (decoder == bundle.graphs.end()) return latents;
    Session session(decoder->second, threads);
    Tensor images;
    const std::vector<std::int64_t> one{1, latents.shape[1], latents.shape[2], latents.shape[3]};
    for (auto from = latents.values.begin(); from != latents.values.end(); from += volume(one)) {
        std::map<std::string, Ort::Value> known;  // one image at a time, so the memory does not grow with their number
        known.emplace("latents", tensor(std::vector<float>(from, from + volume(one)), one));
        session.run(known);
        if (decoder->second.outputs.size() != 1) throw InputError("the graph decoder has more than one output");
        const Tensor image = floats(known.at(decoder->second.outputs[0].name));
        images.shape = image.shape;
        images.values.insert(images.values.end(), image.values.begin(), image.values.end());
    }
    if (images.shape.size() != 4) throw InputError("the graph decoder gives no images");
    images.shape[0] = latents.shape[0];
    return images;
}

}  // namespace ditzoo
