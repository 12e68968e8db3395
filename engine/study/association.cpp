// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/association.h"

#include "analysis/statistics/inference.h"
#include "engine/study/table.h"
#include "engine/study/tabletext.h"

#include <fmt/format.h>

#include <algorithm>

namespace spectra::study {
namespace {

constexpr std::size_t kFewest = 3;

/// Columns of the tables whose path begins so, each path once.
std::vector<Quantity> columnsOf(const StudySpec &spec, std::string_view start)
{
    std::vector<Quantity> all;
    for (const TableSpec &table : spec.tables)
        for (const Quantity &q : table.columns)
            if (q.path.starts_with(start) && std::none_of(all.begin(), all.end(), [&](const Quantity &known) { return known.path == q.path; }))
                all.push_back(q);
    return all;
}

Json optional(const std::optional<double> &v)
{
    return v ? Json(*v) : Json(nullptr);
}

std::string text(const std::optional<double> &v)
{
    return v ? fmt::format("{}", *v) : std::string();
}

} // namespace

std::vector<Association> associations(const Study &study)
{
    std::vector<std::string> axes;
    for (const Axis &axis : study.spec.axes)
        axes.push_back(axis.name);
    const std::vector<Study::Row> rows = study.rows(axes, {});
    std::vector<Association> all;
    if (rows.size() < kFewest)
        return all;
    std::vector<Quantity> outcomes = columnsOf(study.spec, "held_out_loss");
    if (outcomes.empty())
        outcomes.push_back({"held_out_loss", "held-out loss", "nats", "lower"});
    for (const Quantity &task : columnsOf(study.spec, "tasks."))
        outcomes.push_back(task);
    for (const Quantity &routing : columnsOf(study.spec, "metrics."))
        for (const Quantity &outcome : outcomes) {
            Association one;
            one.routing = routing;
            one.outcome = outcome;
            std::vector<double> x, y;
            for (const Study::Row &row : rows) {
                const auto a = gather(study, row, routing).mean, b = gather(study, row, outcome).mean;
                if (!a || !b)
                    continue;
                x.push_back(a->mean);
                y.push_back(b->mean);
            }
            one.configurations = x.size();
            if (x.size() >= kFewest) {
                one.rho = spearman(x, y);
                one.p = spearmanP(x, y);
                one.line = regress(x, y);
            }
            if (!one.rho)
                one.reason = x.size() < kFewest ? fmt::format("{} configurations measured both", x.size()) : "no spread";
            all.push_back(std::move(one));
        }
    std::vector<double> p;
    for (const Association &one : all)
        if (one.p)
            p.push_back(*one.p);
    const std::vector<double> adjusted = holm(p);
    std::size_t next = 0;
    for (Association &one : all)
        if (one.p)
            one.adjusted = adjusted[next++];
    return all;
}

std::string associationsCsv(const std::vector<Association> &all)
{
    std::string out = "routing,routing_path,outcome,outcome_path,configurations,rho,p,p_holm,slope,slope_half,intercept,r2,reason\n";
    for (const Association &a : all)
        out += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{}\n", csvText(a.routing.title), csvText(a.routing.path), csvText(a.outcome.title), csvText(a.outcome.path), a.configurations,
                           text(a.rho), text(a.p), text(a.adjusted), a.line ? text(a.line->slope) : "", a.line ? text(a.line->half) : "", a.line ? text(a.line->intercept) : "",
                           a.line ? text(a.line->r2) : "", csvText(a.reason));
    return out;
}

Json associationsJson(const std::vector<Association> &all)
{
    Json json = Json::array();
    for (const Association &a : all) {
        Json entry{{"routing", a.routing.path}, {"outcome", a.outcome.path}, {"configurations", a.configurations}, {"rho", optional(a.rho)}, {"p", optional(a.p)}, {"p_holm", optional(a.adjusted)}};
        entry["slope"] = a.line ? Json(a.line->slope) : Json(nullptr);
        entry["slope_half"] = a.line ? optional(a.line->half) : Json(nullptr);
        entry["intercept"] = a.line ? Json(a.line->intercept) : Json(nullptr);
        entry["r2"] = a.line ? Json(a.line->r2) : Json(nullptr);
        if (!a.reason.empty())
            entry["reason"] = a.reason;
        json.push_back(std::move(entry));
    }
    return json;
}

std::string associationsHtml(const std::vector<Association> &all)
{
    std::string out = "<div class=wide><table><thead><tr><th>Routing</th><th>Outcome</th><th class=n>Configurations</th><th class=n>Spearman's ρ</th><th class=n>p (Holm)</th>"
                      "<th class=n>Slope</th><th class=n>R²</th></tr></thead><tbody>\n";
    for (const Association &a : all) {
        out += fmt::format("<tr><td>{}</td><td>{}</td><td class=n>{}</td>", htmlText(a.routing.title), htmlText(a.outcome.title), a.configurations);
        if (a.rho && a.line)
            out += fmt::format("<td class=n>{:+.2f}</td><td class=n>{}</td><td class=n>{}{}</td><td class=n>{:.2f}</td></tr>\n", *a.rho, a.adjusted ? fmt::format("{:.3g}", *a.adjusted) : "",
                               number(a.line->slope), a.line->half ? " ± " + number(*a.line->half, 2) : "", a.line->r2);
        else
            out += fmt::format("<td class=n title=\"{}\">–</td><td></td><td></td><td></td></tr>\n", htmlText(a.reason));
    }
    return out + "</tbody></table></div>\n<p class=note>One point a configuration, its mean over seeds; p from permutations. A correlation across the runs of this study, not an effect: "
                 "configurations differ in more than one figure.</p>\n";
}

} // namespace spectra::study
