// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/tracespec.h"

#include "engine/core/random.h"

#include <numeric>

namespace spectra {

Result<void> TraceSpec::check() const
{
    const auto bad = [](const std::string &what) { return usageError(what, "trace"); };
    if (compress < 0 || compress > 9)
        return usageError("compression level " + std::to_string(compress) + " is outside 0..9", "--compress");
    if (hiddenTokens < 0)
        return usageError("the number of sampled tokens is negative", "--hidden-tokens");
    if (experts < 0 || slots < 0 || routerDim < 0 || hidden < 0)
        return bad("a size is negative");
    if (!decoderIndex.empty() && (experts < 1 || slots < 1 || slots > experts || experts > kNoExpert))
        return bad("a mixture of experts needs 1 to 65535 experts and no more slots than experts");
    if (decoderIndex.size() > 4096 || denseIndex.size() > 4096 || routerDim > 65536 || hidden > (1 << 20))
        return bad("a size is larger than any model's");
    if (!physicalToLogical.empty() && (decoderIndex.empty() || physicalToLogical.size() % decoderIndex.size() != 0))
        return bad("the map of physical experts does not have one row per layer");
    return {};
}

HiddenSample::HiddenSample(const std::vector<std::int64_t> &plannedLengths, std::int64_t hiddenTokens, std::uint64_t seed)
    : m_planned(!plannedLengths.empty()), m_room(hiddenTokens)
{
    m_answer.assign(plannedLengths.size(), 0);
    std::vector<std::size_t> order(plannedLengths.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    Random random(seed, 0x68696464656e); // a stream of its own: other draws of the run do not move the sample
    random.shuffle(order);
    for (std::size_t s : order) {
        if (plannedLengths[s] > 0 && plannedLengths[s] <= m_room - m_used) {
            m_answer[s] = 1;
            m_used += plannedLengths[s];
        }
    }
}

bool HiddenSample::wants(std::int32_t sequence, std::int64_t length)
{
    const auto s = static_cast<std::size_t>(sequence);
    if (sequence < 0)
        return false;
    if (m_planned)
        return s < m_answer.size() && m_answer[s] == 1;
    if (s >= m_answer.size())
        m_answer.resize(s + 1, 2);
    if (m_answer[s] == 2) {
        const bool fits = length > 0 && length <= m_room - m_used;
        m_answer[s] = fits ? 1 : 0;
        m_used += fits ? length : 0;
    }
    return m_answer[s] == 1;
}

} // namespace spectra
