// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/addedtokens.h"

#include "engine/tokenizer/utf8.h"

#include <algorithm>

namespace spectra {

void AddedTokenFinder::add(std::string_view content, std::int32_t index)
{
    if (content.empty())
        return;
    std::int32_t at = 0;
    for (const char c : content) {
        const auto byte = static_cast<unsigned char>(c);
        auto &edges = m_nodes[std::size_t(at)].edges;
        const auto place = std::lower_bound(edges.begin(), edges.end(), byte,
                                            [](const Edge &edge, unsigned char b) { return edge.byte < b; });
        if (place != edges.end() && place->byte == byte) {
            at = place->to;
            continue;
        }
        const auto to = std::int32_t(m_nodes.size());
        edges.insert(place, {byte, to});
        if (at == 0)
            m_first[byte] = to;
        m_nodes.emplace_back();
        at = to;
    }
    if (m_nodes[std::size_t(at)].index < 0)
        m_nodes[std::size_t(at)].index = index;
}

bool AddedTokenFinder::find(std::string_view text, std::size_t from, Match &match) const
{
    if (empty())
        return false;
    for (std::size_t begin = from; begin < text.size(); ++begin) {
        std::int32_t node = m_first[static_cast<unsigned char>(text[begin])];
        if (node < 0)
            continue;
        bool found = false;
        for (std::size_t at = begin + 1;; ++at) {
            const Node &here = m_nodes[std::size_t(node)];
            if (here.index >= 0) {
                match = {begin, at, here.index};
                found = true;
            }
            if (at == text.size())
                break;
            const auto byte = static_cast<unsigned char>(text[at]);
            const auto next = std::lower_bound(here.edges.begin(), here.edges.end(), byte,
                                               [](const Edge &edge, unsigned char b) { return edge.byte < b; });
            if (next == here.edges.end() || next->byte != byte)
                break;
            node = next->to;
        }
        if (found)
            return true;
    }
    return false;
}

bool splitAddedTokens(std::string_view text, const AddedTokenFinder &finder, const std::vector<AddedToken> &tokens,
                      bool skipSpecial,
                      const std::function<bool(std::size_t begin, std::size_t end, std::int32_t index)> &part)
{
    std::size_t done = 0;
    AddedTokenFinder::Match match{};
    for (std::size_t at = 0; finder.find(text, at, match); at = match.end) {
        const AddedToken &token = tokens[std::size_t(match.index)];
        if (token.special && skipSpecial)
            continue;
        std::size_t begin = match.begin;
        std::size_t end = match.end;
        if (token.singleWord) {
            const bool wordBefore = begin > 0 && utf8::isWord(utf8::decode(text, utf8::lastStart(text.substr(0, begin))));
            const bool wordAfter = end < text.size() && utf8::isWord(utf8::decode(text, end));
            if (wordBefore || wordAfter)
                continue;
        }
        if (begin < done) // its first characters were stripped by the match before
            continue;
        if (token.lstrip) {
            while (begin > done) {
                const std::size_t last = utf8::lastStart(text.substr(0, begin));
                if (!utf8::isSpace(utf8::decode(text, last)))
                    break;
                begin = last;
            }
        }
        if (token.rstrip) {
            while (end < text.size() && utf8::isSpace(utf8::decode(text, end)))
                end += std::size_t(utf8::lengthOf(text[end]));
        }
        if (done < begin && !part(done, begin, -1))
            return false;
        if (!part(begin, end, match.index))
            return false;
        done = end;
    }
    return done == text.size() || part(done, text.size(), -1);
}

} // namespace spectra
