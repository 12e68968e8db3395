// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/spacedata.h"

#include "analysis/embedding/pca.h"
#include "analysis/embedding/tsne.h"
#include "engine/core/routingrecord.h"

#include <QCoreApplication>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace spectra {

namespace {

constexpr std::int64_t kRows = 16384;

/// Tables that the vectors of experts can be taken from, the most telling first.
constexpr std::pair<Table, const char *> kExpertTables[] = {
    {Table::meanExpression, "expression vectors"},  {Table::meanRouting, "routing vectors"},    {Table::routerWeights, "router weights"},
    {Table::expertInputMean, "mean expert inputs"}, {Table::expertOutputMean, "mean expert outputs"},
};

/// Rows of floats, collected.
struct Matrix {
    std::int64_t width = 0;
    std::vector<float> values;
    [[nodiscard]] std::int64_t rows() const { return width > 0 ? static_cast<std::int64_t>(values.size()) / width : 0; }
};

/// Counted tokens inside the filter, thinned evenly to at most `sample`.
std::vector<std::int64_t> sampled(const std::vector<std::int64_t> &rows, int sample)
{
    const auto n = static_cast<std::int64_t>(rows.size());
    if (n <= sample)
        return rows;
    std::vector<std::int64_t> out;
    out.reserve(static_cast<std::size_t>(sample));
    for (std::int64_t i = 0; i < sample; ++i)
        out.push_back(rows[static_cast<std::size_t>(i * n / sample)]);
    return out;
}

Result<Matrix> tokenVectors(const TraceSource &source, const SpaceRequest &request, SpacePoints &points, JobContext &job)
{
    const auto info = source.info();
    const bool hidden = request.object == SpaceObject::hidden;
    const Column column = hidden ? Column::hidden : Column::probabilities;
    const auto wanted = [&](std::int64_t row) {
        return points.columns->mask[static_cast<std::size_t>(row)] != 0 && (!request.filter || request.filter->contains(static_cast<std::size_t>(row)));
    };
    Matrix m;
    std::vector<std::int64_t> candidates;
    if (!hidden)
        for (std::int64_t n = 0; n < info->tokens; ++n)
            if (wanted(n))
                candidates.push_back(n);
    points.candidates = static_cast<std::int64_t>(candidates.size());
    std::vector<std::int64_t> chosen = sampled(candidates, request.sample);
    // Hidden states are there for whole sequences only: their rows are known when they are read. Every stride-th is kept.
    const std::int64_t stride = hidden ? std::max<std::int64_t>(1, (info->sampledTokens + request.sample - 1) / request.sample) : 1;
    std::int64_t seen = 0;
    std::size_t next = 0;
    for (std::int64_t first = 0; first < info->tokens; first += kRows) {
        const TokenRange range{first, std::min(first + kRows, info->tokens)};
        if (!hidden && (next >= chosen.size() || chosen[next] >= range.last))
            continue; // nothing of this block is in the sample: not even read
        auto read = source.block(column, request.layer, range, job.stop());
        if (!read)
            return read.error();
        const Block &b = **read;
        m.width = b.width();
        if (m.width <= 0 || static_cast<std::int64_t>(b.f32.size()) != b.rows * m.width || (hidden && static_cast<std::int64_t>(b.token.size()) != b.rows))
            return inputError("a column has an unexpected shape", info->file);
        const auto take = [&](std::int64_t rowOfBlock, std::int64_t token) {
            const float *from = b.f32.data() + rowOfBlock * m.width;
            if (!std::all_of(from, from + m.width, [](float v) { return std::isfinite(v); }))
                return;
            m.values.insert(m.values.end(), from, from + m.width);
            points.row.push_back(token);
        };
        if (hidden) {
            for (std::int64_t i = 0; i < b.rows; ++i) {
                const std::int64_t token = b.token[static_cast<std::size_t>(i)];
                if (token < 0 || token >= info->tokens || !wanted(token))
                    continue;
                ++points.candidates;
                if (seen++ % stride == 0)
                    take(i, token);
            }
        } else {
            for (; next < chosen.size() && chosen[next] < range.last; ++next)
                take(chosen[next] - range.first, chosen[next]);
        }
        job.report({"reading", range.last, info->tokens, "tokens"});
    }
    for (const std::int64_t row : points.row) {
        const std::uint16_t top = points.routing->top(row);
        points.expert.push_back(top == kNoExpert ? std::int16_t(-1) : static_cast<std::int16_t>(top));
        points.domain.push_back(static_cast<std::int16_t>(points.columns->domain(row)));
        points.sequence.push_back(points.columns->sequence[static_cast<std::size_t>(row)]);
    }
    if (!points.columns->nll.empty())
        for (const std::int64_t row : points.row)
            points.nll.push_back(points.columns->nll[static_cast<std::size_t>(row)]);
    return m;
}

/// One point per sequence and expert: the expert's mean vector over the sequence.
Result<Matrix> sequenceVectors(const TraceSource &source, const SpaceRequest &request, SpacePoints &points)
{
    const auto info = source.info();
    const Table table = request.object == SpaceObject::expression ? Table::sequenceMeanExpression : Table::sequenceMeanRouting;
    auto read = source.table(table, request.layer);
    if (!read)
        return read.error();
    const TableValue &t = **read;
    if (t.shape.size() != 3 || t.shape[1] != info->experts || t.shape[2] <= 0
        || static_cast<std::int64_t>(t.values.size()) != t.shape[0] * t.shape[1] * t.shape[2])
        return inputError("sequence means have an unexpected shape", info->file);
    Matrix m;
    m.width = t.shape[2];
    points.candidates = t.shape[0] * t.shape[1];
    const std::int64_t stride = std::max<std::int64_t>(1, (t.shape[0] * t.shape[1] + request.sample - 1) / request.sample);
    for (std::int64_t s = 0; s < t.shape[0]; s += stride)
        for (std::int64_t e = 0; e < t.shape[1]; ++e) {
            const float *from = t.values.data() + (s * t.shape[1] + e) * m.width;
            if (!std::all_of(from, from + m.width, [](float v) { return std::isfinite(v); }))
                continue; // a sequence without a counted token
            m.values.insert(m.values.end(), from, from + m.width);
            points.row.push_back(-1);
            points.expert.push_back(static_cast<std::int16_t>(e));
            points.sequence.push_back(static_cast<std::int32_t>(s));
            points.domain.push_back(static_cast<std::size_t>(s) < points.columns->domainOfSequence.size()
                                        ? points.columns->domainOfSequence[static_cast<std::size_t>(s)]
                                        : std::int16_t(-1));
        }
    return m;
}

/// One point per expert and layer.
Result<Matrix> expertVectors(const TraceSource &source, SpacePoints &points, JobContext &job)
{
    const auto info = source.info();
    Matrix m;
    for (const auto &[table, name] : kExpertTables) {
        if (!info->has(table))
            continue;
        points.expertTable = QCoreApplication::translate("SpaceView", name);
        for (int l = 0; l < info->layers(); ++l) {
            if (job.stop().stop_requested())
                return cancelledError();
            auto read = source.table(table, l);
            if (!read)
                return read.error();
            const TableValue &t = **read;
            if (t.shape.size() != 2 || t.shape[0] != info->experts || (m.width != 0 && m.width != t.shape[1])
                || static_cast<std::int64_t>(t.values.size()) != t.shape[0] * t.shape[1])
                return inputError("expert vectors have an unexpected shape", info->file);
            m.width = t.shape[1];
            for (std::int64_t e = 0; e < t.shape[0]; ++e) {
                const float *from = t.values.data() + e * m.width;
                if (!std::all_of(from, from + m.width, [](float v) { return std::isfinite(v); }))
                    continue; // an expert that never got a token
                m.values.insert(m.values.end(), from, from + m.width);
                points.row.push_back(-1);
                points.sequence.push_back(-1);
                points.expert.push_back(static_cast<std::int16_t>(e));
                points.domain.push_back(-1);
                points.layerOf.push_back(static_cast<std::int16_t>(l));
            }
        }
        break;
    }
    points.candidates = m.rows();
    return m;
}

} // namespace

QString whyNoSpace(SpaceObject object, const TraceInfo &info)
{
    const auto column = [&](Column c) {
        const auto at = info.missingColumns.find(c);
        return at == info.missingColumns.end() ? QString() : QString::fromStdString(at->second);
    };
    const auto table = [&](Table t) {
        const auto at = info.missingTables.find(t);
        return at == info.missingTables.end() ? QString() : QString::fromStdString(at->second);
    };
    switch (object) {
    case SpaceObject::hidden: return column(Column::hidden);
    case SpaceObject::probabilities: return column(Column::probabilities);
    case SpaceObject::expression: return table(Table::sequenceMeanExpression);
    case SpaceObject::routing: return table(Table::sequenceMeanRouting);
    case SpaceObject::experts: break;
    }
    for (const auto &[t, name] : kExpertTables)
        if (info.has(t))
            return {};
    return QStringLiteral("no vectors of experts");
}

Result<std::shared_ptr<const SpaceData>> computeSpace(const std::shared_ptr<const TraceSource> &source, const SpaceRequest &request, JobContext &job,
                                                      const std::function<void(std::shared_ptr<const SpaceData>)> &shown)
{
    const auto info = source->info();
    auto points = std::make_shared<SpacePoints>();
    points->object = request.object;
    points->layer = request.layer;
    points->experts = info->experts;
    points->decoderIndex = info->decoderIndex;
    points->domains = info->domains;
    SPECTRA_TRY(points->columns, tokenColumns(source, job.stop()));
    SPECTRA_TRY(points->routing, layerRouting(source, request.layer, job.stop()));
    const bool tokens = request.object == SpaceObject::hidden || request.object == SpaceObject::probabilities;
    auto read = tokens ? tokenVectors(*source, request, *points, job)
        : request.object == SpaceObject::experts ? expertVectors(*source, *points, job)
                                                 : sequenceVectors(*source, request, *points);
    if (!read)
        return read.error();
    const Matrix matrix = std::move(*read);
    if (matrix.rows() == 0)
        return inputError("there is nothing to map: no counted token has these vectors", info->file);
    if (tokens && info->has(Column::entropy)) {
        auto entropy = layerColumn(source, Column::entropy, request.layer, job.stop());
        if (!entropy)
            return entropy.error();
        for (const std::int64_t row : points->row)
            points->entropy.push_back((**entropy)[static_cast<std::size_t>(row)]);
    }
    const MatrixView view{matrix.values.data(), matrix.rows(), matrix.width};
    auto result = std::make_shared<SpaceData>();
    result->points = points;
    result->tsne = request.tsne;
    result->seed = request.seed;
    // A handful of points has no neighbourhoods to keep: clusters of two drift apart without end.
    constexpr std::int64_t kFewPoints = 12;
    if (!request.tsne || matrix.rows() < kFewPoints) {
        PcaOptions options;
        options.seed = request.seed;
        auto map = pca(view, options, job.stop());
        if (!map)
            return map.error();
        auto xy = std::make_shared<std::vector<float>>(static_cast<std::size_t>(2 * matrix.rows()), 0.0f);
        for (std::int64_t i = 0; i < matrix.rows(); ++i)
            for (int c = 0; c < std::min(2, map->components); ++c)
                (*xy)[static_cast<std::size_t>(2 * i + c)] = map->scores[static_cast<std::size_t>(i * map->components + c)];
        result->coordinates = xy;
        result->tsne = false;
        result->explained.assign(map->explainedVarianceRatio.begin(), map->explainedVarianceRatio.end());
        result->finished = true;
        if (request.tsne)
            result->note = QCoreApplication::translate("SpaceView", "PCA: too few points for t-SNE");
        return std::shared_ptr<const SpaceData>(result);
    }
    TsneOptions options;
    options.perplexity = request.perplexity;
    options.iterations = request.iterations;
    options.exaggerationIterations = std::min(options.exaggerationIterations, request.iterations / 3);
    options.seed = request.seed;
    options.reportEvery = 5;
    using Clock = std::chrono::steady_clock;
    auto last = Clock::now() - std::chrono::seconds(1);
    bool apart = false;
    const auto report = [&](const Progress &p) { job.report(p); };
    auto map = tsne(
        view, options, job.stop(),
        [&](const TsneUpdate &u) {
            job.report({"t-SNE", u.iteration, u.iterations, "iterations"});
            if (const auto now = Clock::now(); now - last >= std::chrono::milliseconds(40)) { // 25 pictures a second are enough
                last = now;
                auto partial = std::make_shared<SpaceData>(*result);
                partial->coordinates = std::make_shared<std::vector<float>>(u.coordinates.begin(), u.coordinates.end());
                partial->iteration = u.iteration;
                partial->iterations = u.iterations;
                partial->perplexity = request.perplexity;
                if (!u.exaggerating && std::isfinite(u.kl))
                    partial->kl = u.kl;
                shown(partial);
            }
            // Few points in groups that share no neighbours drift apart without end: the map is drawn as far as it means
            // something.
            float low = u.coordinates[0], high = low;
            for (const float v : u.coordinates) {
                low = std::min(low, v);
                high = std::max(high, v);
            }
            apart = high - low > 300 + 4 * std::sqrt(static_cast<float>(view.rows));
            return !apart && !job.stop().stop_requested();
        },
        report);
    if (!map)
        return map.error();
    result->coordinates = std::make_shared<std::vector<float>>(std::move(map->coordinates));
    result->iteration = map->iterations;
    result->iterations = request.iterations;
    result->kl = map->kl;
    result->perplexity = map->perplexity;
    result->finished = !map->stopped || apart;
    if (apart)
        result->note = QCoreApplication::translate("SpaceView", "ended at iteration %1: the groups are fully apart").arg(map->iterations);
    for (const std::string &w : map->warnings)
        result->note += (result->note.isEmpty() ? QString() : QStringLiteral("; ")) + QString::fromStdString(w);
    return std::shared_ptr<const SpaceData>(result);
}

} // namespace spectra
