// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/comparetraces.h"

#include "analysis/statistics/assignment.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

namespace spectra {
namespace {

constexpr std::int64_t kBlock = 16384;

struct Match {
    std::int64_t first = 0, second = 0; ///< token numbers
};

/// Every counted token of the first trace with the token of the same sequence id, position and vocabulary id in the
/// second.
Result<std::vector<Match>> matchTokens(const TraceSource &first, const TraceSource &second, std::int64_t &unmatched,
                                       std::stop_token stop)
{
    SPECTRA_TRY(const auto a, first.sequences());
    SPECTRA_TRY(const auto b, second.sequences());
    std::unordered_map<std::string, std::size_t> named;
    for (std::size_t i = 0; i < b->size(); ++i)
        named.emplace((*b)[i].id, i);
    const std::int64_t firstTokens = first.info()->tokens, secondTokens = second.info()->tokens;
    std::vector<Match> matches;
    for (const SequenceInfo &s : *a) {
        if (stop.stop_requested())
            return cancelledError();
        const auto found = named.find(s.id);
        const std::int64_t last = std::min(firstTokens, s.offset + s.length);
        if (s.offset < 0 || s.offset >= last)
            continue;
        SPECTRA_TRY(const auto x, first.tokens({s.offset, last}, stop));
        std::shared_ptr<const TokenBlock> y;
        std::int64_t offset = 0;
        if (found != named.end()) {
            const SequenceInfo &o = (*b)[found->second];
            offset = o.offset;
            const std::int64_t end = std::min(secondTokens, o.offset + o.length);
            if (offset >= 0 && offset < end) {
                SPECTRA_TRY(y, second.tokens({offset, end}, stop));
            }
        }
        std::unordered_map<std::int32_t, std::size_t> at;
        for (std::size_t j = 0; y && j < y->position.size(); ++j)
            if (y->mask[j] != 0)
                at.emplace(y->position[j], j);
        for (std::size_t i = 0; i < x->id.size(); ++i) {
            if (x->mask[i] == 0)
                continue;
            const auto partner = at.find(x->position[i]);
            if (partner != at.end() && y->id[partner->second] == x->id[i])
                matches.push_back(
                    {s.offset + static_cast<std::int64_t>(i), offset + static_cast<std::int64_t>(partner->second)});
            else
                ++unmatched;
        }
    }
    return matches;
}

/// Experts of given tokens of one layer, in their order: [n,k]. Reads ascending runs of tokens block by block.
Result<std::vector<std::uint16_t>> expertsOf(const TraceSource &trace, int layer,
                                             const std::vector<std::int64_t> &tokens, int &slots, std::stop_token stop)
{
    std::vector<std::uint16_t> experts;
    std::shared_ptr<const Block> block;
    TokenRange range{0, 0};
    const auto info = trace.info();
    for (const std::int64_t t : tokens) {
        if (!block || t < range.first || t >= range.last) {
            if (stop.stop_requested())
                return cancelledError();
            range.first = t / kBlock * kBlock;
            range.last = std::min(info->tokens, range.first + kBlock);
            SPECTRA_TRY(block, trace.block(Column::experts, layer, range, stop));
            slots = static_cast<int>(block->width());
            if (static_cast<std::int64_t>(block->u16.size()) < range.size() * slots || slots < 1)
                return inputError("a routing block is shorter than its token range", info->file);
        }
        const auto at = static_cast<std::size_t>((t - range.first) * slots);
        for (std::size_t i = 0; i < static_cast<std::size_t>(slots); ++i) {
            if (block->u16[at + i] >= info->experts && block->u16[at + i] != kNoExpert)
                return inputError("an expert index is out of range", info->file + ": routing/experts");
            experts.push_back(block->u16[at + i]);
        }
    }
    return experts;
}

/// How the two sets agree after renaming the second's experts.
struct SetAgreement {
    bool equal = false, top1 = false;
    double common = 0;
};
SetAgreement compare(const std::uint16_t *a, int ka, const std::uint16_t *b, int kb, const std::vector<int> &rename)
{
    SetAgreement result;
    int filledA = 0, filledB = 0, common = 0;
    for (int j = 0; j < kb; ++j)
        filledB += b[j] != kNoExpert;
    for (int i = 0; i < ka; ++i) {
        if (a[i] == kNoExpert)
            continue;
        ++filledA;
        for (int j = 0; j < kb; ++j)
            common += b[j] != kNoExpert && rename[b[j]] == a[i];
    }
    result.equal = common == filledA && common == filledB;
    result.top1 = a[0] != kNoExpert && b[0] != kNoExpert && rename[b[0]] == a[0];
    result.common = filledA > 0 ? static_cast<double>(common) / filledA : 0;
    return result;
}

} // namespace

Result<TraceConsistency> routingConsistency(const TraceSource &first, const TraceSource &second, std::stop_token stop)
{
    const auto a = first.info(), b = second.info();
    if (a->experts > 16384 || b->experts > 16384)
        return inputError("more than 16,384 experts cannot be matched", a->file + ", " + b->file);
    TraceConsistency result;
    SPECTRA_TRY(const std::vector<Match> matches, matchTokens(first, second, result.unmatchedTokens, stop));
    result.matchedTokens = static_cast<std::int64_t>(matches.size());
    if (matches.empty())
        return inputError("the two traces have no token in common", a->file + ", " + b->file,
                          "compare traces of the same prompts: sequence id, position and token id must agree");
    if (!a->has(Column::experts) || !b->has(Column::experts))
        return inputError("a trace holds no expert choices", a->has(Column::experts) ? b->file : a->file);
    std::vector<std::int64_t> tokensA, tokensB;
    for (const Match &m : matches) {
        tokensA.push_back(m.first);
        tokensB.push_back(m.second);
    }
    const auto ea = static_cast<std::size_t>(a->experts), eb = static_cast<std::size_t>(b->experts);
    for (int layer = 0; layer < a->layers(); ++layer) {
        const auto other =
            std::find(b->decoderIndex.begin(), b->decoderIndex.end(), a->decoderIndex[static_cast<std::size_t>(layer)]);
        if (other == b->decoderIndex.end())
            continue;
        LayerConsistency c;
        c.layer = layer;
        c.otherLayer = static_cast<int>(other - b->decoderIndex.begin());
        c.tokens = result.matchedTokens;
        int ka = 0, kb = 0;
        SPECTRA_TRY(const std::vector<std::uint16_t> x, expertsOf(first, layer, tokensA, ka, stop));
        SPECTRA_TRY(const std::vector<std::uint16_t> y, expertsOf(second, c.otherLayer, tokensB, kb, stop));
        // Experts that are chosen for the same tokens belong together: one-to-one matching of the joint counts of all
        // slots.
        std::vector<double> joint(eb * ea, 0.0);
        for (std::size_t t = 0; t < matches.size(); ++t)
            for (int i = 0; i < ka; ++i)
                for (int j = 0; j < kb; ++j) {
                    const std::uint16_t p = x[t * static_cast<std::size_t>(ka) + static_cast<std::size_t>(i)];
                    const std::uint16_t q = y[t * static_cast<std::size_t>(kb) + static_cast<std::size_t>(j)];
                    if (p != kNoExpert && q != kNoExpert)
                        joint[q * ea + p] += 1;
                }
        c.matching = assignMaximum(joint, b->experts, a->experts);
        std::vector<int> same(eb);
        for (std::size_t i = 0; i < eb; ++i)
            same[i] = static_cast<int>(i);
        for (std::size_t t = 0; t < matches.size(); ++t) {
            const std::uint16_t *p = x.data() + t * static_cast<std::size_t>(ka),
                                *q = y.data() + t * static_cast<std::size_t>(kb);
            const SetAgreement raw = compare(p, ka, q, kb, same), matched = compare(p, ka, q, kb, c.matching);
            c.raw += raw.equal;
            c.matched += matched.equal;
            c.top1 += raw.top1;
            c.top1Matched += matched.top1;
            c.saturation += raw.common;
        }
        const auto n = static_cast<double>(matches.size());
        for (double *v : {&c.raw, &c.matched, &c.top1, &c.top1Matched, &c.saturation})
            *v /= n;
        result.layers.push_back(std::move(c));
    }
    if (result.layers.empty())
        return inputError("the two traces have no layer in common", a->file + ", " + b->file);
    const auto n = static_cast<double>(result.layers.size());
    for (const LayerConsistency &c : result.layers) {
        result.raw += c.raw / n;
        result.matched += c.matched / n;
        result.saturation += c.saturation / n;
    }
    return result;
}

} // namespace spectra
