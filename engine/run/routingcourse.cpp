// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/routingcourse.h"

#include "analysis/metrics/comparetraces.h"
#include "engine/trace/tracereader.h"

#include <nlohmann/json.hpp>

namespace spectra {

Result<nlohmann::ordered_json> routingCourse(const std::vector<std::int64_t> &steps, const std::function<std::filesystem::path(std::int64_t)> &trace,
                                             std::stop_token stop)
{
    using Json = nlohmann::ordered_json;
    Json entry{{"value", nullptr}, {"unit", ""}, {"better", "higher"}};
    const auto there = [&](std::int64_t step) {
        std::error_code ignored;
        const std::filesystem::path file = trace(step);
        return !file.empty() && std::filesystem::exists(file, ignored);
    };
    if (steps.size() < 2 || !there(steps.back())) {
        entry["absent"] = steps.size() < 2 ? "only one evaluation" : "the run keeps no traces";
        return entry;
    }
    SPECTRA_TRY(const auto last, openTrace(trace(steps.back())));
    Json course = Json::array();
    for (const std::int64_t step : steps) {
        if (step == steps.back() || !there(step))
            continue;
        const auto earlier = openTrace(trace(step));
        if (!earlier) { // hours of training are not lost for a picture of their middle
            entry["unread"][std::to_string(step)] = earlier.error().what;
            continue;
        }
        const auto compared = routingConsistency(**earlier, *last, stop);
        if (!compared) { // such as one of other held-out windows, from before the run's settings were changed
            if (compared.error().kind == ErrorKind::cancelled)
                return compared.error();
            entry["unread"][std::to_string(step)] = compared.error().what;
            continue;
        }
        const TraceConsistency &c = *compared;
        course.push_back({{"step", step}, {"raw", c.raw}, {"matched", c.matched}, {"saturation", c.saturation}});
        if (!entry["value"].is_null() || 4 * step < 3 * steps.back())
            continue;
        entry["value"] = c.raw;
        entry["matched"] = c.matched;
        entry["saturation"] = c.saturation;
        entry["from_step"] = step;
        Json layers = Json::array();
        for (const LayerConsistency &l : c.layers)
            layers.push_back(l.raw);
        entry["by_layer"] = std::move(layers);
    }
    if (entry["value"].is_null())
        entry["absent"] = "no trace from the last quarter of training before its end";
    entry["by_step"] = std::move(course);
    return entry;
}

} // namespace spectra
