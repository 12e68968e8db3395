// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/decoder.h"

#include "engine/core/files.h"
#include "engine/model/cpufeatures.h"
#include "engine/model/expertbank.h"
#include "engine/model/kernels.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>

namespace spectra {
namespace {

/// Adds the time of its life to a counter, if there is one.
class Stopwatch {
public:
    explicit Stopwatch(double *counter) : m_counter(counter)
    {
        if (m_counter)
            m_begin = std::chrono::steady_clock::now();
    }
    ~Stopwatch()
    {
        if (m_counter)
            *m_counter += std::chrono::duration<double>(std::chrono::steady_clock::now() - m_begin).count();
    }
    Stopwatch(const Stopwatch &) = delete;
    Stopwatch &operator=(const Stopwatch &) = delete;

private:
    double *m_counter;
    std::chrono::steady_clock::time_point m_begin;
};

constexpr std::int64_t kCacheBlock = 256;

} // namespace

/// What the layers of one piece share.
struct Decoder::PieceData {
    const Piece &piece;
    RouterInput routing;
    RouterState state;
    RouterNeeds needs;
    torch::Tensor hidden, normed;        ///< [n,H]
    torch::Tensor cos, sin;              ///< [n, half]
    std::vector<std::uint8_t> mask;      ///< [n]; empty: all counted
    bool pruned = false;                 ///< of the last layer's output only the rows `wanted` are asked for
    torch::Tensor wanted;                ///< [m] int64, ascending; m may be 0

    [[nodiscard]] bool nothingAsked() const { return pruned && wanted.size(0) == 0; }
    /// The rows of t [n,…] that are asked for; all of them are t itself.
    [[nodiscard]] torch::Tensor asked(const torch::Tensor &t) const { return pruned && t.defined() ? t.index_select(0, wanted) : t; }
    /// Takes back what asked(hidden) gave.
    void putBack(const torch::Tensor &rows)
    {
        if (pruned)
            hidden.index_copy_(0, wanted, rows);
    }
};

Decoder::Decoder(const ModelConfig &config, const Weights &weights, Router *router, Rope rope, torch::Device device)
    : m_config(config), m_weights(weights), m_router(router), m_rope(std::move(rope)),
      m_shape{config.heads, config.kvHeads, config.headDim, config.slidingWindow}, m_device(device), m_workspace(device)
{
}

Result<void> Decoder::reserve(SequenceState &state, std::int64_t tokens) const
{
    if (!state.m_keys.empty() && state.capacity() >= tokens)
        return {};
    // Growth by half keeps the number of copies logarithmic; whole blocks keep small sequences from growing at every turn.
    const std::int64_t wanted = std::max(tokens, state.m_keys.empty() ? 0 : state.capacity() + state.capacity() / 2);
    const std::int64_t capacity = (wanted + kCacheBlock - 1) / kCacheBlock * kCacheBlock;
    const auto bytes = static_cast<std::uint64_t>(capacity) * static_cast<std::uint64_t>(m_shape.keyWidth() * 2 * m_config.layers) * sizeof(float);
    if (m_device.is_cpu() && bytes > (std::uint64_t(64) << 20) && bytes > availableMemory())
        return inputError("too large for this machine: keys and values of " + std::to_string(tokens) + " tokens need "
                              + std::to_string(bytes >> 20) + " MiB",
                          "sequence", "Use a shorter sequence (--seq-len) or fewer sequences at once (--batch)");
    const auto grow = [&](torch::Tensor &t) {
        torch::Tensor fresh = torch::empty({m_shape.kvHeads, capacity, m_shape.headDim}, torch::TensorOptions().dtype(torch::kFloat32).device(m_device));
        if (t.defined() && state.m_length > 0)
            fresh.narrow(1, 0, state.m_length).copy_(t.narrow(1, 0, state.m_length));
        t = std::move(fresh);
    };
    state.m_keys.resize(static_cast<std::size_t>(m_config.layers));
    state.m_values.resize(static_cast<std::size_t>(m_config.layers));
    for (torch::Tensor &t : state.m_keys)
        grow(t);
    for (torch::Tensor &t : state.m_values)
        grow(t);
    return {};
}

std::vector<Decoder::Piece> Decoder::cut(const PassInput &input) const
{
    const RouterNeeds::Scope scope = m_router ? m_router->needs().scope : RouterNeeds::Scope::token;
    const std::int64_t limit = std::max<std::int64_t>(1, input.chunk);
    std::vector<Piece> pieces(1);
    std::int64_t row = 0;
    for (std::size_t s = 0; s < input.sequences.size(); ++s) {
        const SequenceInput &sequence = input.sequences[s];
        const auto n = static_cast<std::int64_t>(sequence.tokens.size());
        const std::int64_t past = sequence.state ? sequence.state->length() : 0;
        for (std::int64_t done = 0; done < n;) {
            Piece *piece = &pieces.back();
            std::int64_t room = limit - piece->rows;
            if (scope == RouterNeeds::Scope::batch)
                room = n;
            else if (scope == RouterNeeds::Scope::sequence)
                room = piece->rows == 0 || room >= n ? n : 0;
            if (room <= 0) {
                pieces.emplace_back().firstRow = row;
                continue;
            }
            const std::int64_t count = std::min(room, n - done);
            piece->segments.push_back({s, done, count, piece->rows, past + done, past + n, sequence.state});
            piece->rows += count;
            row += count;
            done += count;
        }
    }
    return pieces;
}

void Decoder::prune(PieceData &data, const PassInput &input, const PassHooks &hooks) const
{
    if (!input.lastOnly || hooks.onHidden || hooks.expertSums || hooks.wantExpertOutputs || data.piece.rows <= kernels::kGemvRows)
        return;
    std::vector<std::int64_t> rows;
    for (const Segment &s : data.piece.segments)
        if (s.begin + s.count == static_cast<std::int64_t>(input.sequences[s.sequence].tokens.size()))
            rows.push_back(s.first + s.count - 1);
    data.pruned = true;
    data.wanted = torch::tensor(rows, torch::kInt64).to(m_device);
}

Result<torch::Tensor> Decoder::run(const PassInput &input, const PassHooks &hooks)
{
    std::int64_t rows = 0;
    for (const SequenceInput &s : input.sequences) {
        if (s.tokens.empty())
            return usageError("a sequence without tokens cannot be run", "sequence");
        if (!s.mask.empty() && s.mask.size() != s.tokens.size())
            return bugError("the mask is not as long as its sequence", "pass");
        for (const std::int32_t id : s.tokens)
            if (id < 0 || id >= m_config.vocabulary)
                return usageError("token id outside the vocabulary of " + std::to_string(m_config.vocabulary), "token " + std::to_string(id));
        rows += static_cast<std::int64_t>(s.tokens.size());
    }
    if (rows == 0)
        return usageError("nothing to run", "pass");

    std::vector<Piece> pieces = cut(input);
    std::vector<std::unique_ptr<SequenceState>> own(input.sequences.size());
    const std::int64_t kept = input.lastOnly ? static_cast<std::int64_t>(input.sequences.size()) : rows;
    torch::Tensor result = torch::empty({kept, m_config.hidden}, torch::TensorOptions().dtype(torch::kFloat32).device(m_device));
    for (Piece &piece : pieces) {
        for (Segment &s : piece.segments) {
            if (!s.state) {
                if (!own[s.sequence])
                    own[s.sequence] = std::make_unique<SequenceState>();
                s.state = own[s.sequence].get();
            }
            SPECTRA_CHECK(reserve(*s.state, s.length));
        }
        SPECTRA_CHECK(runPiece(piece, input, hooks));
        const torch::Tensor &hidden = m_workspace.get(Workspace::hidden, piece.rows, m_config.hidden);
        if (!input.lastOnly) {
            torch::Tensor place = result.narrow(0, piece.firstRow, piece.rows);
            rmsNorm(place, hidden, m_weights.finalNorm, m_config.normEpsilon);
        }
        for (const Segment &s : piece.segments) {
            const bool last = s.begin + s.count == static_cast<std::int64_t>(input.sequences[s.sequence].tokens.size());
            if (last && input.lastOnly) {
                torch::Tensor place = result.narrow(0, static_cast<std::int64_t>(s.sequence), 1);
                rmsNorm(place, hidden.narrow(0, s.first + s.count - 1, 1), m_weights.finalNorm, m_config.normEpsilon);
            }
            if (last)
                own[s.sequence].reset();
        }
        if (hooks.onProgress)
            hooks.onProgress(piece.firstRow + piece.rows, rows);
    }
    return result;
}

void Decoder::loadRouterState(PieceData &data) const
{
    if (!data.needs.recurrentTokens)
        return;
    const auto &segments = data.piece.segments;
    torch::Tensor shape;
    for (const Segment &s : segments)
        if (s.state->m_router.token.defined())
            shape = s.state->m_router.token;
    if (!shape.defined())
        return;
    std::vector<torch::Tensor> rows;
    for (const Segment &s : segments)
        rows.push_back(s.state->m_router.token.defined() ? s.state->m_router.token : torch::zeros_like(shape));
    // A copy in any case: the sequences keep what they had until the piece is done.
    data.state.token = rows.size() == 1 ? rows.front().clone() : torch::cat(rows, 0);
}

void Decoder::storeRouterState(PieceData &data) const
{
    if (!data.state.token.defined())
        return;
    const auto &segments = data.piece.segments;
    for (std::size_t i = 0; i < segments.size(); ++i) {
        const torch::Tensor row = data.state.token.narrow(0, static_cast<std::int64_t>(i), 1);
        segments[i].state->m_router.token = segments.size() == 1 ? data.state.token : row.clone();
    }
}

Result<void> Decoder::runPiece(const Piece &piece, const PassInput &input, const PassHooks &hooks)
{
    const std::int64_t n = piece.rows, half = m_rope.half();
    PieceData data{piece, {}, {}, m_router ? m_router->needs() : RouterNeeds(), {}, {}, {}, {}, {}, false, {}};

    torch::Tensor ids = torch::empty({n}, torch::kInt64);
    torch::Tensor positions = torch::empty({n}, torch::kInt64);
    torch::Tensor cos = torch::empty({n, half}, torch::kFloat32);
    torch::Tensor sin = torch::empty({n, half}, torch::kFloat32);
    const bool masked = std::any_of(piece.segments.begin(), piece.segments.end(), [&](const Segment &s) { return !input.sequences[s.sequence].mask.empty(); });
    if (masked)
        data.mask.assign(static_cast<std::size_t>(n), 1);
    data.routing.offsets.push_back(0);
    for (const Segment &s : piece.segments) {
        const SequenceInput &sequence = input.sequences[s.sequence];
        for (std::int64_t i = 0; i < s.count; ++i) {
            ids.data_ptr<std::int64_t>()[s.first + i] = sequence.tokens[static_cast<std::size_t>(s.begin + i)];
            positions.data_ptr<std::int64_t>()[s.first + i] = s.position + i;
            if (!sequence.mask.empty())
                data.mask[static_cast<std::size_t>(s.first + i)] = sequence.mask[static_cast<std::size_t>(s.begin + i)] ? 1 : 0;
        }
        m_rope.angles(s.position, s.count, s.length, cos.data_ptr<float>() + s.first * half, sin.data_ptr<float>() + s.first * half);
        data.routing.offsets.push_back(s.first + s.count);
    }
    ids = ids.to(m_device);
    data.cos = cos.to(m_device);
    data.sin = sin.to(m_device);
    if (m_router) {
        data.routing.tokenIds = ids;
        data.routing.positions = positions.to(m_device);
        data.routing.layers = static_cast<int>(m_config.moeLayers.size());
        if (masked)
            data.routing.mask = torch::from_blob(data.mask.data(), {n}, torch::kUInt8).to(torch::kBool).to(m_device);
        loadRouterState(data);
    }

    data.hidden = m_workspace.get(Workspace::hidden, n, m_config.hidden);
    data.normed = m_workspace.get(Workspace::normed, n, m_config.hidden);
    if (m_weights.embedding.scalar_type() == torch::kFloat32)
        at::index_select_out(data.hidden, m_weights.embedding, 0, ids);
    else
        data.hidden.copy_(m_weights.embedding.index_select(0, ids));
    if (hooks.onHidden)
        hooks.onHidden(-1, piece.firstRow, data.hidden);
    if (hooks.expertSums && hooks.expertSums->empty())
        hooks.expertSums->resize(m_config.moeLayers.size());

    for (std::size_t l = 0; l < m_weights.layers.size(); ++l) {
        if (hooks.stop.stop_requested())
            return cancelledError();
        if (l + 1 == m_weights.layers.size())
            prune(data, input, hooks);
        const LayerWeights &w = m_weights.layers[l];
        {
            const Stopwatch watch(hooks.timing ? &hooks.timing->attention : nullptr);
            attention(w, l, data);
        }
        if (hooks.stop.stop_requested())
            return cancelledError();
        SPECTRA_CHECK(feedForward(w, static_cast<int>(l), data, hooks));
        if (hooks.onHidden) {
            const Stopwatch watch(hooks.timing ? &hooks.timing->capture : nullptr);
            hooks.onHidden(static_cast<int>(l), piece.firstRow, data.hidden);
        }
    }
    // Only now: a piece that was stopped half-way leaves its sequences as they were.
    for (const Segment &s : piece.segments)
        s.state->m_length = s.position + s.count;
    if (m_router)
        storeRouterState(data);
    return {};
}

void Decoder::attention(const LayerWeights &w, std::size_t layer, PieceData &data)
{
    const std::int64_t n = data.piece.rows, half = m_rope.half();
    rmsNorm(data.normed, data.hidden, w.inputNorm, m_config.normEpsilon);
    torch::Tensor &qkv = m_workspace.get(Workspace::qkv, n, m_shape.width());
    linear(qkv, data.normed, w.qkv, w.qkvBias, false);
    const std::int64_t rotated = m_shape.heads + m_shape.kvHeads; // queries and keys lie side by side
    if (m_device.is_cpu()) {
        kernels::rotate(qkv.data_ptr<float>(), m_shape.width(), data.cos.const_data_ptr<float>(), data.sin.const_data_ptr<float>(), n, rotated,
                        m_shape.headDim, half);
    } else {
        const torch::Tensor heads = qkv.narrow(1, 0, rotated * m_shape.headDim).view({n, rotated, m_shape.headDim});
        const torch::Tensor a = heads.narrow(2, 0, half), b = heads.narrow(2, half, half);
        const torch::Tensor c = data.cos.unsqueeze(1), s = data.sin.unsqueeze(1);
        const torch::Tensor first = a * c - b * s;
        b.copy_(b * c + a * s);
        a.copy_(first);
    }
    torch::Tensor &mixed = m_workspace.get(Workspace::attention, n, m_shape.queryWidth());
    const bool bf16 = w.qkv.scalar_type() == torch::kBFloat16 && (!m_device.is_cpu() || amxUsable());
    // A router looks at every row of its layer; in a dense one, rows that are not asked for leave keys and values only.
    const bool prune = data.pruned && w.ordinal < 0;
    for (const Segment &s : data.piece.segments) {
        torch::Tensor &keys = s.state->m_keys[layer], &values = s.state->m_values[layer];
        if (prune)
            storeKeysValues(qkv, s.first, s.count, keys, values, s.position, m_shape);
        const std::int64_t skip = prune ? s.count - 1 : 0;
        attend(mixed, qkv, s.first + skip, s.count - skip, keys, values, s.position + skip, m_shape, bf16);
    }
    if (!prune) {
        linear(data.hidden, mixed, w.output, w.outputBias, true);
    } else if (!data.nothingAsked()) {
        torch::Tensor hidden = data.asked(data.hidden);
        linear(hidden, data.asked(mixed), w.output, w.outputBias, true);
        data.putBack(hidden);
    }
}

Result<void> Decoder::feedForward(const LayerWeights &w, int layer, PieceData &data, const PassHooks &hooks)
{
    rmsNorm(data.normed, data.hidden, w.postNorm, m_config.normEpsilon);
    if (w.ordinal < 0) {
        const Stopwatch watch(hooks.timing ? &hooks.timing->dense : nullptr);
        if (!data.nothingAsked()) {
            torch::Tensor hidden = data.asked(data.hidden);
            runFfn(hidden, data.asked(data.normed), w.dense, 1, m_workspace);
            data.putBack(hidden);
        }
        return {};
    }
    RoutingStep step;
    {
        const Stopwatch watch(hooks.timing ? &hooks.timing->router : nullptr);
        data.routing.x = data.normed;
        data.routing.layer = w.ordinal;
        step = m_router->route(data.routing, data.state, hooks.capture);
        if (const auto at = hooks.interventions.find(layer); at != hooks.interventions.end())
            intervene(step, at->second);
    }
    torch::Tensor outputs;
    ExpertTask task;
    {
        const Stopwatch watch(hooks.timing ? &hooks.timing->experts : nullptr);
        task.experts = &w.experts;
        task.shared = m_config.sharedExperts > 0 ? &w.shared : nullptr;
        task.routedScale = m_config.routedScalingFactor;
        task.sharedScale = m_config.sharedScalingFactor;
        task.mask = data.mask;
        if (hooks.expertSums)
            task.sums = &(*hooks.expertSums)[static_cast<std::size_t>(w.ordinal)];
        if (hooks.wantExpertOutputs)
            for (std::int64_t r = 0; r < data.piece.rows; ++r)
                if (hooks.wantExpertOutputs(data.piece.firstRow + r))
                    task.outputRows.push_back(r);
        if (!data.nothingAsked()) {
            RoutingStep asked;
            asked.experts = data.asked(step.experts);
            asked.weights = data.asked(step.weights);
            asked.expertInput = data.asked(step.expertInput);
            asked.weightOnInput = step.weightOnInput;
            torch::Tensor hidden = data.asked(data.hidden);
            SPECTRA_TRY(outputs, runExperts(hidden, data.asked(data.normed), asked, task, m_workspace, hooks.stop));
            data.putBack(hidden);
        }
    }
    if (hooks.onLayer) {
        const Stopwatch watch(hooks.timing ? &hooks.timing->capture : nullptr);
        for (std::int64_t &r : task.outputRows)
            r += data.piece.firstRow;
        hooks.onLayer({layer, w.ordinal, data.piece.firstRow, step, data.normed, outputs, std::move(task.outputRows)});
    }
    return {};
}

} // namespace spectra
