// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/arraytrace.h"

#include <nlohmann/json.hpp>

#include <fstream>
#include <string>
#include <vector>

namespace spectra::test {

inline nlohmann::json readFixture(const std::string &name)
{
    std::ifstream file(std::string(SPECTRA_TEST_DIR) + "/fixtures/analysis/" + name);
    return nlohmann::json::parse(file);
}

/// The routing that make_metrics.py drew, as a trace.
inline ArrayTrace fixtureTrace(const nlohmann::json &f)
{
    ArrayTrace trace;
    const int layers = f["shape"][0], slots = f["shape"][3];
    trace.header.experts = f["shape"][2];
    trace.all.id = f["id"].get<std::vector<std::int32_t>>();
    trace.all.sequence = f["sequence"].get<std::vector<std::int32_t>>();
    trace.all.mask = f["mask"].get<std::vector<std::uint8_t>>();
    for (const int d : f["sequence_domain"].get<std::vector<int>>()) {
        SequenceInfo s;
        s.domain = f["domains"][static_cast<std::size_t>(d)];
        trace.sequenceInfo.push_back(s);
    }
    for (int l = 0; l < layers; ++l) {
        const auto i = static_cast<std::size_t>(l);
        trace.setExperts(l, f["experts"][i].get<std::vector<std::uint16_t>>(), slots);
        trace.setColumn(Column::weights, l, f["weights"][i].get<std::vector<float>>(), {slots});
        trace.setColumn(Column::probabilities, l, f["probabilities"][i].get<std::vector<float>>(),
                        {trace.header.experts});
    }
    trace.setColumn(Column::hidden, 0, f["hidden"].get<std::vector<float>>(), {5});
    for (int l = 1; l < layers; ++l)
        trace.setColumn(Column::hidden, l, f["hidden"].get<std::vector<float>>(), {5});
    trace.finish();
    return trace;
}

} // namespace spectra::test
