// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/tokenindex.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

namespace spectra::detail {
namespace {

/// Vocabulary ids in the order of their first appearance.
class TypeNames {
public:
    std::uint32_t of(std::int32_t id)
    {
        return m_names.try_emplace(id, static_cast<std::uint32_t>(m_names.size())).first->second;
    }
    [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(m_names.size()); }

private:
    std::unordered_map<std::int32_t, std::uint32_t> m_names;
};

} // namespace

Result<TokenIndex> readTokenIndex(const TraceSource &trace, const TokenIndexOptions &options, std::stop_token stop)
{
    const auto info = trace.info();
    SPECTRA_TRY(const auto sequences, trace.sequences());
    TokenIndex index;
    index.tokens = info->tokens;
    index.flags.reserve(static_cast<std::size_t>(index.tokens));
    const std::size_t count = sequences->size();
    std::unordered_map<std::string, std::int32_t> domainOf;
    for (std::size_t d = 0; d < info->domains.size(); ++d)
        domainOf.emplace(info->domains[d], static_cast<std::int32_t>(d));
    for (const SequenceInfo &s : *sequences) {
        const auto found = domainOf.find(s.domain);
        index.domain.push_back(found == domainOf.end() ? -1 : found->second);
    }
    index.sequenceTokens.assign(count, 0);
    index.sequencePartial.assign(count, 0);

    TypeNames names, nextNames;
    std::int32_t current = -1, position = 0;
    bool before = false; // the token before is counted
    bool fresh = true;   // no token of this sequence was counted yet
    for (std::int64_t first = 0; first < index.tokens; first += options.blockTokens) {
        if (stop.stop_requested())
            return cancelledError();
        const TokenRange range{first, std::min(index.tokens, first + options.blockTokens)};
        SPECTRA_TRY(const auto block, trace.tokens(range, stop));
        const auto rows = static_cast<std::size_t>(range.size());
        if (block->sequence.size() < rows || block->position.size() < rows || block->id.size() < rows ||
            block->mask.size() < rows)
            return inputError("the token columns are shorter than the trace", info->file);
        for (std::size_t i = 0; i < rows; ++i) {
            const std::int64_t token = first + static_cast<std::int64_t>(i);
            const std::int32_t sequence = block->sequence[i];
            if (sequence < 0 || static_cast<std::size_t>(sequence) >= count || sequence < current)
                return inputError("token " + std::to_string(token) + " belongs to sequence " +
                                      std::to_string(sequence) + ", which is out of order or does not exist",
                                  info->file + ": tokens/sequence");
            std::uint8_t flags = 0;
            if (sequence != current) {
                index.firstToken.push_back(token);
                index.runSequence.push_back(sequence);
                current = sequence;
                before = false;
                fresh = true;
            }
            const bool masked = block->mask[i] == 0;
            const bool chosen =
                options.selection == nullptr || options.selection->contains(static_cast<std::size_t>(token));
            if (!masked && !chosen) {
                index.sequencePartial[static_cast<std::size_t>(sequence)] = 1;
                index.selected = true;
            }
            if (masked)
                ++index.excludedTokens;
            const bool counted = !masked && chosen;
            if (counted) {
                flags |= TokenIndex::counted;
                if (before && block->position[i] == position + 1)
                    flags |= TokenIndex::linked;
                if (std::exchange(fresh, false))
                    flags |= TokenIndex::starts;
                ++index.countedTokens;
                ++index.sequenceTokens[static_cast<std::size_t>(sequence)];
            }
            if (i < block->phase.size() && block->phase[i] != 0) {
                flags |= TokenIndex::generated;
                index.hasGenerated = true;
            }
            before = counted;
            position = block->position[i];
            index.flags.push_back(flags);
            if (options.types)
                index.type.push_back(counted ? names.of(block->id[i]) : 0);
            if (options.nextTypes)
                index.nextType.push_back(counted && i < block->nextTop1.size() ? nextNames.of(block->nextTop1[i]) : 0);
        }
    }
    // A sequence none of whose tokens is selected is left out as a whole: that is no partial one.
    for (std::size_t s = 0; s < count; ++s)
        if (index.sequenceTokens[s] == 0)
            index.sequencePartial[s] = 0;
    index.firstToken.push_back(index.tokens);
    index.types = names.size();
    index.nextTypes = nextNames.size();
    return index;
}

} // namespace spectra::detail
