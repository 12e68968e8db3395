// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/embedding/lanes.h"

#include <vector>

namespace spectra::detail {

/// Sixteen complex Fourier transforms of one length at once (Stockham's autosort form, radices 5, 4, 3 and 2).
/// Unnormalised: forward then inverse gives n times the input. Const members are thread-safe.
class BatchFft {
public:
    /// n = 2^a 3^b 5^c, at least 1; see nextLength().
    explicit BatchFft(int n);

    [[nodiscard]] int length() const { return m_length; }
    /// Transforms x [n] with `scratch` [n]; returns where the result stands: x or scratch.
    [[nodiscard]] Lanes *forward(Lanes *x, Lanes *scratch) const;
    [[nodiscard]] Lanes *inverse(Lanes *x, Lanes *scratch) const;

    /// The least length of the form 2^a 3^b 5^c with a ≥ 3 that is at least n.
    [[nodiscard]] static int nextLength(int n);

private:
    struct Stage {
        int radix = 0, length = 0, stride = 0;
        std::vector<float> twiddles; ///< [length/radix][radix−1] cosine, −sine
    };
    int m_length = 1;
    std::vector<Stage> m_stages;
};

} // namespace spectra::detail
