// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"
#include "engine/data/corpus.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

namespace spectra {
namespace {

constexpr std::int64_t longestExactCycle = 1 << 16; // shares that are multiples of 1/n for an n up to here are met exactly,
constexpr std::int64_t roundedCycle = 1 << 20;      // any others rounded to multiples of this

/// Whole numbers in the proportion of the weights; each weight above 0 has at least one.
std::vector<std::int64_t> countsPerCycle(const std::vector<DomainSource> &domains)
{
    double sum = 0;
    for (const DomainSource &domain : domains)
        sum += domain.weight;
    std::vector<std::int64_t> counts(domains.size());
    const auto take = [&](std::int64_t cycle) {
        double worst = 0;
        for (std::size_t i = 0; i < domains.size(); ++i) {
            const double share = domains[i].weight / sum * double(cycle);
            counts[i] = domains[i].weight > 0 ? std::max<std::int64_t>(1, std::llround(share)) : 0;
            worst = std::max(worst, std::abs(share - double(counts[i])));
        }
        return worst;
    };
    for (std::int64_t cycle = 1; cycle <= longestExactCycle; ++cycle) {
        if (take(cycle) < 1e-9 * double(cycle))
            return counts;
    }
    take(roundedCycle);
    return counts;
}

/// The deal of one cycle: after n places every domain stands within 1 - 1/(2D - 2) of n times its share (R. Tijdeman, The
/// chairman assignment problem, Discrete Mathematics 32, 1980).
std::vector<std::size_t> deal(const std::vector<std::int64_t> &counts)
{
    const std::int64_t cycle = std::accumulate(counts.begin(), counts.end(), std::int64_t(0));
    const auto dealt = std::count_if(counts.begin(), counts.end(), [](std::int64_t c) { return c > 0; });
    std::vector<std::size_t> order;
    order.reserve(std::size_t(cycle));
    if (dealt <= 1) {
        const auto one = std::find_if(counts.begin(), counts.end(), [](std::int64_t c) { return c > 0; });
        order.assign(std::size_t(cycle), std::size_t(one - counts.begin()));
        return order;
    }
    // In whole numbers: all shares times the cycle, all deviations times 2D - 2.
    const std::int64_t scale = 2 * dealt - 2;
    std::vector<std::int64_t> given(counts.size(), 0);
    for (std::int64_t n = 1; n <= cycle; ++n) {
        std::size_t best = counts.size();
        double bestDue = 0;
        for (std::size_t i = 0; i < counts.size(); ++i) {
            const std::int64_t lag = counts[i] * n - given[i] * cycle;
            if (counts[i] == 0 || lag * scale < cycle)
                continue;
            const double due = (double(cycle) * (1 - 1 / double(scale)) - double(lag)) / double(counts[i]);
            if (best == counts.size() || due < bestDue) {
                best = i;
                bestDue = due;
            }
        }
        assert(best < counts.size()); // lags sum to the cycle, so one reaches cycle / D, which is no less than cycle / (2D - 2)
        ++given[best];
        order.push_back(best);
    }
    return order;
}

std::uint64_t mixed(std::uint64_t x) // the finaliser of splitmix64
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/// Place `i` of a permutation of n that the key decides, without the others: a Feistel network over a power of four, walked
/// until it falls below n (Black and Rogaway, Ciphers with arbitrary finite domains, 2002).
std::uint64_t permuted(std::uint64_t i, std::uint64_t n, std::uint64_t key)
{
    const int half = std::max(4, (int(std::bit_width(n - 1)) + 1) / 2);
    const std::uint64_t mask = (std::uint64_t(1) << half) - 1;
    do {
        std::uint64_t left = i >> half, right = i & mask;
        for (std::uint64_t round = 0; round < 8; ++round) {
            const std::uint64_t next = left ^ (mixed(key ^ mixed(right << 8 | round)) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

/// How a domain's text is cut: shifted, from a few windows on, into one fewer than fit, so that the offset can be anywhere.
struct Windows {
    std::int64_t count, slack;
    Windows(std::size_t tokens, std::int64_t length, BatchSampler::Cut cut)
    {
        const std::int64_t usable = std::max<std::int64_t>(std::int64_t(tokens) - 1, 0);
        count = std::max<std::int64_t>(usable / length, 1);
        if (cut == BatchSampler::Cut::fixed) {
            slack = 0;
            return;
        }
        if (count >= 32)
            --count;
        slack = std::max<std::int64_t>(usable - count * length, 0);
    }
};

} // namespace

BatchSampler::BatchSampler(std::shared_ptr<const Corpus> corpus, std::int64_t length, std::uint64_t seed, Cut cut)
    : m_corpus(std::move(corpus)), m_length(std::max<std::int64_t>(length, 1)), m_seed(seed), m_cut(cut)
{
    m_perCycle = countsPerCycle(m_corpus->domains());
    m_cycle = deal(m_perCycle);
    std::vector<std::int64_t> given(m_perCycle.size(), 0);
    m_rank.reserve(m_cycle.size());
    for (const std::size_t domain : m_cycle)
        m_rank.push_back(given[domain]++);
}

BatchSampler::Sequence BatchSampler::at(std::int64_t index) const
{
    assert(index >= 0);
    const auto cycle = std::int64_t(m_cycle.size());
    const auto place = std::size_t(index % cycle);
    const std::size_t domain = m_cycle[place];
    const std::int64_t number = index / cycle * m_perCycle[domain] + m_rank[place]; // of this domain's sequences
    const Windows windows(m_corpus->training(domain).size(), m_length, m_cut);
    const std::int64_t epoch = number / windows.count;
    const std::uint64_t key = mixed(mixed(mixed(m_seed) ^ domain) ^ std::uint64_t(epoch));
    const auto offset = std::int64_t(Random(key).below(std::uint64_t(windows.slack) + 1));
    const auto window = std::int64_t(permuted(std::uint64_t(number % windows.count), std::uint64_t(windows.count), key));
    return from(domain, offset + window * m_length);
}

BatchSampler::Sequence BatchSampler::from(std::size_t domain, std::int64_t begin) const
{
    const auto tokens = m_corpus->training(domain);
    const auto first = std::size_t(begin);
    if (first >= tokens.size()) // a corpus that was opened for shorter sequences
        return {domain, tokens, 0};
    return {domain, tokens.subspan(first, std::min(std::size_t(m_length) + 1, tokens.size() - first)), begin};
}

std::int64_t BatchSampler::windows(std::size_t domain) const
{
    return Windows(m_corpus->training(domain).size(), m_length, m_cut).count;
}

BatchSampler::Sequence BatchSampler::window(std::size_t domain, std::int64_t number) const
{
    assert(number >= 0);
    return from(domain, number * m_length);
}

double BatchSampler::epochs(std::size_t domain, std::int64_t count) const
{
    const auto cycle = std::int64_t(m_cycle.size());
    std::int64_t given = count / cycle * m_perCycle[domain];
    for (std::int64_t place = 0; place < count % cycle; ++place)
        given += m_cycle[std::size_t(place)] == domain;
    return double(given) / double(windows(domain));
}

} // namespace spectra
