// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"
#include "engine/router/gating.h"
#include "engine/router/registration.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace spectra {
namespace {

struct HashOptions {
    std::string assignment = "random";
    int seed = 0;
};

/// Hash layers (Roller et al. 2021, arXiv 2106.04426, section 3.1): a token's experts depend on its id alone. Nothing is learned and
/// nothing is stored: the table is a function of seed, layer and id.
class HashRouter : public Router {
public:
    using Options = HashOptions;
    HashRouter(Options options, RouterShape shape) : m_options(std::move(options)), m_shape(std::move(shape)) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"assignment", &Options::assignment, "random: any expert; balanced_ids: equally many ids for each expert", 0, 0, false, {"random", "balanced_ids"}},
            {"hash_seed", &Options::seed, "another seed is another table", 0, std::numeric_limits<int>::max()},
        };
        return fields;
    }
    void initialise(std::uint64_t /*seed*/) {}
    [[nodiscard]] Result<void> load(const TensorLookup & /*lookup*/) { return {}; }

    [[nodiscard]] std::string name() const override { return "hash"; }
    [[nodiscard]] RouterNeeds needs() const override
    {
        RouterNeeds needs;
        needs.tokenIds = true;
        return needs;
    }
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override { return {}; }
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override { return {}; }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    void to(torch::Device /*device*/) override {}

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        TORCH_CHECK(input.tokenIds.defined(), "hash routing needs the token ids");
        const torch::Tensor ids = input.tokenIds.cpu().to(torch::kInt64).contiguous();
        const std::int64_t n = ids.size(0), k = m_shape.topK;
        const torch::Tensor experts = torch::empty({n, k}, torch::kInt64);
        for (std::int64_t t = 0; t < n; ++t) {
            const auto id = static_cast<std::uint64_t>(ids.const_data_ptr<std::int64_t>()[t]);
            auto *const row = experts.data_ptr<std::int64_t>() + t * k;
            if (m_options.assignment == "random")
                drawExperts(id, input.layer, row);
            else
                dealExperts(id, input.layer, row);
        }
        RoutingStep step;
        step.experts = experts.to(input.x.device());
        step.weights = torch::full({n, k}, 1.0 / static_cast<double>(k), torch::TensorOptions(torch::kFloat32).device(input.x.device()));
        step.probabilities = chosenMask(step.experts, m_shape.experts) / static_cast<double>(k);
        return step;
    }

private:
    [[nodiscard]] Random source(std::uint64_t index, int layer) const
    {
        return Random(static_cast<std::uint64_t>(m_options.seed) * 0x9E3779B97F4A7C15ull + static_cast<std::uint64_t>(layer), index + 1);
    }

    /// k experts without repetition, each of the remaining ones as likely.
    void drawExperts(std::uint64_t id, int layer, std::int64_t *row) const
    {
        Random random = source(id, layer);
        std::vector<std::int64_t> used;
        for (std::int64_t slot = 0; slot < m_shape.topK; ++slot) {
            auto e = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(m_shape.experts - slot)));
            for (const std::int64_t u : used) // ascending: counts up over those that are gone
                e += u <= e;
            used.insert(std::upper_bound(used.begin(), used.end(), e), e);
            row[slot] = e;
        }
    }

    /// Every E consecutive ids are dealt over the E experts in an order of their own; slot s takes the s-th place further on.
    void dealExperts(std::uint64_t id, int layer, std::int64_t *row) const
    {
        const auto e = static_cast<std::uint64_t>(m_shape.experts);
        Random random = source(id / e, layer);
        std::vector<std::int64_t> order(e);
        std::iota(order.begin(), order.end(), std::int64_t(0));
        random.shuffle(order);
        for (std::int64_t slot = 0; slot < m_shape.topK; ++slot)
            row[slot] = order[(id % e + static_cast<std::uint64_t>(slot)) % e];
    }

    Options m_options;
    RouterShape m_shape;
};

} // namespace

RouterRegistration hashEntry()
{
    return registration<HashRouter>(
        {"hash", "Hash layers: experts by token id", "Roller et al. 2021, arXiv 2106.04426, section 3.1", true,
         "every layer has a table of its own; for k > 1 there are k tables and a token's k experts differ, each with weight 1/k, like MultiHash but with whole "
         "experts instead of segments of one; balanced_ids gives each expert equally many ids (every E consecutive ids are dealt over the E experts), not equally "
         "many occurrences: the paper's balanced assignment needs token counts and its clustered one needs embeddings, neither is there",
         {}});
}

} // namespace spectra
