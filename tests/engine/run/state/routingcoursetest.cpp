// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/routingcourse.h"
#include "tests/support/synthetictrace.h"
#include "tests/support/tinymodel.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <fstream>

namespace spectra::test {
namespace {

SyntheticOptions small(int denseLayers = 0)
{
    SyntheticOptions o;
    o.layers = 1;
    o.denseLayers = denseLayers;
    o.tokens = 200;
    o.capture = Capture::standard();
    return o;
}

/// Hours of training are not lost for a picture of their middle.
TEST(RoutingCourse, ATraceThatDoesNotFitIsNamedAndPassedOver)
{
    const TemporaryFolder folder("course");
    const auto trace = [&](std::int64_t step) { return folder / (std::to_string(step) + ".h5"); };
    for (const std::int64_t step : {3, 4})
        ASSERT_TRUE(writeSyntheticTrace(trace(step), small()).ok());
    std::ofstream(trace(1)) << "no trace";
    ASSERT_TRUE(writeSyntheticTrace(trace(2), small(1)).ok()); // its experts lie in another layer
    const auto course = routingCourse({1, 2, 3, 4}, trace, {});
    ASSERT_TRUE(course) << course.error().what;
    EXPECT_EQ((*course)["value"], 1) << "the same run twice";
    EXPECT_EQ((*course)["from_step"], 3);
    ASSERT_EQ((*course)["by_step"].size(), 1u);
    EXPECT_TRUE((*course)["unread"].contains("1"));
    EXPECT_TRUE((*course)["unread"].contains("2"));

    std::stop_source stop;
    stop.request_stop();
    const auto stopped = routingCourse({3, 4}, trace, stop.get_token());
    ASSERT_FALSE(stopped);
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
}

} // namespace
} // namespace spectra::test
