// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/assignment.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace spectra::rule {
namespace {

/// One slot of an expert: what was paid for it and who sits there (−1: nobody).
struct Slot {
    std::int64_t price, row;
};

/// Makes the cheapest slot the front of its heap; among equals the one taken first goes first.
bool dearer(const Slot &a, const Slot &b)
{
    return a.price != b.price ? a.price > b.price : a.row > b.row;
}

/// Auction on whole numbers, rows and slots equal in number. An expert's slots are alike, so a row looks at each expert's cheapest
/// slot only and outbids the best other expert, not the next slot of the same one.
class Auction {
public:
    Auction(std::vector<std::int64_t> value, std::int64_t rows, std::int64_t all, std::int64_t experts, std::int64_t capacity)
        : m_value(std::move(value)), m_rows(rows), m_all(all), m_experts(experts), m_capacity(capacity), m_price(static_cast<std::size_t>(experts), 0),
          m_slots(static_cast<std::size_t>(experts)), m_zero(static_cast<std::size_t>(experts), 0)
    {
    }

    /// Everybody bids anew, from the prices of the phase before: at the end each row's choice is within ε of its best.
    void phase(std::int64_t epsilon)
    {
        const std::int64_t floor = *std::min_element(m_price.begin(), m_price.end());
        for (std::size_t e = 0; e < m_slots.size(); ++e) {
            m_price[e] -= floor; // only differences matter, and so nothing grows over the phases
            m_slots[e].assign(static_cast<std::size_t>(m_capacity), Slot{m_price[e], -1});
        }
        m_waiting.clear();
        for (std::int64_t t = m_all - 1; t >= 0; --t)
            m_waiting.push_back(t);
        while (!m_waiting.empty()) {
            const std::int64_t row = m_waiting.back();
            m_waiting.pop_back();
            bid(row, epsilon);
        }
    }

    [[nodiscard]] std::vector<std::int64_t> result() const
    {
        std::vector<std::int64_t> expert(static_cast<std::size_t>(m_rows), -1);
        for (std::size_t e = 0; e < m_slots.size(); ++e)
            for (const Slot &slot : m_slots[e])
                if (slot.row >= 0 && slot.row < m_rows)
                    expert[static_cast<std::size_t>(slot.row)] = static_cast<std::int64_t>(e);
        return expert;
    }
    [[nodiscard]] std::int64_t bids() const { return m_bids; }

private:
    void bid(std::int64_t row, std::int64_t epsilon)
    {
        const std::int64_t *value = row < m_rows ? m_value.data() + row * m_experts : m_zero.data();
        std::int64_t best = std::numeric_limits<std::int64_t>::min(), second = best, at = 0;
        for (std::int64_t e = 0; e < m_experts; ++e) {
            const std::int64_t profit = value[e] - m_price[static_cast<std::size_t>(e)];
            if (profit > best) {
                second = best;
                best = profit;
                at = e;
            } else if (profit > second) {
                second = profit;
            }
        }
        auto &slots = m_slots[static_cast<std::size_t>(at)];
        std::pop_heap(slots.begin(), slots.end(), dearer);
        if (slots.back().row >= 0)
            m_waiting.push_back(slots.back().row);
        slots.back() = {m_price[static_cast<std::size_t>(at)] + (best - second) + epsilon, row};
        std::push_heap(slots.begin(), slots.end(), dearer);
        m_price[static_cast<std::size_t>(at)] = slots.front().price;
        ++m_bids;
    }

    std::vector<std::int64_t> m_value;
    std::int64_t m_rows, m_all, m_experts, m_capacity, m_bids = 0;
    std::vector<std::int64_t> m_price; ///< of each expert's cheapest slot
    std::vector<std::vector<Slot>> m_slots;
    std::vector<std::int64_t> m_zero, m_waiting;
};

} // namespace

Result<Assignment> balancedAssignment(std::span<const float> scores, std::int64_t experts, std::int64_t capacity)
{
    assert(experts >= 1 && static_cast<std::int64_t>(scores.size()) % experts == 0);
    const std::int64_t rows = static_cast<std::int64_t>(scores.size()) / experts, all = experts * capacity;
    if (capacity < 0 || all < rows)
        return usageError(std::to_string(experts) + " experts of " + std::to_string(capacity) + " slots do not hold " + std::to_string(rows) + " rows", "assignment",
                          "give every expert more slots");
    Assignment answer;
    if (rows == 0)
        return answer;
    double low = scores[0], high = scores[0];
    for (std::size_t i = 0; i < scores.size(); ++i) {
        if (!std::isfinite(scores[i]))
            return inputError("a score is not finite", "row " + std::to_string(i / static_cast<std::size_t>(experts)));
        low = std::min<double>(low, scores[i]);
        high = std::max<double>(high, scores[i]);
    }
    answer.experts.assign(static_cast<std::size_t>(rows), 0);
    if (experts > 1) {
        // Slots beyond the rows are filled by rows that do not mind where they sit: scaling ε is sound only when every slot is
        // taken. With values that are multiples of all + 1, an assignment within all·ε of the best is the best at ε = 1.
        const double levels = std::min(0x1p32, std::floor(0x1p46 / static_cast<double>(all + 1)));
        const double scale = high > low ? levels / (high - low) : 0;
        std::vector<std::int64_t> value(scores.size());
        for (std::size_t i = 0; i < scores.size(); ++i)
            value[i] = std::llround((scores[i] - low) * scale) * (all + 1);
        Auction auction(std::move(value), rows, all, experts, capacity);
        std::int64_t epsilon = std::max<std::int64_t>(1, static_cast<std::int64_t>(high > low ? levels : 0) * (all + 1) / 4);
        for (;; epsilon = std::max<std::int64_t>(1, epsilon / 6)) {
            auction.phase(epsilon);
            if (epsilon == 1)
                break;
        }
        answer.experts = auction.result();
        answer.bids = auction.bids();
    }
    for (std::int64_t t = 0; t < rows; ++t)
        answer.value += scores[static_cast<std::size_t>(t * experts + answer.experts[static_cast<std::size_t>(t)])];
    return answer;
}

} // namespace spectra::rule
