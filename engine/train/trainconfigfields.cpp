// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainconfigfields.h"

#include "engine/checkpoint/checkpoint.h"
#include "engine/core/closestname.h"
#include "engine/router/optionset.h"

#include <algorithm>
#include <cmath>

namespace spectra {
namespace {

using C = TrainConfig;
using F = ConfigField;

constexpr double kMany = 1e9, kTokens = 1e15;

F text(std::string section, std::string key, std::string C::*member, std::vector<std::string> values = {})
{
    return {.section = std::move(section), .key = std::move(key), .member = member, .values = std::move(values)};
}
F flag(std::string section, std::string key, bool C::*member)
{
    return {.section = std::move(section), .key = std::move(key), .member = member};
}
F whole(std::string section, std::string key, std::int64_t C::*member, double low, double high)
{
    return {.section = std::move(section), .key = std::move(key), .member = member, .low = low, .high = high};
}
F number(std::string section, std::string key, double C::*member, double low, double high, bool lowOpen = false, bool highOpen = false)
{
    return {.section = std::move(section), .key = std::move(key), .member = member, .low = low, .high = high, .lowOpen = lowOpen,
        .highOpen = highOpen};
}
F special(std::string section, std::string key, F::Special what)
{
    return {.section = std::move(section), .key = std::move(key), .special = what};
}

std::vector<std::string> families()
{
    std::vector<std::string> names;
    for (const ArchitectureInfo &info : architectures())
        names.push_back(info.name);
    return names;
}

/// 1000000000, not 1e+09.
std::string boundText(double value)
{
    return std::abs(value) < 1e16 && value == std::floor(value) ? std::to_string(static_cast<std::int64_t>(value)) : numberText(value);
}

std::string lastPart(const std::string &path)
{
    return path.substr(path.rfind('.') + 1);
}

} // namespace

std::string ConfigField::range() const
{
    if (!values.empty()) {
        std::string all;
        for (const std::string &value : values)
            all += (all.empty() ? "" : ", ") + value;
        return "one of " + all;
    }
    std::string out = "x";
    if (std::isfinite(low))
        out = boundText(low) + (lowOpen ? " < x" : " <= x");
    if (std::isfinite(high))
        out += (highOpen ? " < " : " <= ") + boundText(high);
    return out;
}

const std::vector<ConfigField> &trainConfigFields()
{
    static const std::vector<ConfigField> table = {
        text("", "name", &C::name),

        text("model", "start", &C::start, {"scratch", "upcycle", "router_only"}),
        text("model", "checkpoint", &C::checkpoint),
        text("model", "architecture", &C::architecture, families()),
        whole("model", "hidden", &C::hidden, 1, 1 << 20),
        whole("model", "layers", &C::layers, 1, 4096),
        whole("model", "heads", &C::heads, 1, 1 << 16),
        whole("model", "kv_heads", &C::kvHeads, 1, 1 << 16),
        whole("model", "head_dim", &C::headDim, 0, 1 << 16),
        whole("model", "intermediate", &C::intermediate, 1, 1 << 24),
        whole("model", "context", &C::context, 1, 1 << 24),
        flag("model", "tied_head", &C::tiedHead),
        number("model", "rope_theta", &C::ropeTheta, 1, 1e12),
        number("model", "norm_epsilon", &C::normEpsilon, 0, 0.1, true),
        whole("model", "experts", &C::experts, 1, 16384),
        whole("model", "top_k", &C::topK, 0, 16384),
        whole("model", "shared", &C::shared, 0, 64),
        whole("model", "granularity", &C::granularity, 1, 1024),
        text("model", "moe_layers", &C::moeLayers),
        flag("model", "freeze_shared", &C::freezeShared),
        number("model", "noise", &C::noise, 0, 10),

        special("", "router", F::Special::router),

        text("tokenizer", "file", &C::tokenizerFile),
        whole("tokenizer", "vocabulary", &C::vocabulary, 257, 1'000'000),

        special("data", "domains", F::Special::domains),
        number("data", "held_out", &C::heldOut, 0, 0.5, true),
        text("data", "text_field", &C::textField),
        whole("data", "min_characters", &C::minCharacters, 0, kTokens),
        whole("data", "max_characters", &C::maxCharacters, 0, kTokens),
        flag("data", "deduplicate", &C::deduplicate),
        whole("data", "max_tokens", &C::maxTokens, 0, kTokens),

        whole("training", "steps", &C::steps, 1, kMany),
        whole("training", "sequence_length", &C::sequenceLength, 2, 1 << 24),
        whole("training", "batch_sequences", &C::batchSequences, 1, 1 << 20),
        whole("training", "accumulation", &C::accumulation, 1, 1 << 20),
        {.section = "training", .key = "seed", .member = &C::seed},
        special("training", "data_seed", F::Special::dataSeed),
        text("training", "precision", &C::precision, {"f32", "bf16", "auto"}),
        flag("training", "activation_checkpointing", &C::activationCheckpointing),
        number("training", "clip", &C::clip, 0, 1e6),
        special("training", "target_losses", F::Special::targetLosses),

        text("optimizer", "type", &C::optimizer, {"adamw", "muon"}),
        special("optimizer", "learning_rate", F::Special::learningRate),
        number("optimizer", "beta1", &C::beta1, 0, 1, false, true),
        number("optimizer", "beta2", &C::beta2, 0, 1, false, true),
        number("optimizer", "epsilon", &C::epsilon, 0, 1, true),
        number("optimizer", "weight_decay", &C::weightDecay, 0, 10),
        number("optimizer", "muon_momentum", &C::muonMomentum, 0, 1, false, true),
        number("optimizer", "qk_clip", &C::qkClip, 0, 1e6),

        text("schedule", "type", &C::schedule, {"cosine", "constant"}),
        whole("schedule", "warmup", &C::warmup, 0, kMany),
        number("schedule", "final", &C::finalShare, 0, 1),
        number("schedule", "router_until", &C::routerUntil, 0, 1),

        whole("evaluation", "every", &C::evaluateEvery, 0, kMany),
        whole("evaluation", "tokens", &C::evaluateTokens, 1, kTokens),
        whole("evaluation", "trace_tokens", &C::traceTokens, 0, kMany),
        flag("evaluation", "keep_traces", &C::keepTraces),

        whole("checkpoint", "every", &C::checkpointEvery, 1, kMany),
        whole("checkpoint", "keep", &C::keepCheckpoints, 0, kMany),
        text("checkpoint", "dtype", &C::finalDtype, {"f32", "bf16", "f16"}),

        whole("calibration", "batches", &C::calibrationBatches, 0, kMany),
        whole("calibration", "batch_tokens", &C::calibrationBatchTokens, 1, kMany),

        text("roma", "bank", &C::romaBank),
        text("roma", "embeddings", &C::romaEmbeddings),
        whole("roma", "neighbours", &C::romaNeighbours, 1, 1 << 20),
        number("roma", "sigma", &C::romaSigma, 0, 1e12),
    };
    return table;
}

const std::vector<std::string> &trainConfigKeys()
{
    static const std::vector<std::string> keys = [] {
        std::vector<std::string> out;
        for (const ConfigField &field : trainConfigFields()) {
            if (!field.section.empty() && std::find(out.begin(), out.end(), field.section) == out.end())
                out.push_back(field.section);
            out.push_back(field.path());
            if (field.special == F::Special::learningRate)
                for (const char *group : {"router", "experts", "other"})
                    out.push_back(field.path() + "." + group);
        }
        return out;
    }();
    return keys;
}

const ConfigField *findConfigField(const std::string &path)
{
    for (const ConfigField &field : trainConfigFields())
        if (field.path() == path)
            return &field;
    return nullptr;
}

std::string nearestConfigKey(const std::string &path)
{
    std::string best;
    std::size_t least = static_cast<std::size_t>(-1);
    for (const std::string &key : trainConfigKeys()) {
        // A key put into the wrong object is as near as one with a single wrong letter.
        const std::size_t distance = std::min(editDistance(path, key), editDistance(lastPart(path), lastPart(key)) + 1);
        if (distance < least) {
            least = distance;
            best = key;
        }
    }
    return best;
}

} // namespace spectra
