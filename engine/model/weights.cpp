// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/weights.h"

#include "engine/core/parallel.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

namespace spectra {
namespace {

std::string shapeText(const std::vector<std::int64_t> &shape)
{
    std::string s = "[";
    for (std::size_t i = 0; i < shape.size(); ++i)
        s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + "]";
}

Error missing(const std::string &name)
{
    return inputError("the checkpoint lacks a tensor", name, "The file is incomplete, or its config.json belongs to another model");
}

Error misShaped(const TensorInfo &tensor, const std::vector<std::int64_t> &wanted)
{
    return inputError("a tensor has shape " + shapeText(tensor.shape) + " where the configuration asks for " + shapeText(wanted),
                      tensor.file + ": " + tensor.name);
}

/// Decode reads every weight once per token: with 4 KiB pages the memory stays a fifth below its speed. Asked for before
/// the first touch, and only for whole huge pages inside the tensor, so that nothing else is affected.
void useHugePages(const torch::Tensor &t)
{
    constexpr std::uintptr_t kHuge = std::uintptr_t(2) << 20;
    const auto begin = (reinterpret_cast<std::uintptr_t>(t.data_ptr()) + kHuge - 1) / kHuge * kHuge;
    const auto end = (reinterpret_cast<std::uintptr_t>(t.data_ptr()) + t.nbytes()) / kHuge * kHuge;
    if (end > begin)
        madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
}

/// Rows of one tensor into `out`, several threads at a time.
Result<void> readRows(const Checkpoint &checkpoint, const TensorInfo &tensor, float *out)
{
    const std::int64_t rows = tensor.shape.empty() ? 1 : tensor.shape.front();
    const std::int64_t width = rows > 0 ? tensor.elements() / rows : 0;
    if (tensor.shape.size() < 2 || rows * width < (1 << 18))
        return checkpoint.readF32(tensor, {out, static_cast<std::size_t>(rows * width)});
    std::mutex mutex;
    std::optional<Error> failure;
    // More pieces than threads: a thread that comes late finds some left.
    parallelFor(rows, 4 * threadCount(), [&](std::int64_t begin, std::int64_t end, int) {
        const auto count = static_cast<std::size_t>((end - begin) * width);
        if (auto r = checkpoint.readF32(tensor, {out + begin * width, count}, begin, end - begin); !r) {
            const std::lock_guard lock(mutex);
            failure = r.error();
        }
    });
    if (failure)
        return std::move(*failure);
    return {};
}

class Reader {
public:
    Reader(const Checkpoint &checkpoint, torch::ScalarType type, torch::Device device, const ProgressFunction &progress, std::stop_token stop)
        : m_checkpoint(checkpoint), m_type(type), m_device(device), m_progress(progress), m_stop(std::move(stop))
    {
        m_total = static_cast<std::int64_t>(checkpoint.tensors().size());
    }

    /// A place for matrices of the compute type.
    [[nodiscard]] torch::Tensor matrix(std::vector<std::int64_t> shape) const
    {
        torch::Tensor t = torch::empty(shape, torch::TensorOptions().dtype(m_type).device(m_device));
        if (t.device().is_cpu())
            useHugePages(t);
        return t;
    }
    [[nodiscard]] torch::Tensor vector(std::int64_t n) const { return torch::empty({n}, torch::TensorOptions().dtype(torch::kFloat32).device(m_device)); }

    /// Reads the named tensor into `place`, whose shape it must have (a contiguous slice of a larger tensor is fine).
    [[nodiscard]] Result<void> into(const torch::Tensor &place, const std::string &name)
    {
        if (m_stop.stop_requested())
            return cancelledError();
        const TensorInfo *const tensor = m_checkpoint.find(name);
        if (!tensor)
            return missing(name);
        if (tensor->shape != place.sizes().vec())
            return misShaped(*tensor, place.sizes().vec());
        if (place.device().is_cpu() && place.scalar_type() == torch::kFloat32) {
            if (auto r = readRows(m_checkpoint, *tensor, place.data_ptr<float>()); !r)
                return std::move(r.error().in(name));
        } else {
            const torch::Tensor whole = torch::empty(place.sizes(), torch::kFloat32);
            if (auto r = readRows(m_checkpoint, *tensor, whole.data_ptr<float>()); !r)
                return std::move(r.error().in(name));
            place.copy_(whole);
        }
        m_checkpoint.release(*tensor);
        ++m_done;
        if (m_progress && (m_done % 16 == 0 || m_done == m_total))
            m_progress({"reading tensors", m_done, m_total, "tensors"});
        return {};
    }

    [[nodiscard]] Result<torch::Tensor> vectorOf(const std::string &name, std::int64_t n)
    {
        torch::Tensor t = vector(n);
        SPECTRA_CHECK(into(t, name));
        return t;
    }

    [[nodiscard]] Result<void> ffn(const torch::Tensor &gateUp, const torch::Tensor &down, const std::string &prefix)
    {
        const std::int64_t intermediate = gateUp.size(0) / 2;
        SPECTRA_CHECK(into(gateUp.narrow(0, 0, intermediate), prefix + "gate_proj.weight"));
        SPECTRA_CHECK(into(gateUp.narrow(0, intermediate, intermediate), prefix + "up_proj.weight"));
        return into(down, prefix + "down_proj.weight");
    }

    [[nodiscard]] Result<void> ffnBias(const torch::Tensor &gateUp, const torch::Tensor &down, const std::string &prefix)
    {
        const std::int64_t intermediate = gateUp.size(0) / 2;
        SPECTRA_CHECK(into(gateUp.narrow(0, 0, intermediate), prefix + "gate_proj.bias"));
        SPECTRA_CHECK(into(gateUp.narrow(0, intermediate, intermediate), prefix + "up_proj.bias"));
        return into(down, prefix + "down_proj.bias");
    }

    [[nodiscard]] Result<FfnWeights> single(std::int64_t hidden, std::int64_t intermediate, bool bias, const std::string &prefix)
    {
        FfnWeights f;
        f.intermediate = intermediate;
        f.gateUp = matrix({2 * intermediate, hidden});
        f.down = matrix({hidden, intermediate});
        SPECTRA_CHECK(ffn(f.gateUp, f.down, prefix));
        if (bias) {
            f.gateUpBias = vector(2 * intermediate);
            f.downBias = vector(hidden);
            SPECTRA_CHECK(ffnBias(f.gateUpBias, f.downBias, prefix));
        }
        return f;
    }

    [[nodiscard]] Result<FfnWeights> bank(std::int64_t experts, std::int64_t hidden, std::int64_t intermediate, bool bias, const std::string &prefix)
    {
        FfnWeights f;
        f.intermediate = intermediate;
        f.gateUp = matrix({experts, 2 * intermediate, hidden});
        f.down = matrix({experts, hidden, intermediate});
        if (bias) {
            f.gateUpBias = torch::empty({experts, 2 * intermediate}, torch::TensorOptions().dtype(torch::kFloat32).device(m_device));
            f.downBias = torch::empty({experts, hidden}, torch::TensorOptions().dtype(torch::kFloat32).device(m_device));
        }
        for (std::int64_t e = 0; e < experts; ++e) {
            const std::string expert = prefix + std::to_string(e) + ".";
            SPECTRA_CHECK(ffn(f.gateUp[e], f.down[e], expert));
            if (bias)
                SPECTRA_CHECK(ffnBias(f.gateUpBias[e], f.downBias[e], expert));
        }
        return f;
    }

private:
    const Checkpoint &m_checkpoint;
    torch::ScalarType m_type;
    torch::Device m_device;
    const ProgressFunction &m_progress;
    std::stop_token m_stop;
    std::int64_t m_done = 0, m_total = 0;
};

Result<LayerWeights> readLayer(Reader &reader, const ModelConfig &c, std::int64_t index, int ordinal, bool expertBias, bool sharedBias)
{
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    LayerWeights w;
    w.ordinal = ordinal;
    SPECTRA_TRY(w.inputNorm, reader.vectorOf(prefix + "input_layernorm.weight", c.hidden));
    SPECTRA_TRY(w.postNorm, reader.vectorOf(prefix + "post_attention_layernorm.weight", c.hidden));
    const std::int64_t q = c.heads * c.headDim, kv = c.kvHeads * c.headDim;
    const std::string attention = prefix + "self_attn.";
    w.qkv = reader.matrix({q + 2 * kv, c.hidden});
    SPECTRA_CHECK(reader.into(w.qkv.narrow(0, 0, q), attention + "q_proj.weight"));
    SPECTRA_CHECK(reader.into(w.qkv.narrow(0, q, kv), attention + "k_proj.weight"));
    SPECTRA_CHECK(reader.into(w.qkv.narrow(0, q + kv, kv), attention + "v_proj.weight"));
    w.output = reader.matrix({c.hidden, q});
    SPECTRA_CHECK(reader.into(w.output, attention + "o_proj.weight"));
    if (c.attentionBias) {
        w.qkvBias = reader.vector(q + 2 * kv);
        SPECTRA_CHECK(reader.into(w.qkvBias.narrow(0, 0, q), attention + "q_proj.bias"));
        SPECTRA_CHECK(reader.into(w.qkvBias.narrow(0, q, kv), attention + "k_proj.bias"));
        SPECTRA_CHECK(reader.into(w.qkvBias.narrow(0, q + kv, kv), attention + "v_proj.bias"));
        SPECTRA_TRY(w.outputBias, reader.vectorOf(attention + "o_proj.bias", c.hidden));
    }
    if (ordinal < 0) {
        SPECTRA_TRY(w.dense, reader.single(c.hidden, c.intermediate, c.mlpBias, prefix + "mlp."));
        return w;
    }
    SPECTRA_TRY(w.experts, reader.bank(c.experts, c.hidden, c.expertIntermediate, expertBias, prefix + "mlp.experts."));
    if (c.sharedExperts > 0) {
        SPECTRA_TRY(w.shared, reader.single(c.hidden, c.sharedIntermediate, sharedBias, prefix + "mlp.shared_expert."));
    }
    return w;
}

} // namespace

std::uint64_t Weights::bytes() const
{
    std::uint64_t n = 0;
    const auto add = [&](const torch::Tensor &t) {
        if (t.defined())
            n += t.nbytes();
    };
    const auto addFfn = [&](const FfnWeights &f) {
        add(f.gateUp);
        add(f.down);
        add(f.gateUpBias);
        add(f.downBias);
    };
    add(embedding);
    if (!head.is_same(embedding))
        add(head);
    add(finalNorm);
    for (const LayerWeights &l : layers) {
        add(l.inputNorm);
        add(l.postNorm);
        add(l.qkv);
        add(l.qkvBias);
        add(l.output);
        add(l.outputBias);
        addFfn(l.dense);
        addFfn(l.experts);
        addFfn(l.shared);
    }
    return n;
}

Result<Weights> readWeights(const Checkpoint &checkpoint, torch::ScalarType type, torch::Device device, const ProgressFunction &progress,
                            std::stop_token stop)
{
    const ModelConfig &c = checkpoint.config();
    Reader reader(checkpoint, type, device, progress, std::move(stop));
    Weights w;
    w.embedding = reader.matrix({c.vocabulary, c.hidden});
    SPECTRA_CHECK(reader.into(w.embedding, "model.embed_tokens.weight"));
    if (c.tiedHead) {
        w.head = w.embedding;
    } else {
        w.head = reader.matrix({c.vocabulary, c.hidden});
        SPECTRA_CHECK(reader.into(w.head, "lm_head.weight"));
    }
    SPECTRA_TRY(w.finalNorm, reader.vectorOf("model.norm.weight", c.hidden));
    w.layers.reserve(static_cast<std::size_t>(c.layers));
    for (std::int64_t l = 0; l < c.layers; ++l) {
        int ordinal = -1;
        if (c.moe())
            if (const auto at = std::find(c.moeLayers.begin(), c.moeLayers.end(), l); at != c.moeLayers.end())
                ordinal = static_cast<int>(at - c.moeLayers.begin());
        // Families differ in whether experts have biases: what the file holds decides.
        const std::string mlp = "model.layers." + std::to_string(l) + ".mlp.";
        const bool expertBias = checkpoint.find(mlp + "experts.0.gate_proj.bias") != nullptr;
        const bool sharedBias = checkpoint.find(mlp + "shared_expert.gate_proj.bias") != nullptr;
        SPECTRA_TRY(LayerWeights layer, readLayer(reader, c, l, ordinal, expertBias, sharedBias));
        w.layers.push_back(std::move(layer));
    }
    return w;
}

Result<torch::Tensor> readTensor(const Checkpoint &checkpoint, const std::string &name, const std::vector<std::int64_t> &shape)
{
    const TensorInfo *const tensor = checkpoint.find(name);
    if (!tensor)
        return torch::Tensor();
    if (tensor->shape != shape)
        return misShaped(*tensor, shape);
    torch::Tensor t = torch::empty(shape, torch::kFloat32);
    if (auto r = readRows(checkpoint, *tensor, t.data_ptr<float>()); !r)
        return std::move(r.error().in(name));
    return t;
}

} // namespace spectra
