// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/random.h"
#include "engine/rule/selection.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace spectra::test {

/// A quota to fill, with what makes one hard: ties, rows alike, NaN, zeros, rows that do not count, too little room.
struct QuotaCase {
    std::string name;
    std::vector<float> q;
    std::int64_t experts, k;
    double factor;
    std::vector<std::uint8_t> counted;
};

inline std::vector<QuotaCase> quotaCases()
{
    std::vector<QuotaCase> cases;
    for (const char *kind : {"softmax", "ties", "alike", "skewed", "broken"})
        for (const auto &[n, e, k] : {std::tuple<std::int64_t, std::int64_t, std::int64_t>{1, 1, 1}, {7, 4, 2}, {100, 8, 2}, {333, 24, 4}, {500, 64, 6}})
            for (const double factor : {0.0, 0.5, 1.0, 1.25, 8.0})
                for (const bool masked : {false, true}) {
                    const std::string type = kind;
                    QuotaCase c{type + " " + std::to_string(n) + "x" + std::to_string(e) + " k " + std::to_string(k) + " factor " + std::to_string(factor) + (masked ? " masked" : ""), {}, e, k, factor, {}};
                    Random random(static_cast<std::uint64_t>(n * 31 + e));
                    for (std::int64_t t = 0; t < n; ++t) {
                        double sum = 0;
                        std::vector<double> row;
                        for (std::int64_t j = 0; j < e; ++j) {
                            row.push_back(std::exp(random.normal() + (type == "skewed" && j < 2 ? 3 : 0)));
                            sum += row.back();
                        }
                        for (std::int64_t j = 0; j < e; ++j) {
                            double value = row[static_cast<std::size_t>(j)] / sum;
                            if (type == "ties")
                                value = static_cast<double>(random.below(3)) / 4;
                            if (type == "alike" && t > 0)
                                value = static_cast<double>(c.q[static_cast<std::size_t>(j)]);
                            if (type == "broken" && random.below(6) == 0)
                                value = random.below(2) ? NAN : random.below(2) ? 0.0 : -0.0;
                            c.q.push_back(static_cast<float>(value));
                        }
                    }
                    for (std::int64_t t = 0; masked && t < n; ++t)
                        c.counted.push_back(random.below(5) != 0);
                    cases.push_back(std::move(c));
                }
    return cases;
}

/// The same in every number.
inline void expectSame(const rule::QuotaResult &a, const rule::QuotaResult &b)
{
    EXPECT_EQ(a.experts, b.experts);
    EXPECT_EQ(a.dropped, b.dropped);
    EXPECT_EQ(a.capacity, b.capacity);
    EXPECT_EQ(a.fellBack, b.fellBack);
    ASSERT_EQ(a.weights.size(), b.weights.size());
    for (std::size_t i = 0; i < a.weights.size(); ++i)
        EXPECT_TRUE(a.weights[i] == b.weights[i] || (std::isnan(a.weights[i]) && std::isnan(b.weights[i]))) << i;
}

} // namespace spectra::test
