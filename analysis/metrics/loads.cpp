// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/loads.h"

#include "analysis/metrics/tokenindex.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace spectra {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

double total(std::span<const double> load)
{
    return std::accumulate(load.begin(), load.end(), 0.0);
}

} // namespace

std::int64_t LoadTable::load(std::int64_t layer, std::int64_t expert) const
{
    std::int64_t sum = 0;
    for (std::int64_t d = 0; d < static_cast<std::int64_t>(domains.size()); ++d)
        sum += count(layer, expert, d);
    return sum;
}

std::vector<double> LoadTable::loads(std::int64_t layer) const
{
    std::vector<double> result;
    for (std::int64_t e = 0; e < experts; ++e)
        result.push_back(static_cast<double>(load(layer, e)));
    return result;
}

Result<LoadTable> loadTable(const TraceSource &trace, const RowSet *selection, std::stop_token stop)
{
    const auto info = trace.info();
    if (info->experts < 0 || info->experts > kNoExpert)
        return inputError("the trace names " + std::to_string(info->experts) + " experts", info->file);
    LoadTable table;
    table.layers = info->layers();
    table.experts = info->experts;
    table.domains = info->domains;
    if (table.domains.empty())
        table.domains.emplace_back();
    const std::size_t domains = table.domains.size();
    const std::size_t cells =
        static_cast<std::size_t>(table.layers) * static_cast<std::size_t>(table.experts) * domains;
    table.counts.assign(cells, 0);
    table.top1.assign(cells, 0);
    table.weights.assign(cells, 0.0);
    table.tokens.assign(domains, 0);
    const bool withWeights = info->has(Column::weights), withDropped = info->has(Column::dropped);
    if (withDropped)
        table.dropped.assign(static_cast<std::size_t>(table.layers), 0);

    detail::TokenIndexOptions options;
    options.selection = selection;
    SPECTRA_TRY(const detail::TokenIndex index, detail::readTokenIndex(trace, options, stop));
    const auto domainOf = [&](std::size_t run) {
        return static_cast<std::size_t>(std::max(0, index.domain[static_cast<std::size_t>(index.runSequence[run])]));
    };
    for (std::size_t run = 0; run < index.runSequence.size(); ++run)
        for (std::int64_t t = index.firstToken[run]; t < index.firstToken[run + 1]; ++t)
            table.tokens[domainOf(run)] += index.has(t, detail::TokenIndex::counted);

    if (!info->has(Column::experts))
        return inputError("the trace holds no expert choices", info->file, info->missingColumns.at(Column::experts));
    for (int layer = 0; layer < info->layers(); ++layer) {
        std::size_t run = 0;
        for (std::int64_t first = 0; first < index.tokens; first += options.blockTokens) {
            if (stop.stop_requested())
                return cancelledError();
            const TokenRange range{first, std::min(index.tokens, first + options.blockTokens)};
            SPECTRA_TRY(const auto block, trace.block(Column::experts, layer, range, stop));
            std::shared_ptr<const Block> weights, dropped;
            if (withWeights) {
                SPECTRA_TRY(weights, trace.block(Column::weights, layer, range, stop));
            }
            if (withDropped) {
                SPECTRA_TRY(dropped, trace.block(Column::dropped, layer, range, stop));
            }
            const std::int64_t k = block->width();
            const auto slots = static_cast<std::size_t>(k * range.size());
            if (block->u16.size() < slots || (weights && weights->f32.size() < slots) ||
                (dropped && dropped->u8.size() < static_cast<std::size_t>(range.size())))
                return inputError("a routing block is shorter than its token range", info->file);
            for (std::int64_t t = range.first; t < range.last; ++t) {
                while (t >= index.firstToken[run + 1])
                    ++run;
                if (!index.has(t, detail::TokenIndex::counted))
                    continue;
                const auto at = static_cast<std::size_t>((t - range.first) * k);
                const std::size_t base = static_cast<std::size_t>(layer) * static_cast<std::size_t>(table.experts);
                for (std::size_t j = 0; j < static_cast<std::size_t>(k); ++j) {
                    const std::uint16_t e = block->u16[at + j];
                    if (e == kNoExpert)
                        continue;
                    if (e >= table.experts)
                        return inputError("expert " + std::to_string(e) + " of " + std::to_string(table.experts) +
                                              " at token " + std::to_string(t),
                                          info->file + ": routing/experts");
                    const std::size_t cell = (base + e) * domains + domainOf(run);
                    ++table.counts[cell];
                    table.top1[cell] += j == 0;
                    if (weights && std::isfinite(weights->f32[at + j]))
                        table.weights[cell] += static_cast<double>(weights->f32[at + j]);
                }
                if (dropped)
                    table.dropped[static_cast<std::size_t>(layer)] +=
                        dropped->u8[static_cast<std::size_t>(t - range.first)];
            }
        }
    }
    return table;
}

double entropyBits(std::span<const double> load)
{
    const double sum = total(load);
    if (!(sum > 0))
        return kUndefined;
    double h = 0;
    for (const double l : load)
        if (l > 0)
            h -= l / sum * std::log2(l / sum);
    return std::max(h, 0.0);
}

double standardDeviation(std::span<const double> load)
{
    if (load.empty())
        return kUndefined;
    const double mean = total(load) / static_cast<double>(load.size());
    double squares = 0;
    for (const double l : load)
        squares += (l - mean) * (l - mean);
    return std::sqrt(squares / static_cast<double>(load.size()));
}

double coefficientOfVariation(std::span<const double> load)
{
    const double sum = total(load);
    return sum > 0 ? standardDeviation(load) * static_cast<double>(load.size()) / sum : kUndefined;
}

double maxViolation(std::span<const double> load)
{
    const double sum = total(load);
    return sum > 0 ? *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()) / sum - 1
                   : kUndefined;
}

double maxAbsDeviation(std::span<const double> load)
{
    if (load.empty())
        return kUndefined;
    const double mean = total(load) / static_cast<double>(load.size());
    double largest = 0;
    for (const double l : load)
        largest = std::max(largest, std::abs(l - mean));
    return largest;
}

double gini(std::span<const double> load)
{
    const double sum = total(load);
    if (!(sum > 0))
        return kUndefined;
    std::vector<double> sorted(load.begin(), load.end());
    std::sort(sorted.begin(), sorted.end());
    const auto n = static_cast<double>(sorted.size());
    double weighted = 0;
    for (std::size_t i = 0; i < sorted.size(); ++i)
        weighted += (2 * static_cast<double>(i + 1) - n - 1) * sorted[i];
    return weighted / (n * sum);
}

double minMaxRatio(std::span<const double> load)
{
    if (!(total(load) > 0))
        return kUndefined;
    const auto [least, most] = std::minmax_element(load.begin(), load.end());
    return *least / *most;
}

double collapseRate(std::span<const double> load, double shareOfFair)
{
    const double sum = total(load);
    if (!(sum > 0))
        return kUndefined;
    const double bound = shareOfFair * sum / static_cast<double>(load.size());
    const auto below = std::count_if(load.begin(), load.end(), [&](double l) { return l <= 0 || l < bound; });
    return static_cast<double>(below) / static_cast<double>(load.size());
}

} // namespace spectra
