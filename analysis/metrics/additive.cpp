// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/additive.h"

#include "analysis/metrics/loads.h"
#include "analysis/metrics/partition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

namespace spectra::detail {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();
using L = StatLayout;

double ratio(double a, double b)
{
    return b > 0 ? a / b : kUndefined;
}

double shareSquares(std::span<const double> load)
{
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    if (!(sum > 0))
        return kUndefined;
    double squares = 0;
    for (const double l : load)
        squares += l / sum * (l / sum);
    return squares;
}

double entropyNormalized(const StatView &s)
{
    return s.layout->experts > 1 ? entropyBits(s(L::load)) / std::log2(s.layout->experts) : kUndefined;
}

double switchAux(const StatView &s)
{
    const auto load = s(L::load), p = s(L::probability);
    if (!(s[L::slots] > 0) || !(s[L::probabilityTokens] > 0))
        return kUndefined;
    double sum = 0;
    for (std::size_t i = 0; i < load.size(); ++i)
        sum += load[i] / s[L::slots] * (p[i] / s[L::probabilityTokens]);
    return sum * static_cast<double>(load.size());
}

double capacityUsage(const StatView &s)
{
    return s.capacityFactor > 0 ? (maxViolation(s(L::load)) + 1) / s.capacityFactor : kUndefined;
}

double consistency(const StatView &s)
{
    return ratio(s[L::sameTop1], s[L::pairs]);
}

double segmentBest(const StatView &s)
{
    return ratio(s[L::segments + 2 * static_cast<int>(kSegmentMain)],
                 s[L::segments + 2 * static_cast<int>(kSegmentMain) + 1]);
}

double cacheHit(const StatView &s)
{
    return ratio(s[L::caches + 2 * static_cast<int>(kCacheMain)], s[L::caches + 2 * static_cast<int>(kCacheMain) + 1]);
}

const AdditiveMetric kAdditive[] = {
    {"expert_entropy_bits", [](const StatView &s) { return entropyBits(s(L::load)); }, nullptr, L::tokens, false},
    {"expert_entropy_nats", [](const StatView &s) { return entropyBits(s(L::load)) * std::numbers::ln2; }, nullptr,
     L::tokens, false},
    {"expert_entropy_normalized", entropyNormalized, nullptr, L::tokens, false},
    {"expert_entropy_bits_weighted", [](const StatView &s) { return entropyBits(s(L::weight)); }, nullptr,
     L::weightTokens, false},
    {"load_cv", [](const StatView &s) { return coefficientOfVariation(s(L::load)); }, nullptr, L::tokens, false},
    {"load_cv_weighted", [](const StatView &s) { return coefficientOfVariation(s(L::weight)); }, nullptr,
     L::weightTokens, false},
    {"max_vio", [](const StatView &s) { return maxViolation(s(L::load)); }, nullptr, L::tokens, false},
    {"max_vio_weighted", [](const StatView &s) { return maxViolation(s(L::weight)); }, nullptr, L::weightTokens, false},
    {"max_abs_deviation", [](const StatView &s) { return s[L::filled] > 0 ? maxAbsDeviation(s(L::load)) : kUndefined; },
     nullptr, L::tokens, false},
    {"load_std", [](const StatView &s) { return s[L::filled] > 0 ? standardDeviation(s(L::load)) : kUndefined; },
     nullptr, L::tokens, false},
    {"gini", [](const StatView &s) { return gini(s(L::load)); }, nullptr, L::tokens, false},
    {"gini_weighted", [](const StatView &s) { return gini(s(L::weight)); }, nullptr, L::weightTokens, false},
    {"min_max_ratio", [](const StatView &s) { return minMaxRatio(s(L::load)); }, nullptr, L::tokens, false},
    {"collapse_rate", [](const StatView &s) { return collapseRate(s(L::load)); }, nullptr, L::tokens, true},
    {"collapse_rate_1pct", [](const StatView &s) { return collapseRate(s(L::load), 0.01); }, nullptr, L::tokens, true},
    {"load_imbalance", [](const StatView &s) { return maxViolation(s(L::load)) + 1; }, nullptr, L::tokens, false},
    {"capacity_usage", capacityUsage, nullptr, L::tokens, false},
    {"drop_rate", [](const StatView &s) { return ratio(s[L::dropped], s[L::slots]); }, nullptr, L::tokens, false},
    {"switch_aux", switchAux, [](const StatView &) { return 1.0; }, L::probabilityTokens, false},
    {"routing_entropy", [](const StatView &s) { return ratio(s[L::entropySum], s[L::entropyTokens]); }, nullptr,
     L::entropyTokens, false},
    {"routing_entropy_normalized",
     [](const StatView &s) {
         return s.layout->experts > 1 ? ratio(s[L::entropySum], s[L::entropyTokens]) / std::log(s.layout->experts)
                                      : kUndefined;
     },
     nullptr, L::entropyTokens, false},
    {"routing_entropy_chosen", [](const StatView &s) { return ratio(s[L::chosenEntropySum], s[L::weightTokens]); },
     nullptr, L::weightTokens, false},
    {"routing_confidence", [](const StatView &s) { return ratio(s[L::confidenceSum], s[L::weightTokens]); }, nullptr,
     L::weightTokens, false},
    {"routing_margin",
     [](const StatView &s) {
         return s.layout->experts > 1 ? ratio(s[L::marginSum], s[L::probabilityTokens]) : kUndefined;
     },
     nullptr, L::probabilityTokens, false},
    {"sequential_consistency", consistency, [](const StatView &s) { return shareSquares(s(L::top1)); }, L::pairs,
     false},
    {"sequential_consistency_excess", [](const StatView &s) { return consistency(s) - shareSquares(s(L::top1)); },
     [](const StatView &) { return 0.0; }, L::pairs, false},
    {"topk_overlap", [](const StatView &s) { return ratio(s[L::jaccardSum], s[L::pairs]); }, nullptr, L::pairs, false},
    {"segment_routing_best", segmentBest, nullptr,
     static_cast<L::Scalar>(L::segments + 2 * static_cast<int>(kSegmentMain) + 1), false},
    {"segment_cache_hit", cacheHit, nullptr, static_cast<L::Scalar>(L::caches + 2 * static_cast<int>(kCacheMain) + 1),
     false},
};

// ---- expert × domain ----

struct Margins {
    std::vector<double> expert, domain;
    double all = 0;
};

Margins margins(std::span<const StatView> domains, StatLayout::Vector v)
{
    Margins m;
    m.expert.assign(static_cast<std::size_t>(domains.front().layout->experts), 0.0);
    for (const StatView &d : domains) {
        const auto load = d(v);
        m.domain.push_back(std::accumulate(load.begin(), load.end(), 0.0));
        m.all += m.domain.back();
        for (std::size_t i = 0; i < load.size(); ++i)
            m.expert[i] += load[i];
    }
    return m;
}

double lift(std::span<const StatView> domains, const Margins &m, std::size_t expert, std::size_t d)
{
    return m.domain[d] > 0 && m.expert[expert] > 0
               ? domains[d](L::load)[expert] / m.domain[d] * m.all / m.expert[expert]
               : kUndefined;
}

/// Mean over experts of the largest `cell` over domains; experts without any defined cell are left out.
template <typename Cell> double meanOfLargest(std::span<const StatView> domains, const Cell &cell)
{
    double sum = 0, used = 0;
    for (std::size_t e = 0; e < static_cast<std::size_t>(domains.front().layout->experts); ++e) {
        double best = kUndefined;
        for (std::size_t d = 0; d < domains.size(); ++d) {
            const double x = cell(e, d);
            if (std::isfinite(x) && !(best >= x))
                best = x;
        }
        if (std::isfinite(best)) {
            sum += best;
            used += 1;
        }
    }
    return ratio(sum, used);
}

template <typename Cell>
std::vector<float> table(std::span<const StatView> domains, std::int64_t &rows, std::int64_t &columns, const Cell &cell)
{
    rows = domains.front().layout->experts;
    columns = static_cast<std::int64_t>(domains.size());
    std::vector<float> values;
    for (std::size_t e = 0; e < static_cast<std::size_t>(rows); ++e)
        for (std::size_t d = 0; d < domains.size(); ++d)
            values.push_back(static_cast<float>(cell(e, d)));
    return values;
}

double affinity(std::span<const StatView> domains)
{
    const Margins m = margins(domains, L::load);
    return meanOfLargest(domains, [&](std::size_t e, std::size_t d) { return lift(domains, m, e, d); });
}

double affinityOf(std::span<const StatView> domains, std::size_t d)
{
    const Margins m = margins(domains, L::load);
    double best = kUndefined;
    for (std::size_t e = 0; e < m.expert.size(); ++e)
        if (const double x = lift(domains, m, e, d); std::isfinite(x) && !(best >= x))
            best = x;
    return best;
}

std::vector<float> affinityMatrix(std::span<const StatView> domains, std::int64_t &rows, std::int64_t &columns)
{
    const Margins m = margins(domains, L::load);
    return table(domains, rows, columns, [&](std::size_t e, std::size_t d) { return lift(domains, m, e, d); });
}

double chosenShare(std::span<const StatView> domains, std::size_t e, std::size_t d)
{
    return ratio(domains[d](L::load)[e], domains[d][L::tokens]);
}

double specializationOf(std::span<const StatView> domains, std::size_t d)
{
    const auto load = domains[d](L::load);
    return ratio(load.empty() ? 0 : *std::max_element(load.begin(), load.end()), domains[d][L::tokens]);
}

double specialization(std::span<const StatView> domains)
{
    double sum = 0, used = 0;
    for (std::size_t d = 0; d < domains.size(); ++d)
        if (const double x = specializationOf(domains, d); std::isfinite(x)) {
            sum += x;
            used += 1;
        }
    return ratio(sum, used);
}

double purity(std::span<const StatView> domains)
{
    const Margins m = margins(domains, L::load);
    return meanOfLargest(domains,
                         [&](std::size_t e, std::size_t d) { return ratio(domains[d](L::load)[e], m.expert[e]); });
}

std::vector<float> purityMatrix(std::span<const StatView> domains, std::int64_t &rows, std::int64_t &columns)
{
    const Margins m = margins(domains, L::load);
    rows = static_cast<std::int64_t>(m.expert.size());
    columns = 1;
    std::vector<float> values;
    for (std::size_t e = 0; e < m.expert.size(); ++e) {
        double best = 0;
        for (const StatView &d : domains)
            best = std::max(best, d(L::load)[e]);
        values.push_back(static_cast<float>(ratio(best, m.expert[e])));
    }
    return values;
}

double purityChance(std::span<const StatView> domains)
{
    const Margins m = margins(domains, L::load);
    return ratio(*std::max_element(m.domain.begin(), m.domain.end()), m.all);
}

/// Point-biserial correlation of each expert's weight with each domain's indicator.
struct Correlation {
    std::vector<double> sum, squares;
    double n = 0;
    std::span<const StatView> domains;
    explicit Correlation(std::span<const StatView> of)
        : domains(of)
    {
        sum.assign(static_cast<std::size_t>(of.front().layout->experts), 0.0);
        squares = sum;
        for (const StatView &d : of) {
            n += d[L::weightTokens];
            for (std::size_t e = 0; e < sum.size(); ++e) {
                sum[e] += d(L::weight)[e];
                squares[e] += d(L::weight2)[e];
            }
        }
    }
    double operator()(std::size_t e, std::size_t d) const
    {
        const double p = domains[d][L::weightTokens] / n, mean = sum[e] / n;
        const double variance = squares[e] / n - mean * mean;
        const double covariance = domains[d](L::weight)[e] / n - mean * p;
        return variance > 1e-15 && p > 0 && p < 1 ? covariance / std::sqrt(variance * p * (1 - p)) : kUndefined;
    }
};

double correlation(std::span<const StatView> domains)
{
    const Correlation r(domains);
    return meanOfLargest(domains, [&](std::size_t e, std::size_t d) { return std::abs(r(e, d)); });
}

double correlationOf(std::span<const StatView> domains, std::size_t d)
{
    const Correlation r(domains);
    double best = kUndefined;
    for (std::size_t e = 0; e < r.sum.size(); ++e)
        if (const double x = std::abs(r(e, d)); std::isfinite(x) && !(best >= x))
            best = x;
    return best;
}

std::vector<float> correlationMatrix(std::span<const StatView> domains, std::int64_t &rows, std::int64_t &columns)
{
    const Correlation r(domains);
    return table(domains, rows, columns, [&](std::size_t e, std::size_t d) { return r(e, d); });
}

Contingency top1Table(std::span<const StatView> domains)
{
    Contingency c(domains.front().layout->experts, static_cast<std::int64_t>(domains.size()));
    for (std::size_t d = 0; d < domains.size(); ++d)
        for (std::int64_t e = 0; e < c.rows; ++e)
            c.at(e, static_cast<std::int64_t>(d)) = domains[d](L::top1)[static_cast<std::size_t>(e)];
    return c;
}

double agreement(std::span<const StatView> domains, double PartitionAgreement::*field, bool adjusted)
{
    const auto a = partitionAgreement(top1Table(domains), adjusted);
    return a ? (*a).*field : kUndefined;
}

double nmiChance(std::span<const StatView> domains)
{
    const auto a = partitionAgreement(top1Table(domains));
    return a ? ratio(2 * a->expectedMutualInformation, a->entropyRows + a->entropyColumns) : kUndefined;
}

const DomainMetric kDomain[] = {
    {"expert_affinity", affinity, [](std::span<const StatView>) { return 1.0; }, affinityOf, affinityMatrix},
    {"domain_specialization", specialization,
     [](std::span<const StatView> d) { return static_cast<double>(d.front().slots) / d.front().layout->experts; },
     specializationOf,
     [](std::span<const StatView> domains, std::int64_t &rows, std::int64_t &columns) {
         return table(domains, rows, columns, [&](std::size_t e, std::size_t d) { return chosenShare(domains, e, d); });
     }},
    {"domain_purity", purity, purityChance, nullptr, purityMatrix},
    {"expert_task_correlation", correlation, nullptr, correlationOf, correlationMatrix},
    {"nmi_expert_domain", [](std::span<const StatView> d) { return agreement(d, &PartitionAgreement::nmi, false); },
     nmiChance, nullptr,
     [](std::span<const StatView> domains, std::int64_t &rows, std::int64_t &columns) {
         return table(domains, rows, columns, [&](std::size_t e, std::size_t d) { return domains[d](L::top1)[e]; });
     }},
    {"ami", [](std::span<const StatView> d) { return agreement(d, &PartitionAgreement::ami, true); },
     [](std::span<const StatView>) { return 0.0; }, nullptr, nullptr},
    {"cramers_v", [](std::span<const StatView> d) { return agreement(d, &PartitionAgreement::cramersV, false); },
     [](std::span<const StatView>) { return 0.0; }, nullptr, nullptr},
};

} // namespace

std::span<const AdditiveMetric> additiveMetrics()
{
    return kAdditive;
}

std::span<const DomainMetric> domainMetrics()
{
    return kDomain;
}

} // namespace spectra::detail
