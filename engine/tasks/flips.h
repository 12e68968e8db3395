// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/tasks/languagemodel.h"

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// An item of one of two runs, as far as they are compared.
struct ComparedItem {
    std::string id;
    double right = 0;                         ///< NaN: neither
    std::string answer;
    std::optional<RoutingSignature> routing;
};

/// A run's file of items (written by itemLine), read back.
struct EarlierRun {
    std::vector<ComparedItem> items;
    std::map<std::string, std::size_t> index; ///< by id
};
/// Errors (input): not such a file, of another task, an id twice, a routing signature of uneven rows.
[[nodiscard]] Result<EarlierRun> readEarlierRun(std::string_view content, const std::string &name, const std::string &task);

/// How differently two runs routed one item: total variation distance ½ Σ_e |p_e − q_e| between the shares of top-1 experts, per
/// layer; 0 the same, 1 disjoint.
struct RoutingDifference {
    std::vector<double> layers;
    double mean = 0, worst = 0;
    int worstLayer = 0;                       ///< ordinal among the MoE layers
};
/// Nothing when the runs have other numbers of layers or experts, or a layer without tokens.
[[nodiscard]] std::optional<RoutingDifference> routingDifference(const RoutingSignature &a, const RoutingSignature &b);

struct Flip {
    std::string id, answerBefore, answerAfter;
    double before = 0, after = 0;
    std::optional<RoutingDifference> routing;
};

struct Comparison {
    std::int64_t compared = 0, onlyHere = 0, onlyThere = 0;
    std::int64_t lost = 0, gained = 0;        ///< right → wrong, wrong → right
    double mcnemarP = 1;                      ///< exact two-sided McNemar test of lost against gained
    std::vector<Flip> flips;                  ///< in the order of the new run
    std::optional<double> routingOfFlips, routingOfOthers; ///< mean distance over the items that flipped, and over those that did not
};
/// Items are matched by id. An item flips when it is right (≥ ½) in one run and wrong in the other.
[[nodiscard]] Comparison compareRuns(std::span<const ComparedItem> now, const EarlierRun &before);

} // namespace spectra
