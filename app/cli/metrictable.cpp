// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/metrictable.h"

#include "analysis/metrics/metric.h"

#include <fmt/format.h>

namespace spectra::cli {
namespace {

using nlohmann::ordered_json;

ordered_json number(const std::optional<double> &value)
{
    return value ? ordered_json(*value) : ordered_json(nullptr);
}

ordered_json pointJson(const MetricPoint &p)
{
    ordered_json json{{"value", number(p.value)}};
    if (p.low || p.high) {
        json["low"] = number(p.low);
        json["high"] = number(p.high);
    }
    if (p.chance)
        json["chance"] = number(p.chance);
    json["n"] = p.count;
    return json;
}

const char *phaseName(std::size_t phase)
{
    return phase == 0 ? "prompt" : "generated";
}

} // namespace

ordered_json metricsJson(const MetricReport &report, const MetricBreakdown &by)
{
    ordered_json metrics = ordered_json::object();
    for (const MetricResult &m : report.metrics) {
        const MetricInfo *info = findMetric(m.key);
        ordered_json entry{{"value", number(m.overall.value)},
                           {"unit", info != nullptr ? info->unit : ""},
                           {"better", info != nullptr ? std::string(toString(info->better)) : "none"},
                           {"low", number(m.overall.low)},
                           {"high", number(m.overall.high)},
                           {"chance", number(m.overall.chance)},
                           {"n", m.overall.count}};
        if (!m.absent.empty())
            entry["absent"] = m.absent;
        if (!m.interval.empty())
            entry["interval"] = m.interval;
        if (!m.note.empty())
            entry["note"] = m.note;
        ordered_json groups = ordered_json::object();
        if (by.layer) {
            groups["layer"] = ordered_json::array();
            for (const MetricPoint &p : m.byLayer)
                groups["layer"].push_back(pointJson(p));
        }
        if (by.domain) {
            groups["domain"] = ordered_json::object();
            for (std::size_t q = 0; q < m.byDomain.size() && q < report.domains.size(); ++q)
                groups["domain"][report.domains[q]] = pointJson(m.byDomain[q]);
        }
        if (by.sequence) {
            groups["sequence"] = ordered_json::array();
            for (const MetricPoint &p : m.bySequence)
                groups["sequence"].push_back(pointJson(p));
        }
        if (by.phase) {
            groups["phase"] = ordered_json::object();
            for (std::size_t f = 0; f < m.byPhase.size(); ++f)
                groups["phase"][phaseName(f)] = pointJson(m.byPhase[f]);
        }
        if (!groups.empty())
            entry["by"] = groups;
        metrics[m.key] = entry;
    }
    return metrics;
}

std::string csvField(const std::string &text)
{
    if (text.find_first_of(",\"\r\n") == std::string::npos)
        return text;
    std::string quoted = "\"";
    for (char c : text)
        quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + "\"";
}

std::string shortNumber(const std::optional<double> &value)
{
    return value ? fmt::format("{:.4g}", *value) : std::string();
}

std::string metricsCsv(const MetricReport &report, const MetricBreakdown &by)
{
    std::string text = "key,by,group,value,low,high,chance,n,unit,better\n";
    const auto exact = [](const std::optional<double> &v) { return v ? fmt::format("{}", *v) : std::string(); };
    for (const MetricResult &m : report.metrics) {
        const MetricInfo *info = findMetric(m.key);
        const auto row = [&](const char *kind, const std::string &group, const MetricPoint &p) {
            text += fmt::format("{},{},{},{},{},{},{},{},{},{}\n", csvField(m.key), kind, csvField(group), exact(p.value),
                                exact(p.low), exact(p.high), exact(p.chance), p.count,
                                csvField(info != nullptr ? info->unit : ""),
                                info != nullptr ? toString(info->better) : "none");
        };
        row("all", "", m.overall);
        if (by.layer)
            for (std::size_t l = 0; l < m.byLayer.size(); ++l)
                row("layer", l < report.decoderIndex.size() ? std::to_string(report.decoderIndex[l]) : std::to_string(l), m.byLayer[l]);
        if (by.domain)
            for (std::size_t q = 0; q < m.byDomain.size() && q < report.domains.size(); ++q)
                row("domain", report.domains[q], m.byDomain[q]);
        if (by.sequence)
            for (std::size_t s = 0; s < m.bySequence.size(); ++s)
                row("sequence", std::to_string(s), m.bySequence[s]);
        if (by.phase)
            for (std::size_t f = 0; f < m.byPhase.size(); ++f)
                row("phase", phaseName(f), m.byPhase[f]);
    }
    return text;
}

std::string texText(const std::string &text)
{
    std::string out;
    for (char c : text) {
        switch (c) {
        case '_': case '%': case '&': case '#': case '$': case '{': case '}': out += '\\'; out += c; break;
        case '\\': out += "\\textbackslash{}"; break;
        case '^': out += "\\textasciicircum{}"; break;
        case '~': out += "\\textasciitilde{}"; break;
        default: out += c;
        }
    }
    return out;
}

std::string metricsTex(const MetricReport &report)
{
    std::string text = "\\begin{tabular}{lrrrl}\n\\toprule\nmetric & value & 95\\,\\% interval & chance & better \\\\\n\\midrule\n";
    for (const MetricResult &m : report.metrics) {
        if (!m.overall.value)
            continue;
        const MetricInfo *info = findMetric(m.key);
        const std::string interval = m.overall.low && m.overall.high
            ? fmt::format("{}--{}", shortNumber(m.overall.low), shortNumber(m.overall.high)) : "";
        const std::string name = info != nullptr ? info->name + (info->unit.empty() ? "" : ", " + info->unit) : m.key;
        text += fmt::format("{} & {} & {} & {} & {} \\\\\n", texText(name), shortNumber(m.overall.value), interval,
                            shortNumber(m.overall.chance), info != nullptr ? toString(info->better) : "");
    }
    return text + "\\bottomrule\n\\end{tabular}\n";
}

std::string metricsText(const MetricReport &report)
{
    std::string text = fmt::format("{:<40} {:>11} {:>23} {:>10}  {:<8} {}\n", "metric", "value", "95 % interval", "chance", "better", "unit");
    std::string absent;
    for (const MetricResult &m : report.metrics) {
        const MetricInfo *info = findMetric(m.key);
        if (!m.overall.value) {
            absent += fmt::format("{:<40} {}\n", m.key, m.absent.empty() ? "not defined on this trace" : m.absent);
            continue;
        }
        const std::string interval = m.overall.low && m.overall.high
            ? fmt::format("{} to {}", shortNumber(m.overall.low), shortNumber(m.overall.high)) : "";
        text += fmt::format("{:<40} {:>11} {:>23} {:>10}  {:<8} {}\n", m.key, shortNumber(m.overall.value), interval,
                            shortNumber(m.overall.chance), info != nullptr ? toString(info->better) : "",
                            info != nullptr ? info->unit : "");
    }
    if (!absent.empty())
        text += "\nNot measured:\n" + absent;
    text += fmt::format("\n{} counted tokens, {} excluded\n", report.countedTokens, report.excludedTokens);
    return text;
}

} // namespace spectra::cli
