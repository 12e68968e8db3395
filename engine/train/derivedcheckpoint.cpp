// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/derivedcheckpoint.h"

#include "engine/train/noise.h"

#include <algorithm>
#include <cmath>

namespace spectra {
namespace {

const char *const kMatrixNames[] = {"gate_proj", "up_proj", "down_proj"};

bool isFfnOf(const std::string &name, const std::vector<std::int64_t> &layers)
{
    for (const std::int64_t layer : layers) {
        const std::string prefix = "model.layers." + std::to_string(layer) + ".mlp.";
        if (!name.starts_with(prefix))
            continue;
        for (const char *const matrix : kMatrixNames)
            if (name.compare(prefix.size(), std::string::npos, std::string(matrix) + ".weight") == 0
                || name.compare(prefix.size(), std::string::npos, std::string(matrix) + ".bias") == 0)
                return true;
    }
    return false;
}

bool isRouterTensor(const std::string &name)
{
    return name.starts_with("model.router.") || name.find(".mlp.router.") != std::string::npos;
}

} // namespace

const TensorInfo *DerivedCheckpoint::find(std::string_view name) const
{
    const auto at = m_index.find(std::string(name));
    return at == m_index.end() ? nullptr : &m_tensors[at->second];
}

Result<void> DerivedCheckpoint::readF32(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const
{
    if (isMade(tensor)) {
        const std::int64_t all = tensor.shape.empty() ? 1 : tensor.shape.front();
        const std::int64_t n = rows < 0 ? all - firstRow : rows;
        const std::int64_t width = all > 0 ? tensor.elements() / all : 0;
        if (firstRow < 0 || n < 0 || firstRow > all || n > all - firstRow || static_cast<std::int64_t>(out.size()) != n * width)
            return bugError("rows outside the tensor", tensor.name);
        return make(tensor, out, firstRow, n);
    }
    const TensorInfo *const original = m_source->find(tensor.name);
    return original ? m_source->readF32(*original, out, firstRow, rows) : Result<void>(bugError("this checkpoint has no such tensor", tensor.name));
}

std::span<const std::byte> DerivedCheckpoint::raw(const TensorInfo &tensor) const
{
    const TensorInfo *const original = isMade(tensor) ? nullptr : m_source->find(tensor.name);
    return original ? m_source->raw(*original) : std::span<const std::byte>();
}

void DerivedCheckpoint::release(const TensorInfo &tensor) const
{
    if (const TensorInfo *const original = isMade(tensor) ? nullptr : m_source->find(tensor.name))
        m_source->release(*original);
}

std::string DerivedCheckpoint::configJson() const
{
    return folderConfigJson(m_config, m_source->configJson());
}

void DerivedCheckpoint::add(TensorInfo tensor, bool made)
{
    m_index[tensor.name] = m_tensors.size();
    m_tensors.push_back(std::move(tensor));
    m_made.push_back(made);
}

bool DerivedCheckpoint::isMade(const TensorInfo &tensor) const
{
    const auto at = m_index.find(tensor.name);
    return at != m_index.end() && m_made[at->second];
}

void DerivedCheckpoint::keep(const TensorInfo &sourceTensor)
{
    add(sourceTensor, false);
}

void DerivedCheckpoint::put(const std::string &name, std::vector<std::int64_t> shape)
{
    TensorInfo tensor{name, name, DType::f32, std::move(shape), 0, {}};
    tensor.bytes = static_cast<std::uint64_t>(tensor.elements()) * sizeof(float);
    add(std::move(tensor), true);
}

ExpertCheckpoint::ExpertCheckpoint(std::shared_ptr<const Checkpoint> source, ModelConfig config, const UpcycleOptions &options)
    : DerivedCheckpoint(std::move(source), std::move(config)), m_options(options)
{
    for (const TensorInfo &tensor : m_source->tensors()) {
        if (!isFfnOf(tensor.name, m_config.moeLayers)) {
            keep(tensor);
            continue;
        }
        // The layer's experts stand where its FFN stood: at its first matrix.
        const std::size_t at = tensor.name.find(".mlp.gate_proj.weight");
        if (at == std::string::npos)
            continue;
        const std::int64_t layer = std::stoll(tensor.name.substr(13));
        const std::string mlp = tensor.name.substr(0, at) + ".mlp.";
        for (std::int64_t e = 0; e < m_config.experts; ++e)
            putFfn(mlp + "experts." + std::to_string(e) + ".", layer, e, m_config.expertIntermediate);
        if (m_config.sharedExperts > 0)
            putFfn(mlp + "shared_expert.", layer, -1, m_config.sharedIntermediate);
    }
}

void ExpertCheckpoint::putFfn(const std::string &prefix, std::int64_t layer, std::int64_t expert, std::int64_t intermediate)
{
    const std::string dense = "model.layers." + std::to_string(layer) + ".mlp.";
    for (const Matrix m : {gate, up, down}) {
        const std::string matrix = kMatrixNames[m];
        const std::string name = prefix + matrix + ".weight";
        m_origins[name] = {dense + matrix + ".weight", layer, expert, m, false};
        put(name, m == down ? std::vector<std::int64_t>{m_config.hidden, intermediate} : std::vector<std::int64_t>{intermediate, m_config.hidden});
        if (m_source->find(dense + matrix + ".bias")) {
            m_origins[prefix + matrix + ".bias"] = {dense + matrix + ".bias", layer, expert, m, true};
            put(prefix + matrix + ".bias", {m == down ? m_config.hidden : intermediate});
        }
    }
}

Result<std::shared_ptr<const ExpertCheckpoint::Whole>> ExpertCheckpoint::whole(const std::string &name) const
{
    const std::lock_guard lock(m_mutex);
    for (const auto &[cachedName, matrix] : m_cached)
        if (cachedName == name)
            return matrix;
    const TensorInfo *const tensor = m_source->find(name);
    if (!tensor)
        return inputError("the checkpoint lacks a tensor", name);
    auto fresh = std::make_shared<Whole>();
    fresh->values.resize(static_cast<std::size_t>(tensor->elements()));
    SPECTRA_CHECK(m_source->readF32(*tensor, fresh->values));
    m_source->release(*tensor);
    double squares = 0;
    for (const float v : fresh->values)
        squares += static_cast<double>(v) * static_cast<double>(v);
    fresh->rms = std::sqrt(squares / static_cast<double>(std::max<std::size_t>(1, fresh->values.size())));
    if (m_cached.size() >= 6)
        m_cached.erase(m_cached.begin());
    m_cached.emplace_back(name, fresh);
    return m_cached.back().second;
}

double ExpertCheckpoint::scaleOf(const Origin &origin) const
{
    // With weights that sum to 1 over k slots, the G slices of a copy share its weight, so each counts for 1/G: made good by G.
    const auto s = static_cast<double>(m_options.granularity);
    if (origin.expert < 0 || origin.bias || s == 1)
        return 1;
    if (m_options.scaling == UpcycleOptions::Scaling::nvidia)
        return std::cbrt(s);
    return origin.matrix == down ? s : 1;
}

Result<void> ExpertCheckpoint::make(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const
{
    const Origin &origin = m_origins.at(tensor.name);
    SPECTRA_TRY(const std::shared_ptr<const Whole> source, whole(origin.source));
    const std::int64_t full = m_config.intermediate;
    const float *const from = source->values.data();
    const auto scale = static_cast<float>(scaleOf(origin));
    const bool shared = origin.expert < 0;
    if (origin.bias) {
        const std::int64_t slice = shared ? 0 : origin.expert % m_options.granularity * m_config.expertIntermediate;
        for (std::int64_t r = 0; r < rows; ++r) {
            if (origin.matrix == down) // n shared FFNs side by side add their biases up
                out[static_cast<std::size_t>(r)] = from[firstRow + r] * static_cast<float>(shared ? m_config.sharedExperts : 1);
            else
                out[static_cast<std::size_t>(r)] = from[(slice + firstRow + r) % full];
        }
        return {};
    }
    const std::int64_t width = tensor.shape[1];
    const std::int64_t slice = shared ? 0 : origin.expert % m_options.granularity * m_config.expertIntermediate;
    for (std::int64_t r = 0; r < rows; ++r) {
        float *const row = out.data() + r * width;
        if (origin.matrix == down) {
            const float *const values = from + (firstRow + r) * full;
            for (std::int64_t i = 0; i < width; ++i)
                row[i] = values[(slice + i) % full] * scale;
        } else {
            const float *const values = from + (slice + firstRow + r) % full * width;
            for (std::int64_t i = 0; i < width; ++i)
                row[i] = values[i] * scale;
        }
    }
    if (!shared && m_options.noise > 0) {
        // The rms is the source matrix's, so that all experts of a layer are disturbed alike.
        const std::uint64_t key = noiseKey(m_options.seed, static_cast<std::uint64_t>(origin.layer), static_cast<std::uint64_t>(origin.expert), origin.matrix);
        addNormalNoise(out.data(), rows * width, key, firstRow * width, static_cast<float>(m_options.noise * source->rms) * scale);
    }
    return {};
}

RouterCheckpoint::RouterCheckpoint(std::shared_ptr<const Checkpoint> source, ModelConfig config, const std::map<std::string, torch::Tensor> &tensors)
    : DerivedCheckpoint(std::move(source), std::move(config))
{
    for (const TensorInfo &tensor : m_source->tensors())
        if (!isRouterTensor(tensor.name))
            keep(tensor);
    for (const auto &[name, tensor] : tensors) {
        if (!tensor.defined())
            continue;
        m_values[name] = tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous().clone();
        put(name, tensor.sizes().vec());
    }
}

Result<void> RouterCheckpoint::make(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const
{
    const torch::Tensor &values = m_values.at(tensor.name);
    const std::int64_t width = tensor.shape.empty() || tensor.shape.front() == 0 ? 1 : tensor.elements() / tensor.shape.front();
    std::copy_n(values.const_data_ptr<float>() + firstRow * width, rows * width, out.data());
    return {};
}

} // namespace spectra
