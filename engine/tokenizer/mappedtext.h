// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spectra {

/// Where each byte of a rewritten text came from: runs that start at a byte of it and count on from an origin, never past
/// the origin of the next run. No runs: origin = place + base.
class OffsetMap {
public:
    explicit OffsetMap(std::uint32_t base = 0) : m_base(base) {}

    [[nodiscard]] std::uint32_t origin(std::size_t at) const
    {
        std::size_t hint = 0;
        return origin(at, hint);
    }
    /// `hint` makes a walk in one direction cheap; start with 0.
    [[nodiscard]] std::uint32_t origin(std::size_t at, std::size_t &hint) const
    {
        if (m_runs.empty())
            return m_base + std::uint32_t(at);
        if (hint >= m_runs.size() || m_runs[hint].at > at)
            hint = 0;
        for (int step = 0; hint + 1 < m_runs.size() && m_runs[hint + 1].at <= at; ++step) {
            if (step < 16) {
                ++hint;
                continue;
            }
            const auto after = std::upper_bound(m_runs.begin() + std::ptrdiff_t(hint), m_runs.end(), at,
                                                [](std::size_t a, const Run &run) { return a < run.at; });
            hint = std::size_t(after - m_runs.begin()) - 1;
            break;
        }
        const std::uint32_t counted = m_runs[hint].origin + std::uint32_t(at - m_runs[hint].at);
        return std::min(counted, hint + 1 < m_runs.size() ? m_runs[hint + 1].origin : m_end);
    }

private:
    friend class TextRewriter;
    struct Run {
        std::uint32_t at, origin;
    };
    std::vector<Run> m_runs;
    std::uint32_t m_base = 0;
    std::uint32_t m_end = 0xffffffffu;
};

/// A text with the way back to the text that it was made from. The view is of `storage` or of the source itself.
struct MappedText {
    std::string_view text;
    OffsetMap map;
    std::string storage;

    MappedText() = default;
    MappedText(std::string_view source, std::uint32_t base) : text(source), map(base) {}
    MappedText(MappedText &&) = delete; // the view may point into storage
    void take(std::string &&rewritten, OffsetMap &&newMap)
    {
        storage = std::move(rewritten);
        map = std::move(newMap);
        text = storage;
    }
};

/// Writes a new text from an old one, front to back, keeping the map.
class TextRewriter {
public:
    /// Byte i of `source` is byte shift + i of the text that `map` is for.
    TextRewriter(std::string_view source, const OffsetMap &map, std::size_t shift = 0)
        : m_source(source), m_map(map), m_shift(shift)
    {
        m_out.reserve(source.size() + 16);
    }

    /// Copies bytes [from, from + length) of the source.
    void copy(std::size_t from, std::size_t length)
    {
        if (length == 0)
            return;
        const std::size_t start = from + m_shift;
        point(m_map.origin(start, m_hint));
        const auto &runs = m_map.m_runs;
        for (std::size_t i = m_hint + 1; i < runs.size() && runs[i].at < start + length; ++i) {
            m_new.m_runs.push_back({std::uint32_t(m_out.size() + runs[i].at - start), runs[i].origin});
            m_hint = i;
        }
        m_out.append(m_source, from, length);
    }
    /// Writes bytes that stand for what is at `from` of the source.
    void put(std::string_view bytes, std::size_t from)
    {
        if (bytes.empty())
            return;
        point(m_map.origin(from + m_shift, m_hint));
        m_out.append(bytes);
    }
    void finish(MappedText &into)
    {
        m_new.m_end = m_map.origin(m_shift + m_source.size());
        if (m_new.m_runs.empty())
            m_new.m_base = m_new.m_end;
        into.take(std::move(m_out), std::move(m_new));
    }

private:
    void point(std::uint32_t origin)
    {
        auto &runs = m_new.m_runs;
        const auto at = std::uint32_t(m_out.size());
        if (!runs.empty() && runs.back().origin + (at - runs.back().at) == origin)
            return;
        if (!runs.empty() && runs.back().at == at)
            runs.back().origin = origin;
        else
            runs.push_back({at, origin});
    }
    std::string_view m_source;
    const OffsetMap &m_map;
    std::size_t m_shift;
    OffsetMap m_new;
    std::string m_out;
    std::size_t m_hint = 0;
};

} // namespace spectra
