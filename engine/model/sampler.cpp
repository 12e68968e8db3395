// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/sampler.h"

#include <algorithm>
#include <cmath>

namespace spectra {

Sampler::Sampler(const SamplingOptions &options) : m_options(options), m_random(options.seed, 0x5A3B1E) {}

std::int32_t Sampler::next(std::span<const float> logits)
{
    const auto best = std::max_element(logits.begin(), logits.end());
    if (m_options.temperature <= 0 || m_options.topK == 1)
        return static_cast<std::int32_t>(best - logits.begin());

    m_candidates.clear();
    m_candidates.reserve(logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i)
        m_candidates.emplace_back(logits[i], static_cast<std::int32_t>(i));
    // Descending by logit, ties to the lower id: the draw must not depend on how a library sorts.
    const auto before = [](const auto &a, const auto &b) { return a.first != b.first ? a.first > b.first : a.second < b.second; };
    if (m_options.topK > 0 && static_cast<std::size_t>(m_options.topK) < m_candidates.size()) {
        const auto cut = m_candidates.begin() + m_options.topK;
        std::nth_element(m_candidates.begin(), cut, m_candidates.end(), before);
        m_candidates.erase(cut, m_candidates.end());
    }
    const double largest = *best;
    const auto weight = [&](float logit) { return std::exp((static_cast<double>(logit) - largest) / m_options.temperature); };
    double total = 0;
    for (const auto &[logit, id] : m_candidates)
        total += weight(logit);
    if (m_options.topP < 1) {
        std::sort(m_candidates.begin(), m_candidates.end(), before);
        double kept = 0;
        std::size_t n = 0;
        while (n < m_candidates.size() && (n == 0 || kept < m_options.topP * total))
            kept += weight(m_candidates[n++].first);
        m_candidates.resize(n);
        total = kept;
    } else {
        std::sort(m_candidates.begin(), m_candidates.end(), [](const auto &a, const auto &b) { return a.second < b.second; });
    }
    const double target = m_random.uniform() * total;
    double sum = 0;
    for (const auto &[logit, id] : m_candidates) {
        sum += weight(logit);
        if (target < sum)
            return id;
    }
    return m_candidates.back().second;
}

} // namespace spectra
