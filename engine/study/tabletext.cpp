// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/tabletext.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace spectra::study {
namespace {

Json optional(const std::optional<double> &v)
{
    return v && std::isfinite(*v) ? Json(*v) : Json(nullptr);
}

std::string field(const std::optional<double> &v)
{
    return v ? (std::isfinite(*v) ? fmt::format("{}", *v) : *v > 0 ? "inf" : "-inf") : "";
}

Json intervalJson(const std::optional<MeanInterval> &m)
{
    if (!m)
        return nullptr;
    Json json{{"mean", m->mean}, {"half", optional(m->half)}, {"low", nullptr}, {"high", nullptr}, {"deviation", optional(m->deviation)}, {"n", m->n}};
    if (m->half) {
        json["low"] = m->mean - *m->half;
        json["high"] = m->mean + *m->half;
    }
    return json;
}

std::string heading(const Quantity &q)
{
    return q.unit.empty() ? q.title : q.title + " (" + q.unit + ")";
}

const char *arrow(const Quantity &q)
{
    return q.better == "lower" ? "↓" : q.better == "higher" ? "↑" : "";
}

/// A row's name; `mark` where its inference is not causal.
std::string named(const TableRow &row, const char *mark)
{
    return row.causal ? row.label : row.label + mark;
}

/// A change with as many decimals as the mean beside it is shown with.
std::string signedLike(double change, const std::string &shown)
{
    if (shown.find('e') != std::string::npos)
        return (change < 0 ? "-" : "+") + number(std::abs(change), 2);
    const std::size_t dot = shown.find('.');
    return fmt::format("{:+.{}f}", change, dot == std::string::npos ? 0 : shown.size() - dot - 1);
}

/// What stands below a table: how to read it, and the reasons behind every "–".
std::vector<std::string> notes(const StudyTable &table)
{
    std::vector<std::string> out{"Mean ± half width of the 95 % Student t interval over seeds; best mean of a column in bold."};
    if (!table.baseline.empty())
        out.push_back(fmt::format("Δ and percentage: difference from {} and relative change. ns: not significantly different from it (p ≥ 0.05, t tests on the seeds, "
                                  "Holm's correction over the {} tests of this table); without mark: significant, or no test for want of seeds (n < 2).",
                                  table.baseline, table.tests));
    std::string early;
    for (const TableRow &row : table.rows)
        if (!row.causal)
            early += (early.empty() ? "" : ", ") + row.label;
    if (!early.empty())
        out.push_back(fmt::format("† Not causal, a token's routing depends on later ones (losses and scores profit from that): {}.", early));
    for (const TableRow &row : table.rows)
        for (std::size_t c = 0; c < row.cells.size(); ++c) {
            const TableCell &cell = row.cells[c];
            if (!cell.mean)
                out.push_back(fmt::format("{}, {}: – ({})", row.label, table.columns[c].title, cell.reason));
            else if (!cell.missing.empty())
                out.push_back(fmt::format("{}, {}: {} of {} runs ({})", row.label, table.columns[c].title, cell.values.size(),
                                          cell.values.size() + cell.missing.size(), cell.missing.front()));
            else if (cell.values.size() == 1)
                out.push_back(fmt::format("{}, {}: one seed, no interval", row.label, table.columns[c].title));
        }
    if (out.size() > 40) {
        const std::size_t more = out.size() - 40;
        out.resize(40);
        out.push_back(fmt::format("and {} more", more));
    }
    return out;
}

std::string latexCell(const TableCell &cell, const Quantity &q, bool baseline)
{
    if (!cell.mean)
        return "--";
    const NumberText t = numberText(*cell.mean, q.decimals);
    std::string text = cell.best ? "\\textbf{" + t.value + "}" : t.value;
    if (!t.half.empty())
        text += " $\\pm$ " + t.half;
    if (!baseline && cell.difference)
        text += fmt::format(" {{\\footnotesize($\\Delta={}${})}}", signedLike(*cell.difference, t.value), cell.relative ? fmt::format(", ${:+.1f}$\\,\\%", 100 * *cell.relative) : "");
    if (cell.adjusted && !cell.significant())
        text += "\\textsuperscript{ns}";
    return text;
}

std::string htmlCell(const TableCell &cell, const Quantity &q, bool baseline)
{
    if (!cell.mean)
        return fmt::format("<td class=n title=\"{}\">–</td>", htmlText(cell.reason));
    const NumberText t = numberText(*cell.mean, q.decimals);
    std::string tip = fmt::format("n = {}", cell.values.size());
    for (std::size_t i = 0; i < cell.values.size(); ++i)
        tip += fmt::format("; seed {}: {}", cell.seeds[i], number(cell.values[i], 6));
    if (cell.chance)
        tip += "; chance level " + number(*cell.chance);
    if (cell.test)
        tip += fmt::format("; {}: difference {}{}, p = {:.3g}, Holm {:.3g}", cell.testName, number(cell.test->difference),
                           cell.test->half ? " ± " + number(*cell.test->half, 2) : "", cell.test->p, cell.adjusted.value_or(1));
    std::string text = cell.best ? "<b>" + t.value + "</b>" : t.value;
    if (!t.half.empty())
        text += " ± " + t.half;
    if (cell.chance)
        text += fmt::format("<br><small>chance {}</small>", number(*cell.chance, 3));
    if (!baseline && cell.difference)
        text += fmt::format("<br><small>Δ {}{}{}</small>", signedLike(*cell.difference, t.value), cell.relative ? fmt::format(", {:+.1f} %", 100 * *cell.relative) : "",
                            cell.adjusted && !cell.significant() ? " ns" : "");
    return fmt::format("<td class=n title=\"{}\">{}</td>", htmlText(tip), text);
}

std::string comparabilityHtml(const Comparability &c)
{
    std::string text = "<details class=comparability><summary>Comparable? ";
    for (const auto &[question, yes] : c.answers)
        text += fmt::format("{}{}: {}", question == c.answers.front().first ? "" : " · ", htmlText(question), yes ? "yes" : "<b>no</b>");
    text += "</summary>\n";
    if (c.differences.empty())
        return text + "<p>Nothing but the router's own settings differs.</p></details>\n";
    text += "<table><thead><tr><th>What differs</th><th>Against</th><th>Declared</th><th>Values</th></tr></thead><tbody>\n";
    for (const Difference &d : c.differences) {
        std::string values;
        for (const auto &[row, value] : d.values)
            values += (values.empty() ? "" : "; ") + row + ": " + value;
        text += fmt::format("<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>\n", htmlText(d.key), htmlText(d.question),
                            d.declared ? "by an axis" : "<b>no</b>", htmlText(values));
    }
    return text + "</tbody></table></details>\n";
}

} // namespace

std::string number(double value, int significant)
{
    if (!std::isfinite(value))
        return "–";
    const double a = std::abs(value);
    if (a != 0 && (a < 1e-4 || a >= 1e7))
        return fmt::format("{:.{}g}", value, significant);
    const int lead = a > 0 ? static_cast<int>(std::floor(std::log10(a))) : 0;
    return fmt::format("{:.{}f}", value, std::clamp(significant - 1 - lead, 0, 10));
}

NumberText numberText(const MeanInterval &mean, std::int64_t decimals)
{
    const double half = mean.half.value_or(0);
    if (decimals < 0) {
        if (!(half > 0) || !std::isfinite(half))
            return {number(mean.mean), mean.half ? number(half, 2) : ""};
        if (half < 1e-6 || std::abs(mean.mean) >= 1e7)
            return {number(mean.mean), number(half, 2)};
        decimals = std::clamp<std::int64_t>(1 - static_cast<std::int64_t>(std::floor(std::log10(half))), 0, 8);
    }
    return {fmt::format("{:.{}f}", mean.mean, decimals), mean.half ? fmt::format("{:.{}f}", half, decimals) : ""};
}

std::string latexText(const std::string &text)
{
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        switch (c) {
        case '_': case '%': case '&': case '#': case '$': case '{': case '}': out += '\\'; out += c; break;
        case '\\': out += "\\textbackslash{}"; break;
        case '^': out += "\\textasciicircum{}"; break;
        case '<': out += "\\textless{}"; break; // in the default encoding of fonts these three are other characters
        case '>': out += "\\textgreater{}"; break;
        case '|': out += "\\textbar{}"; break;
        case '~': out += "\\textasciitilde{}"; break;
        case '\n': case '\r': out += ' '; break;
        default: out += c;
        }
    }
    // Plain LaTeX has no glyph for these in text.
    for (const auto &[glyph, command] : std::initializer_list<std::pair<const char *, const char *>>{
             {"ε", "$\\varepsilon$"}, {"λ", "$\\lambda$"}, {"α", "$\\alpha$"}, {"β", "$\\beta$"}, {"Δ", "$\\Delta$"}, {"±", "$\\pm$"}, {"≥", "$\\geq$"}, {"≤", "$\\leq$"},
             {"×", "$\\times$"}, {"−", "$-$"}, {"–", "--"}, {"·", "$\\cdot$"}, {"↑", "$\\uparrow$"}, {"↓", "$\\downarrow$"}, {"†", "$^\\dagger$"}})
        for (std::size_t at = 0; (at = out.find(glyph, at)) != std::string::npos; at += std::string_view(command).size())
            out.replace(at, std::string_view(glyph).size(), command);
    return out;
}

std::string htmlText(const std::string &text)
{
    std::string out;
    for (const char c : text) {
        switch (c) {
        case '&': out += "&amp;"; break;
        case '<': out += "&lt;"; break;
        case '>': out += "&gt;"; break;
        case '"': out += "&quot;"; break;
        default: out += c;
        }
    }
    return out;
}

std::string csvText(const std::string &text)
{
    if (text.find_first_of(",\"\r\n") == std::string::npos)
        return text;
    std::string out = "\"";
    for (const char c : text)
        out += c == '"' ? std::string("\"\"") : std::string(1, c);
    return out + "\"";
}

std::string tableLatex(const StudyTable &table)
{
    std::string text = fmt::format("% {}\n\\begin{{tabular}}{{l{}}}\n\\toprule\n{}", latexText(table.title), std::string(table.columns.size(), 'r'), latexText(table.rowsTitle));
    for (const Quantity &q : table.columns)
        text += " & " + latexText(heading(q)) + (q.better == "none" ? "" : std::string(" ") + latexText(arrow(q)));
    text += " \\\\\n\\midrule\n";
    for (const TableRow &row : table.rows) {
        text += latexText(named(row, "†"));
        for (std::size_t c = 0; c < row.cells.size(); ++c)
            text += " & " + latexCell(row.cells[c], table.columns[c], row.baseline);
        text += " \\\\\n";
    }
    text += "\\midrule\n";
    for (const SummaryRow &row : table.summary) {
        text += latexText(row.label);
        for (std::size_t c = 0; c < row.values.size(); ++c) {
            if (!row.values[c]) {
                text += " & --";
                continue;
            }
            const NumberText t = numberText(*row.values[c], row.percent ? 1 : table.columns[c].decimals);
            text += " & " + t.value + (t.half.empty() ? "" : " $\\pm$ " + t.half) + (row.percent ? "\\,\\%" : "");
        }
        text += " \\\\\n";
    }
    text += "\\bottomrule\n\\end{tabular}\n\n\\par\\footnotesize\n";
    for (const std::string &note : notes(table))
        text += latexText(note) + "\\\\\n";
    for (const auto &[question, yes] : table.comparability.answers)
        text += latexText(question) + (yes ? ": yes. " : ": no. ");
    for (const Difference &d : table.comparability.differences) {
        text += fmt::format("\\\\\n{}{}:", latexText(d.key), d.declared ? "" : " (not declared)");
        for (const auto &[row, value] : d.values)
            text += fmt::format(" {} = {};", latexText(row), latexText(value));
    }
    return text + "\n\\normalsize\n";
}

std::string tableCsv(const StudyTable &table, bool header)
{
    std::string text = header ? "table,row,column,path,unit,better,n,mean,half,low,high,deviation,chance,baseline,difference,difference_half,relative,test,t,freedom,p,"
                                "p_holm,significant,cohens_d,cliffs_delta,best,reason,causal\n"
                              : "";
    for (const TableRow &row : table.rows)
        for (std::size_t c = 0; c < row.cells.size(); ++c) {
            const TableCell &cell = row.cells[c];
            const Quantity &q = table.columns[c];
            const auto &m = cell.mean;
            const auto number = [&](auto get) { return m ? get() : std::string(); };
            text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},", csvText(table.title), csvText(row.label), csvText(q.title), csvText(q.path), csvText(q.unit), q.better,
                                cell.values.size(), number([&] { return fmt::format("{}", m->mean); }), number([&] { return field(m->half); }),
                                number([&] { return m->half ? fmt::format("{}", m->mean - *m->half) : ""; }),
                                number([&] { return m->half ? fmt::format("{}", m->mean + *m->half) : ""; }), number([&] { return field(m->deviation); }), field(cell.chance),
                                csvText(row.baseline ? "itself" : table.baseline));
            text += fmt::format("{},{},{},{},", field(cell.difference), cell.test ? field(cell.test->half) : "", field(cell.relative), cell.testName);
            text += cell.test ? fmt::format("{},{},{},", field(cell.test->statistic), field(cell.test->freedom), cell.test->p) : ",,,";
            text += fmt::format("{},{},{},{},{},{},{}\n", field(cell.adjusted), cell.adjusted ? (cell.significant() ? "yes" : "no") : "", field(cell.cohensD), field(cell.cliffsDelta),
                                cell.best ? "yes" : "no", csvText(cell.mean && !cell.missing.empty() ? cell.missing.front() : cell.reason), row.causal ? "yes" : "no");
        }
    for (const SummaryRow &row : table.summary)
        for (std::size_t c = 0; c < row.values.size(); ++c) {
            const auto &m = row.values[c];
            text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},,,,,,,,,,,,,,,{},\n", csvText(table.title), csvText(row.label), csvText(table.columns[c].title),
                                csvText(table.columns[c].path), row.percent ? "%" : csvText(table.columns[c].unit), row.percent ? "higher" : table.columns[c].better,
                                m ? m->n : 0, m ? fmt::format("{}", m->mean) : "", m ? field(m->half) : "", m && m->half ? fmt::format("{}", m->mean - *m->half) : "",
                                m && m->half ? fmt::format("{}", m->mean + *m->half) : "", m ? field(m->deviation) : "", csvText(row.notes[c]));
        }
    return text;
}

Json tableJson(const StudyTable &table)
{
    Json json{{"title", table.title}, {"rows_are", table.rowsTitle}, {"baseline", table.baseline}, {"tests", table.tests}};
    for (const Quantity &q : table.columns)
        json["columns"].push_back({{"path", q.path}, {"title", q.title}, {"unit", q.unit}, {"better", q.better}, {"scale", q.scale}});
    for (const TableRow &row : table.rows) {
        Json cells = Json::array();
        for (const TableCell &cell : row.cells) {
            Json c = cell.mean ? intervalJson(cell.mean) : Json{{"mean", nullptr}, {"reason", cell.reason}};
            c["seeds"] = cell.seeds;
            c["values"] = cell.values;
            if (!cell.missing.empty())
                c["missing"] = cell.missing;
            c["chance"] = optional(cell.chance);
            c["difference"] = optional(cell.difference);
            c["relative"] = optional(cell.relative);
            if (cell.test)
                c["test"] = {{"name", cell.testName}, {"t", optional(cell.test->statistic)}, {"freedom", cell.test->freedom}, {"difference", cell.test->difference},
                             {"half", optional(cell.test->half)}, {"p", cell.test->p}, {"p_holm", optional(cell.adjusted)}, {"significant", cell.significant()},
                             {"cohens_d", optional(cell.cohensD)}, {"cliffs_delta", optional(cell.cliffsDelta)}};
            c["best"] = cell.best;
            cells.push_back(std::move(c));
        }
        json["rows"].push_back({{"label", row.label}, {"baseline", row.baseline}, {"causal", row.causal}, {"cells", cells}});
    }
    for (const SummaryRow &row : table.summary) {
        Json cells = Json::array();
        for (std::size_t c = 0; c < row.values.size(); ++c) {
            Json cell = row.values[c] ? intervalJson(row.values[c]) : Json{{"mean", nullptr}};
            if (!row.notes[c].empty())
                cell["note"] = row.notes[c];
            cells.push_back(std::move(cell));
        }
        json["summary"].push_back({{"label", row.label}, {"percent", row.percent}, {"cells", cells}});
    }
    Json &comparable = json["comparability"] = Json::object();
    for (const auto &[question, yes] : table.comparability.answers)
        comparable[question] = yes;
    comparable["differences"] = Json::array();
    for (const Difference &d : table.comparability.differences) {
        Json values = Json::object();
        for (const auto &[row, value] : d.values)
            values[row] = value;
        comparable["differences"].push_back({{"key", d.key}, {"against", d.question}, {"declared", d.declared}, {"values", values}});
    }
    json["notes"] = notes(table);
    return json;
}

std::string tableHtml(const StudyTable &table)
{
    std::string text = fmt::format("<h3>{}</h3>\n<div class=wide><table><thead><tr><th>{}</th>", htmlText(table.title), htmlText(table.rowsTitle));
    for (const Quantity &q : table.columns)
        text += fmt::format("<th class=n title=\"{}\">{} {}</th>", htmlText(q.path), htmlText(heading(q)), arrow(q));
    text += "</tr></thead><tbody>\n";
    for (const TableRow &row : table.rows) {
        text += fmt::format("<tr><td>{}{}</td>", htmlText(named(row, " †")), row.baseline ? " <small>(baseline)</small>" : "");
        for (std::size_t c = 0; c < row.cells.size(); ++c)
            text += htmlCell(row.cells[c], table.columns[c], row.baseline);
        text += "</tr>\n";
    }
    for (const SummaryRow &row : table.summary) {
        text += fmt::format("<tr class=summary><td>{}</td>", htmlText(row.label));
        for (std::size_t c = 0; c < row.values.size(); ++c) {
            const auto &m = row.values[c];
            if (!m) {
                text += fmt::format("<td class=n title=\"{}\">–</td>", htmlText(row.notes[c]));
                continue;
            }
            const NumberText t = numberText(*m, row.percent ? 1 : table.columns[c].decimals);
            text += fmt::format("<td class=n title=\"{}\">{}{}{}</td>", htmlText(row.notes[c]), t.value, t.half.empty() ? "" : " ± " + t.half, row.percent ? " %" : "");
        }
        text += "</tr>\n";
    }
    text += "</tbody></table></div>\n<p class=note>";
    for (const std::string &note : notes(table))
        text += htmlText(note) + "<br>\n";
    return text + "</p>\n" + comparabilityHtml(table.comparability);
}

} // namespace spectra::study
