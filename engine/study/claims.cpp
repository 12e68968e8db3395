// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/claims.h"

#include "engine/study/table.h"
#include "engine/study/tabletext.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace spectra::study {
namespace {

constexpr std::string_view kKinds[] = {"target", "estimate", "published"};

/// How a metric of the claims is measured here.
struct Definition {
    const char *metric;
    std::array<const char *, 3> paths; ///< the first that a run has
    double scale;
    const char *differs;             ///< why it is not surely the same quantity; nullptr: it is
};
constexpr const char *kOtherItems = "the claim does not state items, solved examples and normalisation";
constexpr Definition kDefinitions[] = {
    {"expert_overlap", {"metrics.expert_overlap_types.value"}, 100,
     "the claim does not say whether positions or token types overlap; token types are shown (positions follow from balance alone)"},
    {"gram_orthogonality", {"metrics.gram_orthogonality.expression.value", "metrics.gram_orthogonality.router_weights.value", "metrics.gram_orthogonality.expert_input.value"}, 1,
     "the claim does not name the vectors; random ones score high already: see the chance level"},
    {"gram_offdiag_mean_abs", {"metrics.gram_offdiag_mean_abs.expression.value", "metrics.gram_offdiag_mean_abs.router_weights.value", "metrics.gram_offdiag_mean_abs.expert_input.value"}, 1,
     "the claim does not name the vectors"},
    {"expert_entropy_bits", {"metrics.expert_entropy_bits.value"}, 1, nullptr},
    {"load_cv", {"metrics.load_cv.value"}, 1, nullptr},
    {"routing_consistency", {"metrics.routing_consistency.value"}, 100, "the claim does not say between which checkpoints"},
    {"sequential_consistency", {"metrics.sequential_consistency.value"}, 100, nullptr},
    {"collapse", {"metrics.collapse_rate.value"}, 100, "the claim is a word; the share of unused experts is shown"},
    {"routing_entropy", {"metrics.routing_entropy.value"}, 1, "the claim has no unit and no definition; nats of the whole distribution are shown"},
    {"gini", {"metrics.gini.value"}, 1, nullptr},
    {"min_max_ratio", {"metrics.min_max_ratio.value"}, 1, nullptr},
    {"MMLU", {"tasks.mmlu.metrics.acc.value"}, 100, kOtherItems},
    {"HellaSwag", {"tasks.hellaswag.metrics.acc_norm.value"}, 100, kOtherItems},
    {"ARC-Challenge", {"tasks.arc_challenge.metrics.acc_norm.value"}, 100, kOtherItems},
    {"GSM8K", {"tasks.gsm8k.metrics.exact_match.value"}, 100, kOtherItems},
    {"HumanEval pass@1", {"tasks.humaneval.metrics.pass@1.value"}, 100, kOtherItems},
    {"LAMBADA accuracy", {"tasks.lambada.metrics.acc.value"}, 100, kOtherItems},
    {"LAMBADA perplexity", {"tasks.lambada.metrics.perplexity.value"}, 1, kOtherItems},
    {"WikiText-2 perplexity", {"tasks.wikitext2.metrics.word_perplexity.value"}, 1, kOtherItems},
    {"WikiText-103 perplexity", {"tasks.wikitext103.metrics.word_perplexity.value"}, 1, kOtherItems},
};

const Definition *definitionOf(const std::string &metric)
{
    for (const Definition &d : kDefinitions)
        if (metric == d.metric)
            return &d;
    return nullptr;
}

/// A number at the front of `text`, which moves on behind it.
std::optional<double> take(std::string_view &text)
{
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc())
        return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return value;
}

void readNumbers(Claim &claim)
{
    std::string_view text = claim.text;
    const bool below = text.starts_with("<"), above = text.starts_with(">");
    if (below || above)
        text.remove_prefix(text.size() > 1 && text[1] == '=' ? 2 : 1);
    const auto first = take(text);
    if (!first)
        return;
    std::optional<double> second = first;
    if (text.starts_with("-")) {
        text.remove_prefix(1);
        second = take(text);
    }
    if (!second || !text.empty())
        return;
    // "<0.05-0.1": below, with the looser end in doubt.
    if (!below)
        claim.low = above ? first : std::optional(std::min(*first, *second));
    if (!above)
        claim.high = std::max(*first, *second);
}

bool sameName(std::string_view a, std::string_view b)
{
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

std::string verdictOf(const Claim &claim, const std::vector<double> &values, const MeanInterval &mean)
{
    const char *kind = claim.kind == ClaimKind::target ? "target" : claim.kind == ClaimKind::estimate ? "estimate" : "published";
    std::string verdict = fmt::format("{} {}: ", kind, claim.text);
    if (!claim.low && !claim.high)
        return verdict + "a word, not compared";
    const bool one = claim.low && claim.high && *claim.low == *claim.high;
    if (one) {
        const auto test = oneSampleT(values, *claim.low);
        return verdict + fmt::format("measured is {} by {}", mean.mean < *claim.low ? "lower" : "higher", number(std::abs(mean.mean - *claim.low), 3))
            + (test ? fmt::format(", p = {:.3g}", test->p) : ", no test with one seed");
    }
    const bool inside = (!claim.low || mean.mean >= *claim.low) && (!claim.high || mean.mean <= *claim.high);
    // The bound that decides: the one that is nearer.
    const double bound = !claim.low ? *claim.high : !claim.high ? *claim.low : std::abs(mean.mean - *claim.low) < std::abs(mean.mean - *claim.high) ? *claim.low : *claim.high;
    const auto test = oneSampleT(values, bound);
    verdict += claim.kind == ClaimKind::target ? (inside ? "met" : "missed") : inside ? "inside" : "outside";
    return verdict + (test ? fmt::format(" ({}significant against {}, p = {:.3g})", test->p < 0.05 ? "" : "not ", number(bound, 3), test->p) : " (no test with one seed)");
}

/// Each text once: several sources may state one figure. "8" is another figure than "8-20".
std::string joined(const std::vector<std::string> &texts)
{
    std::string text;
    for (auto t = texts.begin(); t != texts.end(); ++t)
        if (std::find(texts.begin(), t, *t) == t)
            text += (text.empty() ? "" : "; ") + *t;
    return text;
}

std::string joined(const std::vector<Claim> &claims)
{
    std::vector<std::string> texts;
    for (const Claim &c : claims)
        texts.push_back(c.text);
    return joined(texts);
}

std::string sources(const ClaimRow &row)
{
    std::vector<std::string> texts;
    for (const auto *list : {&row.targets, &row.estimates, &row.published})
        for (const Claim &c : *list)
            texts.push_back(c.source);
    return joined(texts);
}

void measure(const Study &study, const Study::Row &row, ClaimRow &out, const Definition &definition)
{
    for (const char *path : definition.paths) {
        if (path == nullptr)
            break;
        Quantity q;
        q.path = path;
        q.scale = definition.scale;
        const TableCell cell = gather(study, row, q);
        out.path = out.path.empty() ? path : out.path;
        if (!cell.mean)
            continue;
        out.path = path;
        out.measured = cell.mean;
        out.chance = cell.chance;
        std::vector<double> excess;
        for (const std::size_t i : row.cells)
            if (const auto value = study.results[i].number(q.path))
                if (const auto chance = study.results[i].number(q.path.substr(0, q.path.size() - 5) + "chance"))
                    excess.push_back(q.scale * (*value - *chance));
        out.againstChance = oneSampleT(excess, 0);
        for (const auto *list : {&out.targets, &out.estimates, &out.published})
            for (const Claim &claim : *list)
                if (std::string verdict = verdictOf(claim, cell.values, *cell.mean); std::find(out.verdicts.begin(), out.verdicts.end(), verdict) == out.verdicts.end())
                    out.verdicts.push_back(std::move(verdict));
        return;
    }
    const TableCell cell = gather(study, row, Quantity{definition.paths[0], {}, {}, "none", -1, definition.scale});
    out.reasons.push_back("not measured: " + cell.reason);
}

} // namespace

Result<std::vector<Claim>> parseClaims(const Json &json, const std::string &where)
{
    std::vector<Claim> claims;
    if (!json.is_object() || !json.contains("claims") || !json["claims"].is_array())
        return inputError("has no list \"claims\"", where);
    for (std::size_t i = 0; i < json["claims"].size(); ++i) {
        const std::string place = fmt::format("{}: claims[{}]", where, i);
        const auto one = [&]() -> Result<Claim> {
            SPECTRA_TRY(const Fields f, Fields::of(json["claims"][i], place, {"kind", "method", "metric", "value", "unit", "source", "note"}));
            Claim claim;
            std::string kind;
            SPECTRA_CHECK(f.text("kind", kind, true));
            SPECTRA_CHECK(f.choice("kind", kind, kKinds));
            claim.kind = static_cast<ClaimKind>(std::find(std::begin(kKinds), std::end(kKinds), kind) - std::begin(kKinds));
            SPECTRA_CHECK(f.text("method", claim.method, true));
            SPECTRA_CHECK(f.text("metric", claim.metric, true));
            SPECTRA_CHECK(f.text("source", claim.source, true));
            SPECTRA_CHECK(f.text("unit", claim.unit));
            SPECTRA_CHECK(f.text("note", claim.note));
            if (!f.has("value"))
                return usageError("has no \"value\"", place);
            const Json &value = f.at("value");
            if (value.is_number())
                claim.text = value.dump();
            else if (value.is_string() && !value.get<std::string>().empty())
                claim.text = value.get<std::string>();
            else
                return f.wrong("value", "is neither a number nor a text");
            readNumbers(claim);
            return claim;
        }();
        if (!one) {
            Error error = one.error();
            error.kind = ErrorKind::input;
            return error;
        }
        claims.push_back(*one);
    }
    return claims;
}

Result<std::vector<Claim>> readClaims(const std::filesystem::path &file)
{
    SPECTRA_TRY(const Json json, readJson(file, std::uint64_t(8) << 20));
    return parseClaims(json, file.string());
}

std::vector<ClaimRow> claimsBoard(const Study &study, const std::vector<Claim> &claims)
{
    std::vector<ClaimRow> board;
    for (const Claim &claim : claims) {
        auto row = std::find_if(board.begin(), board.end(), [&](const ClaimRow &r) { return r.method == claim.method && r.metric == claim.metric; });
        if (row == board.end()) {
            ClaimRow fresh;
            fresh.method = claim.method;
            fresh.metric = claim.metric;
            fresh.unit = claim.unit;
            row = board.insert(board.end(), std::move(fresh));
        }
        (claim.kind == ClaimKind::target ? row->targets : claim.kind == ClaimKind::estimate ? row->estimates : row->published).push_back(claim);
    }
    std::vector<std::string> axes;
    for (const Axis &axis : study.spec.axes)
        axes.push_back(axis.name);
    const std::vector<Study::Row> rows = study.rows(axes, {});
    for (ClaimRow &out : board) {
        const auto given = study.spec.claims.find(out.method);
        const std::string &wanted = given != study.spec.claims.end() ? given->second : out.method;
        const auto row = std::find_if(rows.begin(), rows.end(), [&](const Study::Row &r) { return sameName(r.label, wanted); });
        const Definition *definition = definitionOf(out.metric);
        if (row == rows.end())
            out.reasons.emplace_back("the study has no such method");
        else
            out.row = row->label;
        if (definition == nullptr)
            out.reasons.emplace_back("no metric of a study");
        if (row == rows.end() || definition == nullptr)
            continue;
        measure(study, *row, out, *definition);
        if (out.measured && !isCausal(study, *row))
            out.reasons.emplace_back("measured with inference that is not causal");
        if (definition->differs != nullptr)
            out.reasons.emplace_back(definition->differs);
        if (!out.targets.empty())
            out.reasons.emplace_back("a target is a goal, whatever the size");
        if (!out.estimates.empty())
            out.reasons.emplace_back("an estimate states neither model nor data: nobody measured it");
        if (!out.published.empty())
            out.reasons.emplace_back("published for another model on other data");
        out.comparable = out.measured && definition->differs == nullptr && !out.targets.empty();
    }
    return board;
}

Json claimsJson(const std::vector<ClaimRow> &rows)
{
    const auto list = [](const std::vector<Claim> &claims) {
        Json all = Json::array();
        for (const Claim &c : claims) {
            Json one{{"value", c.text}, {"source", c.source}};
            if (!c.note.empty())
                one["note"] = c.note;
            all.push_back(std::move(one));
        }
        return all;
    };
    Json json = Json::array();
    for (const ClaimRow &r : rows) {
        Json measured = nullptr;
        if (r.measured)
            measured = {{"mean", r.measured->mean}, {"half", r.measured->half ? Json(*r.measured->half) : Json(nullptr)}, {"n", r.measured->n}};
        json.push_back({{"method", r.method}, {"metric", r.metric}, {"unit", r.unit}, {"target", list(r.targets)}, {"estimate", list(r.estimates)},
                        {"published", list(r.published)}, {"row", r.row}, {"path", r.path}, {"measured", measured}, {"chance", r.chance ? Json(*r.chance) : Json(nullptr)},
                        {"p_against_chance", r.againstChance ? Json(r.againstChance->p) : Json(nullptr)}, {"verdicts", r.verdicts}, {"comparable", r.comparable}, {"reasons", r.reasons}});
    }
    return json;
}

std::string claimsCsv(const std::vector<ClaimRow> &rows)
{
    std::string text = "method,metric,unit,target,estimate,published,measured,half,n,chance,p_against_chance,verdicts,comparable,reasons,path,source\n";
    for (const ClaimRow &r : rows)
        text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", csvText(r.method), csvText(r.metric), csvText(r.unit), csvText(joined(r.targets)),
                            csvText(joined(r.estimates)), csvText(joined(r.published)), r.measured ? fmt::format("{}", r.measured->mean) : "",
                            r.measured && r.measured->half ? fmt::format("{}", *r.measured->half) : "", r.measured ? r.measured->n : 0, r.chance ? fmt::format("{}", *r.chance) : "",
                            r.againstChance ? fmt::format("{}", r.againstChance->p) : "", csvText(joined(r.verdicts)), r.comparable ? "yes" : "no", csvText(joined(r.reasons)),
                            csvText(r.path), csvText(sources(r)));
    return text;
}

std::string claimsHtml(const std::vector<ClaimRow> &rows)
{
    std::string text = "<div class=wide><table><thead><tr><th>Method</th><th>Metric</th><th class=n>Target</th><th class=n>Estimate</th><th class=n>Published</th><th class=n>Measured</th>"
                       "<th class=n>Chance</th><th>Against the claims</th><th>Comparable?</th></tr></thead><tbody>\n";
    std::size_t absent = 0;
    for (const ClaimRow &r : rows) {
        absent += !r.measured;
        std::string measured = "–";
        if (r.measured) {
            const NumberText t = numberText(*r.measured, -1);
            measured = t.value + (t.half.empty() ? "" : " ± " + t.half) + fmt::format("<br><small>n = {}</small>", r.measured->n);
        }
        std::string chance = r.chance ? number(*r.chance, 3) : "";
        if (r.againstChance)
            chance += fmt::format("<br><small>p = {:.2g}</small>", r.againstChance->p);
        text += fmt::format("<tr title=\"{}\"><td>{}</td><td>{}{}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td><td>{}</td><td>{}<br><small>{}</small></td></tr>\n",
                            htmlText("Source: " + sources(r)), htmlText(r.method), htmlText(r.metric), r.unit.empty() ? "" : ", " + htmlText(r.unit), htmlText(joined(r.targets)),
                            htmlText(joined(r.estimates)), htmlText(joined(r.published)), measured, chance, htmlText(joined(r.verdicts)), r.comparable ? "yes" : "no", htmlText(joined(r.reasons)));
    }
    return text
        + fmt::format("</tbody></table></div>\n<p class=note>Target: wanted. Estimate: a range somebody expected, never measured. Published: reported by its authors. Measured: mean ± half width of the "
                      "95 % t interval over this study's seeds; {} of {} figures are not measured by it.</p>\n",
                      absent, rows.size());
}

} // namespace spectra::study
