// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/calibrate.h"
#include "tests/engine/train/trainsupport.h"

#include <algorithm>

namespace spectra {
namespace {

std::vector<CalibrationSequence> sequences(int count, int length)
{
    std::vector<CalibrationSequence> all;
    for (int s = 0; s < count; ++s)
        all.push_back({test::someIds(length, 128, 100 + s), {}});
    return all;
}

double largest(const std::vector<double> &v)
{
    return *std::max_element(v.begin(), v.end());
}

TEST(Calibrate, BalancesTheLoadOfEveryLayer)
{
    const auto m = test::tinySpectra();
    ASSERT_TRUE(m);
    CalibrateOptions options;
    options.batches = 60;
    options.batchTokens = 1024;
    const auto all = sequences(16, 64);
    std::int64_t reports = 0;
    const auto result = calibrate(*m, all, options, [&](const Progress &) { ++reports; }, {});
    ASSERT_TRUE(result.ok()) << result.error().what;
    ASSERT_EQ(result->cvAfter.size(), 2u);
    EXPECT_GT(largest(result->cvBefore), 0.1);
    EXPECT_LT(largest(result->cvAfter), 0.08);
    EXPECT_GE(result->countedTokens, 60 * 1024);
    EXPECT_GE(reports, 60);
    for (const auto &[name, tensor] : m->router()->buffers())
        if (name.ends_with(".potential")) {
            EXPECT_NEAR(tensor.mean().item<double>(), 0, 1e-5) << name;
        }

    // The buffers reach a written folder and come back.
    ModelConfig config = m->config();
    config.routerCalibrated = true;
    const auto made = withRouter(std::shared_ptr<const Checkpoint>(&m->checkpoint(), [](const Checkpoint *) {}), *m->router(), config);
    const auto place = std::filesystem::path(SPECTRA_BUILD_DIR) / "test_calibrated";
    std::filesystem::remove_all(place);
    FolderOptions folder;
    folder.place = place;
    ASSERT_TRUE(writeFolder(*made, folder, {}, {}).ok());
    const auto again = test::loadModel(place);
    ASSERT_TRUE(again);
    EXPECT_TRUE(again->config().routerCalibrated);
    const auto ids = test::someIds(30, 128, 5);
    EXPECT_EQ(test::maxDifference(test::logitsOf(*m, ids), test::logitsOf(*again, ids)), 0);
    std::filesystem::remove_all(place);
}

TEST(Calibrate, MeansAreThoseOfTheCountedTokens)
{
    const auto m = test::tinySpectra();
    ASSERT_TRUE(m);
    auto all = sequences(3, 21);
    all[1].mask.assign(21, 1);
    all[1].mask[0] = all[1].mask[20] = 0;
    torch::Tensor sum = torch::zeros({6, 8}, torch::kFloat64);
    std::int64_t counted = 0;
    for (const auto &s : all) {
        PassHooks hooks;
        hooks.capture.add(Field::vectors);
        hooks.onLayer = [&](const RoutingLayer &layer) {
            if (layer.ordinal != 0)
                return;
            for (std::int64_t t = 0; t < layer.input.size(0); ++t)
                if (s.mask.empty() || s.mask[static_cast<std::size_t>(t)]) {
                    sum += layer.step.expressionVectors[t].to(torch::kFloat64);
                    ++counted;
                }
        };
        test::hiddenOf(*m, {s.tokens}, hooks);
    }
    CalibrateOptions options;
    options.batches = 1;
    options.batchTokens = 32;
    ASSERT_TRUE(calibrate(*m, all, options, {}, {}).ok());
    EXPECT_EQ(counted, 61);
    EXPECT_LE(test::maxDifference(m->router()->buffers().at("model.layers.0.mlp.router.mean_expression"), sum / static_cast<double>(counted)), 1e-5);
}

TEST(Calibrate, StoppedOrRefusedItChangesNothing)
{
    const auto m = test::tinySpectra();
    ASSERT_TRUE(m);
    std::map<std::string, torch::Tensor> before;
    for (const auto &[name, tensor] : m->router()->buffers())
        before[name] = tensor.clone();
    std::stop_source stop;
    const auto all = sequences(4, 32);
    const auto stopped = calibrate(*m, all, {}, [&](const Progress &p) {
        if (p.stage == "potentials" && p.done == 2)
            stop.request_stop();
    }, stop.get_token());
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
    for (const auto &[name, tensor] : m->router()->buffers())
        EXPECT_TRUE(torch::equal(tensor, before.at(name))) << name;

    for (const char *const router : {R"({"type":"spectra","router_dim":8,"sinkhorn_scope":"none"})", R"({"type":"spectra","router_dim":8,"scoring":"domain"})",
                                     R"({"type":"softmax_topk"})"}) {
        const auto other = test::tinySpectra(router);
        ASSERT_TRUE(other) << router;
        const auto refused = calibrate(*other, all, {}, {}, {});
        ASSERT_FALSE(refused.ok()) << router;
        EXPECT_EQ(refused.error().kind, ErrorKind::usage);
    }
    EXPECT_EQ(calibrate(*m, {}, {}, {}, {}).error().kind, ErrorKind::usage);
}

} // namespace
} // namespace spectra
