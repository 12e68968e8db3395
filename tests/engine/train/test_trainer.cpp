// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainer.h"

#include "engine/core/random.h"
#include "engine/train/processes.h"
#include "engine/train/upcycle.h"
#include "tests/support/tinymodel.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <cmath>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

ModelConfig tiny(const std::string &router, std::int64_t topK = 2)
{
    ModelConfig m;
    const bool dense = router == R"({"type":"dense"})";
    m.architecture = "llama";
    m.modelType = dense ? "llama" : "spectra";
    m.vocabulary = 61;
    m.hidden = 16;
    m.intermediate = 24;
    m.layers = 2;
    m.heads = 4;
    m.kvHeads = 2;
    m.headDim = 4;
    m.context = 64;
    m.tiedHead = true;
    if (!dense) {
        m.experts = 4;
        m.topK = topK;
        m.expertIntermediate = 24;
        m.moeLayers = {0, 1};
        m.routerJson = router;
    }
    return m;
}

TrainerOptions options(double rate = 3e-3)
{
    TrainerOptions o;
    o.schedule = {"cosine", 40, 4, 0.1};
    o.peakRates = {rate, rate, rate};
    return o;
}

std::unique_ptr<Trainer> trainer(const ModelConfig &config, const TrainerOptions &o = options(), std::uint64_t seed = 3)
{
    auto model = TrainModel::fresh(config, seed);
    if (!model) {
        ADD_FAILURE() << model.error().what << ": " << model.error().where;
        return nullptr;
    }
    auto made = Trainer::create(std::move(*model), o);
    if (!made) {
        ADD_FAILURE() << made.error().what << ": " << made.error().where;
        return nullptr;
    }
    return std::move(*made);
}

/// A language of its own: each token mostly follows its predecessor by a fixed rule, so that there is something to learn.
TrainBatch batch(std::int64_t number, std::int64_t sequences = 4, std::int64_t length = 16)
{
    Random random(11, static_cast<std::uint64_t>(number) + 1);
    TrainBatch b;
    b.ids = torch::empty({sequences, length}, torch::kInt64);
    b.targets = torch::empty({sequences, length}, torch::kInt64);
    for (std::int64_t s = 0; s < sequences; ++s) {
        auto token = static_cast<std::int64_t>(random.below(61));
        for (std::int64_t t = 0; t < length; ++t) {
            b.ids[s][t] = token;
            token = random.uniform() < 0.9 ? (token * 7 + 3) % 61 : static_cast<std::int64_t>(random.below(61));
            b.targets[s][t] = token;
        }
    }
    b.seed = static_cast<std::uint64_t>(number) * 977 + 5;
    return b;
}

std::vector<torch::Tensor> values(Trainer &t)
{
    std::vector<torch::Tensor> list;
    for (const TrainParameter &p : t.model().parameters())
        list.push_back(p.value.detach().clone());
    if (t.model().router())
        for (const auto &[name, buffer] : t.model().router()->buffers())
            list.push_back(buffer.clone());
    return list;
}

void expectEqual(const std::vector<torch::Tensor> &a, const std::vector<torch::Tensor> &b, double tolerance = 0)
{
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (tolerance == 0)
            EXPECT_TRUE(torch::equal(a[i], b[i])) << "tensor " << i;
        else
            EXPECT_TRUE(torch::allclose(a[i], b[i], tolerance, tolerance)) << "tensor " << i << ": " << (a[i] - b[i]).abs().max();
    }
}

double step(Trainer &t, std::int64_t number)
{
    const std::vector<TrainBatch> batches = {batch(number)};
    auto report = t.step(batches);
    if (!report) {
        ADD_FAILURE() << report.error().what << ": " << report.error().where;
        return NAN;
    }
    return report->loss;
}

constexpr const char *kSpectraRouter = R"({"type":"spectra","router_dim":4,"sinkhorn_epsilon":0.2})";

TEST(Trainer, LearnsBelowTheUnigramEntropyOfItsText)
{
    auto o = options(1e-2);
    o.schedule = {"constant", 150, 5, 1};
    for (const char *router : {kSpectraRouter, R"({"type":"switch_top2"})", R"({"type":"dense"})"}) {
        auto t = trainer(tiny(router), o);
        ASSERT_TRUE(t);
        double last = 0;
        for (std::int64_t i = 0; i < 150; ++i)
            last = step(*t, i);
        // Tokens are uniform over 61 ids; the rule leaves about 0.7 nats.
        EXPECT_LT(last, 0.6 * std::log(61.0)) << router;
    }
}

TEST(Trainer, TwiceWithOneSeedIsBitIdentical)
{
    for (const char *router : {kSpectraRouter, R"({"type":"gshard"})"}) {
        auto a = trainer(tiny(router)), b = trainer(tiny(router));
        ASSERT_TRUE(a && b);
        for (std::int64_t i = 0; i < 6; ++i)
            EXPECT_EQ(step(*a, i), step(*b, i)) << router << " step " << i;
        expectEqual(values(*a), values(*b));
    }
}

TEST(Trainer, ADenseStepIsTheSameInMicroBatches)
{
    auto whole = trainer(tiny(R"({"type":"dense"})")), parts = trainer(tiny(R"({"type":"dense"})"));
    ASSERT_TRUE(whole && parts);
    for (std::int64_t i = 0; i < 3; ++i) {
        const TrainBatch a = batch(2 * i), b = batch(2 * i + 1);
        TrainBatch both = a;
        both.ids = torch::cat({a.ids, b.ids});
        both.targets = torch::cat({a.targets, b.targets});
        const std::vector<TrainBatch> one = {both}, two = {a, b};
        const auto first = whole->step(one), second = parts->step(two);
        ASSERT_TRUE(first && second);
        EXPECT_NEAR(first->loss, second->loss, 1e-5);
        EXPECT_NEAR(first->gradients.all, second->gradients.all, 1e-5);
    }
    expectEqual(values(*whole), values(*parts), 2e-5);
}

TEST(Trainer, GoesOnFromACheckpointBitIdentically)
{
    for (const char *optimizer : {"adamw", "muon"})
        for (const char *router : {kSpectraRouter, R"({"type":"loss_free"})", R"({"type":"quantile"})"}) {
            SCOPED_TRACE(std::string(optimizer) + " " + router);
            TemporaryFolder folder("trainer");
            auto o = options();
            o.optimizer.type = optimizer;
            auto straight = trainer(tiny(router), o), first = trainer(tiny(router), o);
            ASSERT_TRUE(straight && first);
            std::vector<double> losses;
            for (std::int64_t i = 0; i < 7; ++i)
                losses.push_back(step(*straight, i));
            for (std::int64_t i = 0; i < 4; ++i)
                EXPECT_EQ(step(*first, i), losses[static_cast<std::size_t>(i)]);
            FolderOptions write;
            write.place = folder / "step";
            write.extra = [&](const fs::path &place) { return first->saveState(place); };
            ModelConfig config = first->model().config();
            config.routerJson = first->model().router()->options();
            config.trainingStep = 4;
            const auto written = writeFolder(*first->model().snapshot(config, false), write, {}, {});
            ASSERT_TRUE(written.ok()) << written.error().what;
            first.reset();

            const auto opened = Checkpoint::open(folder / "step");
            ASSERT_TRUE(opened) << opened.error().what << opened.error().where;
            auto model = TrainModel::load(*opened, 99, {}, {});
            ASSERT_TRUE(model) << model.error().what << model.error().where;
            auto second = Trainer::create(std::move(*model), o);
            ASSERT_TRUE(second);
            const auto loaded = (*second)->loadState(folder / "step");
            ASSERT_TRUE(loaded.ok()) << loaded.error().what;
            EXPECT_EQ((*second)->stepsDone(), 4);
            for (std::int64_t i = 4; i < 7; ++i)
                EXPECT_EQ(step(**second, i), losses[static_cast<std::size_t>(i)]) << "step " << i;
            expectEqual(values(**second), values(*straight));
        }
}

TEST(Trainer, AStateOfAnotherShapeIsRefused)
{
    TemporaryFolder folder("trainerstate");
    auto small = trainer(tiny(R"({"type":"dense"})"));
    ASSERT_TRUE(small);
    step(*small, 0);
    ASSERT_TRUE(small->saveState(folder.path()).ok());
    ModelConfig larger = tiny(R"({"type":"dense"})");
    larger.intermediate = 32;
    auto other = trainer(larger);
    ASSERT_TRUE(other);
    const auto loaded = other->loadState(folder.path());
    ASSERT_FALSE(loaded.ok());
    EXPECT_EQ(loaded.error().kind, ErrorKind::input);
    EXPECT_THAT(loaded.error().where, HasSubstr("optimizer"));
    fs::remove(folder / "optimizer/numbers.json");
    EXPECT_EQ(small->loadState(folder.path()).error().kind, ErrorKind::input);
}

TEST(Trainer, StopsAtALossThatIsNotFiniteAndNamesThePlace)
{
    auto t = trainer(tiny(R"({"type":"switch_top2"})"));
    ASSERT_TRUE(t);
    step(*t, 0);
    {
        const torch::NoGradGuard noGrad;
        for (const TrainParameter &p : t->model().parameters())
            if (p.layer == 1 && p.group == ParameterGroup::experts) {
                torch::Tensor value = p.value;
                value.view({-1})[0] = std::numeric_limits<float>::infinity();
                break;
            }
    }
    const std::vector<TrainBatch> batches = {batch(1)};
    const auto report = t->step(batches);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().kind, ErrorKind::work);
    EXPECT_THAT(report.error().what, HasSubstr("not finite"));
    EXPECT_THAT(report.error().where, HasSubstr("step 2"));
    EXPECT_THAT(report.error().where, HasSubstr("layer 1"));
    EXPECT_EQ(t->stepsDone(), 1);
}

TEST(Trainer, RouterOnlyLeavesAllElseAsItIs)
{
    auto o = options();
    o.routerOnly = true;
    auto t = trainer(tiny(kSpectraRouter), o);
    ASSERT_TRUE(t);
    std::vector<torch::Tensor> before;
    for (const TrainParameter &p : t->model().parameters())
        before.push_back(p.value.detach().clone());
    for (std::int64_t i = 0; i < 3; ++i)
        step(*t, i);
    std::size_t i = 0;
    bool moved = false;
    for (const TrainParameter &p : t->model().parameters()) {
        if (p.group == ParameterGroup::router)
            moved = moved || !torch::equal(p.value, before[i]);
        else
            EXPECT_TRUE(torch::equal(p.value, before[i])) << p.name;
        ++i;
    }
    EXPECT_TRUE(moved);
    EXPECT_FALSE(Trainer::create(std::move(*TrainModel::fresh(tiny(R"({"type":"dense"})"), 1)), o));
}

TEST(Trainer, EveryRouterTrains)
{
    for (const RouterInfo &info : routerRegistry()) {
        SCOPED_TRACE(info.name);
        const auto json = defaultRouterOptions(info.name);
        ASSERT_TRUE(json);
        auto t = trainer(tiny(*json, info.topK > 0 ? info.topK : 2));
        ASSERT_TRUE(t);
        for (std::int64_t i = 0; i < 3; ++i)
            EXPECT_TRUE(std::isfinite(step(*t, i)));
    }
}

TEST(Processes, OneProcessNeedsNoMpi)
{
    if (startedInParallel())
        GTEST_FAIL() << "the tests are not meant for mpirun";
    const auto group = joinProcesses();
    ASSERT_TRUE(group);
    EXPECT_EQ(*group, nullptr);
}

} // namespace
} // namespace spectra::test
