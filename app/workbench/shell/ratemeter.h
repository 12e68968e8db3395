// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QString>

#include <cstdint>
#include <deque>
#include <optional>

namespace spectra {

/// Rate and remaining time of long work from what was done in the last ten seconds. Says nothing before it knows:
/// less than one second or one step seen, no total, or no step for ten seconds.
class RateMeter {
public:
    /// Work stands at `done` at `seconds` (any clock that does not go back). A smaller `done` starts anew.
    void add(double seconds, std::int64_t done);
    void reset() { m_samples.clear(); }
    /// Units per second at time `seconds`.
    [[nodiscard]] std::optional<double> rate(double seconds) const;
    [[nodiscard]] std::optional<double> remaining(double seconds, std::int64_t total) const;

    static constexpr double windowSeconds = 10;

private:
    struct Sample {
        double seconds;
        std::int64_t done;
    };
    std::deque<Sample> m_samples;
};

/// "0.9 s", "42 s", "3 min 20 s", "2 h 5 min".
[[nodiscard]] QString durationText(double seconds);
/// "41.3", "12,300": three digits that matter.
[[nodiscard]] QString rateText(double rate);
/// "412 MB", "1.3 GB" in powers of 1000.
[[nodiscard]] QString bytesText(double bytes);

} // namespace spectra
