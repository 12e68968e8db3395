// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/recorder.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace spectra {
namespace {

/// [n,k,…] with k made up to `slots`: where experts choose tokens, k is the most that any token of the pass got.
torch::Tensor widened(const torch::Tensor &t, std::int64_t slots, double filler)
{
    if (t.size(1) >= slots)
        return t;
    std::vector<std::int64_t> shape = t.sizes().vec();
    shape[1] = slots - t.size(1);
    return torch::cat({t, torch::full(shape, filler, t.options())}, 1);
}

torch::Tensor host(const torch::Tensor &t, torch::ScalarType type)
{
    return t.to(torch::kCPU, type).contiguous();
}

/// Packs spans of one record into one buffer; sizes first, then the copies.
class Packer {
public:
    std::size_t plan(std::size_t bytes)
    {
        const std::size_t at = m_size;
        m_size += (bytes + 7) / 8 * 8;
        return at;
    }
    void allocate() { m_buffer = std::make_shared<std::vector<std::byte>>(m_size); }
    template <typename T> T *at(std::size_t offset) { return reinterpret_cast<T *>(m_buffer->data() + offset); }
    [[nodiscard]] std::shared_ptr<const std::vector<std::byte>> buffer() const { return m_buffer; }

private:
    std::size_t m_size = 0;
    std::shared_ptr<std::vector<std::byte>> m_buffer;
};

constexpr std::size_t kAbsent = ~std::size_t(0);

} // namespace

Result<RouterAbilities> routerAbilities(Model &model)
{
    RouterAbilities abilities;
    Router *router = model.router();
    const ModelConfig &config = model.config();
    FieldMask absent = bit(Field::means) | bit(Field::buffers) | bit(Field::gram) | bit(Field::routerWeights) | bit(Field::sinkhorn)
        | bit(Field::vectors) | bit(Field::gru) | bit(Field::gruPca) | bit(Field::selection);
    if (router != nullptr) {
        RouterInput input;
        input.x = torch::ones({1, config.hidden}, torch::TensorOptions().dtype(torch::kFloat32).device(model.device()));
        input.positions = torch::zeros({1}, torch::kLong);
        input.tokenIds = torch::zeros({1}, torch::kLong);
        input.offsets = {0, 1};
        input.layers = static_cast<int>(config.moeLayers.size());
        RouterState state;
        Capture all = Capture::full();
        all.add(Field::gru);
        const RoutingStep step = router->route(input, state, all);
        abilities.slots = static_cast<int>(step.experts.size(1));
        if (step.expressionVectors.defined() || step.routingVectors.defined()) {
            const torch::Tensor &vectors = step.expressionVectors.defined() ? step.expressionVectors : step.routingVectors;
            abilities.routerDim = static_cast<int>(vectors.size(2));
            absent &= ~(bit(Field::means) | bit(Field::vectors) | bit(Field::gram));
        }
        if (step.gruState.defined())
            absent &= ~(bit(Field::gru) | bit(Field::gruPca));
        if (!step.logits.defined())
            absent |= bit(Field::logits);
        if (!step.probabilities.defined())
            absent |= bit(Field::probabilities) | bit(Field::entropy);
        if (step.selection.defined())
            absent &= ~bit(Field::selection);
        if (step.violation >= 0)
            absent &= ~bit(Field::sinkhorn);
        if (!router->buffers().empty())
            absent &= ~bit(Field::buffers);
        if (router->linearWeights(0).defined())
            absent &= ~(bit(Field::routerWeights) | bit(Field::gram));
    } else {
        absent |= bit(Field::logits) | bit(Field::probabilities) | bit(Field::entropy) | bit(Field::expertMeans) | bit(Field::dropped)
            | bit(Field::expertOutputs) | bit(Field::hidden);
    }
    if (!model.causal())
        absent |= bit(Field::nll);
    abilities.fields = ~absent;
    return abilities;
}

Recorder::Recorder(Model &model, const TraceSpec &spec, TraceWriter *writer, LiveTrace *live)
    : m_model(model), m_spec(spec), m_writer(writer), m_live(live), m_liveSample(spec.plannedLengths, spec.hiddenTokens, spec.seed)
{
}

void Recorder::restore(const std::vector<LayerTables> &sums)
{
    m_sums.clear();
    for (const LayerTables &t : sums) {
        ExpertSums s;
        const auto shape = std::vector<std::int64_t>{m_spec.experts, m_spec.hidden};
        const auto wrap = [&](const std::vector<double> &values) {
            return torch::from_blob(const_cast<double *>(values.data()), shape, torch::kFloat64).clone();
        };
        s.input = wrap(t.expertInputSum);
        s.output = wrap(t.expertOutputSum);
        s.count = t.expertCount;
        m_sums.push_back(std::move(s));
    }
}

Result<void> Recorder::begin(std::int32_t number, const TokenSequence &tokens, std::int64_t offset, std::int64_t longest)
{
    SequenceInfo info;
    info.id = tokens.id;
    info.domain = tokens.domain;
    info.label = tokens.label;
    info.text = tokens.text;
    info.offset = offset;
    info.length = static_cast<std::int64_t>(tokens.ids.size());
    info.promptLength = static_cast<std::int32_t>(tokens.ids.size());
    info.counted = static_cast<std::int32_t>(std::count(tokens.mask.begin(), tokens.mask.end(), 1));
    if (m_writer != nullptr)
        SPECTRA_CHECK(m_writer->beginSequence(info));
    if (m_live != nullptr)
        m_live->beginSequence(info);
    OpenSequence open;
    open.number = number;
    open.offset = offset;
    const bool wanted = m_spec.holds(Field::hidden) || m_spec.holds(Field::expertOutputs) || m_spec.holds(Field::dense);
    open.hidden = wanted && (m_writer != nullptr ? m_writer->wantsHidden(number, longest) : m_liveSample.wants(number, longest));
    if (m_spec.holds(Field::means)) {
        const std::size_t size = static_cast<std::size_t>(m_spec.experts) * static_cast<std::size_t>(m_spec.routerDim);
        open.routing.assign(static_cast<std::size_t>(m_spec.layers()), std::vector<double>(size));
        open.expression = open.routing;
    }
    m_open.push_back(std::move(open));
    return {};
}

void Recorder::fail(Result<void> result)
{
    if (!result.ok() && m_status.ok())
        m_status = std::move(result);
}

PassHooks Recorder::hooks(const std::vector<std::int32_t> &order, const std::vector<std::int64_t> &rows, PassTiming *timing, std::stop_token stop)
{
    std::vector<std::int64_t> starts{0};
    for (std::int64_t n : rows)
        starts.push_back(starts.back() + n);
    if (m_keepTop)
        m_top.assign(static_cast<std::size_t>(starts.back()), std::vector<std::uint16_t>(static_cast<std::size_t>(m_spec.layers()), kNoExpert));
    PassHooks hooks;
    hooks.capture.fields = m_spec.capture.fields & m_spec.available;
    if (m_spec.holds(Field::means))
        hooks.capture.add(Field::vectors);
    if (m_spec.holds(Field::gruPca))
        hooks.capture.add(Field::gru);
    if (m_spec.holds(Field::entropy))
        hooks.capture.add(Field::probabilities);
    hooks.timing = timing;
    hooks.stop = stop;
    if (m_spec.holds(Field::expertMeans))
        hooks.expertSums = &m_sums;
    hooks.onLayer = [this, order, starts](const RoutingLayer &l) { layer(l, order, starts); };
    if (m_spec.holds(Field::expertOutputs))
        hooks.wantExpertOutputs = [this, order, starts](std::int64_t row) {
            const auto at = std::upper_bound(starts.begin(), starts.end(), row) - starts.begin() - 1;
            for (const OpenSequence &s : m_open)
                if (s.number == order[static_cast<std::size_t>(at)])
                    return s.hidden;
            return false;
        };
    if (m_spec.holds(Field::dense) && m_writer != nullptr && !m_spec.denseIndex.empty())
        hooks.onHidden = [this, order, starts](int decoderLayer, std::int64_t firstRow, const torch::Tensor &hidden) {
            const auto found = std::find(m_spec.denseIndex.begin(), m_spec.denseIndex.end(), decoderLayer);
            if (found == m_spec.denseIndex.end())
                return;
            const torch::Tensor values = host(hidden, torch::kFloat32);
            const auto width = static_cast<std::size_t>(values.size(1));
            for (std::size_t i = 0; i < order.size(); ++i) {
                const auto s = std::find_if(m_open.begin(), m_open.end(), [&](const OpenSequence &o) { return o.number == order[i]; });
                const std::int64_t first = std::max(starts[i], firstRow), last = std::min(starts[i + 1], firstRow + values.size(0));
                if (s == m_open.end() || !s->hidden || first >= last)
                    continue;
                RoutingRecord record;
                record.layer = static_cast<int>(found - m_spec.denseIndex.begin());
                record.decoderLayer = decoderLayer;
                record.firstToken = s->offset + s->done + first - starts[i];
                record.tokens = last - first;
                record.hidden = static_cast<int>(width);
                record.present = bit(Field::dense);
                const std::size_t count = static_cast<std::size_t>(last - first) * width;
                auto buffer = std::make_shared<std::vector<std::byte>>(count * sizeof(float));
                std::memcpy(buffer->data(), values.data_ptr<float>() + static_cast<std::size_t>(first - firstRow) * width, count * sizeof(float));
                record.hiddenStates = {reinterpret_cast<const float *>(buffer->data()), count};
                record.buffer = std::move(buffer);
                fail(m_writer->addDense(std::move(record)));
            }
        };
    return hooks;
}

void Recorder::layer(const RoutingLayer &l, const std::vector<std::int32_t> &order, const std::vector<std::int64_t> &starts)
{
    const std::int64_t end = l.firstRow + l.input.size(0);
    for (std::size_t i = 0; i < order.size(); ++i) {
        const std::int64_t first = std::max(starts[i], l.firstRow);
        const std::int64_t last = std::min(starts[i + 1], end);
        if (first >= last)
            continue;
        for (OpenSequence &s : m_open)
            if (s.number == order[i]) {
                emit(l, s, first, last, starts[i]);
                break;
            }
    }
}

/// Rows [first, last) of the pass belong to `s`, whose rows begin at `passStart`.
void Recorder::emit(const RoutingLayer &l, OpenSequence &s, std::int64_t first, std::int64_t last, std::int64_t passStart)
{
    const RoutingStep &step = l.step;
    const std::int64_t from = first - l.firstRow, n = last - first;
    const auto rows = static_cast<std::size_t>(n);
    const auto slice = [&](const torch::Tensor &t) { return host(t.narrow(0, from, n), torch::kFloat32); };
    const auto E = static_cast<std::size_t>(m_spec.experts), K = static_cast<std::size_t>(m_spec.slots);
    const auto D = static_cast<std::size_t>(m_spec.routerDim), H = static_cast<std::size_t>(l.input.size(1));

    RoutingRecord record;
    record.layer = l.ordinal;
    record.decoderLayer = l.decoderLayer;
    record.firstToken = s.offset + s.done + first - passStart;
    record.tokens = n;
    record.experts = m_spec.experts;
    record.slots = m_spec.slots;
    record.routerDim = m_spec.routerDim;
    record.hidden = m_spec.hidden;

    torch::Tensor vectorsR, vectorsE;
    if (step.routingVectors.defined())
        vectorsR = slice(step.routingVectors);
    if (step.expressionVectors.defined())
        vectorsE = slice(step.expressionVectors);
    if (m_spec.holds(Field::means)) {
        const auto add = [&](const torch::Tensor &t, std::vector<double> &sum) {
            const float *v = t.data_ptr<float>();
            for (std::size_t r = 0; r < rows; ++r) {
                if (s.mask[static_cast<std::size_t>(first - passStart) + r] == 0)
                    continue;
                for (std::size_t j = 0; j < E * D; ++j)
                    sum[j] += static_cast<double>(v[r * E * D + j]);
            }
        };
        if (vectorsR.defined())
            add(vectorsR, s.routing[static_cast<std::size_t>(l.ordinal)]);
        if (vectorsE.defined())
            add(vectorsE, s.expression[static_cast<std::size_t>(l.ordinal)]);
    }

    Packer packer;
    const std::size_t atExperts = packer.plan(rows * K * 2), atWeights = packer.plan(rows * K * 4), atDropped = packer.plan(rows);
    struct Wide {
        const torch::Tensor *tensor;
        std::span<const float> *span;
        Field field;
        std::size_t count;
        std::size_t offset = kAbsent;
    };
    std::vector<Wide> wide;
    const auto want = [&](Field f, const torch::Tensor &t, std::span<const float> &span, std::size_t width) {
        if (m_spec.holds(f) && t.defined())
            wide.push_back({&t, &span, f, rows * width});
    };
    const torch::Tensor logits = m_spec.holds(Field::logits) && step.logits.defined() ? slice(step.logits) : torch::Tensor();
    const torch::Tensor selection = m_spec.holds(Field::selection) && step.selection.defined() ? slice(step.selection) : torch::Tensor();
    const torch::Tensor probabilities = step.probabilities.defined() ? slice(step.probabilities) : torch::Tensor();
    const torch::Tensor gru = step.gruState.defined() ? slice(step.gruState) : torch::Tensor();
    const torch::Tensor input = s.hidden && m_spec.holds(Field::hidden) ? slice(l.input) : torch::Tensor();
    torch::Tensor outputs;
    if (s.hidden && m_spec.holds(Field::expertOutputs) && l.expertOutputs.defined()) {
        const auto begin = std::lower_bound(l.outputRows.begin(), l.outputRows.end(), first) - l.outputRows.begin();
        const auto stop = std::lower_bound(l.outputRows.begin(), l.outputRows.end(), last) - l.outputRows.begin();
        if (stop - begin == n)
            outputs = widened(host(l.expertOutputs.narrow(0, begin, n), torch::kFloat32), m_spec.slots, 0);
    }
    want(Field::logits, logits, record.logits, E);
    want(Field::selection, selection, record.selection, E);
    want(Field::probabilities, probabilities, record.probabilities, E);
    want(Field::vectors, vectorsR, record.routingVectors, E * D);
    want(Field::vectors, vectorsE, record.expressionVectors, E * D);
    if (m_spec.holds(Field::gru) || m_spec.holds(Field::gruPca)) {
        if (gru.defined())
            wide.push_back({&gru, &record.gruState, Field::gru, rows * E * D});
    }
    if (input.defined())
        wide.push_back({&input, &record.hiddenStates, Field::hidden, rows * H});
    if (outputs.defined())
        wide.push_back({&outputs, &record.expertOutputs, Field::expertOutputs, rows * K * H});
    for (Wide &w : wide)
        w.offset = packer.plan(w.count * 4);
    const bool wantsEntropy = m_spec.holds(Field::entropy) && probabilities.defined();
    const std::size_t atEntropy = packer.plan(wantsEntropy ? rows * 4 : 0);
    // A transport over a whole batch is one entry, with the batch's first sequence.
    const bool transport = m_spec.holds(Field::sinkhorn) && step.violation >= 0 && step.potentials.defined() && first == l.firstRow;
    const std::size_t atPotentials = packer.plan(transport ? E * 4 : 0);
    packer.allocate();

    const torch::Tensor ids = widened(host(step.experts.narrow(0, from, n), torch::kLong), m_spec.slots, -1);
    const torch::Tensor weights = widened(slice(step.weights), m_spec.slots, 0);
    const std::int64_t *idData = ids.data_ptr<std::int64_t>();
    auto *experts = packer.at<std::uint16_t>(atExperts);
    for (std::size_t i = 0; i < rows * K; ++i)
        experts[i] = idData[i] < 0 ? kNoExpert : static_cast<std::uint16_t>(idData[i]);
    std::memcpy(packer.at<float>(atWeights), weights.data_ptr<float>(), rows * K * 4);
    record.expertIds = {experts, rows * K};
    record.weights = {packer.at<float>(atWeights), rows * K};
    record.present = bit(Field::experts) | bit(Field::weights);
    if (m_spec.holds(Field::dropped)) {
        auto *dropped = packer.at<std::uint8_t>(atDropped);
        if (step.dropped.defined())
            std::memcpy(dropped, host(step.dropped.narrow(0, from, n), torch::kUInt8).data_ptr<std::uint8_t>(), rows);
        record.dropped = {dropped, rows};
        record.present |= bit(Field::dropped);
    }
    for (const Wide &w : wide) {
        std::memcpy(packer.at<float>(w.offset), w.tensor->data_ptr<float>(), w.count * 4);
        *w.span = {packer.at<float>(w.offset), w.count};
        record.present |= bit(w.field);
    }
    if (gru.defined() && m_spec.holds(Field::gruPca))
        record.present |= bit(Field::gruPca);
    if (wantsEntropy) {
        auto *entropy = packer.at<float>(atEntropy);
        const float *p = probabilities.data_ptr<float>();
        for (std::size_t r = 0; r < rows; ++r) {
            double h = 0;
            for (std::size_t e = 0; e < E; ++e) {
                const double q = static_cast<double>(p[r * E + e]);
                h -= q > 0 ? q * std::log(q) : 0;
            }
            entropy[r] = static_cast<float>(h);
        }
        record.entropy = {entropy, rows};
        record.present |= bit(Field::entropy);
    }
    if (transport) {
        std::memcpy(packer.at<float>(atPotentials), host(step.potentials, torch::kFloat32).data_ptr<float>(), E * 4);
        record.sinkhornPotentials = {packer.at<float>(atPotentials), E};
        record.sinkhornViolation = static_cast<float>(step.violation);
        record.present |= bit(Field::sinkhorn);
    }
    record.buffer = packer.buffer();
    if (m_keepTop)
        for (std::size_t r = 0; r < rows; ++r)
            m_top[static_cast<std::size_t>(first) + r][static_cast<std::size_t>(l.ordinal)] = experts[r * K];
    if (m_live != nullptr)
        m_live->addRouting(record);
    if (m_writer != nullptr)
        fail(m_writer->addRouting(std::move(record)));
}

Result<void> Recorder::tokens(TokenRecord record)
{
    for (OpenSequence &s : m_open)
        if (s.number == record.sequence) {
            s.done += static_cast<std::int64_t>(record.id.size());
            s.counted += std::count(record.mask.begin(), record.mask.end(), 1);
        }
    if (m_live != nullptr)
        m_live->addTokens(record);
    if (m_writer != nullptr)
        SPECTRA_CHECK(m_writer->addTokens(std::move(record)));
    return {};
}

void Recorder::setMask(std::int32_t sequence, std::vector<std::uint8_t> mask)
{
    for (OpenSequence &s : m_open)
        if (s.number == sequence)
            s.mask = std::move(mask);
}

Result<void> Recorder::end(std::int32_t number, SequenceInfo info)
{
    const auto found = std::find_if(m_open.begin(), m_open.end(), [&](const OpenSequence &s) { return s.number == number; });
    if (found == m_open.end())
        return bugError("a sequence ended that was not open", "recorder");
    info.counted = static_cast<std::int32_t>(found->counted);
    if (m_spec.holds(Field::means)) {
        const auto mean = [&](const std::vector<double> &sum) {
            std::vector<float> out(sum.size());
            for (std::size_t j = 0; j < sum.size(); ++j)
                out[j] = found->counted > 0 ? static_cast<float>(sum[j] / static_cast<double>(found->counted)) : 0.f;
            return out;
        };
        for (int l = 0; l < m_spec.layers(); ++l) {
            SequenceMeans means;
            means.layer = l;
            means.sequence = number;
            means.routing = mean(found->routing[static_cast<std::size_t>(l)]);
            means.expression = mean(found->expression[static_cast<std::size_t>(l)]);
            if (m_live != nullptr)
                m_live->addSequenceMeans(means);
            if (m_writer != nullptr)
                SPECTRA_CHECK(m_writer->addSequenceMeans(std::move(means)));
        }
    }
    if (m_writer != nullptr && m_open.size() == 1 && m_writer->wantsExpertSums())
        SPECTRA_CHECK(m_writer->addExpertSums(tables()));
    if (m_live != nullptr)
        m_live->endSequence(number, info);
    if (m_writer != nullptr)
        SPECTRA_CHECK(m_writer->endSequence(number, std::move(info)));
    m_open.erase(found);
    return status();
}

Result<void> Recorder::status() const
{
    return m_status;
}

std::vector<LayerTables> Recorder::tables() const
{
    std::vector<LayerTables> tables;
    const Router *router = m_model.router();
    if (router == nullptr)
        return tables;
    const auto buffers = router->buffers();
    const auto values = [](const torch::Tensor &t) {
        const torch::Tensor h = host(t, torch::kFloat32);
        return std::vector<float>(h.data_ptr<float>(), h.data_ptr<float>() + h.numel());
    };
    for (int l = 0; l < m_spec.layers(); ++l) {
        LayerTables t;
        t.layer = l;
        const std::string prefix = "model.layers." + std::to_string(m_spec.decoderIndex[static_cast<std::size_t>(l)]) + ".mlp.router.";
        if (const auto b = buffers.find(prefix + "mean_expression"); b != buffers.end() && m_spec.holds(Field::buffers))
            t.bufferMeanExpression = values(b->second);
        if (const auto b = buffers.find(prefix + "potential"); b != buffers.end() && m_spec.holds(Field::buffers))
            t.bufferPotential = values(b->second);
        if (const torch::Tensor w = router->linearWeights(l); w.defined() && m_spec.holds(Field::routerWeights))
            t.routerWeights = values(w);
        if (static_cast<std::size_t>(l) < m_sums.size() && m_sums[static_cast<std::size_t>(l)].input.defined()) {
            const ExpertSums &s = m_sums[static_cast<std::size_t>(l)];
            const torch::Tensor in = host(s.input, torch::kFloat64), outSum = host(s.output, torch::kFloat64);
            t.expertInputSum.assign(in.data_ptr<double>(), in.data_ptr<double>() + in.numel());
            t.expertOutputSum.assign(outSum.data_ptr<double>(), outSum.data_ptr<double>() + outSum.numel());
            t.expertCount = s.count;
        }
        tables.push_back(std::move(t));
    }
    return tables;
}

} // namespace spectra
