// SPDX-License-Identifier: GPL-3.0-or-later
// What single values cannot say: settings of a training run that do not go together.
#include "engine/router/router.h"
#include "engine/train/trainconfigfields.h"
#include "engine/train/upcycle.h"

#include <nlohmann/json.hpp>

#include <set>

namespace spectra {
namespace {

class Checks {
public:
    Checks(const TrainConfig &config, const std::string &where)
        : c(config), m_where(where), m_router(nlohmann::json::parse(config.routerJson, nullptr, false).value("type", std::string()))
    {
    }

    Result<void> model() const
    {
        const bool scratch = c.start == "scratch";
        if (!scratch && c.checkpoint.empty())
            return wrong("model.checkpoint", "start \"" + c.start + "\" needs a checkpoint to start from",
                         "name a model folder, a .gguf file or a listed model");
        if (scratch && !c.checkpoint.empty())
            return wrong("model.checkpoint", "start \"scratch\" takes no checkpoint",
                         "use start \"upcycle\" or \"router_only\", or leave it out");
        if (c.start == "router_only" && m_router == "dense")
            return wrong("router.type", "start \"router_only\" trains a router, and \"dense\" is none", "choose another router");
        if (!scratch)
            return {};
        if (c.heads % c.kvHeads != 0)
            return wrong("model.kv_heads",
                std::to_string(c.heads) + " query heads cannot share " + std::to_string(c.kvHeads) + " key heads evenly", "use a divisor of heads");
        if (c.headDim == 0 && c.hidden % c.heads != 0)
            return wrong("model.heads", std::to_string(c.heads) + " heads do not divide hidden size " + std::to_string(c.hidden),
                         "use a divisor of hidden, or give head_dim");
        if (const std::int64_t size = c.headDim > 0 ? c.headDim : c.hidden / c.heads; size % 2 != 0)
            return wrong(c.headDim > 0 ? "model.head_dim" : "model.heads",
                         "heads of " + std::to_string(size) + " values cannot be rotated in pairs",
                         "use an even head size");
        if (c.sequenceLength > c.context)
            return wrong("training.sequence_length",
                "sequences of " + std::to_string(c.sequenceLength) + " tokens do not fit a context of " + std::to_string(c.context),
                         "raise model.context or shorten the sequences");
        return {};
    }

    Result<void> experts() const
    {
        if (m_router == "dense")
            return {};
        // A source with experts keeps its own number of them; 0 keeps its top-k as well.
        const bool own = c.start != "router_only";
        if (c.topK < 1 && own)
            return wrong("model.top_k", "top_k is 0", "use 1 <= top_k <= experts");
        if (own && c.topK > c.experts)
            return wrong("model.top_k", "top_k is " + std::to_string(c.topK) + " of " + std::to_string(c.experts) + " experts",
                         "use 1 <= top_k <= experts");
        for (const RouterInfo &info : routerRegistry())
            if (info.name == m_router && info.topK > 0 && c.topK > 0 && c.topK != info.topK)
                return wrong("model.top_k",
                             "router \"" + m_router + "\" takes " + std::to_string(info.topK) + (info.topK == 1 ? " expert" : " experts")
                                 + " per token, not " + std::to_string(c.topK),
                             "use top_k " + std::to_string(info.topK));
        if (c.experts % c.granularity != 0)
            return wrong("model.granularity",
                "granularity " + std::to_string(c.granularity) + " does not divide " + std::to_string(c.experts) + " experts", "use a divisor of experts");
        if (c.start == "scratch" && c.intermediate % c.granularity != 0)
            return wrong("model.granularity",
                         "granularity " + std::to_string(c.granularity) + " does not divide the FFN size " + std::to_string(c.intermediate),
                         "use a divisor of intermediate");
        auto choice = LayerChoice::parse(c.moeLayers);
        if (!choice.ok())
            return wrong("model.moe_layers", choice.error().what, "use all, every:N, from:N or a list such as 0,3,5");
        if (c.start == "scratch")
            if (const auto layers = choice->resolve(c.layers); !layers.ok())
                return wrong("model.moe_layers", layers.error().what, layers.error().mend);
        return {};
    }

    Result<void> data() const
    {
        if (c.domains.empty())
            return wrong("data.domains", "there is no text to train on", R"(write "data": {"domains": {"NAME": "FILE"}})");
        std::set<std::string> names;
        for (const TrainConfig::Domain &domain : c.domains)
            if (!names.insert(domain.name).second)
                return wrong("data.domains", "two domains are named \"" + domain.name + "\"", "give each its own name");
        if (c.textField.empty())
            return wrong("data.text_field", "the name of the text's field is empty", "\"text\" is usual");
        if (c.maxCharacters > 0 && c.minCharacters > c.maxCharacters)
            return wrong("data.min_characters",
                "min_characters " + std::to_string(c.minCharacters) + " is above max_characters " + std::to_string(c.maxCharacters),
                         "no document could pass");
        return {};
    }

    Result<void> roma() const
    {
        if (!c.romaBank.empty() && m_router != "roma_like")
            return wrong("roma.bank", "router \"" + m_router + "\" is drawn to no bank", "use router.type roma_like, or leave roma.bank out");
        if (c.romaBank.empty() && !c.romaEmbeddings.empty())
            return wrong("roma.embeddings", "there is no bank of which these could be the embeddings", "name one with roma.bank, or leave roma.embeddings out");
        return {};
    }

    Result<void> times() const
    {
        // Intervals beyond the end do no harm: a run is evaluated and kept at its end whatever they are.
        if (c.warmup > c.steps)
            return wrong("schedule.warmup", std::to_string(c.warmup) + " is more than training.steps, " + std::to_string(c.steps),
                         "use x <= " + std::to_string(c.steps));
        return {};
    }

private:
    [[nodiscard]] Error wrong(const std::string &key, std::string what, std::string mend) const
    {
        return usageError(std::move(what), m_where + ": " + key, std::move(mend));
    }

    const TrainConfig &c;
    const std::string &m_where;
    std::string m_router;
};

} // namespace

Result<void> checkTrainConfig(const TrainConfig &config, const std::string &where)
{
    const Checks checks(config, where);
    SPECTRA_CHECK(checks.model());
    SPECTRA_CHECK(checks.experts());
    SPECTRA_CHECK(checks.data());
    SPECTRA_CHECK(checks.roma());
    return checks.times();
}

} // namespace spectra
