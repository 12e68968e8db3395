// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainer.h"

#include "engine/core/random.h"
#include "engine/train/processes.h"
#include "engine/train/upcycle.h"
#include "tests/support/tinymodel.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <barrier>
#include <cmath>
#include <functional>
#include <thread>

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

double step(Trainer &t, std::int64_t number, std::int64_t micro = 1)
{
    std::vector<TrainBatch> batches;
    for (std::int64_t m = 0; m < micro; ++m)
        batches.push_back(batch(number * micro + m));
    auto report = t.step(batches);
    if (!report) {
        ADD_FAILURE() << report.error().what << ": " << report.error().where;
        return NAN;
    }
    return report->loss;
}

constexpr const char *kSpectraRouter = R"({"type":"spectra","router_dim":4,"sinkhorn_epsilon":0.2})";

TEST(Trainer, RoutersRestAfterTheirShareOfTheSteps)
{
    TrainerOptions o = options();
    o.schedule.routerUntil = 0.05; // of 40 steps: two
    const auto t = trainer(tiny(R"({"type":"spectra","router_dim":4})"), o);
    const auto parts = [&] {
        std::map<bool, std::vector<torch::Tensor>> list;
        for (const TrainParameter &p : t->model().parameters())
            list[p.group == ParameterGroup::router].push_back(p.value.detach().clone());
        return list;
    };
    const auto moved = [&](bool router) {
        const auto before = parts()[router];
        step(*t, t->stepsDone());
        const auto after = parts()[router];
        bool any = false;
        for (std::size_t i = 0; i < before.size(); ++i)
            any = any || !torch::equal(before[i], after[i]);
        return any;
    };
    EXPECT_TRUE(moved(true));
    EXPECT_TRUE(moved(true));
    EXPECT_FALSE(moved(true));
    EXPECT_TRUE(moved(false));
    EXPECT_FALSE(moved(true));
}

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

/// `all` steps in one go against `before` of them, a checkpoint and the rest.
void expectGoesOn(const ModelConfig &config, const TrainerOptions &o, std::int64_t before, std::int64_t all, std::int64_t micro = 1)
{
    TemporaryFolder folder("trainer");
    auto straight = trainer(config, o), first = trainer(config, o);
    ASSERT_TRUE(straight && first);
    std::vector<double> losses;
    for (std::int64_t i = 0; i < all; ++i)
        losses.push_back(step(*straight, i, micro));
    for (std::int64_t i = 0; i < before; ++i)
        EXPECT_EQ(step(*first, i, micro), losses[static_cast<std::size_t>(i)]);
    FolderOptions write;
    write.place = folder / "step";
    write.extra = [&](const fs::path &place) { return first->saveState(place); };
    ModelConfig stored = first->model().config();
    if (first->model().router())
        stored.routerJson = first->model().router()->options();
    stored.trainingStep = before;
    const auto written = writeFolder(*first->model().snapshot(stored, false), write, {}, {});
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
    EXPECT_EQ((*second)->stepsDone(), before);
    for (std::int64_t i = before; i < all; ++i)
        EXPECT_EQ(step(**second, i, micro), losses[static_cast<std::size_t>(i)]) << "step " << i;
    expectEqual(values(**second), values(*straight));
}

TEST(Trainer, GoesOnFromACheckpointBitIdentically)
{
    for (const char *optimizer : {"adamw", "muon"})
        for (const char *router : {kSpectraRouter, R"({"type":"loss_free"})", R"({"type":"quantile"})"}) {
            SCOPED_TRACE(std::string(optimizer) + " " + router);
            auto o = options();
            o.optimizer.type = optimizer;
            expectGoesOn(tiny(router), o, 4, 7);
        }
}

TEST(Trainer, GoesOnBitIdenticallyWithEveryRouter)
{
    for (const RouterInfo &info : routerRegistry()) {
        SCOPED_TRACE(info.name);
        const auto json = defaultRouterOptions(info.name);
        ASSERT_TRUE(json);
        expectGoesOn(tiny(*json, info.topK > 0 ? info.topK : 2), options(), 1, 3);
    }
    // The stages of StableMoE: a checkpoint before the second one begins, at it, and after.
    for (const std::int64_t before : {2, 3, 5}) {
        SCOPED_TRACE(before);
        expectGoesOn(tiny(R"({"type":"stablemoe","two_stage_updates":3})", 1), options(), before, 7);
    }
}

TEST(Trainer, GoesOnBitIdenticallyWithEveryOption)
{
    const auto combined = [](const std::string &what, const std::string &router, const std::function<void(TrainerOptions &)> &change, std::int64_t micro) {
        SCOPED_TRACE(what);
        auto o = options();
        change(o);
        expectGoesOn(tiny(router), o, 3, 5, micro);
    };
    const auto nothing = [](TrainerOptions &) {};
    combined("micro-batches", kSpectraRouter, nothing, 2);
    combined("layers run twice", kSpectraRouter, [](TrainerOptions &o) { o.pass.activationCheckpointing = true; }, 2);
    combined("QK-clip", kSpectraRouter, [](TrainerOptions &o) { o.qkClip = 1e-3; }, 1);
    combined("all at once", R"({"type":"qwen3_moe"})",
             [](TrainerOptions &o) {
                 o.optimizer.type = "muon";
                 o.pass.activationCheckpointing = true;
                 o.qkClip = 1e-3;
                 o.clip = 0.1;
             },
             3);
    combined("potentials by balancing", R"({"type":"spectra","router_dim":4,"causal_potential":"dual","train_sinkhorn_scope":"causal"})", nothing, 2);
    combined("capacities by load", R"({"type":"spectra","router_dim":4,"capacity":"dynamic"})", nothing, 2);
    combined("a coefficient that rises", R"({"type":"spectra","router_dim":4,"ortho_loss_coef":0.1,"so_warmup_steps":4})", nothing, 1);
    combined("domain scores", R"({"type":"spectra","router_dim":4,"scoring":"domain","speciality_penalty":"per_expert"})", nothing, 1);
    combined("router only", kSpectraRouter, [](TrainerOptions &o) { o.routerOnly = true; }, 1);
}

TEST(Trainer, LayersRunTwiceTrainTheSameInMicroBatches)
{
    for (const RouterInfo &info : routerRegistry()) {
        SCOPED_TRACE(info.name);
        const auto json = defaultRouterOptions(info.name);
        ASSERT_TRUE(json);
        auto o = options();
        auto once = trainer(tiny(*json, info.topK > 0 ? info.topK : 2), o);
        o.pass.activationCheckpointing = true;
        auto twice = trainer(tiny(*json, info.topK > 0 ? info.topK : 2), o);
        ASSERT_TRUE(once && twice);
        const std::vector<TrainBatch> batches = {batch(0), batch(1)};
        const auto a = once->step(batches), b = twice->step(batches);
        ASSERT_TRUE(a && b);
        EXPECT_NEAR(b->loss, a->loss, 1e-6 * a->loss);
        ASSERT_EQ(a->routerLosses.size(), b->routerLosses.size());
        for (const auto &[name, loss] : a->routerLosses)
            EXPECT_NEAR(b->routerLosses.at(name), loss, 1e-6 * std::abs(loss)) << name;
        EXPECT_NEAR(b->gradients.router, a->gradients.router, 1e-5 * a->gradients.router);
        EXPECT_NEAR(b->gradients.all, a->gradients.all, 1e-5 * a->gradients.all);
    }
}

/// "Processes" that are threads.
class ThreadGroup {
public:
    explicit ThreadGroup(int size) : m_barrier(size), m_slots(static_cast<std::size_t>(size)) {}

    class Member : public Collective {
    public:
        Member(ThreadGroup &group, int rank) : m_group(group), m_rank(rank) {}
        [[nodiscard]] int rank() const override { return m_rank; }
        [[nodiscard]] int size() const override { return static_cast<int>(m_group.m_slots.size()); }
        void sumInPlace(torch::Tensor &t) override
        {
            const torch::NoGradGuard noGrad;
            m_group.m_slots[static_cast<std::size_t>(m_rank)] = t.detach().clone();
            m_group.m_barrier.arrive_and_wait();
            torch::Tensor sum = m_group.m_slots[0].clone();
            for (std::size_t p = 1; p < m_group.m_slots.size(); ++p)
                sum += m_group.m_slots[p];
            m_group.m_barrier.arrive_and_wait();
            t.copy_(sum);
        }
        void broadcast(torch::Tensor &) override { FAIL() << "a step sends nothing"; }

    private:
        ThreadGroup &m_group;
        int m_rank;
    };

private:
    std::barrier<> m_barrier;
    std::vector<torch::Tensor> m_slots;
};

/// Two processes with half of the sequences each: the losses of one with all, and the same weights in both, to the bit.
TEST(Trainer, TwoProcessesTrainAsOneAndStayAlike)
{
    const std::vector<std::string> routers = {
        R"({"type":"spectra","router_dim":4,"router_jitter_noise":0,"expert_choice_routing":false,"train_sinkhorn_scope":"batch"})",
        R"({"type":"spectra","router_dim":4,"router_jitter_noise":0,"expert_choice_routing":false,"train_sinkhorn_scope":"sequence","causal_potential":"dual"})",
        R"({"type":"qwen3_moe","router_aux_loss_coef":0.1})", R"({"type":"loss_free"})", R"({"type":"dense"})"};
    for (const std::string &router : routers)
        for (const bool again : {false, true}) {
            SCOPED_TRACE(router + (again ? " layers run twice" : ""));
            auto o = options();
            o.pass.activationCheckpointing = again;
            if (router.find("loss_free") != std::string::npos)
                o.qkClip = 0.001; // each process sees other logits, and all must scale by the largest
            auto whole = trainer(tiny(router), o);
            ASSERT_TRUE(whole);
            constexpr std::int64_t kSteps = 2;
            const auto batchesOf = [](std::int64_t number, std::int64_t first, std::int64_t count) {
                std::vector<TrainBatch> list;
                for (std::int64_t m = 0; m < 2; ++m) {
                    TrainBatch b = batch(2 * number + m);
                    b.ids = b.ids.narrow(0, first, count).clone();
                    b.targets = b.targets.narrow(0, first, count).clone();
                    list.push_back(std::move(b));
                }
                return list;
            };
            std::vector<StepReport> expected;
            for (std::int64_t i = 0; i < kSteps; ++i)
                expected.push_back(*whole->step(batchesOf(i, 0, 4)));
            ThreadGroup group(2);
            std::vector<StepReport> found[2];
            std::vector<torch::Tensor> end[2];
            {
                std::vector<std::jthread> threads;
                for (int p = 0; p < 2; ++p)
                    threads.emplace_back([&, p] {
                        ThreadGroup::Member member(group, p);
                        auto mine = o;
                        mine.pass.collective = &member;
                        auto part = trainer(tiny(router), mine);
                        for (std::int64_t i = 0; i < kSteps; ++i)
                            found[p].push_back(*part->step(batchesOf(i, 2 * p, 2)));
                        end[p] = values(*part);
                    });
            }
            for (int p = 0; p < 2; ++p)
                for (std::size_t i = 0; i < kSteps; ++i) {
                    EXPECT_NEAR(found[p][i].loss, expected[i].loss, 1e-5);
                    EXPECT_NEAR(found[p][i].gradients.all, expected[i].gradients.all, 1e-4 * expected[i].gradients.all) << "clipped by the norm over all processes";
                    for (const auto &[name, loss] : expected[i].routerLosses)
                        EXPECT_NEAR(found[p][i].routerLosses.at(name), loss, 1e-5 + 1e-4 * std::abs(loss)) << name;
                }
            expectEqual(end[0], end[1]);
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

TEST(Trainer, AStateOfAnotherNumberOfProcessesIsRefused)
{
    TemporaryFolder folder("trainerprocesses");
    ThreadGroup group(2);
    ThreadGroup::Member member(group, 0);
    auto two = options();
    two.pass.collective = &member;
    const auto config = tiny(R"({"type":"dense"})");
    ASSERT_TRUE(trainer(config, two)->saveState(folder.path()).ok());
    const auto loaded = trainer(config)->loadState(folder.path());
    ASSERT_FALSE(loaded.ok());
    EXPECT_EQ(loaded.error().kind, ErrorKind::input);
    EXPECT_THAT(loaded.error().mend, HasSubstr("mpirun -n 2"));
    EXPECT_TRUE(trainer(config, two)->loadState(folder.path()).ok());
}

TEST(Trainer, MemoryIsThatOfItsTensors)
{
    auto t = trainer(tiny(R"({"type":"switch_top2"})"));
    step(*t, 0);
    std::uint64_t bytes = 0;
    for (const TrainParameter &p : t->model().parameters())
        bytes += static_cast<std::uint64_t>(p.value.numel()) * 4;
    const auto memory = t->memory();
    EXPECT_EQ(memory.at("weights"), bytes);
    EXPECT_EQ(memory.at("gradients"), bytes);
    EXPECT_GE(memory.at("optimizer"), 2 * bytes);
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
