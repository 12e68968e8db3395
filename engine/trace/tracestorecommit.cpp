// SPDX-License-Identifier: GPL-3.0-or-later
// Commits and the end of a run.
#include "engine/trace/tracestore.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

namespace spectra {
using schema::Axis;
using schema::Dataset;

Result<void> TraceStore::setScale(Axis axis, std::int64_t size)
{
    const auto it = m_scales.find(axis);
    if (it == m_scales.end() || m_sizes[axis] == size)
        return {};
    m_sizes[axis] = size;
    return h5::setShape(it->second.id(), {size});
}

Result<void> TraceStore::setSequences(std::int64_t sequences)
{
    for (const Dataset d : {Dataset::sequenceId, Dataset::sequenceDomain, Dataset::sequenceText, Dataset::sequenceLabel,
                            Dataset::sequencePrompt, Dataset::sequenceCounted})
        SPECTRA_CHECK(h5::setShape(data(d), {sequences}));
    SPECTRA_CHECK(h5::setShape(data(Dataset::sequenceOffset), {sequences + 1}));
    for (const Dataset d : {Dataset::routingSequenceMeans, Dataset::expressionSequenceMeans})
        if (has(d))
            SPECTRA_CHECK(h5::setShape(data(d), {m_spec.layers(), sequences, m_spec.experts, m_spec.routerDim}));
    SPECTRA_CHECK(setScale(Axis::sequence, sequences));
    return setScale(Axis::sequenceEdge, sequences + 1);
}

Result<void> TraceStore::writeTexts(std::int64_t end)
{
    const std::int64_t n = end - m_textBase;
    if (n <= 0)
        return {};
    m_texts.resize(std::max(m_texts.size(), static_cast<std::size_t>(n)));
    std::vector<std::string> texts(std::make_move_iterator(m_texts.begin()), std::make_move_iterator(m_texts.begin() + n));
    m_texts.erase(m_texts.begin(), m_texts.begin() + n);
    SPECTRA_CHECK(h5::setShape(data(Dataset::tokenText), {end}));
    if (m_spec.live) {
        m_lateTokenTexts.resize(static_cast<std::size_t>(m_textBase));
        m_lateTokenTexts.insert(m_lateTokenTexts.end(), std::make_move_iterator(texts.begin()), std::make_move_iterator(texts.end()));
    } else {
        SPECTRA_CHECK(h5::writeText(data(Dataset::tokenText), m_textBase, texts));
    }
    m_textBase = end;
    return {};
}

Result<void> TraceStore::writeTokenScale(std::int64_t end)
{
    const auto it = m_scales.find(Axis::token);
    if (it == m_scales.end() || end <= m_committed)
        return {};
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(end - m_committed));
    for (std::size_t i = 0; i < numbers.size(); ++i)
        numbers[i] = m_committed + static_cast<std::int64_t>(i);
    SPECTRA_CHECK(setScale(Axis::token, end));
    return h5::writeSlab(it->second.id(), {m_committed}, {end - m_committed}, h5::Type::i64, numbers.data());
}

Result<void> TraceStore::writeSampled(Sampled &sampled, std::int64_t end)
{
    if (sampled.pieces.empty())
        return {};
    const std::size_t element = h5::sizeOf(sampled.type);
    const std::size_t rowBytes = static_cast<std::size_t>(sampled.width) * element;
    // The first layer's pieces say which tokens are sampled; a layer that lacks one keeps the fill value.
    std::vector<std::int64_t> tokens;
    for (const auto &[first, rows] : sampled.pieces.front()) {
        const auto n = static_cast<std::int64_t>(rows.size() / rowBytes);
        for (std::int64_t t = first; t < std::min(first + n, end); ++t)
            tokens.push_back(t);
    }
    const auto m = static_cast<std::int64_t>(tokens.size());
    const auto L = static_cast<std::int64_t>(sampled.pieces.size());
    if (m > 0) {
        std::vector<std::int64_t> shape{L, sampled.rows + m}, offset{0, sampled.rows}, count{1, m};
        for (const std::int64_t n : sampled.inner) {
            shape.push_back(n);
            offset.push_back(0);
            count.push_back(n);
        }
        SPECTRA_CHECK(h5::setShape(sampled.valuesId, shape));
        SPECTRA_CHECK(h5::setShape(sampled.tokenId, {sampled.rows + m}));
        SPECTRA_CHECK(h5::writeSlab(sampled.tokenId, {sampled.rows}, {m}, h5::Type::i64, tokens.data()));
        SPECTRA_CHECK(setScale(schema::rule(sampled.token).axes[0], sampled.rows + m));
        std::vector<std::byte> rows(static_cast<std::size_t>(m) * rowBytes);
        for (std::int64_t layer = 0; layer < L; ++layer) {
            std::memset(rows.data(), 0xff, rows.size()); // all bits set is NaN in every float format
            auto &pieces = sampled.pieces[static_cast<std::size_t>(layer)];
            for (const auto &[first, piece] : pieces) {
                auto at = std::lower_bound(tokens.begin(), tokens.end(), first);
                const std::int64_t stop = std::min(end, first + static_cast<std::int64_t>(piece.size() / rowBytes));
                for (; at != tokens.end() && *at < stop; ++at)
                    std::memcpy(rows.data() + static_cast<std::size_t>(at - tokens.begin()) * rowBytes,
                                piece.data() + static_cast<std::size_t>(*at - first) * rowBytes, rowBytes);
            }
            offset[0] = layer;
            SPECTRA_CHECK(h5::writeSlab(sampled.valuesId, offset, count, sampled.type, rows.data()));
        }
        sampled.rows += m;
    }
    for (auto &pieces : sampled.pieces) {
        while (!pieces.empty() && pieces.begin()->first < end) {
            auto node = pieces.extract(pieces.begin());
            const std::int64_t stop = node.key() + static_cast<std::int64_t>(node.mapped().size() / rowBytes);
            if (stop > end) {
                node.mapped().erase(node.mapped().begin(), node.mapped().begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(end - node.key()) * rowBytes));
                node.key() = end;
                pieces.insert(std::move(node));
                break;
            }
        }
    }
    for (Coverage &c : sampled.coverage)
        c.forget(end);
    return {};
}

Result<void> TraceStore::writeBatches(std::int64_t end, bool last)
{
    const std::int64_t L = m_spec.layers(), E = m_spec.experts;
    while (!m_waitingBatches.empty()) {
        const auto &[first, batch] = *m_waitingBatches.begin();
        if (batch.end > end && !(last && first < end))
            break;
        const std::int64_t b = m_batches;
        SPECTRA_CHECK(h5::setShape(data(Dataset::sinkhornViolation), {L, b + 1}));
        SPECTRA_CHECK(h5::setShape(data(Dataset::sinkhornPotentials), {L, b + 1, E}));
        SPECTRA_CHECK(h5::setShape(data(Dataset::batchOffset), {b + 2}));
        SPECTRA_CHECK(setScale(Axis::batch, b + 1));
        SPECTRA_CHECK(setScale(Axis::batchEdge, b + 2));
        SPECTRA_CHECK(h5::writeSlab(data(Dataset::sinkhornViolation), {0, b}, {L, 1}, h5::Type::f32, batch.violation.data()));
        SPECTRA_CHECK(h5::writeSlab(data(Dataset::sinkhornPotentials), {0, b, 0}, {L, 1, E}, h5::Type::f32, batch.potentials.data()));
        const std::int64_t edges[] = {first, std::min(batch.end, last ? end : batch.end)};
        SPECTRA_CHECK(h5::writeSlab(data(Dataset::batchOffset), {b}, {2}, h5::Type::i64, edges));
        ++m_batches;
        m_waitingBatches.erase(m_waitingBatches.begin());
    }
    if (last && m_batches > 0) // a batch ends where the next begins, the last one with the trace
        return h5::writeSlab(data(Dataset::batchOffset), {m_batches}, {1}, h5::Type::i64, &end);
    return {};
}

/// The newest point that the coming commit covers goes into the older of the two slots.
Result<void> TraceStore::writePoint()
{
    std::optional<Point> newest;
    while (!m_points.empty() && m_points.front().tokens <= m_committed) {
        newest = std::move(m_points.front());
        m_points.pop_front();
    }
    if (!newest)
        return {};
    const std::size_t slot = m_slotTokens[0] <= m_slotTokens[1] ? 0 : 1;
    const std::string path = slot == 0 ? "/resume/a" : "/resume/b";
    SPECTRA_TRY(const h5::Handle group, h5::openGroup(m_file.id(), path));
    const std::int64_t L = m_spec.layers(), E = m_spec.experts, D = m_spec.routerDim, H = m_spec.hidden;
    if (!newest->meanSums.empty()) {
        SPECTRA_TRY(const h5::Handle sums, h5::openDataset(group.id(), "means", 0));
        SPECTRA_CHECK(h5::writeSlab(sums.id(), {0, 0, 0, 0}, {2, L, E, D}, h5::Type::f64, newest->meanSums.data()));
    }
    if (has(Dataset::inputMean)) {
        SPECTRA_TRY(const h5::Handle input, h5::openDataset(group.id(), "expert_input", 0));
        SPECTRA_TRY(const h5::Handle output, h5::openDataset(group.id(), "expert_output", 0));
        SPECTRA_TRY(const h5::Handle count, h5::openDataset(group.id(), "expert_count", 0));
        for (const LayerTables &t : newest->sums) {
            if (t.layer < 0 || t.layer >= L)
                continue;
            if (static_cast<std::int64_t>(t.expertInputSum.size()) == E * H)
                SPECTRA_CHECK(h5::writeSlab(input.id(), {t.layer, 0, 0}, {1, E, H}, h5::Type::f64, t.expertInputSum.data()));
            if (static_cast<std::int64_t>(t.expertOutputSum.size()) == E * H)
                SPECTRA_CHECK(h5::writeSlab(output.id(), {t.layer, 0, 0}, {1, E, H}, h5::Type::f64, t.expertOutputSum.data()));
            if (static_cast<std::int64_t>(t.expertCount.size()) == E)
                SPECTRA_CHECK(h5::writeSlab(count.id(), {t.layer, 0}, {1, E}, h5::Type::i64, t.expertCount.data()));
        }
    }
    SPECTRA_CHECK(h5::setAttribute(group.id(), "sequences", newest->sequences));
    SPECTRA_CHECK(h5::setAttribute(group.id(), "counted", newest->counted));
    SPECTRA_CHECK(h5::setAttribute(group.id(), "tokens", newest->tokens));
    m_slotTokens[slot] = newest->tokens;
    return {};
}

Result<void> TraceStore::commit(bool last)
{
    if (last)
        SPECTRA_CHECK(fitStates(true));
    const std::int64_t end = committable(last);
    if (end <= m_committed && !last)
        return {};
    for (auto &[id, c] : m_columns) {
        if (!c.wide()) {
            SPECTRA_CHECK(c.writeRows(end));
        } else {
            for (int layer = 0; layer < m_spec.layers(); ++layer)
                SPECTRA_CHECK(c.writeBlocks(layer, end, last));
        }
        if (last)
            SPECTRA_CHECK(c.setTokens(end)); // blocks of faster layers may have gone further
    }
    SPECTRA_CHECK(writeTexts(end));
    SPECTRA_CHECK(writeTokenScale(end));
    for (Sampled &sampled : m_sampled)
        SPECTRA_CHECK(writeSampled(sampled, end));
    if (has(Dataset::batchOffset))
        SPECTRA_CHECK(writeBatches(end, last));
    const std::int64_t before = m_committed;
    m_committed = end;
    if (auto written = writePoint(); !written) {
        m_committed = before;
        return written;
    }
    m_tokenCoverage.forget(end);
    for (Coverage &c : m_layerCoverage)
        c.forget(end);
    if (m_spec.live) {
        for (const auto &[id, c] : m_columns)
            SPECTRA_CHECK(h5::flushDataset(c.data()));
        for (const h5::Handle &d : m_data)
            if (d.valid())
                SPECTRA_CHECK(h5::flushDataset(d.id()));
    }
    if (auto flushed = m_file.flush(); !flushed) {
        m_committed = before;
        return flushed;
    }
    SPECTRA_CHECK(h5::setAttribute(m_tokensGroup.id(), "committed", m_committed));
    if (auto flushed = m_file.flush(); !flushed) {
        m_committed = before;
        return flushed;
    }
    return {};
}

Result<void> TraceStore::setCheckpointSha256(const std::string &hex)
{
    m_lateSha = hex;
    if (m_spec.live)
        return {};
    return h5::setAttribute(m_modelGroup.id(), "checkpoint_sha256", hex);
}

Result<void> TraceStore::writeTable(Dataset dataset, int layer, const std::vector<float> &values)
{
    if (!has(dataset) || values.empty())
        return {};
    std::vector<std::int64_t> count = schema::shape(schema::rule(dataset), m_sizes);
    count[0] = 1;
    std::vector<std::int64_t> offset(count.size(), 0);
    offset[0] = layer;
    std::int64_t n = 1;
    for (const std::int64_t c : count)
        n *= c;
    if (n != static_cast<std::int64_t>(values.size()))
        return bugError("a table has another size than the trace", schema::rule(dataset).path);
    return h5::writeSlab(data(dataset), offset, count, h5::Type::f32, values.data());
}

/// Cosines between the rows of `vectors` [E, width]; a row of no length has cosine 0 with all others and itself.
Result<void> TraceStore::writeGram(Dataset dataset, int layer, const std::vector<float> &vectors, std::int64_t width)
{
    if (!has(dataset) || vectors.empty() || width == 0)
        return {};
    const auto W = static_cast<std::size_t>(width), E = vectors.size() / W;
    std::vector<double> unit(vectors.begin(), vectors.end());
    for (std::size_t e = 0; e < E; ++e) {
        double norm = 0;
        for (std::size_t i = 0; i < W; ++i)
            norm += unit[e * W + i] * unit[e * W + i];
        const double scale = norm > 0 ? 1 / std::sqrt(norm) : 0;
        for (std::size_t i = 0; i < W; ++i)
            unit[e * W + i] *= scale;
    }
    std::vector<float> gram(E * E);
    for (std::size_t a = 0; a < E; ++a) {
        for (std::size_t b = a; b < E; ++b) {
            double sum = 0;
            for (std::size_t i = 0; i < W; ++i)
                sum += unit[a * W + i] * unit[b * W + i];
            gram[a * E + b] = gram[b * E + a] = static_cast<float>(sum);
        }
    }
    return writeTable(dataset, layer, gram);
}

Result<void> TraceStore::writeTables(const std::vector<LayerTables> &tables, bool complete, double wallSeconds)
{
    if (m_spec.live) { // text cannot be written while others may read: the file is opened again, alone
        SPECTRA_CHECK(close(false));
        SPECTRA_TRY(m_file, h5::File::open(m_path, h5::File::Mode::readWriteLatest));
        SPECTRA_CHECK(openObjects());
        for (std::size_t row = 0; row < m_lateTexts.size(); ++row) {
            m_spec.live = false;
            auto written = writeSequenceRow(static_cast<std::int64_t>(row), m_lateTexts[row], true, true);
            m_spec.live = true;
            SPECTRA_CHECK(written);
        }
        m_lateTokenTexts.resize(static_cast<std::size_t>(m_committed));
        SPECTRA_CHECK(h5::writeText(data(Dataset::tokenText), 0, m_lateTokenTexts));
        if (!m_lateSha.empty())
            SPECTRA_CHECK(h5::setAttribute(m_modelGroup.id(), "checkpoint_sha256", m_lateSha));
    }
    const auto L = static_cast<std::size_t>(m_spec.layers()), E = static_cast<std::size_t>(m_spec.experts);
    const std::size_t cell = E * static_cast<std::size_t>(m_spec.routerDim);
    if (!m_now.meanSums.empty() && m_now.counted > 0) {
        for (std::size_t layer = 0; layer < L; ++layer) {
            for (const bool expression : {false, true}) {
                std::vector<float> mean(cell);
                const double *sum = m_now.meanSums.data() + (expression ? L * cell : 0) + layer * cell;
                for (std::size_t i = 0; i < cell; ++i)
                    mean[i] = static_cast<float>(sum[i] / double(m_now.counted));
                const int l = static_cast<int>(layer);
                SPECTRA_CHECK(writeTable(expression ? Dataset::expressionMeans : Dataset::routingMeans, l, mean));
                SPECTRA_CHECK(writeGram(expression ? Dataset::gramExpression : Dataset::gramRouting, l, mean, m_spec.routerDim));
            }
        }
    }
    for (const LayerTables &t : tables) {
        if (t.layer < 0 || static_cast<std::size_t>(t.layer) >= L)
            return bugError("a table of a layer outside the trace", "trace");
        SPECTRA_CHECK(writeTable(Dataset::routerWeights, t.layer, t.routerWeights));
        SPECTRA_CHECK(writeGram(Dataset::gramWeights, t.layer, t.routerWeights, m_spec.hidden));
        SPECTRA_CHECK(writeTable(Dataset::bufferMean, t.layer, t.bufferMeanExpression));
        SPECTRA_CHECK(writeTable(Dataset::bufferPotential, t.layer, t.bufferPotential));
        const auto H = static_cast<std::size_t>(m_spec.hidden);
        for (const bool output : {false, true}) {
            const std::vector<double> &sums = output ? t.expertOutputSum : t.expertInputSum;
            if (sums.size() != E * H || t.expertCount.size() != E)
                continue;
            std::vector<float> mean(E * H, std::numeric_limits<float>::quiet_NaN());
            for (std::size_t e = 0; e < E; ++e)
                for (std::size_t i = 0; i < H && t.expertCount[e] > 0; ++i)
                    mean[e * H + i] = static_cast<float>(sums[e * H + i] / double(t.expertCount[e]));
            SPECTRA_CHECK(writeTable(output ? Dataset::outputMean : Dataset::inputMean, t.layer, mean));
        }
    }
    // A run that was stopped inside a sequence ends there: the rows of sequences without tokens go.
    std::int64_t sequences = m_sequences;
    while (sequences > 0 && m_open.contains(static_cast<std::int32_t>(sequences - 1))
           && m_open.at(static_cast<std::int32_t>(sequences - 1)).info.offset >= m_committed && m_committed > 0)
        --sequences;
    if (sequences != m_sequences) {
        SPECTRA_CHECK(setSequences(sequences));
        m_sequences = sequences;
    }
    for (const auto &[index, s] : m_open) {
        if (index >= sequences)
            continue;
        const std::int64_t end = index + 1 < sequences ? s.info.offset + s.info.length : m_committed;
        SPECTRA_CHECK(h5::writeSlab(data(Dataset::sequenceOffset), {index + 1}, {1}, h5::Type::i64, &end));
        SPECTRA_CHECK(h5::writeSlab(data(Dataset::sequenceCounted), {index}, {1}, h5::Type::i32, &s.counted));
    }
    if (complete) {
        SPECTRA_CHECK(h5::remove(m_file.id(), "/resume"));
        SPECTRA_TRY(const h5::Handle root, h5::openGroup(m_file.id(), "/"));
        SPECTRA_CHECK(h5::setAttribute(root.id(), "complete", std::int32_t(1)));
    }
    SPECTRA_TRY(const h5::Handle environment, h5::openGroup(m_file.id(), "/environment"));
    return h5::setAttribute(environment.id(), "wall_seconds", wallSeconds);
}

Result<void> TraceStore::close(bool sync)
{
    Result<void> result;
    if (m_file.valid()) {
        result = m_file.flush();
        if (result && sync)
            result = m_file.sync();
    }
    for (h5::Handle &d : m_data)
        d.reset();
    m_columns.clear();
    m_scales.clear();
    m_tokensGroup.reset();
    m_modelGroup.reset();
    auto closed = m_file.close();
    return result ? std::move(closed) : result;
}

} // namespace spectra
