// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/sequencestate.h"

#include <string>

namespace spectra {

std::int64_t SequenceState::capacity() const
{
    return m_keys.empty() ? 0 : m_keys.front().size(1);
}

std::uint64_t SequenceState::bytes() const
{
    std::uint64_t n = 0;
    for (const torch::Tensor &t : m_keys)
        n += 2 * t.nbytes();
    return n;
}

SequenceState SequenceState::clone(std::int64_t reserve) const
{
    const c10::InferenceMode inference;
    SequenceState copy;
    copy.m_length = m_length;
    copy.m_router = m_router.clone();
    const auto copyUsed = [&](const torch::Tensor &t) {
        torch::Tensor fresh = torch::empty({t.size(0), m_length + reserve, t.size(2)}, t.options());
        fresh.narrow(1, 0, m_length).copy_(t.narrow(1, 0, m_length));
        return fresh;
    };
    for (std::size_t l = 0; l < m_keys.size(); ++l) {
        copy.m_keys.push_back(copyUsed(m_keys[l]));
        copy.m_values.push_back(copyUsed(m_values[l]));
    }
    return copy;
}

Result<void> SequenceState::truncate(std::int64_t length, const RouterState *snapshot)
{
    if (length < 0 || length > m_length)
        return usageError("a sequence can only be cut, not lengthened",
                          std::to_string(length) + " of " + std::to_string(m_length) + " tokens");
    if (length == m_length)
        return {};
    if (length == 0)
        m_router = RouterState();
    else if (snapshot)
        m_router = snapshot->clone();
    else if (m_router.token.defined())
        return usageError("the router has a state over tokens: cutting needs the snapshot taken there", "token " + std::to_string(length));
    m_length = length;
    return {};
}

} // namespace spectra
