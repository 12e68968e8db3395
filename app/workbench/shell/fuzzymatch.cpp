// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/fuzzymatch.h"

#include <algorithm>

namespace spectra {

namespace {

constexpr int maxPattern = 64, maxText = 256;

bool wordStart(const QString &text, int i)
{
    return i == 0 || !text[i - 1].isLetterOrNumber() || (text[i].isUpper() && text[i - 1].isLower());
}

} // namespace

FuzzyMatch fuzzyMatch(const QString &wanted, const QString &text)
{
    QString pattern = wanted.left(maxPattern).toCaseFolded();
    pattern.remove(QLatin1Char(' '));
    const QString folded = text.left(maxText).toCaseFolded();
    const int n = static_cast<int>(pattern.size()), m = static_cast<int>(std::min(folded.size(), text.size()));
    if (n == 0)
        return {0, {}};
    if (n > m)
        return {};
    // best[i][j]: best score with pattern[i] placed at text[j]; from[i][j]: place of pattern[i-1].
    constexpr int none = -1'000'000;
    std::vector<int> best(static_cast<std::size_t>(n) * m, none), from(best.size(), -1);
    const auto at = [m](int i, int j) { return static_cast<std::size_t>(i) * m + j; };
    for (int i = 0; i < n; ++i) {
        int bestBefore = none, bestBeforeAt = -1; // best of row i-1 left of j-1
        for (int j = i; j < m; ++j) {
            if (i > 0 && j >= 2 && best[at(i - 1, j - 2)] > bestBefore) {
                bestBefore = best[at(i - 1, j - 2)];
                bestBeforeAt = j - 2;
            }
            if (folded[j] != pattern[i])
                continue;
            const int own = 4 + (wordStart(text, j) ? 12 : 0) - (i == 0 ? std::min(j, 8) : 0);
            if (i == 0) {
                best[at(i, j)] = own;
                continue;
            }
            int score = none, place = -1;
            if (j >= 1 && best[at(i - 1, j - 1)] > none) {
                score = best[at(i - 1, j - 1)] + own + 8;
                place = j - 1;
            }
            if (bestBefore > none && bestBefore + own > score) {
                score = bestBefore + own;
                place = bestBeforeAt;
            }
            best[at(i, j)] = score;
            from[at(i, j)] = place;
        }
    }
    int end = -1;
    for (int j = n - 1; j < m; ++j)
        if (best[at(n - 1, j)] > none && (end < 0 || best[at(n - 1, j)] > best[at(n - 1, end)]))
            end = j;
    if (end < 0)
        return {};
    FuzzyMatch match;
    match.score = std::max(1, best[at(n - 1, end)] + 64 - std::min(64, m)); // of equals the shorter text
    for (int i = n - 1, j = end; i >= 0; j = from[at(i, j)], --i)
        match.positions.push_back(j);
    std::ranges::reverse(match.positions);
    return match;
}

} // namespace spectra
