// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/statistics/assignment.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

namespace spectra {
namespace {

/// Shortest augmenting paths for rows ≤ columns; `cost(r, c)` is looked up, so both orientations share the code.
template <typename Cost> std::vector<int> augment(std::int64_t rows, std::int64_t columns, const Cost &cost)
{
    const double infinity = std::numeric_limits<double>::infinity();
    const auto m = static_cast<std::size_t>(columns);
    std::vector<double> u(static_cast<std::size_t>(rows), 0.0), v(m, 0.0), shortest(m);
    std::vector<int> path(m, -1), rowOfColumn(m, -1), columnOfRow(static_cast<std::size_t>(rows), -1);
    std::vector<std::size_t> remaining(m), visitedColumns;
    std::vector<int> visitedRows;
    for (int start = 0; start < rows; ++start) {
        std::fill(shortest.begin(), shortest.end(), infinity);
        for (std::size_t j = 0; j < m; ++j)
            remaining[j] = m - 1 - j; // reversed: equal costs go to the lowest column
        visitedColumns.clear();
        visitedRows.clear();
        std::size_t left = m;
        double minimum = 0;
        int row = start, sink = -1;
        while (sink < 0) {
            visitedRows.push_back(row);
            std::size_t best = 0;
            double lowest = infinity;
            for (std::size_t k = 0; k < left; ++k) {
                const std::size_t j = remaining[k];
                const double reduced =
                    minimum + cost(row, static_cast<std::int64_t>(j)) - u[static_cast<std::size_t>(row)] - v[j];
                if (reduced < shortest[j]) {
                    path[j] = row;
                    shortest[j] = reduced;
                }
                // Among equals an unassigned column ends the search at once.
                if (shortest[j] < lowest || (shortest[j] == lowest && rowOfColumn[j] < 0)) {
                    lowest = shortest[j];
                    best = k;
                }
            }
            if (lowest == infinity)
                return columnOfRow;
            minimum = lowest;
            const std::size_t j = remaining[best];
            visitedColumns.push_back(j);
            remaining[best] = remaining[--left];
            if (rowOfColumn[j] < 0)
                sink = static_cast<int>(j);
            else
                row = rowOfColumn[j];
        }
        u[static_cast<std::size_t>(start)] += minimum;
        for (const int r : visitedRows)
            if (r != start)
                u[static_cast<std::size_t>(r)] +=
                    minimum - shortest[static_cast<std::size_t>(columnOfRow[static_cast<std::size_t>(r)])];
        for (const std::size_t j : visitedColumns)
            v[j] -= minimum - shortest[j];
        for (int j = sink; j >= 0;) {
            const int r = path[static_cast<std::size_t>(j)];
            rowOfColumn[static_cast<std::size_t>(j)] = r;
            std::swap(columnOfRow[static_cast<std::size_t>(r)], j);
            if (r == start)
                break;
        }
    }
    return columnOfRow;
}

std::vector<int> assign(std::span<const double> cost, std::int64_t rows, std::int64_t columns, double sign)
{
    if (rows <= 0)
        return {};
    if (columns <= 0)
        return std::vector<int>(static_cast<std::size_t>(rows), -1);
    if (rows <= columns)
        return augment(rows, columns, [&](std::int64_t r, std::int64_t c) {
            return sign * cost[static_cast<std::size_t>(r * columns + c)];
        });
    const std::vector<int> rowOf = augment(columns, rows, [&](std::int64_t r, std::int64_t c) {
        return sign * cost[static_cast<std::size_t>(c * columns + r)];
    });
    std::vector<int> result(static_cast<std::size_t>(rows), -1);
    for (std::size_t c = 0; c < rowOf.size(); ++c)
        if (rowOf[c] >= 0)
            result[static_cast<std::size_t>(rowOf[c])] = static_cast<int>(c);
    return result;
}

} // namespace

std::vector<int> assignMinimum(std::span<const double> cost, std::int64_t rows, std::int64_t columns)
{
    return assign(cost, rows, columns, 1.0);
}

std::vector<int> assignMaximum(std::span<const double> gain, std::int64_t rows, std::int64_t columns)
{
    return assign(gain, rows, columns, -1.0);
}

} // namespace spectra
