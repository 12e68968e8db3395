// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/synthetictrace.h"

#include "engine/core/random.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace spectra {
namespace {

constexpr const char *kWords[] = {" the", " of", " routing", "\n", " expert", " tokens", " x", " =", " 1", ".", " naïve", " 한국", " 😀", " layer", ",", " f("};

/// Lays out the arrays of a record in one shared buffer.
class RecordBuilder {
public:
    explicit RecordBuilder(std::size_t bytes) : m_buffer(std::make_shared<std::vector<std::byte>>(bytes)) {}
    template <typename T> std::span<T> take(std::size_t n)
    {
        m_used = (m_used + alignof(T) - 1) / alignof(T) * alignof(T);
        auto *const at = reinterpret_cast<T *>(m_buffer->data() + m_used);
        m_used += n * sizeof(T);
        return {at, n};
    }
    std::shared_ptr<const std::vector<std::byte>> buffer() const { return m_buffer; }

private:
    std::shared_ptr<std::vector<std::byte>> m_buffer;
    std::size_t m_used = 0;
};

std::uint64_t mix(std::uint64_t a, std::uint64_t b, std::uint64_t c = 0, std::uint64_t d = 0)
{
    std::uint64_t h = a * 0x9E3779B97F4A7C15ull ^ (b + 0x632BE59BD9B4E019ull) * 0xD1342543DE82EF95ull ^ (c + 1) * 0xBF58476D1CE4E5B9ull
        ^ (d + 7) * 0x94D049BB133111EBull;
    h ^= h >> 29;
    h *= 0xBF58476D1CE4E5B9ull;
    return h ^ (h >> 32);
}

} // namespace

SyntheticRun::SyntheticRun(const SyntheticOptions &options) : m_options(options)
{
    Random random(options.seed);
    m_offsets.push_back(0);
    while (m_offsets.back() < options.tokens) {
        const auto spread = static_cast<std::uint64_t>(std::max<std::int64_t>(1, options.sequenceLength * 4 / 5));
        const std::int64_t length = std::max<std::int64_t>(2, options.sequenceLength * 3 / 5 + static_cast<std::int64_t>(random.below(spread)));
        m_lengths.push_back(length);
        m_offsets.push_back(m_offsets.back() + length);
    }
    for (int l = 0; l < options.layers; ++l)
        m_spec.decoderIndex.push_back(l + options.denseLayers);
    for (int l = 0; l < options.denseLayers; ++l)
        m_spec.denseIndex.push_back(l);
    m_spec.experts = options.layers > 0 ? options.experts : 0;
    m_spec.slots = options.layers > 0 ? options.slots : 0;
    m_spec.routerDim = options.linearRouter ? 0 : options.routerDim;
    m_spec.hidden = options.hidden;
    m_spec.capture = options.capture;
    const FieldMask spectraOnly = bit(Field::means) | bit(Field::buffers) | bit(Field::vectors) | bit(Field::gru) | bit(Field::gruPca) | bit(Field::selection);
    m_spec.available &= options.linearRouter ? ~spectraOnly : ~bit(Field::routerWeights);
    if (!options.transport)
        m_spec.available &= ~bit(Field::sinkhorn);
    m_spec.f16 = options.f16;
    m_spec.compress = options.compress;
    m_spec.live = options.live;
    m_spec.hiddenTokens = options.hiddenTokens;
    m_spec.seed = options.seed;
    m_spec.plannedLengths = m_lengths;
    m_spec.flushSeconds = options.flushSeconds;
    m_spec.generator = "synthetic";
    ModelAttributes &model = m_spec.model;
    model.name = "synthetic";
    model.architecture = "llama";
    model.router = options.linearRouter ? "softmax_topk" : "spectra";
    model.config = R"({"model_type": "synthetic"})";
    model.dtype = "float32";
    model.device = "cpu";
    model.layers = options.layers + options.denseLayers;
    model.scoreFunction = options.linearRouter ? "softmax" : "osr";
    model.seed = static_cast<std::int64_t>(options.seed);
    if (!options.linearRouter) {
        model.sinkhornScope = options.transport ? "sequence" : "causal";
        model.causal = !options.transport;
        model.sinkhornEpsilon = 0.05;
        model.sinkhornIterations = 3;
        model.repulsionWeight = 0.1;
        model.gruAxis = "sequence";
    }
    model.note = "synthetic values, no model was run";
    m_spec.environment.version = "0";
    m_spec.environment.system = "test";
    m_spec.environment.threads = 1;
}

SequenceInfo SyntheticRun::info(std::int64_t sequence) const
{
    const auto s = static_cast<std::size_t>(sequence);
    SequenceInfo info;
    info.id = "synthetic:" + std::to_string(sequence + 1);
    info.domain = m_options.domains.empty() ? "" : m_options.domains[s % m_options.domains.size()];
    info.label = s % 2 == 0 ? "even" : "odd";
    info.offset = m_offsets[s];
    info.length = m_lengths[s];
    info.promptLength = static_cast<std::int32_t>(m_lengths[s] - m_lengths[s] / 4);
    info.counted = static_cast<std::int32_t>(m_lengths[s] - 1);
    const TokenRecord all = tokens(sequence, 0, m_lengths[s]);
    for (std::size_t i = 1; i < all.text.size(); ++i)
        info.text += all.text[i];
    return info;
}

TokenRecord SyntheticRun::tokens(std::int64_t sequence, std::int64_t from, std::int64_t to) const
{
    const auto s = static_cast<std::size_t>(sequence);
    TokenRecord r;
    r.firstToken = m_offsets[s] + from;
    r.sequence = static_cast<std::int32_t>(sequence);
    std::int32_t byte = 0;
    for (std::int64_t p = 0; p < to; ++p) {
        const std::uint64_t h = mix(m_options.seed, s, static_cast<std::uint64_t>(p));
        const std::size_t word = h % std::size(kWords);
        const std::string text = p == 0 ? "<s>" : kWords[word];
        if (p >= from) {
            r.id.push_back(p == 0 ? 1 : static_cast<std::int32_t>(word) + 10);
            r.text.push_back(text);
            r.position.push_back(static_cast<std::int32_t>(p));
            r.phase.push_back(p >= m_lengths[s] - m_lengths[s] / 4 ? 1 : 0);
            r.mask.push_back(p == 0 ? 0 : 1);
            r.byteOffset.push_back(byte);
            r.nll.push_back(p + 1 == m_lengths[s] ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(h >> 40) * 0x1.0p-22F);
            r.nextTop1.push_back(static_cast<std::int32_t>((h >> 20) % std::size(kWords)) + 10);
        }
        byte += p == 0 ? 0 : static_cast<std::int32_t>(text.size());
    }
    return r;
}

/// The expert that a place prefers: of its domain mostly, the same for runs of about four tokens.
int SyntheticRun::expertOf(std::int64_t sequence, int layer, std::int64_t position) const
{
    const auto domain = static_cast<std::uint64_t>(sequence) % std::max<std::size_t>(1, m_options.domains.size());
    const std::uint64_t h = mix(m_options.seed + 5, static_cast<std::uint64_t>(sequence), static_cast<std::uint64_t>(layer), static_cast<std::uint64_t>(position / 4));
    const auto E = static_cast<std::uint64_t>(m_options.experts);
    return static_cast<int>(h % 3 == 0 ? h / 3 % E : (domain * 3 + static_cast<std::uint64_t>(layer) + h / 3 % 2) % E);
}

RoutingRecord SyntheticRun::routing(std::int64_t sequence, int layer, std::int64_t from, std::int64_t to, bool sampled) const
{
    const Capture &c = m_options.capture;
    const auto holds = [&](Field f) { return m_spec.holds(f); };
    RoutingRecord r;
    r.layer = layer;
    r.decoderLayer = layer + m_options.denseLayers;
    r.firstToken = m_offsets[static_cast<std::size_t>(sequence)] + from;
    r.tokens = to - from;
    r.experts = m_spec.experts;
    r.slots = m_spec.slots;
    r.routerDim = m_spec.routerDim;
    r.hidden = m_spec.hidden;
    const auto n = static_cast<std::size_t>(to - from), E = static_cast<std::size_t>(r.experts), k = static_cast<std::size_t>(r.slots),
               D = static_cast<std::size_t>(r.routerDim), H = static_cast<std::size_t>(r.hidden);
    RecordBuilder build(n * (k * 6 + 5 + E * 12 + E * D * 12 + H * 4 + k * H * 4) + E * 4 + 256);
    const auto ids = build.take<std::uint16_t>(n * k);
    const auto weights = build.take<float>(n * k), logits = build.take<float>(n * E), selection = build.take<float>(n * E),
               probabilities = build.take<float>(n * E), entropy = build.take<float>(n);
    const auto dropped = build.take<std::uint8_t>(n);
    const bool vectors = D > 0 && holds(Field::vectors), states = D > 0 && (holds(Field::gru) || holds(Field::gruPca));
    const auto routing = build.take<float>(vectors ? n * E * D : 0), expression = build.take<float>(vectors ? n * E * D : 0),
               gru = build.take<float>(states ? n * E * D : 0), hidden = build.take<float>(sampled && holds(Field::hidden) ? n * H : 0),
               outputs = build.take<float>(sampled && holds(Field::expertOutputs) ? n * k * H : 0), potentials = build.take<float>(E);
    for (std::size_t i = 0; i < n; ++i) {
        const std::int64_t position = from + static_cast<std::int64_t>(i);
        Random random(mix(m_options.seed + 9, static_cast<std::uint64_t>(sequence), static_cast<std::uint64_t>(layer), static_cast<std::uint64_t>(position)));
        const auto favourite = static_cast<std::size_t>(expertOf(sequence, layer, position));
        double sum = 0;
        for (std::size_t e = 0; e < E; ++e) {
            const double score = 0.6 * (2 * random.uniform() - 1) + (e == favourite ? 0.35 : 0);
            logits[i * E + e] = static_cast<float>(score);
            selection[i * E + e] = static_cast<float>(score * 5);
            probabilities[i * E + e] = static_cast<float>(std::exp(score * 5));
            sum += double(probabilities[i * E + e]);
        }
        double h = 0;
        for (std::size_t e = 0; e < E; ++e) {
            const double p = double(probabilities[i * E + e]) / sum;
            probabilities[i * E + e] = static_cast<float>(p);
            h -= p * std::log(p);
        }
        entropy[i] = static_cast<float>(h);
        std::vector<std::size_t> order(E);
        std::iota(order.begin(), order.end(), std::size_t(0));
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return probabilities[i * E + a] > probabilities[i * E + b]; });
        double chosen = 0;
        for (std::size_t j = 0; j < k; ++j)
            chosen += double(probabilities[i * E + order[j]]);
        for (std::size_t j = 0; j < k; ++j) {
            ids[i * k + j] = static_cast<std::uint16_t>(order[j]);
            weights[i * k + j] = static_cast<float>(double(probabilities[i * E + order[j]]) / chosen);
        }
        dropped[i] = 0;
        if (k > 1 && random.below(50) == 0) {
            ids[i * k + k - 1] = kNoExpert;
            weights[i * k + k - 1] = 0;
            dropped[i] = 1;
        }
        for (std::size_t x = 0; x < routing.size() / n; ++x) {
            const double centre = std::sin(0.7 * double(x) + double(layer));
            routing[i * E * D + x] = static_cast<float>(centre + 0.3 * (random.uniform() - 0.5));
            expression[i * E * D + x] = static_cast<float>(1.5 * centre + 0.5 * (random.uniform() - 0.5));
        }
        // Few directions of large variance, so that the principal axes are well defined.
        const double a = std::sin(0.05 * double(position) + double(sequence)), b = std::cos(0.11 * double(position));
        for (std::size_t x = 0; x < gru.size() / n; ++x)
            gru[i * E * D + x] = static_cast<float>(a * std::sin(0.3 * double(x)) + 0.5 * b * std::cos(0.9 * double(x)) + 0.05 * (random.uniform() - 0.5));
        for (std::size_t x = 0; x < hidden.size() / n; ++x)
            hidden[i * H + x] = static_cast<float>(random.uniform() + std::sin(double(favourite * 13 + x)));
        for (std::size_t x = 0; x < outputs.size() / n; ++x)
            outputs[i * k * H + x] = static_cast<float>(random.uniform() - 0.5);
    }
    r.buffer = build.buffer();
    const auto give = [&](Field f, auto &to_, auto values) {
        if (holds(f) && !values.empty()) {
            to_ = values;
            r.present |= bit(f);
        }
    };
    give(Field::experts, r.expertIds, ids);
    give(Field::weights, r.weights, weights);
    give(Field::dropped, r.dropped, dropped);
    give(Field::logits, r.logits, logits);
    give(Field::selection, r.selection, selection);
    give(Field::probabilities, r.probabilities, probabilities);
    give(Field::entropy, r.entropy, entropy);
    give(Field::vectors, r.routingVectors, routing);
    give(Field::vectors, r.expressionVectors, expression);
    if (states) {
        r.gruState = gru;
        r.present |= c.fields & (bit(Field::gru) | bit(Field::gruPca));
    }
    give(Field::hidden, r.hiddenStates, hidden);
    give(Field::expertOutputs, r.expertOutputs, outputs);
    if (holds(Field::sinkhorn) && from == 0) {
        r.sinkhornViolation = 0.01F * static_cast<float>(layer + 1) + 0.001F * static_cast<float>(sequence % 7);
        for (std::size_t e = 0; e < E; ++e)
            potentials[e] = std::sin(static_cast<float>(e) + static_cast<float>(layer));
        r.sinkhornPotentials = potentials;
        r.present |= bit(Field::sinkhorn);
    }
    return r;
}

RoutingRecord SyntheticRun::dense(std::int64_t sequence, int layer, std::int64_t from, std::int64_t to) const
{
    RoutingRecord r;
    r.layer = layer;
    r.decoderLayer = layer;
    r.firstToken = m_offsets[static_cast<std::size_t>(sequence)] + from;
    r.tokens = to - from;
    r.hidden = m_spec.hidden;
    const auto n = static_cast<std::size_t>(to - from), H = static_cast<std::size_t>(r.hidden);
    RecordBuilder build(n * H * 4 + 64);
    const auto hidden = build.take<float>(n * H);
    for (std::size_t i = 0; i < n; ++i) {
        Random random(mix(m_options.seed + 77, static_cast<std::uint64_t>(sequence), static_cast<std::uint64_t>(layer), static_cast<std::uint64_t>(from) + i));
        for (std::size_t x = 0; x < H; ++x)
            hidden[i * H + x] = static_cast<float>(random.uniform() - 0.5);
    }
    r.buffer = build.buffer();
    r.hiddenStates = hidden;
    r.present = bit(Field::dense);
    return r;
}

SequenceMeans SyntheticRun::means(std::int64_t sequence, int layer) const
{
    SequenceMeans m;
    m.layer = layer;
    m.sequence = static_cast<std::int32_t>(sequence);
    const auto size = static_cast<std::size_t>(m_spec.experts) * static_cast<std::size_t>(m_spec.routerDim);
    Random random(mix(m_options.seed + 21, static_cast<std::uint64_t>(sequence), static_cast<std::uint64_t>(layer)));
    for (std::size_t x = 0; x < size; ++x) {
        const double centre = std::sin(0.7 * double(x) + double(layer));
        m.routing.push_back(static_cast<float>(centre + 0.1 * (random.uniform() - 0.5)));
        m.expression.push_back(static_cast<float>(1.5 * centre + 0.1 * (random.uniform() - 0.5)));
    }
    return m;
}

void SyntheticRun::addSums(std::int64_t sequence, std::vector<LayerTables> &sums) const
{
    const auto E = static_cast<std::size_t>(m_spec.experts), H = static_cast<std::size_t>(m_spec.hidden);
    sums.resize(static_cast<std::size_t>(m_spec.layers()));
    for (std::size_t l = 0; l < sums.size(); ++l) {
        LayerTables &t = sums[l];
        t.layer = static_cast<int>(l);
        t.expertInputSum.resize(E * H);
        t.expertOutputSum.resize(E * H);
        t.expertCount.resize(E);
        Random random(mix(m_options.seed + 33, static_cast<std::uint64_t>(sequence), l));
        for (std::size_t e = 0; e < E; ++e) {
            const auto count = static_cast<std::int64_t>(random.below(20));
            t.expertCount[e] += count;
            for (std::size_t x = 0; x < H; ++x) {
                t.expertInputSum[e * H + x] += double(count) * (random.uniform() + std::sin(double(e * 13 + x)));
                t.expertOutputSum[e * H + x] += double(count) * (random.uniform() - 0.5);
            }
        }
    }
}

std::vector<LayerTables> SyntheticRun::tables(const std::vector<LayerTables> &sums) const
{
    const auto E = static_cast<std::size_t>(m_spec.experts), D = static_cast<std::size_t>(m_spec.routerDim), H = static_cast<std::size_t>(m_spec.hidden);
    std::vector<LayerTables> out = sums;
    out.resize(static_cast<std::size_t>(m_spec.layers()));
    for (std::size_t l = 0; l < out.size(); ++l) {
        LayerTables &t = out[l];
        t.layer = static_cast<int>(l);
        Random random(mix(m_options.seed + 41, l));
        if (m_spec.holds(Field::routerWeights))
            for (std::size_t x = 0; x < E * H; ++x)
                t.routerWeights.push_back(static_cast<float>(random.normal()));
        if (m_spec.holds(Field::buffers) && D > 0) {
            for (std::size_t x = 0; x < E * D; ++x)
                t.bufferMeanExpression.push_back(static_cast<float>(random.normal()));
            for (std::size_t e = 0; e < E; ++e)
                t.bufferPotential.push_back(static_cast<float>(random.normal()));
        }
    }
    return out;
}

Result<void> SyntheticRun::feed(TraceWriter &writer, std::int64_t sequence, std::vector<LayerTables> &sums) const
{
    const SequenceInfo whole = info(sequence);
    SequenceInfo begin = whole; // as in a run that generates: only the prompt is known
    begin.text = whole.text.substr(0, whole.text.find('\n'));
    SPECTRA_CHECK(writer.beginSequence(begin));
    const bool sampled = writer.wantsHidden(static_cast<std::int32_t>(sequence), whole.length);
    for (std::int64_t from = 0; from < whole.length; from += m_options.recordTokens) {
        const std::int64_t to = std::min<std::int64_t>(whole.length, from + m_options.recordTokens);
        for (int layer = 0; layer < m_spec.layers(); ++layer)
            SPECTRA_CHECK(writer.addRouting(routing(sequence, layer, from, to, sampled)));
        for (int layer = 0; sampled && layer < m_options.denseLayers && m_spec.holds(Field::dense); ++layer)
            SPECTRA_CHECK(writer.addDense(dense(sequence, layer, from, to)));
        SPECTRA_CHECK(writer.addTokens(tokens(sequence, from, to)));
    }
    if (m_spec.holds(Field::means) || m_spec.holds(Field::gram))
        for (int layer = 0; layer < m_spec.layers() && m_spec.routerDim > 0; ++layer)
            SPECTRA_CHECK(writer.addSequenceMeans(means(sequence, layer)));
    addSums(sequence, sums);
    if (writer.wantsExpertSums())
        SPECTRA_CHECK(writer.addExpertSums(sums));
    return writer.endSequence(static_cast<std::int32_t>(sequence), whole);
}

Result<void> writeSyntheticTrace(const std::filesystem::path &path, const SyntheticOptions &options)
{
    const SyntheticRun run(options);
    SPECTRA_TRY(const std::unique_ptr<TraceWriter> writer, TraceWriter::create(path, run.spec(), true));
    std::vector<LayerTables> sums;
    for (std::int64_t s = 0; s < run.sequences(); ++s)
        SPECTRA_CHECK(run.feed(*writer, s, sums));
    return writer->finish(run.tables(sums), 1.5);
}

} // namespace spectra
