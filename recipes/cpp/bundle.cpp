#include "bundle.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

namespace ditzoo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::uintmax_t largest_record = 64 << 20;  // bytes, the limit of the format

// A value of a record and its place, such as "plan.json: rows[3].time", for messages.
class Field {
  public:
    Field(const json& value, std::string place) : value_(&value), place_(std::move(place)) {}

    [[noreturn]] void fail(const std::string& problem) const { throw InputError(place_ + " " + problem); }

    bool has(const std::string& name) const {
        return object().value_->contains(name) && !value_->at(name).is_null();
    }

    Field operator[](const std::string& name) const {
        if (!object().value_->contains(name)) throw InputError(joined(name) + " is missing");
        return {value_->at(name), joined(name)};
    }

    std::vector<Field> list() const {
        if (!value_->is_array()) fail("is not a list");
        std::vector<Field> fields;
        for (const json& value : *value_) fields.emplace_back(value, place_ + "[" + std::to_string(fields.size()) + "]");
        return fields;
    }

    std::map<std::string, Field> entries() const {
        std::map<std::string, Field> fields;
        for (const auto& [name, value] : object().value_->items()) fields.emplace(name, Field(value, joined(name)));
        return fields;
    }

    // Raises InputError if the record has a field that is not one of `names`: a newer ditzoo may mean something by it.
    void check_names(const std::set<std::string>& names) const {
        for (const auto& [name, field] : entries())
            if (!names.count(name)) field.fail("is unknown to this client");
    }

    double number() const {
        if (!value_->is_number() || !std::isfinite(value_->get<double>())) fail("is not a finite number");
        return value_->get<double>();
    }

    std::vector<double> numbers() const {
        std::vector<double> values;
        for (const Field& field : list()) values.push_back(field.number());
        return values;
    }

    // A whole number from `low` to `high`.
    std::int64_t whole(std::int64_t low, std::int64_t high) const {
        const auto value = value_->is_number_integer() ? value_->get<double>() : NAN;
        if (!(value >= static_cast<double>(low) && value <= static_cast<double>(high)))
            fail("is not a whole number from " + std::to_string(low) + " to " + std::to_string(high));
        return value_->get<std::int64_t>();
    }

    std::string text() const {
        if (!value_->is_string()) fail("is not text");
        return value_->get<std::string>();
    }

    bool is_text() const { return value_->is_string(); }

  private:
    const Field& object() const {
        if (!value_->is_object()) fail("is not an object");
        return *this;
    }

    std::string joined(const std::string& name) const {
        return place_ + (place_.back() == ':' ? " " : ".") + name;
    }

    const json* value_;
    std::string place_;
};

constexpr std::int64_t most = 1'000'000;                // of channels, classes, or the size of an axis
constexpr std::int64_t most_bytes = std::int64_t{1} << 50;  // of a file

json read_json(const fs::path& path) {
    std::error_code error;
    const auto size = fs::file_size(path, error);
    if (error) throw InputError("cannot read " + path.string() + ": " + error.message());
    if (size > largest_record) throw InputError(path.string() + " has more than 64 MB, so it is no record of ditzoo");
    std::ifstream file(path, std::ios::binary);
    json value = json::parse(file, nullptr, false);
    if (value.is_discarded()) throw InputError(path.string() + " is not JSON");
    return value;
}

void check_format(const Field& record, const std::string& expected) {
    const std::string format = record["format"].text();
    if (format != expected) record["format"].fail("is \"" + format + "\", but this client reads " + expected);
}

// Whether a field that is absent or "reuse" is there.
bool read_reuse(const Field& row, const char* name) {
    if (row.has(name) && row[name].text() != "reuse") row[name].fail("is not \"reuse\"");
    return row.has(name);
}

Row read_row(const Field& row, std::size_t index) {
    row.check_names({"time", "guidance", "states", "predictions", "noise", "log_variance", "evaluation", "difference"});
    Row read{row["time"].number(), row["guidance"].number(), row["noise"].number(), row["states"].numbers(),
             row["predictions"].numbers(), std::nullopt, read_reuse(row, "evaluation"), read_reuse(row, "difference")};
    if (row.has("log_variance")) {
        const auto range = row["log_variance"].numbers();
        if (range.size() != 2) row["log_variance"].fail("has not two numbers");
        read.log_variance = {range[0], range[1]};
    }
    if (read.states.empty() && read.predictions.empty()) row.fail("has neither states nor predictions");
    if (std::max(read.states.size(), read.predictions.size()) > index + 1)
        row.fail("looks back further than there are states");
    return read;
}

// Raises InputError if a row reuses a residual or a difference that no row before it computed.
void check_reuse(const Plan& plan, const Field& record) {
    const Row* full = nullptr;
    bool difference = false;
    for (const Row& row : plan.rows) {
        difference = difference || row.evaluates_null();
        if (row.reuses_difference && !(row.guidance != 1 && difference))
            record["rows"].fail("reuse the difference of the conditions, but no row before them evaluated both");
        if (!row.reuses) full = &row;
        if (row.reuses && (plan.outer_blocks == 0 || !full || (row.evaluates_null() && !full->evaluates_null())))
            record["rows"].fail("reuse the middle blocks, but no row before them evaluated as much");
    }
}

Plan read_plan(const fs::path& path) {
    const json text = read_json(path);
    const Field record(text, path.string() + ":");
    check_format(record, "ditzoo-plan/1");
    record.check_names({"format", "solver", "channels", "guided_channels", "initial", "rows", "outer_blocks", "sha256"});
    Plan plan{record["channels"].whole(1, most), record["guided_channels"].whole(0, most),
              record.has("outer_blocks") ? record["outer_blocks"].whole(1, most) : 0, record["initial"].number(), {}};
    if (plan.guided_channels > plan.channels) record["guided_channels"].fail("is more than channels");
    for (const Field& row : record["rows"].list()) plan.rows.push_back(read_row(row, plan.rows.size()));
    if (plan.rows.empty()) record["rows"].fail("is empty");
    check_reuse(plan, record);
    return plan;
}

std::vector<TensorSpec> read_tensors(const Field& tensors) {
    std::vector<TensorSpec> specs;
    for (const Field& tensor : tensors.list()) {
        specs.push_back({tensor["name"].text(), tensor["dtype"].text(), {}});
        for (const Field& axis : tensor["shape"].list())
            specs.back().shape.push_back(axis.is_text() ? -1 : axis.whole(1, most));
    }
    return specs;
}

// Raises InputError unless the file has the size that the manifest says.
void check_file(const fs::path& path, const Field& record) {
    const auto expected = static_cast<std::uintmax_t>(record["size"].whole(0, most_bytes));
    std::error_code error;
    const auto size = fs::file_size(path, error);
    if (error) throw InputError("cannot read " + path.string() + ": " + error.message());
    if (size != expected)
        throw InputError(path.string() + " has " + std::to_string(size) + " bytes, but the manifest says " +
                         std::to_string(expected));
}

void check_files(const Field& manifest, const fs::path& folder) {
    for (const auto& [name, record] : manifest["files"].entries()) {
        if (fs::path(name).filename() != name || name == "..") record.fail("is not the name of a file in the bundle");
        check_file(folder / name, record);
    }
}

// The graphs of a bundle whose files have been checked. A graph's file must be one of them.
std::map<std::string, Graph> read_graphs(const Field& manifest, const fs::path& folder) {
    std::map<std::string, Graph> graphs;
    for (const auto& [name, field] : manifest["graphs"].entries()) {
        const std::string file = field["file"].text();
        if (!manifest["files"].has(file)) field["file"].fail("is not one of the files of the manifest");
        graphs[name] = {folder / file, read_tensors(field["inputs"]), read_tensors(field["outputs"]),
                        field.has("outer_blocks") ? field["outer_blocks"].whole(1, most) : 0};
    }
    return graphs;
}

// Raises InputError unless this client can run the graphs, and the plan fits them.
void check_graphs(const Bundle& bundle, const fs::path& folder) {
    const auto backbone = bundle.graphs.find("backbone");
    if (backbone == bundle.graphs.end())
        throw InputError(folder.string() + " has no ONNX graph of the network: make a bundle with `ditzoo export onnx`");
    for (const auto& [name, graph] : bundle.graphs)
        if (graph.takes("context"))
            throw InputError(folder.string() + " draws from prompts, and this client has no text encoder");
    for (const auto& [name, graph] : bundle.graphs)
        for (const TensorSpec& spec : graph.inputs)
            if (spec.dtype == "float64")
                throw InputError(graph.file.string() + " computes in float64, and this client in float32");
    const auto shape = bundle.latent_shape();
    if (shape.size() != 3 || shape[0] != bundle.plan.channels)
        throw InputError("the plan is for " + std::to_string(bundle.plan.channels) + " channels, and " +
                         backbone->second.file.string() + " has others");
    const auto reuse = bundle.graphs.find("backbone-reuse");
    const auto outer = reuse == bundle.graphs.end() ? 0 : reuse->second.outer_blocks;
    if (bundle.plan.outer_blocks != 0 && bundle.plan.outer_blocks != outer)
        throw InputError("the plan reuses the middle blocks, but the bundle has no graph for that; export it with --reuse" +
                         std::string(" blocks=") + std::to_string(bundle.plan.outer_blocks));
}

void read_card(Bundle& bundle, const fs::path& path) {
    const json text = read_json(path);
    const Field card(text, path.string() + ":");
    const Field decoder = card["decoder"];
    bundle.factor = decoder["kind"].text() == "pixels" ? 1 : decoder["factor"].whole(1, 1024);
    if (card.has("null_label")) bundle.null_label = card["null_label"].whole(0, most);
    for (const auto& [name, graph] : bundle.graphs)  // the null label is the last row of the table of labels
        if (graph.takes("y")) bundle.classes = bundle.null_label.value_or(card["backbone"]["num_classes"].whole(1, most));
}

}  // namespace

std::size_t Plan::window() const {
    std::size_t most_kept = 0;
    for (const Row& row : rows) most_kept = std::max({most_kept, row.states.size(), row.predictions.size()});
    return most_kept;
}

bool Graph::takes(const std::string& name) const {
    return std::any_of(inputs.begin(), inputs.end(), [&](const TensorSpec& spec) { return spec.name == name; });
}

std::vector<std::int64_t> Bundle::latent_shape() const {
    for (const TensorSpec& spec : graphs.at("backbone").inputs)
        if (spec.name == "x" && spec.shape.size() == 4) return {spec.shape.begin() + 1, spec.shape.end()};
    return {};
}

Bundle read_bundle(const fs::path& path, const fs::path& plan) {
    const json text = read_json(path / "manifest.json");
    const Field manifest(text, (path / "manifest.json").string() + ":");
    check_format(manifest, "ditzoo-bundle/2");
    check_files(manifest, path);
    Bundle bundle{manifest["model"].text(), read_plan(plan.empty() ? path / "plan.json" : plan), read_graphs(manifest, path),
                  0, std::nullopt, 1};
    read_card(bundle, path / "card.json");
    check_graphs(bundle, path);
    return bundle;
}

}  // namespace ditzoo
