// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/closestname.h"

#include <algorithm>
#include <array>

namespace spectra {

std::size_t editDistance(std::string_view a, std::string_view b)
{
    // A name from outside may be a megabyte long; nobody means a key by more than this.
    constexpr std::size_t kLongest = 200;
    a = a.substr(0, kLongest);
    b = b.substr(0, kLongest);
    std::array<std::array<std::size_t, kLongest + 1>, 3> rows; // the row before the last, the last, this one
    for (std::size_t j = 0; j <= b.size(); ++j)
        rows[1][j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        auto &older = rows[(i + 2) % 3], &last = rows[i % 3], &row = rows[(i + 1) % 3];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U)});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = std::min(row[j], older[j - 2] + 1);
        }
    }
    return rows[(a.size() + 1) % 3][b.size()];
}

std::string closestName(std::string_view name, const std::vector<std::string> &names)
{
    std::string best;
    std::size_t least = static_cast<std::size_t>(-1);
    for (const std::string &candidate : names)
        if (const std::size_t distance = editDistance(name, candidate); distance < least) {
            least = distance;
            best = candidate;
        }
    return best;
}

} // namespace spectra
