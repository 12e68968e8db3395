// SPDX-License-Identifier: GPL-3.0-or-later
// Continuing a `.part` from its last whole sequence.
#include "engine/trace/tracestore.h"

#include <algorithm>

namespace spectra {
namespace fs = std::filesystem;
using schema::Axis;
using schema::Dataset;

/// Errors (input): the file was begun with other settings.
Result<void> TraceStore::checkSame() const
{
    const auto other = [&](const std::string &what) {
        return inputError("was begun with another " + what, m_file.name(), "continue with the settings of the first run, or start a new one without --resume");
    };
    SPECTRA_TRY(const h5::Handle root, h5::openGroup(m_file.id(), "/"));
    if (h5::textAttribute(root.id(), "format").value_or("") != schema::kFormat)
        return inputError("is not a trace", m_file.name());
    if (h5::textAttribute(root.id(), "capture").value_or("") != m_spec.capture.toString())
        return other("capture set");
    SPECTRA_TRY(const h5::Handle model, h5::openGroup(m_file.id(), "model"));
    const auto same = [&](const char *name, const std::string &value) { return h5::textAttribute(model.id(), name).value_or("") == value; };
    if (!same("name", m_spec.model.name) || !same("architecture", m_spec.model.architecture) || !same("config", m_spec.model.config))
        return other("model");
    if (!same("router", m_spec.model.router) || !same("sinkhorn_scope", m_spec.model.sinkhornScope))
        return other("router");
    if (!same("dtype", m_spec.model.dtype))
        return other("number format");
    const std::string digest = h5::textAttribute(model.id(), "checkpoint_sha256").value_or("");
    if (!digest.empty() && !m_spec.model.checkpointSha256.empty() && digest != m_spec.model.checkpointSha256)
        return other("checkpoint");
    if (h5::integerAttribute(model.id(), "seed").value_or(0) != m_spec.model.seed)
        return other("seed");
    for (const schema::Rule &rule : schema::rules()) {
        const bool wanted = schema::exists(rule.dataset, m_spec);
        if (h5::isDataset(m_file.id(), rule.path) != wanted)
            return other(std::string("set of datasets (") + rule.path + ")");
        if (!wanted)
            continue;
        SPECTRA_TRY(const h5::Handle dataset, h5::openDataset(m_file.id(), rule.path, 0));
        SPECTRA_TRY(const h5::DatasetInfo info, h5::describe(dataset.id()));
        const h5::DatasetSpec spec = datasetSpec(rule.dataset);
        bool sameShape = info.shape.size() == spec.shape.size() && info.type == spec.type && info.chunk == spec.chunk && info.maxShape == spec.maxShape;
        for (std::size_t i = 0; sameShape && i < spec.shape.size(); ++i)
            sameShape = spec.maxShape[i] == h5::kUnlimited || info.shape[i] == spec.shape[i];
        if (!sameShape || (info.deflate != (spec.deflate >= 0)))
            return other(std::string("shape, type or compression of ") + rule.path);
    }
    std::vector<std::int32_t> layers(m_spec.decoderIndex.size());
    SPECTRA_TRY(const h5::Handle index, h5::openDataset(m_file.id(), schema::rule(Dataset::decoderIndex).path));
    SPECTRA_CHECK(h5::readSlab(index.id(), {0}, {static_cast<std::int64_t>(layers.size())}, h5::Type::i32, layers.data()));
    if (layers != m_spec.decoderIndex)
        return other("set of layers");
    return {};
}

/// Chooses the newest of the two points that the committed tokens cover, and reads its sums.
Result<void> TraceStore::findPoint()
{
    m_committed = h5::integerAttribute(m_tokensGroup.id(), "committed").value_or(0);
    if (has(Dataset::gruPca)) {
        m_fittedOn = h5::integerAttribute(data(Dataset::gruPcaBasis), "fitted_on").value_or(0);
        if (m_fittedOn < schema::kPcaTokens)
            return {}; // the axes of a longer run differ: it starts again
    }
    std::string best;
    std::size_t slot = 0;
    for (const char *name : {"/resume/a", "/resume/b"}) {
        if (!h5::isGroup(m_file.id(), name)) {
            return inputError("has no state to continue from", m_file.name(), "start a new run without --resume");
        }
        SPECTRA_TRY(const h5::Handle group, h5::openGroup(m_file.id(), name));
        const std::int64_t tokens = h5::integerAttribute(group.id(), "tokens").value_or(0);
        const std::int64_t sequences = h5::integerAttribute(group.id(), "sequences").value_or(0);
        m_slotTokens[slot++] = tokens;
        if (tokens > m_now.tokens && tokens <= m_committed && sequences > 0) {
            m_now.tokens = tokens;
            m_now.sequences = sequences;
            m_now.counted = h5::integerAttribute(group.id(), "counted").value_or(0);
            best = name;
        }
    }
    if (best.empty())
        return {};
    const std::int64_t L = m_spec.layers(), E = m_spec.experts, D = m_spec.routerDim, H = m_spec.hidden;
    SPECTRA_TRY(const h5::Handle group, h5::openGroup(m_file.id(), best));
    if (!m_now.meanSums.empty()) {
        SPECTRA_TRY(const h5::Handle means, h5::openDataset(group.id(), "means"));
        SPECTRA_CHECK(h5::readSlab(means.id(), {0, 0, 0, 0}, {2, L, E, D}, h5::Type::f64, m_now.meanSums.data()));
    }
    if (has(Dataset::inputMean)) {
        SPECTRA_TRY(const h5::Handle input, h5::openDataset(group.id(), "expert_input"));
        SPECTRA_TRY(const h5::Handle output, h5::openDataset(group.id(), "expert_output"));
        SPECTRA_TRY(const h5::Handle count, h5::openDataset(group.id(), "expert_count"));
        for (std::int64_t layer = 0; layer < L; ++layer) {
            LayerTables t;
            t.layer = static_cast<int>(layer);
            t.expertInputSum.resize(static_cast<std::size_t>(E * H));
            t.expertOutputSum.resize(static_cast<std::size_t>(E * H));
            t.expertCount.resize(static_cast<std::size_t>(E));
            SPECTRA_CHECK(h5::readSlab(input.id(), {layer, 0, 0}, {1, E, H}, h5::Type::f64, t.expertInputSum.data()));
            SPECTRA_CHECK(h5::readSlab(output.id(), {layer, 0, 0}, {1, E, H}, h5::Type::f64, t.expertOutputSum.data()));
            SPECTRA_CHECK(h5::readSlab(count.id(), {layer, 0}, {1, E}, h5::Type::i64, t.expertCount.data()));
            resumedSums.push_back(std::move(t));
        }
    }
    return {};
}

/// Goes back to the block that holds the point: rows of it that are kept wait in memory again, and the file is committed
/// to the block's beginning before anything in it is replaced.
Result<void> TraceStore::reloadTail()
{
    const std::int64_t point = m_now.tokens, base = point - point % m_block;
    for (auto &[id, c] : m_columns)
        SPECTRA_CHECK(c.reload(base, point));
    SPECTRA_TRY(std::vector<std::string> texts, h5::readText(data(Dataset::tokenText), base, point - base));
    m_texts.assign(std::make_move_iterator(texts.begin()), std::make_move_iterator(texts.end()));
    m_textBase = base;
    SPECTRA_CHECK(h5::setShape(data(Dataset::tokenText), {base}));
    m_tokenCoverage.add(base, point);
    for (Coverage &c : m_layerCoverage)
        c.add(base, point);

    for (Sampled &s : m_sampled) {
        SPECTRA_TRY(const std::vector<std::int64_t> shape, h5::shapeOf(s.tokenId));
        std::vector<std::int64_t> tokens(static_cast<std::size_t>(shape[0]));
        SPECTRA_CHECK(h5::readSlab(s.tokenId, {0}, shape, h5::Type::i64, tokens.data()));
        const auto from = std::lower_bound(tokens.begin(), tokens.end(), base), to = std::lower_bound(from, tokens.end(), point);
        s.rows = from - tokens.begin();
        if (s.values == Dataset::hiddenValues || resumedSampled == 0)
            resumedSampled = to - tokens.begin();
        const std::size_t rowBytes = static_cast<std::size_t>(s.width) * h5::sizeOf(s.type);
        for (std::size_t layer = 0; layer < s.pieces.size(); ++layer) {
            for (auto at = from; at != to; ++at) {
                std::vector<std::int64_t> offset{static_cast<std::int64_t>(layer), at - tokens.begin()}, count{1, 1};
                for (const std::int64_t n : s.inner) {
                    offset.push_back(0);
                    count.push_back(n);
                }
                std::vector<std::byte> row(rowBytes);
                SPECTRA_CHECK(h5::readSlab(s.valuesId, offset, count, s.type, row.data()));
                s.pieces[layer][*at] = std::move(row);
                s.coverage[layer].add(*at, *at + 1);
            }
        }
        SPECTRA_CHECK(h5::setShape(s.tokenId, {s.rows}));
        std::vector<std::int64_t> values{static_cast<std::int64_t>(s.pieces.size()), s.rows};
        values.insert(values.end(), s.inner.begin(), s.inner.end());
        SPECTRA_CHECK(h5::setShape(s.valuesId, values));
        SPECTRA_CHECK(setScale(schema::rule(s.token).axes[0], s.rows));
    }
    if (has(Dataset::batchOffset)) {
        SPECTRA_TRY(const std::vector<std::int64_t> shape, h5::shapeOf(data(Dataset::batchOffset)));
        std::vector<std::int64_t> edges(static_cast<std::size_t>(shape[0]));
        SPECTRA_CHECK(h5::readSlab(data(Dataset::batchOffset), {0}, shape, h5::Type::i64, edges.data()));
        while (edges.size() > static_cast<std::size_t>(m_batches) + 1 && edges[static_cast<std::size_t>(m_batches) + 1] <= point)
            ++m_batches;
        const std::int64_t L = m_spec.layers();
        SPECTRA_CHECK(h5::setShape(data(Dataset::batchOffset), {m_batches + 1}));
        SPECTRA_CHECK(h5::setShape(data(Dataset::sinkhornViolation), {L, m_batches}));
        SPECTRA_CHECK(h5::setShape(data(Dataset::sinkhornPotentials), {L, m_batches, m_spec.experts}));
        m_sizes[Axis::batch] = m_sizes[Axis::batchEdge] = -1;
        SPECTRA_CHECK(setScale(Axis::batch, m_batches));
        SPECTRA_CHECK(setScale(Axis::batchEdge, m_batches + 1));
    }
    if (has(Dataset::gruPca)) {
        m_fitted = true;
        const std::int64_t width = m_sizes[Axis::state];
        for (std::size_t layer = 0; layer < m_bases.size(); ++layer) {
            StateBasis &basis = m_bases[layer];
            basis.mean.resize(static_cast<std::size_t>(width));
            basis.axes.resize(static_cast<std::size_t>(width * schema::kPcaComponents));
            const auto l = static_cast<std::int64_t>(layer);
            SPECTRA_CHECK(h5::readSlab(data(Dataset::gruPcaMean), {l, 0}, {1, width}, h5::Type::f32, basis.mean.data()));
            SPECTRA_CHECK(h5::readSlab(data(Dataset::gruPcaBasis), {l, 0, 0}, {1, schema::kPcaComponents, width}, h5::Type::f32, basis.axes.data()));
        }
    }
    m_sequences = m_nextWhole = m_now.sequences;
    m_sizes[Axis::sequence] = m_sizes[Axis::sequenceEdge] = m_sizes[Axis::token] = -1;
    SPECTRA_CHECK(setSequences(m_sequences));
    SPECTRA_CHECK(setScale(Axis::token, base));
    m_committed = base;
    SPECTRA_CHECK(h5::setAttribute(m_tokensGroup.id(), "committed", m_committed));
    return m_file.flush();
}

Result<std::unique_ptr<TraceStore>> TraceStore::resume(const fs::path &part, const TraceSpec &spec)
{
    std::unique_ptr<TraceStore> store(new TraceStore);
    store->m_path = part;
    store->m_spec = spec;
    store->m_sizes = schema::sizesOf(spec);
    const auto opened = [&]() -> Result<bool> {
        SPECTRA_TRY(store->m_file, h5::File::open(part, h5::File::Mode::readWrite));
        SPECTRA_CHECK(store->checkSame());
        SPECTRA_CHECK(store->openObjects());
        if (store->has(Dataset::routingMeans) || store->has(Dataset::gramRouting) || store->has(Dataset::routingSequenceMeans))
            store->m_now.meanSums.assign(static_cast<std::size_t>(2 * store->m_sizes[Axis::layer] * store->m_sizes[Axis::state]), 0.0);
        SPECTRA_CHECK(store->findPoint());
        if (store->m_now.tokens == 0)
            return false;
        SPECTRA_CHECK(store->reloadTail());
        return true;
    }();
    if (!opened) {
        store->abandon();
        (void)store->close(false).ok();
        Error error = opened.error();
        if (error.where.find(part.string()) == std::string::npos)
            error.in(part.string());
        return error;
    }
    if (!*opened) { // no whole sequence to go on from
        SPECTRA_CHECK(store->close(false));
        return create(part, spec);
    }
    store->resumedSequences = store->m_now.sequences;
    store->resumedTokens = store->m_now.tokens;
    return store;
}

} // namespace spectra
