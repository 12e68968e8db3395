// SPDX-License-Identifier: GPL-3.0-or-later
// A SPECTRA model through chunks, caches, batches: the routing's state must travel with the sequence.
#include "tests/engine/train/trainsupport.h"

namespace spectra {
namespace {

torch::Tensor decodeByTokens(Model &model, const std::vector<std::int32_t> &ids, std::size_t prompt)
{
    SequenceState state = model.newSequence();
    std::vector<torch::Tensor> rows;
    std::size_t at = 0;
    while (at < ids.size()) {
        const std::size_t n = at == 0 ? prompt : 1;
        PassInput input;
        input.sequences.push_back({std::span(ids).subspan(at, n), {}, &state});
        auto hidden = model.forward(input);
        if (!hidden) {
            ADD_FAILURE() << hidden.error().what;
            return {};
        }
        rows.push_back(hidden->clone());
        at += n;
    }
    EXPECT_EQ(state.length(), static_cast<std::int64_t>(ids.size()));
    return torch::cat(rows, 0);
}

class Axes : public testing::TestWithParam<const char *> {
protected:
    std::unique_ptr<Model> model() const
    {
        return test::tinySpectra(std::string(R"({"type":"spectra","router_dim":8,"gru_axis":")") + GetParam() + "\"}", 1);
    }
};

TEST_P(Axes, ChunksEqualOnePass)
{
    const auto m = model();
    ASSERT_TRUE(m);
    const auto ids = test::someIds(70, 128);
    const torch::Tensor whole = test::hiddenOf(*m, {ids});
    for (const std::int64_t chunk : {1, 3, 7, 16, 69})
        EXPECT_LE(test::maxDifference(whole, test::hiddenOf(*m, {ids}, {}, chunk)), 1e-4) << chunk;
}

TEST_P(Axes, CacheEqualsFullPass)
{
    const auto m = model();
    ASSERT_TRUE(m);
    const auto ids = test::someIds(40, 128, 2);
    const torch::Tensor whole = test::hiddenOf(*m, {ids});
    EXPECT_LE(test::maxDifference(whole, decodeByTokens(*m, ids, 11)), 1e-4);
    EXPECT_LE(test::maxDifference(whole, decodeByTokens(*m, ids, 1)), 1e-4);
}

TEST_P(Axes, BatchEqualsSingleSequences)
{
    const auto m = model();
    ASSERT_TRUE(m);
    const std::vector<std::vector<std::int32_t>> sequences = {test::someIds(9, 128, 3), test::someIds(33, 128, 4), test::someIds(1, 128, 5)};
    std::vector<torch::Tensor> single;
    for (const auto &s : sequences)
        single.push_back(test::hiddenOf(*m, {s}));
    EXPECT_LE(test::maxDifference(torch::cat(single, 0), test::hiddenOf(*m, sequences)), 1e-4);
    // Pieces whose borders fall inside sequences.
    EXPECT_LE(test::maxDifference(torch::cat(single, 0), test::hiddenOf(*m, sequences, {}, 5)), 1e-4);
}

TEST_P(Axes, BatchedDecodeEqualsSingleDecode)
{
    const auto m = model();
    ASSERT_TRUE(m);
    const auto a = test::someIds(12, 128, 6), b = test::someIds(17, 128, 7);
    const torch::Tensor wholeA = test::hiddenOf(*m, {a}), wholeB = test::hiddenOf(*m, {b});
    SequenceState sa = m->newSequence(), sb = m->newSequence();
    std::vector<torch::Tensor> rowsA, rowsB;
    std::size_t at = 0;
    for (const std::size_t n : {5, 1, 1, 3, 1, 1}) {
        PassInput input;
        input.sequences.push_back({std::span(a).subspan(at, n), {}, &sa});
        input.sequences.push_back({std::span(b).subspan(at, n), {}, &sb});
        auto hidden = m->forward(input);
        ASSERT_TRUE(hidden.ok());
        rowsA.push_back(hidden->narrow(0, 0, static_cast<std::int64_t>(n)).clone());
        rowsB.push_back(hidden->narrow(0, static_cast<std::int64_t>(n), static_cast<std::int64_t>(n)).clone());
        at += n;
    }
    EXPECT_LE(test::maxDifference(torch::cat(rowsA, 0), wholeA), 1e-4);
    EXPECT_LE(test::maxDifference(torch::cat(rowsB, 0), wholeB.narrow(0, 0, 12)), 1e-4);
}

TEST_P(Axes, LaterTokensDoNotChangeEarlierOnes)
{
    const auto m = model();
    ASSERT_TRUE(m);
    ASSERT_TRUE(m->causal());
    auto ids = test::someIds(48, 128, 8);
    const torch::Tensor before = test::logitsOf(*m, ids).softmax(1);
    for (std::size_t i = 30; i < ids.size(); ++i)
        ids[i] = (ids[i] + 41) % 128;
    const torch::Tensor after = test::logitsOf(*m, ids).softmax(1);
    EXPECT_LE(test::maxDifference(before.narrow(0, 0, 30), after.narrow(0, 0, 30)), 1e-4);
    EXPECT_GT(test::maxDifference(before.narrow(0, 30, 18), after.narrow(0, 30, 18)), 1e-2);
}

TEST_P(Axes, StoppedPassLeavesTheSequenceAsItWas)
{
    const auto m = model();
    ASSERT_TRUE(m);
    const auto ids = test::someIds(30, 128, 9);
    const torch::Tensor whole = test::hiddenOf(*m, {ids});
    SequenceState state = m->newSequence();
    PassInput first;
    first.sequences.push_back({std::span(ids).first(20), {}, &state});
    ASSERT_TRUE(m->forward(first).ok());
    PassInput rest;
    rest.sequences.push_back({std::span(ids).subspan(20), {}, &state});
    std::stop_source stop;
    PassHooks hooks;
    hooks.stop = stop.get_token();
    hooks.onLayer = [&](const RoutingLayer &) { stop.request_stop(); };
    const auto stopped = m->forward(rest, hooks);
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
    EXPECT_EQ(state.length(), 20);
    const auto again = m->forward(rest);
    ASSERT_TRUE(again.ok());
    EXPECT_LE(test::maxDifference(*again, whole.narrow(0, 20, 10)), 1e-4);
}

TEST_P(Axes, ASequenceGoesBackToItsSnapshot)
{
    const auto m = model();
    ASSERT_TRUE(m);
    const auto ids = test::someIds(30, 128, 10);
    const torch::Tensor whole = test::hiddenOf(*m, {ids});
    SequenceState state = m->newSequence();
    PassInput first;
    first.sequences.push_back({std::span(ids).first(20), {}, &state});
    ASSERT_TRUE(m->forward(first).ok());
    const RouterState snapshot = state.routerSnapshot();
    SequenceState copy = state.clone();
    PassInput other;
    const auto wrong = test::someIds(6, 128, 11);
    other.sequences.push_back({wrong, {}, &state});
    ASSERT_TRUE(m->forward(other).ok());
    ASSERT_TRUE(state.truncate(20, &snapshot).ok());
    for (SequenceState *s : {&state, &copy}) {
        PassInput rest;
        rest.sequences.push_back({std::span(ids).subspan(20), {}, s});
        const auto hidden = m->forward(rest);
        ASSERT_TRUE(hidden.ok());
        EXPECT_LE(test::maxDifference(*hidden, whole.narrow(0, 20, 10)), 1e-4);
    }
    EXPECT_FALSE(state.truncate(100).ok());
}

INSTANTIATE_TEST_SUITE_P(Recurrence, Axes, testing::Values("sequence", "depth", "grid"), [](const auto &i) { return std::string(i.param); });

TEST(Scopes, WholeSequencesStayTogetherWhereTransportLooksAcrossTokens)
{
    for (const char *const scope : {"sequence", "batch"}) {
        const auto m = test::tinySpectra(std::string(R"({"type":"spectra","router_dim":8,"sinkhorn_scope":")") + scope + "\"}");
        ASSERT_TRUE(m);
        EXPECT_FALSE(m->causal());
        const std::vector<std::vector<std::int32_t>> sequences = {test::someIds(20, 128, 3), test::someIds(30, 128, 4), test::someIds(8, 128, 5)};
        // A chunk smaller than a sequence must change nothing.
        EXPECT_LE(test::maxDifference(test::hiddenOf(*m, sequences), test::hiddenOf(*m, sequences, {}, 4)), 1e-4) << scope;
        const torch::Tensor alone = test::hiddenOf(*m, {sequences[0]});
        const double apart = test::maxDifference(alone, test::hiddenOf(*m, sequences).narrow(0, 0, 20));
        if (scope == std::string("sequence"))
            EXPECT_LE(apart, 1e-4);
        else
            EXPECT_GT(apart, 1e-4); // the transport balances over all sequences of the batch
    }
}

TEST(Masks, MaskedTokensAreRoutedButNotCounted)
{
    const auto m = test::tinySpectra();
    ASSERT_TRUE(m);
    const auto ids = test::someIds(20, 128, 3);
    std::vector<std::uint8_t> mask(20, 1);
    mask[0] = mask[7] = 0;
    std::vector<ExpertSums> sums;
    std::vector<std::vector<std::int64_t>> expected(2, std::vector<std::int64_t>(6, 0));
    torch::Tensor inputSum = torch::zeros({6, 32}, torch::kFloat64), outputSum = torch::zeros({6, 32}, torch::kFloat64);
    PassHooks hooks;
    hooks.expertSums = &sums;
    hooks.wantExpertOutputs = [](std::int64_t) { return true; };
    hooks.onLayer = [&](const RoutingLayer &layer) {
        for (std::int64_t t = 0; t < layer.step.experts.size(0); ++t)
            for (std::int64_t s = 0; s < 2; ++s) {
                const std::int64_t e = layer.step.experts[t][s].item<std::int64_t>();
                const auto row = static_cast<std::size_t>(layer.firstRow + t);
                if (e < 0 || !mask[row])
                    continue;
                ++expected[static_cast<std::size_t>(layer.ordinal)][static_cast<std::size_t>(e)];
                if (layer.ordinal == 1) {
                    inputSum[e] += layer.input[t].to(torch::kFloat64);
                    outputSum[e] += layer.expertOutputs[t][s].to(torch::kFloat64);
                }
            }
    };
    PassInput input;
    input.chunk = 6;
    input.sequences.push_back({ids, mask, nullptr});
    ASSERT_TRUE(m->forward(input, hooks).ok());
    ASSERT_EQ(sums.size(), 2u);
    for (std::size_t l = 0; l < 2; ++l)
        EXPECT_EQ(sums[l].count, expected[l]);
    EXPECT_LE(test::maxDifference(sums[1].input, inputSum), 1e-5);
    EXPECT_LE(test::maxDifference(sums[1].output, outputSum), 1e-5);
}

TEST(Outputs, ResidualIsTheWeightedSumOfExpertOutputs)
{
    const auto m = test::tinySpectra();
    ASSERT_TRUE(m);
    for (const int count : {1, 3, 40}) {
        const auto ids = test::someIds(count, 128, 3);
        std::map<int, torch::Tensor> hidden, routed;
        PassHooks hooks;
        hooks.onHidden = [&](int layer, std::int64_t, const torch::Tensor &h) { hidden[layer] = h.clone(); };
        hooks.wantExpertOutputs = [](std::int64_t row) { return row % 2 == 0; };
        std::vector<std::int64_t> rows;
        hooks.onLayer = [&](const RoutingLayer &layer) {
            if (layer.ordinal != 1)
                return;
            rows = layer.outputRows;
            const torch::Tensor at = torch::tensor(rows);
            routed[1] = (layer.expertOutputs * layer.step.weights.index_select(0, at).unsqueeze(2)).sum(1);
        };
        test::hiddenOf(*m, {ids}, hooks);
        // With all experts of layer 1 masked what remains of it is its attention.
        PassHooks masked;
        masked.interventions[1] = {{0, 1, 2, 3, 4, 5}, {}};
        std::map<int, torch::Tensor> without;
        masked.onHidden = [&](int layer, std::int64_t, const torch::Tensor &h) { without[layer] = h.clone(); };
        test::hiddenOf(*m, {ids}, masked);
        ASSERT_EQ(rows.size(), static_cast<std::size_t>((count + 1) / 2));
        const torch::Tensor at = torch::tensor(rows);
        EXPECT_LE(test::maxDifference((hidden.at(1) - without.at(1)).index_select(0, at), routed.at(1)), 1e-4) << count;
    }
}

TEST(Interventions, MaskedExpertsGiveTheirWeightToTheOthersAndForcedOnesAreRun)
{
    const auto m = test::tinySpectra();
    ASSERT_TRUE(m);
    const auto ids = test::someIds(50, 128, 3);
    torch::Tensor experts, weights;
    PassHooks plain;
    plain.onLayer = [&](const RoutingLayer &l) {
        if (l.ordinal == 0) {
            experts = l.step.experts.clone();
            weights = l.step.weights.clone();
        }
    };
    const torch::Tensor before = test::hiddenOf(*m, {ids}, plain);
    const int victim = static_cast<int>(experts[0][0].item<std::int64_t>());
    PassHooks hooks;
    hooks.interventions[0] = {{victim}, {}};
    int touched = 0;
    hooks.onLayer = [&](const RoutingLayer &l) {
        if (l.ordinal != 0)
            return;
        EXPECT_EQ((l.step.experts == victim).sum().item<std::int64_t>(), 0);
        EXPECT_LE(test::maxDifference(l.step.weights.sum(1), weights.sum(1)), 1e-5);
        for (std::int64_t t = 0; t < 50; ++t)
            if ((experts[t] == victim).any().item<bool>()) {
                ++touched;
                EXPECT_EQ(l.step.experts[t][1].item<std::int64_t>(), -1);
            } else {
                EXPECT_TRUE(torch::equal(l.step.experts[t], experts[t]));
            }
    };
    EXPECT_GT(test::maxDifference(before, test::hiddenOf(*m, {ids}, hooks)), 1e-3);
    EXPECT_GT(touched, 0);
    PassHooks force;
    force.interventions[0] = {{}, {victim}};
    force.onLayer = [&](const RoutingLayer &l) {
        if (l.ordinal == 0) {
            EXPECT_TRUE((l.step.experts == victim).any(1).all().item<bool>());
            EXPECT_LE(test::maxDifference(l.step.weights.sum(1), weights.sum(1)), 1e-5);
        }
    };
    test::hiddenOf(*m, {ids}, force);
}

} // namespace
} // namespace spectra
