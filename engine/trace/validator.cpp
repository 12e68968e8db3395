// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/validator.h"

#include "engine/trace/tracefile.h"
#include "engine/trace/tracereader.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace spectra {
namespace fs = std::filesystem;
using schema::Axis;
using schema::Dataset;
using Severity = Finding::Severity;

namespace {

constexpr std::int64_t kStep = 8192; ///< tokens looked at at once
constexpr int kMostPerPlace = 3;

class Validator {
public:
    Validator(std::shared_ptr<TraceFile> file, std::shared_ptr<const TraceReader> reader, std::stop_token stop)
        : m_file(std::move(file)), m_reader(std::move(reader)), m_info(m_reader->info()), m_stop(std::move(stop))
    {
    }

    std::vector<Finding> run()
    {
        attributes();
        datasets();
        sequences();
        tokens();
        for (int layer = 0; layer < m_info->layers() && !m_stop.stop_requested(); ++layer) {
            routing(layer);
            tables(layer);
        }
        sampled(Dataset::hiddenToken);
        sampled(Dataset::outputToken);
        sampled(Dataset::denseToken);
        batches();
        return std::move(m_findings);
    }

private:
    void say(Severity severity, const std::string &place, const std::string &what)
    {
        if (m_count[place]++ < kMostPerPlace)
            m_findings.push_back({severity, place, what});
    }
    void error(Dataset d, const std::string &what) { say(Severity::error, schema::rule(d).path, what); }
    void error(const std::string &place, const std::string &what) { say(Severity::error, place, what); }
    [[nodiscard]] bool has(Dataset d) const { return m_file->view(d).present(); }
    [[nodiscard]] bool quiet(Dataset d) const
    {
        const auto it = m_count.find(schema::rule(d).path);
        return it != m_count.end() && it->second >= kMostPerPlace;
    }

    void attributes()
    {
        const auto need = [&](const char *object, std::initializer_list<const char *> names) {
            if (std::string(object) != "/" && !h5::isGroup(m_file->id(), object))
                return error(std::string("/") + object, "the group is missing");
            const auto group = h5::openGroup(m_file->id(), object);
            for (const char *name : names)
                if (group && !h5::textAttribute(group->id(), name) && !h5::numberAttribute(group->id(), name))
                    error((std::string(object) == "/" ? "/" : std::string("/") + object) + "@" + name, "the attribute is missing, or no scalar");
        };
        need("/", {"format", "format_version", "created", "generator", "complete", "uuid"});
        need("model", {"name", "architecture", "router", "config", "checkpoint_sha256", "dtype", "device", "tokenizer_sha256", "n_layers",
                       "n_experts", "top_k", "n_shared_experts", "router_dim", "score_function", "normalize_top_k", "score_before_top_k",
                       "routed_scaling_factor", "n_groups", "top_k_groups", "training_step", "seed"});
        need("environment", {"version", "git_commit", "libtorch", "compiler", "processor", "system", "command_line", "threads", "wall_seconds"});
        need("tokens", {"committed"});
        if (m_file->complete() && h5::isGroup(m_file->id(), "resume"))
            error("/resume", "is left in a finished trace");
        if (!m_file->complete())
            say(Severity::warning, "/@complete", "the run did not end; what it committed is checked");
        if (m_file->complete() && m_file->view(Dataset::tokenId).info.shape[0] != m_file->tokens())
            error("/tokens@committed", "is " + std::to_string(m_file->tokens()) + ", but there are " + std::to_string(m_file->view(Dataset::tokenId).info.shape[0]) + " tokens");
    }

    void datasets()
    {
        for (const char *name : {"layer", "token", "expert", "slot"})
            if (!h5::isDataset(m_file->id(), name) && (m_info->layers() > 0 || std::string(name) == "token"))
                error(std::string("/") + name, "the dimension scale is missing");
        for (const schema::Rule &rule : schema::rules()) {
            const TraceFile::View &view = m_file->view(rule.dataset);
            if (!view.present())
                continue;
            const h5::Type wanted = schema::fileType(rule.element, view.info.type == h5::Type::f16);
            if (view.info.type != wanted || !view.info.exactType)
                error(rule.dataset, std::string("holds ") + h5::nameOf(view.info.type) + (view.info.exactType ? "" : " in another form") + ", expected " + h5::nameOf(wanted));
            for (int i = 0; i < rule.rank(); ++i) {
                const Axis axis = rule.axes[static_cast<std::size_t>(i)];
                const bool described = axis == Axis::layer || axis == Axis::token || axis == Axis::expert || axis == Axis::slot;
                if (described && view.info.shape[static_cast<std::size_t>(i)] > 0 && !h5::hasScale(view.handle.id(), i))
                    error(rule.dataset, std::string("has no dimension scale on the axis ") + schema::scaleName(axis));
                if (axis == Axis::token && m_file->complete() && view.info.shape[static_cast<std::size_t>(i)] != m_file->tokens())
                    error(rule.dataset, "has " + std::to_string(view.info.shape[static_cast<std::size_t>(i)]) + " rows for " + std::to_string(m_file->tokens()) + " tokens");
            }
            if (!h5::textAttribute(view.handle.id(), "meaning"))
                say(Severity::warning, rule.path, "has no attribute meaning");
        }
        const std::vector<std::int32_t> index = m_info->decoderIndex;
        for (std::size_t l = 0; l < index.size(); ++l)
            if (index[l] < 0 || (l > 0 && index[l] <= index[l - 1]))
                error(Dataset::decoderIndex, "is not ascending at " + std::to_string(l));
    }

    void sequences()
    {
        const auto list = m_reader->sequences();
        if (!list)
            return error(Dataset::sequenceOffset, list.error().what);
        m_sequences = *list;
        std::int64_t s = 0;
        for (const SequenceInfo &q : *m_sequences) {
            if (q.length <= 0 && m_info->tokens > 0)
                error(Dataset::sequenceOffset, "sequence " + std::to_string(s) + " has no tokens");
            ++s;
        }
        for (const Dataset d : {Dataset::sequenceId, Dataset::sequenceDomain, Dataset::sequenceText, Dataset::sequenceLabel, Dataset::sequencePrompt})
            if (!has(d))
                error(d, "the dataset is missing");
        m_counted.assign(m_sequences->size(), 0);
    }

    void tokens()
    {
        if (!m_sequences)
            return;
        for (const Dataset d : {Dataset::tokenText, Dataset::tokenPhase, Dataset::tokenMask, Dataset::tokenByte})
            if (!has(d))
                error(d, "the dataset is missing");
        const std::int64_t N = m_info->tokens;
        std::size_t s = 0;
        std::int32_t before = 0;
        for (std::int64_t first = 0; first < N && !m_stop.stop_requested(); first += kStep) {
            const auto read = m_reader->tokens({first, std::min(N, first + kStep)}, m_stop);
            if (!read)
                return error("/tokens", read.error().what + " (" + read.error().where + ")");
            const TokenBlock &b = **read;
            for (std::int64_t t = first; t < b.range.last; ++t) {
                while (s + 1 < m_sequences->size() && t >= (*m_sequences)[s].offset + (*m_sequences)[s].length)
                    ++s;
                if (m_sequences->empty())
                    return error(Dataset::sequenceOffset, "there are tokens, but no sequence");
                const SequenceInfo &q = (*m_sequences)[s];
                const auto i = static_cast<std::size_t>(t - first);
                const std::string row = "token " + std::to_string(t) + ": ";
                if (b.sequence[i] != static_cast<std::int32_t>(s))
                    error(Dataset::tokenSequence, row + std::to_string(b.sequence[i]) + ", expected " + std::to_string(s));
                if (b.position[i] != t - q.offset)
                    error(Dataset::tokenPosition, row + std::to_string(b.position[i]) + ", expected " + std::to_string(t - q.offset));
                if (b.phase[i] > 1)
                    error(Dataset::tokenPhase, row + std::to_string(b.phase[i]) + " is neither 0 nor 1");
                if (b.mask[i] > 1)
                    error(Dataset::tokenMask, row + std::to_string(b.mask[i]) + " is neither 0 nor 1");
                if (b.byteOffset[i] < 0 || (t > q.offset && b.byteOffset[i] < before))
                    error(Dataset::tokenByte, row + std::to_string(b.byteOffset[i]) + " lies before the token before");
                before = b.byteOffset[i];
                if (b.id[i] < 0)
                    error(Dataset::tokenId, row + std::to_string(b.id[i]) + " is no token");
                m_counted[s] += b.mask[i] == 1 ? 1 : 0;
                const bool last = t + 1 == q.offset + q.length && (m_info->complete || s + 1 < m_sequences->size());
                if (!b.nll.empty() && last && !std::isnan(b.nll[i]))
                    error(Dataset::tokenNll, row + "is the last of its sequence and not NaN");
                if (!b.nll.empty() && !last && t + 1 < q.offset + q.length && !(b.nll[i] >= 0 && std::isfinite(b.nll[i])))
                    error(Dataset::tokenNll, row + std::to_string(b.nll[i]) + " is no loss");
            }
        }
        if (has(Dataset::sequenceCounted) && m_info->complete && !m_stop.stop_requested())
            for (std::size_t q = 0; q < m_counted.size(); ++q)
                if ((*m_sequences)[q].counted != m_counted[q])
                    error(Dataset::sequenceCounted, "sequence " + std::to_string(q) + ": " + std::to_string((*m_sequences)[q].counted) + ", but its mask counts " + std::to_string(m_counted[q]));
    }

    void routing(int layer)
    {
        const std::int64_t N = m_info->tokens;
        const auto E = static_cast<std::size_t>(m_info->experts), k = static_cast<std::size_t>(m_info->slots);
        const bool half = m_file->view(Dataset::probabilities).info.type == h5::Type::f16;
        const double slack = half ? 1e-3 + 2.5e-4 * std::sqrt(double(E)) : 1e-4;
        const bool sums = m_info->model.scoreFunction.find("sigmoid") == std::string::npos;
        for (std::int64_t first = 0; first < N && !m_stop.stop_requested(); first += kStep) {
            const TokenRange range{first, std::min(N, first + kStep)};
            const auto n = static_cast<std::size_t>(range.size());
            const auto get = [&](Column c) -> std::shared_ptr<const Block> {
                if (!m_info->has(c))
                    return {};
                auto block = m_reader->block(c, layer, range, m_stop);
                if (!block) {
                    if (block.error().kind != ErrorKind::cancelled)
                        error(*schema::datasetOf(c), block.error().what);
                    return {};
                }
                return std::move(*block);
            };
            const auto row = [&](std::size_t i) { return "layer " + std::to_string(layer) + ", token " + std::to_string(first + static_cast<std::int64_t>(i)) + ": "; };
            const auto experts = get(Column::experts), weights = get(Column::weights), probabilities = get(Column::probabilities),
                       entropy = get(Column::entropy), dropped = get(Column::dropped);
            for (std::size_t i = 0; experts && weights && i < n; ++i) {
                for (std::size_t j = 0; j < k; ++j) {
                    const std::uint16_t e = experts->u16[i * k + j];
                    const float w = weights->f32[i * k + j];
                    if (!std::isfinite(w))
                        error(Dataset::weights, row(i) + "a weight is not a number");
                    if (e == kNoExpert && w != 0)
                        error(Dataset::weights, row(i) + "a slot without expert has weight " + std::to_string(w));
                    if (j > 0 && w > weights->f32[i * k + j - 1] + 1e-6F)
                        error(Dataset::weights, row(i) + "weights do not descend");
                    for (std::size_t other = 0; other < j; ++other)
                        if (e != kNoExpert && experts->u16[i * k + other] == e)
                            error(Dataset::experts, row(i) + "expert " + std::to_string(e) + " is chosen twice");
                }
            }
            for (std::size_t i = 0; dropped && i < n; ++i)
                if (dropped->u8[i] > k)
                    error(Dataset::dropped, row(i) + std::to_string(dropped->u8[i]) + " of " + std::to_string(k) + " slots");
            for (std::size_t i = 0; probabilities && i < n; ++i) {
                double sum = 0, h = 0;
                bool bad = false;
                for (std::size_t e = 0; e < E; ++e) {
                    const double p = double(probabilities->f32[i * E + e]);
                    bad |= !(p >= 0 && p <= 1 + slack);
                    sum += p;
                    h -= p > 0 ? p * std::log(p) : 0;
                }
                if (bad)
                    error(Dataset::probabilities, row(i) + "a value is outside 0..1");
                else if (sums && std::abs(sum - 1) > slack)
                    error(Dataset::probabilities, row(i) + "the sum is " + std::to_string(sum));
                else if (entropy && sums && std::abs(h - double(entropy->f32[i])) > (half ? 2e-2 : 2e-3))
                    error(Dataset::entropy, row(i) + std::to_string(entropy->f32[i]) + ", but the probabilities have " + std::to_string(h) + " nats");
            }
            for (std::size_t i = 0; entropy && i < n; ++i)
                if (!(entropy->f32[i] >= -1e-4F && double(entropy->f32[i]) <= std::log(double(E)) + 1e-3))
                    error(Dataset::entropy, row(i) + std::to_string(entropy->f32[i]) + " is outside 0..ln E");
            for (const Column c : {Column::logits, Column::selection, Column::routingVectors, Column::expressionVectors, Column::gruState, Column::gruPca}) {
                if (quiet(*schema::datasetOf(c)))
                    continue;
                const auto values = get(c);
                if (!values)
                    continue;
                const auto width = static_cast<std::size_t>(values->width());
                // −∞ is a score that a mask or a group limit has ruled out; only NaN is no score.
                const auto bad = std::find_if(values->f32.begin(), values->f32.end(), [](float v) { return std::isnan(v); });
                if (bad != values->f32.end())
                    error(*schema::datasetOf(c), row(static_cast<std::size_t>(bad - values->f32.begin()) / std::max<std::size_t>(1, width)) + "a value is missing (NaN)");
            }
        }
    }

    void tables(int layer)
    {
        const auto get = [&](Table t) -> std::shared_ptr<const TableValue> {
            if (!m_info->has(t))
                return {};
            auto value = m_reader->table(t, layer);
            if (!value) {
                error(schema::datasetOf(t), value.error().what);
                return {};
            }
            return std::move(*value);
        };
        const std::string where = "layer " + std::to_string(layer) + ": ";
        const auto E = static_cast<std::size_t>(m_info->experts);
        struct Pair {
            Table gram, rows, perSequence;
        };
        for (const Pair p : {Pair{Table::gramRouting, Table::meanRouting, Table::sequenceMeanRouting},
                             Pair{Table::gramExpression, Table::meanExpression, Table::sequenceMeanExpression},
                             Pair{Table::gramRouterWeights, Table::routerWeights, Table::gramRouterWeights}}) {
            const auto gram = get(p.gram), rows = get(p.rows);
            const std::size_t W = rows ? rows->values.size() / std::max<std::size_t>(1, E) : 0;
            std::vector<double> unit;
            if (rows)
                unit.assign(rows->values.begin(), rows->values.end());
            for (std::size_t e = 0; rows && e < E; ++e) {
                double norm = 0;
                for (std::size_t i = 0; i < W; ++i)
                    norm += unit[e * W + i] * unit[e * W + i];
                for (std::size_t i = 0; i < W; ++i)
                    unit[e * W + i] *= norm > 0 ? 1 / std::sqrt(norm) : 0;
            }
            for (std::size_t a = 0; gram && a < E; ++a) {
                const double d = double(gram->values[a * E + a]);
                if (std::abs(d - 1) > 1e-3 && std::abs(d) > 1e-6)
                    error(schema::datasetOf(p.gram), where + "diagonal entry " + std::to_string(a) + " is " + std::to_string(d));
                for (std::size_t b = 0; b < E; ++b) {
                    const double g = double(gram->values[a * E + b]);
                    if (!(std::abs(g - double(gram->values[b * E + a])) <= 1e-4))
                        error(schema::datasetOf(p.gram), where + "is not symmetric at " + std::to_string(a) + ", " + std::to_string(b));
                    double dot = 0;
                    for (std::size_t i = 0; rows && i < W; ++i)
                        dot += unit[a * W + i] * unit[b * W + i];
                    if (rows && !(std::abs(dot - g) <= 2e-3))
                        error(schema::datasetOf(p.gram), where + "does not follow from the vectors at " + std::to_string(a) + ", " + std::to_string(b));
                }
            }
            const auto means = p.perSequence == p.gram ? nullptr : get(p.perSequence);
            if (!means || !rows || !m_sequences || !m_info->complete)
                continue;
            const std::size_t cell = rows->values.size();
            std::vector<double> sum(cell, 0);
            double weight = 0;
            for (std::size_t s = 0; s < m_sequences->size() && (s + 1) * cell <= means->values.size(); ++s) {
                const double counted = double((*m_sequences)[s].counted);
                const float *const row = means->values.data() + s * cell;
                if (s + 1 == m_sequences->size() && std::all_of(row, row + cell, [](float v) { return std::isnan(v); }))
                    continue; // the run was stopped inside its last sequence, which then has no part in the run's means
                weight += counted;
                for (std::size_t i = 0; counted > 0 && i < cell; ++i)
                    sum[i] += counted * double(means->values[s * cell + i]);
            }
            for (std::size_t i = 0; weight > 0 && i < cell; ++i)
                if (!(std::abs(sum[i] / weight - double(rows->values[i])) <= 1e-3 * (1 + std::abs(double(rows->values[i]))))) {
                    error(schema::datasetOf(p.rows), where + "is not the weighted mean of the sequence means");
                    break;
                }
        }
    }

    void sampled(Dataset d)
    {
        if (!has(d) || !m_sequences)
            return;
        const TraceFile::View &view = m_file->view(d);
        std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(view.rows, m_info->tokens)));
        if (view.rows > m_info->tokens)
            error(d, "has more rows than the trace has tokens");
        if (auto read = m_file->rows(view, 0, 0, static_cast<std::int64_t>(rows.size()), rows.data(), m_stop); !read)
            return error(d, read.error().what);
        for (std::size_t i = 0; i < rows.size(); ++i)
            if (rows[i] < 0 || rows[i] >= m_info->tokens || (i > 0 && rows[i] <= rows[i - 1]))
                return error(d, "row " + std::to_string(i) + " is out of order or outside the trace");
        for (std::size_t i = 0; i < rows.size() && m_info->complete;) { // whole sequences
            const auto after = std::upper_bound(m_sequences->begin(), m_sequences->end(), rows[i], [](std::int64_t t, const SequenceInfo &s) { return t < s.offset; });
            if (after == m_sequences->begin())
                return;
            const SequenceInfo &s = *std::prev(after);
            const auto length = static_cast<std::size_t>(s.length);
            if (rows[i] != s.offset || i + length > rows.size() || rows[i + length - 1] != s.offset + s.length - 1)
                return error(d, "the sequence at token " + std::to_string(s.offset) + " is not sampled whole");
            i += length;
        }
    }

    void batches()
    {
        if (!has(Dataset::batchOffset))
            return;
        const TraceFile::View &view = m_file->view(Dataset::batchOffset);
        std::int64_t before = -1;
        for (std::int64_t first = 0; first < view.rows; first += kStep) {
            std::vector<std::int64_t> edges(static_cast<std::size_t>(std::min(kStep, view.rows - first)));
            if (auto read = m_file->rows(view, 0, first, first + static_cast<std::int64_t>(edges.size()), edges.data(), m_stop); !read)
                return error(Dataset::batchOffset, read.error().what);
            for (const std::int64_t e : edges) {
                if (e <= before || (e > m_info->tokens && m_info->complete))
                    return error(Dataset::batchOffset, std::to_string(e) + " follows " + std::to_string(before) + ", with " + std::to_string(m_info->tokens) + " tokens in all");
                before = e;
            }
        }
        const std::int64_t B = m_file->view(Dataset::sinkhornViolation).rows;
        if (view.rows != B + 1)
            error(Dataset::batchOffset, "has " + std::to_string(view.rows) + " entries for " + std::to_string(B) + " batches");
    }

    std::shared_ptr<TraceFile> m_file;
    std::shared_ptr<const TraceReader> m_reader;
    std::shared_ptr<const TraceInfo> m_info;
    std::stop_token m_stop;
    std::shared_ptr<const std::vector<SequenceInfo>> m_sequences;
    std::vector<std::int32_t> m_counted;
    std::vector<Finding> m_findings;
    std::map<std::string, int> m_count;
};

} // namespace

std::vector<Finding> validateTrace(const fs::path &path, std::stop_token stop)
{
    const auto one = [](const Error &error) { return std::vector<Finding>{{Severity::error, error.where, error.what}}; };
    auto file = TraceFile::open(path);
    if (!file)
        return one(file.error());
    auto reader = TraceReader::open(path);
    if (!reader)
        return one(reader.error());
    return Validator(std::move(*file), std::move(*reader), std::move(stop)).run();
}

bool hasErrors(const std::vector<Finding> &findings)
{
    return std::any_of(findings.begin(), findings.end(), [](const Finding &f) { return f.severity == Severity::error; });
}

} // namespace spectra
