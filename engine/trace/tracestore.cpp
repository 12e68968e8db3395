// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/tracestore.h"

#include "engine/core/files.h"
#include "engine/trace/half.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace spectra {
using schema::Dataset;

namespace {
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Text as it can stand in a file: valid UTF-8 without U+0000.
std::string storable(const std::string &text)
{
    std::size_t at = 0;
    while (at < text.size()) {
        const int n = text[at] == '\0' ? 0 : utf8Length(text, at);
        if (n <= 0)
            return printableUtf8(text);
        at += static_cast<std::size_t>(n);
    }
    return text;
}
} // namespace

TraceStore::~TraceStore() = default;

TokenColumn *TraceStore::column(Dataset d)
{
    const auto it = m_columns.find(d);
    return it != m_columns.end() ? &it->second : nullptr;
}

Result<void> TraceStore::beginSequence(const SequenceInfo &info, bool sampled)
{
    const std::int64_t row = m_sequences;
    Sequence sequence;
    sequence.info = info;
    sequence.sampled = sampled;
    SPECTRA_CHECK(setSequences(row + 1));
    SPECTRA_CHECK(writeSequenceRow(row, info, true, true));
    m_open.emplace(static_cast<std::int32_t>(row), std::move(sequence));
    m_sequences = row + 1;
    return {};
}

Result<void> TraceStore::writeSequenceRow(std::int64_t row, const SequenceInfo &info, bool begins, bool textChanged)
{
    if (m_spec.live) {
        if (static_cast<std::int64_t>(m_lateTexts.size()) <= row)
            m_lateTexts.resize(static_cast<std::size_t>(row) + 1);
        m_lateTexts[static_cast<std::size_t>(row)] = info;
    } else {
        const auto put = [&](Dataset d, const std::string &text) {
            const std::string value = storable(text);
            return h5::writeText(data(d), row, std::span<const std::string>(&value, 1));
        };
        if (begins) {
            SPECTRA_CHECK(put(Dataset::sequenceId, info.id));
            SPECTRA_CHECK(put(Dataset::sequenceDomain, info.domain));
            SPECTRA_CHECK(put(Dataset::sequenceLabel, info.label));
        }
        if (textChanged)
            SPECTRA_CHECK(put(Dataset::sequenceText, info.text));
    }
    const std::int64_t edges[] = {info.offset, info.offset + std::max<std::int64_t>(0, info.length)};
    SPECTRA_CHECK(h5::writeSlab(data(Dataset::sequenceOffset), {row}, {2}, h5::Type::i64, edges));
    return h5::writeSlab(data(Dataset::sequencePrompt), {row}, {1}, h5::Type::i32, &info.promptLength);
}

Result<void> TraceStore::endSequence(std::int32_t sequence, const SequenceInfo &info)
{
    const auto it = m_open.find(sequence);
    if (it == m_open.end())
        return bugError("sequence " + std::to_string(sequence) + " ended without a beginning", "trace");
    Sequence &s = it->second;
    SPECTRA_CHECK(writeSequenceRow(sequence, info, false, info.text != s.info.text));
    SPECTRA_CHECK(h5::writeSlab(data(Dataset::sequenceCounted), {sequence}, {1}, h5::Type::i32, &s.counted));
    s.info = info;
    s.info.text.clear();
    s.ended = true;
    return advanceWhole();
}

Result<void> TraceStore::addSequenceMeans(SequenceMeans means)
{
    const auto it = m_open.find(means.sequence);
    if (it == m_open.end() || means.layer < 0 || means.layer >= m_spec.layers())
        return bugError("means of a sequence that is not open", "trace");
    const auto size = static_cast<std::size_t>(m_spec.experts) * static_cast<std::size_t>(m_spec.routerDim);
    if ((!means.routing.empty() && means.routing.size() != size) || (!means.expression.empty() && means.expression.size() != size))
        return bugError("sequence means have another size than [E,D]", "trace");
    it->second.means[means.layer] = std::move(means);
    return {};
}

Result<void> TraceStore::addExpertSums(std::vector<LayerTables> sums)
{
    // They belong to the sequence that ends next: the first that has not ended.
    for (auto &[index, sequence] : m_open) {
        if (!sequence.ended) {
            sequence.sums = std::move(sums);
            break;
        }
    }
    return {};
}

/// Takes the sequences that have ended, in order, into the sums of the run.
Result<void> TraceStore::advanceWhole()
{
    for (auto it = m_open.find(static_cast<std::int32_t>(m_nextWhole)); it != m_open.end() && it->second.ended;
         it = m_open.find(static_cast<std::int32_t>(m_nextWhole))) {
        Sequence &s = it->second;
        const auto cell = static_cast<std::size_t>(m_spec.experts) * static_cast<std::size_t>(m_spec.routerDim);
        const std::size_t half = cell * static_cast<std::size_t>(m_spec.layers());
        for (const auto &[layer, means] : s.means) {
            for (const bool expression : {false, true}) {
                const std::vector<float> &values = expression ? means.expression : means.routing;
                if (values.empty())
                    continue;
                const Dataset d = expression ? Dataset::expressionSequenceMeans : Dataset::routingSequenceMeans;
                if (has(d))
                    SPECTRA_CHECK(h5::writeSlab(data(d), {layer, m_nextWhole, 0, 0}, {1, 1, m_spec.experts, m_spec.routerDim}, h5::Type::f32, values.data()));
                if (m_now.meanSums.empty() || s.counted == 0)
                    continue;
                double *sum = m_now.meanSums.data() + (expression ? half : 0) + static_cast<std::size_t>(layer) * cell;
                for (std::size_t i = 0; i < cell; ++i)
                    sum[i] += double(s.counted) * double(values[i]);
            }
        }
        m_now.counted += s.counted;
        m_now.sequences = m_nextWhole + 1;
        m_now.tokens = s.info.offset + s.info.length;
        if (s.sums)
            m_now.sums = std::move(*s.sums);
        const bool point = s.sums.has_value() || !m_spec.holds(Field::expertMeans) || m_spec.layers() == 0;
        if (point) {
            // Of the points between two possible commits only the last can ever be used.
            const std::int64_t block = std::max<std::int64_t>(m_block, 256);
            if (!m_points.empty() && (m_points.back().tokens + block - 1) / block == (m_now.tokens + block - 1) / block)
                m_points.pop_back();
            m_points.push_back(m_now);
        }
        m_now.sums.clear();
        m_open.erase(it);
        ++m_nextWhole;
    }
    return {};
}

Result<void> TraceStore::addTokens(TokenRecord record)
{
    const auto n = static_cast<std::int64_t>(record.id.size());
    const std::int64_t first = record.firstToken;
    if (n == 0)
        return {};
    const auto it = m_open.find(record.sequence);
    if (it == m_open.end())
        return bugError("tokens of a sequence that is not open", "trace");
    const auto fits = [n](const auto &v) { return v.empty() || static_cast<std::int64_t>(v.size()) == n; };
    if (!fits(record.text) || !fits(record.position) || !fits(record.phase) || !fits(record.mask) || !fits(record.byteOffset)
        || !fits(record.nll) || !fits(record.nextTop1) || first < m_textBase)
        return bugError("a token record whose columns differ in length or that was written already", "trace");
    record.mask.resize(static_cast<std::size_t>(n), 1);
    record.phase.resize(static_cast<std::size_t>(n), 0);
    for (const std::uint8_t counted : record.mask)
        it->second.counted += counted != 0 ? 1 : 0;
    const std::vector<std::int32_t> sequence(static_cast<std::size_t>(n), record.sequence);
    const auto put = [&](Dataset d, const auto &values) -> Result<void> {
        TokenColumn *const c = column(d);
        return c != nullptr ? c->put(0, first, n, std::as_bytes(std::span(values))) : Result<void>();
    };
    SPECTRA_CHECK(put(Dataset::tokenId, record.id));
    SPECTRA_CHECK(put(Dataset::tokenSequence, sequence));
    SPECTRA_CHECK(put(Dataset::tokenPosition, record.position));
    SPECTRA_CHECK(put(Dataset::tokenPhase, record.phase));
    SPECTRA_CHECK(put(Dataset::tokenMask, record.mask));
    SPECTRA_CHECK(put(Dataset::tokenByte, record.byteOffset));
    SPECTRA_CHECK(put(Dataset::tokenNll, record.nll));
    SPECTRA_CHECK(put(Dataset::tokenNext, record.nextTop1));
    const auto at = static_cast<std::size_t>(first - m_textBase);
    if (m_texts.size() < at + static_cast<std::size_t>(n))
        m_texts.resize(at + static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < record.text.size(); ++i)
        m_texts[at + i] = storable(record.text[i]);
    if (!m_fitted && has(Dataset::gruPca)) {
        if (static_cast<std::int64_t>(m_masks.size()) < first + n)
            m_masks.resize(static_cast<std::size_t>(first + n), 0);
        std::copy(record.mask.begin(), record.mask.end(), m_masks.begin() + first);
    }
    m_tokenCoverage.add(first, first + n);
    return fitStates(false);
}

void TraceStore::addSampled(Sampled &sampled, int layer, std::int64_t first, std::int64_t n, std::span<const float> values)
{
    if (values.empty() || n == 0)
        return;
    std::vector<std::byte> rows(static_cast<std::size_t>(n * sampled.width) * h5::sizeOf(sampled.type));
    if (sampled.type == h5::Type::f16)
        toHalf(values, reinterpret_cast<std::uint16_t *>(rows.data()));
    else
        std::memcpy(rows.data(), values.data(), rows.size());
    sampled.pieces[static_cast<std::size_t>(layer)][first] = std::move(rows);
    sampled.coverage[static_cast<std::size_t>(layer)].add(first, first + n);
}

Result<void> TraceStore::addRouting(const RoutingRecord &record)
{
    const std::int64_t n = record.tokens, first = record.firstToken;
    const int layer = record.layer;
    if (layer < 0 || layer >= m_spec.layers() || n < 0 || first < 0)
        return bugError("a routing record outside the trace", "trace");
    if (n == 0)
        return {};
    const auto put = [&](Dataset d, auto values) -> Result<void> {
        TokenColumn *const c = column(d);
        if (c == nullptr)
            return {};
        if constexpr (std::is_same_v<decltype(values), std::span<const float>>)
            return c->putFloats(layer, first, n, values);
        else
            return c->put(layer, first, n, std::as_bytes(values));
    };
    SPECTRA_CHECK(put(Dataset::experts, record.expertIds));
    SPECTRA_CHECK(put(Dataset::weights, record.weights));
    SPECTRA_CHECK(put(Dataset::dropped, record.dropped));
    SPECTRA_CHECK(put(Dataset::logits, record.logits));
    SPECTRA_CHECK(put(Dataset::selection, record.selection));
    SPECTRA_CHECK(put(Dataset::probabilities, record.probabilities));
    SPECTRA_CHECK(put(Dataset::entropy, record.entropy));
    SPECTRA_CHECK(put(Dataset::routingVectors, record.routingVectors));
    SPECTRA_CHECK(put(Dataset::expressionVectors, record.expressionVectors));
    SPECTRA_CHECK(put(Dataset::gru, record.gruState));
    for (Sampled &sampled : m_sampled) {
        const std::span<const float> values = sampled.values == Dataset::hiddenValues ? record.hiddenStates
            : sampled.values == Dataset::outputValues                                 ? record.expertOutputs
                                                                                      : std::span<const float>();
        if (!values.empty() && static_cast<std::int64_t>(values.size()) != n * sampled.width)
            return bugError("a record has another width than the trace", schema::rule(sampled.values).path);
        addSampled(sampled, layer, first, n, values);
    }
    if (has(Dataset::sinkhornViolation) && (record.sinkhornViolation >= 0 || !record.sinkhornPotentials.empty())) {
        const auto L = static_cast<std::size_t>(m_spec.layers()), E = static_cast<std::size_t>(m_spec.experts);
        Batch &batch = m_waitingBatches[first];
        batch.end = std::max(batch.end, first + n);
        batch.violation.resize(L, kNan);
        batch.potentials.resize(L * E, kNan);
        if (record.sinkhornViolation >= 0)
            batch.violation[static_cast<std::size_t>(layer)] = record.sinkhornViolation;
        if (record.sinkhornPotentials.size() == E)
            std::copy(record.sinkhornPotentials.begin(), record.sinkhornPotentials.end(), batch.potentials.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(layer) * E));
    }
    if (has(Dataset::gruPca)) {
        if (!record.gruState.empty() && static_cast<std::int64_t>(record.gruState.size()) != n * m_sizes[schema::Axis::state])
            return bugError("a record has another width than the trace", schema::rule(Dataset::gruPca).path);
        if (m_fitted && !record.gruState.empty())
            SPECTRA_CHECK(put(Dataset::gruPca, std::span<const float>(projectStates(m_bases[static_cast<std::size_t>(layer)], record.gruState, schema::kPcaComponents))));
        else if (!record.gruState.empty())
            m_states[static_cast<std::size_t>(layer)][first].assign(record.gruState.begin(), record.gruState.end());
        else
            SPECTRA_CHECK(put(Dataset::gruPca, std::span<const float>()));
    }
    Coverage &coverage = m_layerCoverage[static_cast<std::size_t>(layer)];
    coverage.add(first, first + n);
    SPECTRA_CHECK(fitStates(false));
    const std::int64_t end = coverage.end(m_committed);
    for (auto &[id, c] : m_columns)
        if (c.wide())
            SPECTRA_CHECK(c.writeBlocks(layer, end, false));
    return {};
}

Result<void> TraceStore::addDense(const RoutingRecord &record)
{
    for (Sampled &sampled : m_sampled) {
        if (sampled.values != Dataset::denseValues)
            continue;
        if (record.layer < 0 || static_cast<std::size_t>(record.layer) >= sampled.pieces.size()
            || static_cast<std::int64_t>(record.hiddenStates.size()) != record.tokens * sampled.width)
            return bugError("a record of a layer without experts has another shape than the trace", "/dense/values");
        addSampled(sampled, record.layer, record.firstToken, record.tokens, record.hiddenStates);
    }
    return {};
}

/// Fits the principal axes once the first 1,024 counted tokens are there in every layer (`last`: on what there is).
Result<void> TraceStore::fitStates(bool last)
{
    if (m_fitted || !has(Dataset::gruPca))
        return {};
    const std::int64_t end = frontier();
    std::vector<std::int64_t> counted;
    for (std::int64_t t = 0; t < end && static_cast<std::int64_t>(counted.size()) < schema::kPcaTokens; ++t)
        if (static_cast<std::size_t>(t) < m_masks.size() && m_masks[static_cast<std::size_t>(t)] != 0)
            counted.push_back(t);
    if (static_cast<std::int64_t>(counted.size()) < schema::kPcaTokens && !last)
        return {};
    const std::int64_t width = m_sizes[schema::Axis::state];
    for (std::size_t layer = 0; layer < m_states.size(); ++layer) {
        std::vector<float> rows;
        rows.reserve(counted.size() * static_cast<std::size_t>(width));
        auto piece = m_states[layer].begin();
        for (const std::int64_t t : counted) {
            while (piece != m_states[layer].end() && piece->first + static_cast<std::int64_t>(piece->second.size()) / width <= t)
                ++piece;
            if (piece == m_states[layer].end())
                break;
            if (piece->first > t)
                continue;
            const auto from = piece->second.begin() + (t - piece->first) * width;
            rows.insert(rows.end(), from, from + width);
        }
        m_bases[layer] = fitStateBasis(rows, width, schema::kPcaComponents);
        SPECTRA_CHECK(writeTable(Dataset::gruPcaMean, static_cast<int>(layer), m_bases[layer].mean));
        SPECTRA_CHECK(writeTable(Dataset::gruPcaBasis, static_cast<int>(layer), m_bases[layer].axes));
    }
    m_fitted = true;
    m_fittedOn = static_cast<std::int64_t>(counted.size());
    SPECTRA_CHECK(h5::setAttribute(data(Dataset::gruPcaBasis), "fitted_on", m_fittedOn));
    m_masks = {};
    for (std::size_t layer = 0; layer < m_states.size(); ++layer) {
        for (const auto &[first, rows] : m_states[layer])
            SPECTRA_CHECK(column(Dataset::gruPca)->putFloats(static_cast<int>(layer), first, static_cast<std::int64_t>(rows.size()) / width, projectStates(m_bases[layer], rows, schema::kPcaComponents)));
        m_states[layer].clear();
    }
    return {};
}

/// Tokens that have arrived in every layer.
std::int64_t TraceStore::frontier() const
{
    std::int64_t end = m_tokenCoverage.end(m_committed);
    for (const Coverage &c : m_layerCoverage)
        end = std::min(end, c.end(m_committed));
    return end;
}

std::int64_t TraceStore::committable(bool last) const
{
    std::int64_t end = frontier();
    if (last)
        return end;
    if (!m_fitted && m_columns.contains(Dataset::gruPca))
        return m_committed;
    for (const Sampled &sampled : m_sampled) {
        if (sampled.values != Dataset::denseValues)
            continue;
        for (const auto &[index, s] : m_open) {
            const std::int64_t from = std::max(s.info.offset, m_committed);
            if (!s.sampled || from >= end)
                continue;
            for (const Coverage &c : sampled.coverage)
                end = std::min(end, std::max(from, c.end(from)));
        }
    }
    return std::max(m_committed, end - end % m_block);
}

} // namespace spectra
