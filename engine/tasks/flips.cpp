// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/flips.h"

#include "engine/tasks/jsonlines.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace spectra {
namespace {

Result<std::optional<RoutingSignature>> signatureOf(const JsonLine &line)
{
    const nlohmann::json *value = line.find({"routing"});
    if (value == nullptr)
        return std::optional<RoutingSignature>();
    RoutingSignature signature;
    const auto bad = [&] { return line.error("\"routing\" is not a list of counts per layer", "a file of items that 'spectra eval -o' wrote"); };
    if (!value->is_array())
        return bad();
    for (const nlohmann::json &layer : *value) {
        if (!layer.is_array())
            return bad();
        std::vector<std::int64_t> counts;
        for (const nlohmann::json &count : layer) {
            if (!count.is_number_unsigned() || count.get<std::uint64_t>() > std::uint64_t(1) << 53)
                return bad();
            counts.push_back(static_cast<std::int64_t>(count.get<std::uint64_t>()));
        }
        signature.top1.push_back(std::move(counts));
    }
    return std::optional<RoutingSignature>(std::move(signature));
}

/// Two-sided exact test of k successes among n fair coins.
double fairCoinP(std::int64_t k, std::int64_t n)
{
    if (n == 0)
        return 1;
    const std::int64_t few = std::min(k, n - k);
    double tail = 0;
    const double count = static_cast<double>(n);
    for (std::int64_t i = 0; i <= few; ++i) {
        const double d = static_cast<double>(i);
        tail += std::exp(std::lgamma(count + 1) - std::lgamma(d + 1) - std::lgamma(count - d + 1) - count * std::log(2.0));
    }
    return std::min(1.0, 2 * tail);
}

} // namespace

Result<EarlierRun> readEarlierRun(std::string_view content, const std::string &name, const std::string &task)
{
    EarlierRun run;
    SPECTRA_CHECK(forEachLine(content, name, [&](const JsonLine &line) -> Result<void> {
        SPECTRA_TRY(const std::string its, line.text({"task"}));
        if (its != task)
            return line.error(fmt::format("is an item of '{}', not of '{}'", its, task), "compare runs of one task");
        ComparedItem item;
        SPECTRA_TRY(item.id, line.filledText({"id"}));
        const nlohmann::json *right = line.find({"right"});
        if (right != nullptr && !right->is_number())
            return line.error("\"right\" is not a number");
        item.right = right != nullptr ? right->get<double>() : std::numeric_limits<double>::quiet_NaN();
        if (line.has("answer")) {
            SPECTRA_TRY(item.answer, line.text({"answer"}));
        }
        SPECTRA_TRY(item.routing, signatureOf(line));
        if (!run.index.emplace(item.id, run.items.size()).second)
            return line.error(fmt::format("the id '{}' came before", item.id));
        run.items.push_back(std::move(item));
        return {};
    }));
    return run;
}

std::optional<RoutingDifference> routingDifference(const RoutingSignature &a, const RoutingSignature &b)
{
    if (a.top1.size() != b.top1.size() || a.top1.empty())
        return std::nullopt;
    RoutingDifference difference;
    for (std::size_t l = 0; l < a.top1.size(); ++l) {
        const auto &p = a.top1[l], &q = b.top1[l];
        double pSum = 0, qSum = 0;
        for (const std::int64_t n : p)
            pSum += static_cast<double>(n);
        for (const std::int64_t n : q)
            qSum += static_cast<double>(n);
        if (p.size() != q.size() || !(pSum > 0) || !(qSum > 0))
            return std::nullopt;
        double distance = 0;
        for (std::size_t e = 0; e < p.size(); ++e)
            distance += std::abs(static_cast<double>(p[e]) / pSum - static_cast<double>(q[e]) / qSum) / 2;
        if (distance > difference.worst || l == 0) {
            difference.worst = distance;
            difference.worstLayer = static_cast<int>(l);
        }
        difference.mean += distance / static_cast<double>(a.top1.size());
        difference.layers.push_back(distance);
    }
    return difference;
}

Comparison compareRuns(std::span<const ComparedItem> now, const EarlierRun &before)
{
    Comparison comparison;
    double flippedSum = 0, otherSum = 0;
    std::int64_t flipped = 0, others = 0;
    for (const ComparedItem &item : now) {
        const auto found = before.index.find(item.id);
        if (found == before.index.end()) {
            ++comparison.onlyHere;
            continue;
        }
        const ComparedItem &old = before.items[found->second];
        ++comparison.compared;
        std::optional<RoutingDifference> routing;
        if (item.routing && old.routing)
            routing = routingDifference(*old.routing, *item.routing);
        const bool judged = std::isfinite(item.right) && std::isfinite(old.right);
        const bool flips = judged && (item.right >= 0.5) != (old.right >= 0.5);
        if (routing) {
            (flips ? flippedSum : otherSum) += routing->mean;
            ++(flips ? flipped : others);
        }
        if (!flips)
            continue;
        ++(item.right >= 0.5 ? comparison.gained : comparison.lost);
        comparison.flips.push_back({item.id, old.answer, item.answer, old.right, item.right, std::move(routing)});
    }
    comparison.onlyThere = static_cast<std::int64_t>(before.items.size()) - comparison.compared;
    comparison.mcnemarP = fairCoinP(comparison.gained, comparison.gained + comparison.lost);
    if (flipped > 0)
        comparison.routingOfFlips = flippedSum / static_cast<double>(flipped);
    if (others > 0)
        comparison.routingOfOthers = otherSum / static_cast<double>(others);
    return comparison;
}

} // namespace spectra
