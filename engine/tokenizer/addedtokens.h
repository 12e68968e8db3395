// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// One entry of "added_tokens".
struct AddedToken {
    std::int32_t id = 0;
    std::string content;
    bool singleWord = false;
    bool lstrip = false;
    bool rstrip = false;
    bool normalized = false;
    bool special = false;
};

/// Finds added tokens in a text: leftmost, of those the longest.
class AddedTokenFinder {
public:
    static constexpr std::size_t longestToken = 1024;

    /// `index` is what find() tells of a match.
    void add(std::string_view content, std::int32_t index);
    [[nodiscard]] bool empty() const { return m_nodes.size() == 1; }

    struct Match {
        std::size_t begin, end;
        std::int32_t index;
    };
    /// The first match from `from` on; false: none.
    [[nodiscard]] bool find(std::string_view text, std::size_t from, Match &match) const;

private:
    struct Edge {
        unsigned char byte;
        std::int32_t to;
    };
    struct Node {
        std::vector<Edge> edges; // sorted by byte
        std::int32_t index = -1;
    };
    std::vector<Node> m_nodes = std::vector<Node>(1);
    std::array<std::int32_t, 256> m_first = [] {
        std::array<std::int32_t, 256> none{};
        none.fill(-1);
        return none;
    }();
};

/// Cuts `text` into added tokens (index ≥ 0) and what is between them (index -1), in order, leaving nothing out.
/// `skipSpecial`: special tokens are text. Stops and returns false when `part` does.
bool splitAddedTokens(std::string_view text, const AddedTokenFinder &finder, const std::vector<AddedToken> &tokens,
                      bool skipSpecial,
                      const std::function<bool(std::size_t begin, std::size_t end, std::int32_t index)> &part);

} // namespace spectra
