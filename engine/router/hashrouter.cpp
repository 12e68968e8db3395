// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"
#include "engine/router/gating.h"
#include "engine/router/hashtables.h"
#include "engine/router/registration.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

namespace spectra {
namespace {

struct HashOptions {
    std::string assignment = "random";
    int seed = 0;
};

/// Hash layers (Roller et al. 2021, arXiv 2106.04426, section 3.1): a token's experts depend on its id alone, and nothing is learned.
/// random and balanced_ids need no table: they are a function of seed, layer and id. balanced and clustered read a table over the
/// vocabulary, made before training of counts or embeddings and kept as a buffer; each layer renumbers its experts in an order of its own.
class HashRouter : public Router {
public:
    using Options = HashOptions;
    HashRouter(Options options, RouterShape shape) : m_options(std::move(options)), m_shape(std::move(shape)) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"assignment", &Options::assignment,
             "random: any expert; balanced_ids: equally many ids for each expert; balanced: equally many occurrences in the training text; clustered: ids of similar embeddings together",
             0, 0, false, {"random", "balanced_ids", "balanced", "clustered"}},
            {"hash_seed", &Options::seed, "another seed is another table", 0, std::numeric_limits<int>::max()},
        };
        return fields;
    }
    [[nodiscard]] Result<void> fits() const
    {
        if (tabled() && m_shape.vocabulary < 1)
            return usageError("this assignment has a table over token ids and needs the vocabulary's size", "router hash, option assignment");
        return {};
    }
    void initialise(std::uint64_t /*seed*/)
    {
        if (tabled())
            m_table = torch::full({m_shape.vocabulary, m_shape.topK}, -1.0f);
    }
    [[nodiscard]] Result<void> load(const TensorLookup &lookup)
    {
        if (!tabled())
            return {};
        SPECTRA_TRY(const auto stored, storedTensor(lookup, kTable, {m_shape.vocabulary, m_shape.topK}));
        const torch::Tensor ordered = std::get<0>(stored.sort(1));
        const bool made = torch::logical_and(stored == stored.round(), torch::logical_and(stored >= 0, stored < static_cast<double>(m_shape.experts))).all().item<bool>()
            && (ordered.diff(1, 1) > 0).all().item<bool>();
        if (!made && !(stored == -1).all().item<bool>())
            return inputError("the table does not name different experts for every token id", kTable);
        m_table = stored.clone();
        return {};
    }
    [[nodiscard]] Result<void> setTokenCounts(const torch::Tensor &counts) override
    {
        if (m_options.assignment != "balanced")
            return {};
        SPECTRA_CHECK(checkSize(counts, "token counts"));
        SPECTRA_TRY(const auto table, balancedTable(counts, m_shape.experts, m_shape.topK));
        m_table.copy_(table);
        return {};
    }
    [[nodiscard]] Result<void> setTokenEmbeddings(const torch::Tensor &embeddings) override
    {
        if (m_options.assignment != "clustered")
            return {};
        SPECTRA_CHECK(checkSize(embeddings, "embeddings"));
        SPECTRA_TRY(const auto table, clusteredTable(embeddings, m_shape.experts, m_shape.topK, static_cast<std::uint64_t>(m_options.seed)));
        m_table.copy_(table);
        return {};
    }
    [[nodiscard]] std::vector<std::string> notes() const override
    {
        if (!tabled() || filled())
            return {};
        return {std::string("no ") + (m_options.assignment == "balanced" ? "token counts" : "embeddings") + " were given: experts are as with assignment random until training starts"};
    }

    [[nodiscard]] std::string name() const override { return "hash"; }
    [[nodiscard]] RouterNeeds needs() const override
    {
        RouterNeeds needs;
        needs.tokenIds = true;
        needs.tokenCounts = m_options.assignment == "balanced" && !filled();
        needs.tokenEmbeddings = m_options.assignment == "clustered" && !filled();
        return needs;
    }
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override { return {}; }
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override
    {
        return tabled() ? std::map<std::string, torch::Tensor>{{kTable, m_table}} : std::map<std::string, torch::Tensor>{};
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    void to(torch::Device /*device*/) override {}

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        TORCH_CHECK(input.tokenIds.defined(), "hash routing needs the token ids");
        const torch::Tensor ids = input.tokenIds.cpu().to(torch::kInt64).contiguous();
        const std::int64_t n = ids.size(0), k = m_shape.topK;
        const torch::Tensor experts = torch::empty({n, k}, torch::kInt64);
        const float *const table = tabled() && filled() ? m_table.const_data_ptr<float>() : nullptr;
        const std::vector<std::int64_t> order = table ? layerOrder(input.layer) : std::vector<std::int64_t>();
        for (std::int64_t t = 0; t < n; ++t) {
            const std::int64_t signedId = ids.const_data_ptr<std::int64_t>()[t];
            const auto id = static_cast<std::uint64_t>(signedId);
            auto *const row = experts.data_ptr<std::int64_t>() + t * k;
            if (table && signedId >= 0 && signedId < m_shape.vocabulary)
                for (std::int64_t slot = 0; slot < k; ++slot)
                    row[slot] = order[static_cast<std::size_t>(table[signedId * k + slot])];
            else if (m_options.assignment == "balanced_ids")
                dealExperts(id, input.layer, row);
            else
                drawExperts(id, input.layer, row);
        }
        RoutingStep step;
        step.experts = experts.to(input.x.device());
        step.weights = torch::full({n, k}, 1.0 / static_cast<double>(k), torch::TensorOptions(torch::kFloat32).device(input.x.device()));
        step.probabilities = chosenMask(step.experts, m_shape.experts) / static_cast<double>(k);
        return step;
    }

private:
    static constexpr const char *kTable = "model.router.token_experts";

    [[nodiscard]] bool tabled() const { return m_options.assignment == "balanced" || m_options.assignment == "clustered"; }
    [[nodiscard]] bool filled() const { return m_table.defined() && m_table.const_data_ptr<float>()[0] >= 0; }
    [[nodiscard]] Result<void> checkSize(const torch::Tensor &given, const std::string &what) const
    {
        if (given.dim() < 1 || given.size(0) != m_shape.vocabulary)
            return usageError(what + " for " + std::to_string(given.dim() < 1 ? 0 : given.size(0)) + " token ids, but the vocabulary has " + std::to_string(m_shape.vocabulary), "router hash");
        return {};
    }

    /// The layer's own number of each of the table's experts.
    [[nodiscard]] std::vector<std::int64_t> layerOrder(int layer) const
    {
        std::vector<std::int64_t> order(static_cast<std::size_t>(m_shape.experts));
        std::iota(order.begin(), order.end(), std::int64_t(0));
        Random random = source(std::numeric_limits<std::uint32_t>::max(), layer);
        random.shuffle(order);
        return order;
    }

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
    torch::Tensor m_table; ///< [V,k] f32 whole numbers on the CPU, −1 before it is made; in f32 as every stored buffer
};

} // namespace

RouterRegistration hashEntry()
{
    return registration<HashRouter>(
        {"hash", "Hash layers: experts by token id", "Roller et al. 2021, arXiv 2106.04426, section 3.1", true,
         "every layer has a table of its own; for k > 1 there are k tables and a token's k experts differ, each with weight 1/k, like MultiHash but with whole "
         "experts instead of segments of one. balanced_ids gives each expert equally many ids (every E consecutive ids are dealt over the E experts). balanced gives each expert "
         "equally many occurrences of the training text: ids by falling count to the k experts with the fewest so far. clustered: k-means of the embeddings that the trainer hands over "
         "(the paper: of a trained baseline), an id's k experts are those of the nearest centres; loads are not balanced, as in the paper. Until a trainer has given counts or "
         "embeddings, balanced and clustered route as random does, and say so",
         {}});
}

} // namespace spectra
