// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/effects.h"

#include "engine/study/tabletext.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

namespace spectra::study {
namespace {

/// Effects are sets of factors, as bits.
std::string nameOf(unsigned set, const FactorialSpec &design)
{
    std::string name;
    for (std::size_t f = 0; f < design.factors.size(); ++f)
        if (set >> f & 1)
            name += (name.empty() ? "" : " × ") + design.factors[f];
    return name;
}

int signOf(unsigned set, const std::vector<std::size_t> &point)
{
    int sign = 1;
    for (std::size_t f = 0; f < point.size(); ++f)
        if (set >> f & 1)
            sign *= point[f] == 0 ? 1 : -1; // the first value of a factor's axis is "on"
    return sign;
}

struct Design {
    std::vector<std::vector<std::size_t>> points;
    std::vector<std::vector<double>> values; ///< [seed][point], complete seeds only
};

Design measured(const Study &study, const Quantity &quantity)
{
    Design d;
    for (const Cell &cell : study.cells)
        if (std::find(d.points.begin(), d.points.end(), cell.point) == d.points.end())
            d.points.push_back(cell.point);
    for (const std::uint64_t seed : study.spec.seeds) {
        std::vector<double> row;
        for (const auto &point : d.points)
            for (std::size_t i = 0; i < study.cells.size(); ++i)
                if (study.cells[i].seed == seed && study.cells[i].point == point && study.results[i].done)
                    if (const auto v = study.results[i].number(quantity.path))
                        row.push_back(*v * quantity.scale);
        if (row.size() == d.points.size())
            d.values.push_back(std::move(row));
    }
    return d;
}

void test(Effect &effect, const std::vector<double> &perSeed)
{
    effect.value = meanInterval(perSeed);
    effect.test = oneSampleT(perSeed, 0);
}

std::optional<Effect> togetherOf(const Design &d, std::size_t factors)
{
    const auto find = [&](unsigned on) {
        std::vector<std::size_t> point(factors);
        for (std::size_t f = 0; f < factors; ++f)
            point[f] = on >> f & 1 ? 0 : 1;
        return static_cast<std::size_t>(std::find(d.points.begin(), d.points.end(), point) - d.points.begin());
    };
    std::vector<double> perSeed;
    for (const auto &y : d.values) {
        const double off = y[find(0)];
        double gain = y[find((1u << factors) - 1)] - off;
        for (std::size_t f = 0; f < factors; ++f)
            gain -= y[find(1u << f)] - off;
        perSeed.push_back(gain);
    }
    Effect effect;
    effect.name = "all together beyond their sum";
    test(effect, perSeed);
    return effect;
}

std::string pText(const Effect &e)
{
    return e.adjusted ? fmt::format("{:.3g}", *e.adjusted) : "";
}

/// The mean of the complete seeds with every part on.
std::optional<double> meanOfFull(const Design &d)
{
    for (std::size_t p = 0; p < d.points.size(); ++p)
        if (std::all_of(d.points[p].begin(), d.points[p].end(), [](std::size_t v) { return v == 0; })) {
            std::vector<double> values;
            for (const auto &y : d.values)
                values.push_back(y[p]);
            const auto mean = meanInterval(values);
            return mean ? std::optional(mean->mean) : std::nullopt;
        }
    return std::nullopt;
}

std::string valueText(const Effect &e, const Quantity &q, const char *plusMinus)
{
    if (!e.value)
        return "–";
    const NumberText t = numberText(*e.value, q.decimals);
    return t.half.empty() ? t.value : t.value + plusMinus + t.half;
}

std::vector<const Effect *> listed(const Effects &one)
{
    std::vector<const Effect *> all;
    for (const Effect &e : one.effects)
        all.push_back(&e);
    if (one.together)
        all.push_back(&*one.together);
    return all;
}

std::string aliasText(const Effect &e)
{
    std::string text;
    for (const std::string &a : e.aliases)
        text += " = " + a;
    return text;
}

} // namespace

Result<std::vector<Effects>> factorialEffects(const Study &study)
{
    std::vector<Effects> all;
    if (!study.spec.factorial)
        return all;
    const FactorialSpec &design = *study.spec.factorial;
    const std::size_t factors = design.factors.size();
    for (const Quantity &quantity : design.columns) {
        Effects one;
        one.quantity = quantity;
        const Design d = measured(study, quantity);
        one.seeds = d.values.size();
        if (d.values.empty())
            one.reason = "no seed has a measured value for every run of the design";
        std::vector<unsigned> sets;
        for (unsigned set = 1; set < 1u << factors; ++set)
            if (std::popcount(set) <= design.order)
                sets.push_back(set);
        std::stable_sort(sets.begin(), sets.end(), [](unsigned a, unsigned b) { return std::popcount(a) < std::popcount(b); });
        std::vector<std::vector<int>> seen;
        for (const unsigned set : sets) {
            std::vector<int> signs;
            for (const auto &point : d.points)
                signs.push_back(signOf(set, point));
            if (std::all_of(signs.begin(), signs.end(), [&](int s) { return s == signs.front(); }))
                continue; // a defining word: one with the mean of all runs
            std::vector<int> opposite;
            for (const int s : signs)
                opposite.push_back(-s);
            const auto same = std::find(seen.begin(), seen.end(), signs), flipped = std::find(seen.begin(), seen.end(), opposite);
            if (same != seen.end() || flipped != seen.end()) {
                const auto at = static_cast<std::size_t>((same != seen.end() ? same : flipped) - seen.begin());
                one.effects[at].aliases.push_back((same != seen.end() ? "" : "−") + nameOf(set, design));
                continue;
            }
            seen.push_back(signs);
            Effect effect;
            effect.name = nameOf(set, design);
            std::vector<double> perSeed;
            for (const auto &y : d.values) {
                double contrast = 0;
                for (std::size_t p = 0; p < y.size(); ++p)
                    contrast += signs[p] * y[p];
                perSeed.push_back(contrast / (static_cast<double>(y.size()) / 2));
            }
            test(effect, perSeed);
            one.effects.push_back(std::move(effect));
        }
        if (!d.values.empty() && d.points.size() == std::size_t(1) << factors) {
            one.together = togetherOf(d, factors);
        }
        std::vector<Effect *> family;
        for (Effect &e : one.effects)
            family.push_back(&e);
        if (one.together)
            family.push_back(&*one.together);
        std::vector<double> p;
        for (const Effect *e : family)
            if (e->test)
                p.push_back(e->test->p);
        const auto adjusted = holm(p);
        const auto full = meanOfFull(d);
        std::size_t next = 0;
        for (Effect *e : family) {
            if (e->test)
                e->adjusted = adjusted[next++];
            if (e->value && full && *full != 0)
                e->relative = e->value->mean / std::abs(*full);
        }
        all.push_back(std::move(one));
    }
    return all;
}

std::string effectsLatex(const std::vector<Effects> &all)
{
    std::string text;
    for (const Effects &one : all) {
        text += fmt::format("% effects on {}\n\\begin{{tabular}}{{lrrr}}\n\\toprule\neffect on {} & change (on $-$ off) & of all on & $p$ (Holm) \\\\\n\\midrule\n", latexText(one.quantity.title),
                            latexText(one.quantity.title));
        for (const Effect *e : listed(one))
            text += fmt::format("{} & {} & {} & {} \\\\\n", latexText(e->name + aliasText(*e)), latexText(valueText(*e, one.quantity, " ± ")),
                                e->relative ? fmt::format("${:+.1f}$\\,\\%", 100 * *e->relative) : "", pText(*e));
        text += "\\bottomrule\n\\end{tabular}\n\n";
        if (!one.reason.empty())
            text += latexText(one.reason) + "\n\n";
    }
    return text;
}

std::string effectsCsv(const std::vector<Effects> &all)
{
    std::string text = "quantity,path,effect,aliases,n,mean,half,relative,t,p,p_holm,reason\n";
    for (const Effects &one : all)
        for (const Effect *e : listed(one))
            text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}\n", csvText(one.quantity.title), csvText(one.quantity.path), csvText(e->name), csvText(aliasText(*e)),
                                e->value ? e->value->n : 0, e->value ? fmt::format("{}", e->value->mean) : "", e->value && e->value->half ? fmt::format("{}", *e->value->half) : "",
                                e->relative ? fmt::format("{}", *e->relative) : "",
                                e->test ? fmt::format("{}", e->test->statistic) : "", e->test ? fmt::format("{}", e->test->p) : "",
                                e->adjusted ? fmt::format("{}", *e->adjusted) : "", csvText(one.reason));
    return text;
}

Json effectsJson(const std::vector<Effects> &all)
{
    Json json = Json::array();
    for (const Effects &one : all) {
        Json entry{{"quantity", one.quantity.title}, {"path", one.quantity.path}, {"seeds", one.seeds}};
        if (!one.reason.empty())
            entry["reason"] = one.reason;
        entry["effects"] = Json::array();
        for (const Effect *e : listed(one)) {
            Json item{{"effect", e->name}, {"aliases", e->aliases}, {"mean", nullptr}, {"half", nullptr}, {"relative", e->relative ? Json(*e->relative) : Json(nullptr)}, {"p", nullptr}, {"p_holm", nullptr}};
            if (e->value)
                item["mean"] = e->value->mean;
            if (e->value && e->value->half)
                item["half"] = *e->value->half;
            if (e->test)
                item["p"] = e->test->p;
            if (e->adjusted)
                item["p_holm"] = *e->adjusted;
            entry["effects"].push_back(std::move(item));
        }
        json.push_back(std::move(entry));
    }
    return json;
}

std::string effectsHtml(const std::vector<Effects> &all)
{
    std::string text;
    for (const Effects &one : all) {
        text += fmt::format("<h3>Effects on {}</h3>\n", htmlText(one.quantity.title));
        if (!one.reason.empty()) {
            text += "<p class=note>" + htmlText(one.reason) + "</p>\n";
            continue;
        }
        text += "<table><thead><tr><th>Effect</th><th class=n>Change, on − off</th><th class=n>Relative to all on</th><th class=n>p (Holm)</th></tr></thead><tbody>\n";
        for (const Effect *e : listed(one))
            text += fmt::format("<tr><td>{}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td></tr>\n", htmlText(e->name + aliasText(*e)), valueText(*e, one.quantity, " ± "),
                                e->relative ? fmt::format("{:+.1f} %", 100 * *e->relative) : "", pText(*e));
        text += fmt::format("</tbody></table>\n<p class=note>Mean ± half width of the 95 % t interval over {} seeds. An effect is the mean of the runs where its factors' signs multiply to +1 "
                            "minus the mean of the others.</p>\n",
                            one.seeds);
    }
    return text;
}

} // namespace spectra::study
