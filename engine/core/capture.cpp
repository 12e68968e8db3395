// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/capture.h"

namespace spectra {
namespace {
constexpr std::array<std::string_view, static_cast<std::size_t>(Field::count_)> kNames = {
    "tokens", "nll", "next_top1", "experts", "weights", "dropped", "logits", "selection", "probabilities", "entropy", "means",
    "buffers", "gram", "router_weights", "expert_means", "sinkhorn", "vectors", "gru", "gru_pca", "hidden", "expert_outputs", "dense"};

constexpr FieldMask kMinimal = bit(Field::tokens) | bit(Field::nll) | bit(Field::nextTop1) | bit(Field::experts)
    | bit(Field::weights) | bit(Field::dropped);
constexpr FieldMask kStandard = kMinimal | bit(Field::logits) | bit(Field::probabilities) | bit(Field::entropy)
    | bit(Field::means) | bit(Field::buffers) | bit(Field::gram) | bit(Field::routerWeights) | bit(Field::expertMeans)
    | bit(Field::sinkhorn);
constexpr FieldMask kFull = kStandard | bit(Field::selection) | bit(Field::vectors) | bit(Field::gruPca) | bit(Field::hidden);
} // namespace

Capture Capture::minimal() { return {kMinimal}; }
Capture Capture::standard() { return {kStandard}; }
Capture Capture::full() { return {kFull}; }

std::string_view fieldName(Field f)
{
    return kNames[static_cast<std::size_t>(f)];
}

Result<Capture> Capture::parse(std::string_view text)
{
    Capture capture;
    bool first = true;
    while (!text.empty() || first) {
        const std::size_t comma = text.find(',');
        std::string_view word = text.substr(0, comma);
        text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
        if (first) {
            first = false;
            if (word == "minimal") {
                capture = minimal();
                continue;
            }
            if (word == "standard") {
                capture = standard();
                continue;
            }
            if (word == "full") {
                capture = full();
                continue;
            }
            if (word.empty() || (word[0] != '+' && word[0] != '-'))
                return usageError("unknown capture preset '" + std::string(word) + "'", "--capture",
                                  "minimal, standard or full, then ,+name or ,-name");
            capture = standard();
        }
        const char sign = word.empty() ? '\0' : word[0];
        const std::string_view name = word.empty() ? word : word.substr(1);
        std::size_t i = 0;
        while (i < kNames.size() && kNames[i] != name)
            ++i;
        if ((sign != '+' && sign != '-') || i == kNames.size()) {
            std::string names;
            for (std::string_view n : kNames)
                names += (names.empty() ? "" : ", ") + std::string(n);
            return usageError("unknown capture name '" + std::string(word) + "'", "--capture", "+ or - and one of " + names);
        }
        const auto field = static_cast<Field>(i);
        if (sign == '-' && (field == Field::tokens || field == Field::experts || field == Field::weights))
            return usageError("a trace always holds '" + std::string(name) + "'", "--capture");
        sign == '+' ? capture.add(field) : capture.drop(field);
    }
    return capture;
}

std::string Capture::toString() const
{
    const auto base = [&]() -> std::pair<std::string, FieldMask> {
        if ((fields & kFull) == kFull)
            return {"full", kFull};
        if ((fields & kStandard) == kStandard)
            return {"standard", kStandard};
        return {"minimal", kMinimal};
    }();
    std::string out = base.first;
    for (std::size_t i = 0; i < kNames.size(); ++i) {
        const FieldMask b = FieldMask(1) << i;
        if ((fields & b) && !(base.second & b))
            out += ",+" + std::string(kNames[i]);
        if (!(fields & b) && (base.second & b))
            out += ",-" + std::string(kNames[i]);
    }
    return out;
}

double Capture::bytesPerToken(const Sizes &s) const
{
    const double L = s.layers, E = s.experts, k = s.slots, D = s.routerDim, H = s.hidden, f = s.scalarBytes;
    double bytes = 4 + 24 + 4 + 4 + 1 + 1 + 4; // id, text (measured mean of a variable-length string), sequence, position, phase, mask, byte offset
    const auto add = [&](Field field, double b) { bytes += has(field) ? b : 0; };
    add(Field::nll, 4);
    add(Field::nextTop1, 4);
    add(Field::experts, L * k * 2);
    add(Field::weights, L * k * f);
    add(Field::dropped, L);
    add(Field::logits, L * E * f);
    add(Field::selection, L * E * f);
    add(Field::probabilities, L * E * f);
    add(Field::entropy, L * 4);
    add(Field::vectors, 2 * L * E * D * 2);
    add(Field::gru, L * E * D * 2);
    add(Field::gruPca, L * 8 * 4);
    add(Field::hidden, L * H * f * s.sampledShare);
    add(Field::expertOutputs, L * k * H * 2 * s.sampledShare);
    return bytes;
}

} // namespace spectra
