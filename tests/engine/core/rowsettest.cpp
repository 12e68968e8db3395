// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"
#include "engine/core/rowset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace spectra::test {
namespace {

using Model = std::set<std::int64_t>;

std::vector<std::int64_t> listed(const Model &m)
{
    return {m.begin(), m.end()};
}

/// Random operations on a RowSet and on a std::set side by side, at sizes around the borders of its words.
TEST(RowSet, BehavesAsASetOfNumbers)
{
    Random random(3);
    for (const std::size_t size : {0u, 1u, 63u, 64u, 65u, 128u, 200u, 1000u}) {
        RowSet a(size), b(size);
        Model ma, mb;
        for (int step = 0; step < 300; ++step) {
            const std::size_t row = size > 0 ? random.below(size) : 0, other = size > 0 ? random.below(size + 70) : 0;
            switch (random.below(8)) {
            case 0:
            case 1:
                if (size > 0) {
                    b.insert(row);
                    mb.insert(static_cast<std::int64_t>(row));
                }
                break;
            case 2:
                if (size > 0) {
                    a.erase(row);
                    ma.erase(static_cast<std::int64_t>(row));
                }
                break;
            case 3:
                a.insertRange(row, other);
                for (std::size_t i = row; i < std::min(other, size); ++i)
                    ma.insert(static_cast<std::int64_t>(i));
                break;
            case 4: {
                a.unite(b);
                ma.insert(mb.begin(), mb.end());
                break;
            }
            case 5: {
                a.intersect(b);
                Model both;
                std::set_intersection(ma.begin(), ma.end(), mb.begin(), mb.end(), std::inserter(both, both.end()));
                ma = both;
                break;
            }
            case 6: {
                a.subtract(b);
                Model rest;
                std::set_difference(ma.begin(), ma.end(), mb.begin(), mb.end(), std::inserter(rest, rest.end()));
                ma = rest;
                break;
            }
            default: {
                a.invert();
                Model rest;
                for (std::size_t i = 0; i < size; ++i)
                    if (!ma.contains(static_cast<std::int64_t>(i)))
                        rest.insert(static_cast<std::int64_t>(i));
                ma = rest;
            }
            }
            ASSERT_EQ(a.rows(), listed(ma)) << "size " << size << " step " << step;
            ASSERT_EQ(a.count(), ma.size());
            ASSERT_EQ(a.empty(), ma.empty());
            ASSERT_EQ(a.contains(row), ma.contains(static_cast<std::int64_t>(row)));
        }
    }
}

TEST(RowSet, FullSetsHoldNoBitsBeyondTheirSize)
{
    for (const std::size_t size : {0u, 1u, 63u, 64u, 65u, 130u}) {
        EXPECT_EQ(RowSet(size, true).count(), size);
        EXPECT_EQ(RowSet(size).invert(), RowSet(size, true)) << "equality compares whole words";
        EXPECT_FALSE(RowSet(size, true).contains(size));
    }
}

TEST(RowSet, ResizingForgetsWhatWasCutOff)
{
    RowSet set(200, true);
    set.resize(70);
    EXPECT_EQ(set.count(), 70u);
    set.resize(200);
    EXPECT_EQ(set.count(), 70u) << "rows that come back are empty";
    set.clear();
    EXPECT_TRUE(set.empty());
    EXPECT_EQ(set.size(), 200u);
}

TEST(RowSet, SetsOfDifferentSizeAreSetsOverTheLarger)
{
    RowSet small(10, true), large(100);
    large.insert(90);
    RowSet united = small;
    united.unite(large);
    EXPECT_EQ(united.size(), 100u);
    EXPECT_EQ(united.count(), 11u);
    RowSet cut = large;
    cut.intersect(small);
    EXPECT_TRUE(cut.empty());
    RowSet grown = small;
    grown.intersect(large);
    EXPECT_TRUE(grown.empty());
    small.subtract(large);
    EXPECT_EQ(small.count(), 10u);
}

} // namespace
} // namespace spectra::test
