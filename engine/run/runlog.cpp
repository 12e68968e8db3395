// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/runlog.h"

#include "analysis/metrics/metric.h"
#include "engine/core/files.h"
#include "engine/run/environment.h"
#include "engine/trace/arrayfile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

namespace spectra {
namespace {

using Json = nlohmann::ordered_json;

Json number(const std::optional<double> &value)
{
    return value ? Json(*value) : Json(nullptr);
}

Json numbers(const std::vector<double> &values)
{
    Json list = Json::array();
    for (const double v : values)
        list.push_back(std::isfinite(v) ? Json(v) : Json(nullptr));
    return list;
}

double variation(const std::vector<double> &load)
{
    double mean = 0, square = 0;
    for (const double v : load)
        mean += v / static_cast<double>(load.size());
    for (const double v : load)
        square += (v - mean) * (v - mean) / static_cast<double>(load.size());
    return mean > 0 ? std::sqrt(square) / mean : 0;
}

/// Walks "a.b" down an object; null where there is none.
const Json &at(const Json &object, const std::string &path)
{
    static const Json none;
    const Json *node = &object;
    std::size_t begin = 0;
    while (begin <= path.size()) {
        const std::size_t end = std::min(path.find('.', begin), path.size());
        const auto key = path.substr(begin, end - begin);
        if (!node->is_object() || !node->contains(key))
            return none;
        node = &(*node)[key];
        begin = end + 1;
    }
    return *node;
}

double value(const Json &json)
{
    return json.is_number() ? json.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// One column of the log: rows without the number are NaN.
std::vector<double> column(const std::vector<Json> &rows, const std::string &path)
{
    std::vector<double> values;
    for (const Json &row : rows)
        values.push_back(value(at(row, path)));
    return values;
}

/// A list per row as a matrix [rows, width]; empty when no row has one.
std::vector<double> matrix(const std::vector<Json> &rows, const std::function<const Json &(const Json &)> &list, std::int64_t &width)
{
    width = 0;
    for (const Json &row : rows)
        if (const Json &l = list(row); l.is_array())
            width = std::max(width, static_cast<std::int64_t>(l.size()));
    std::vector<double> values;
    for (const Json &row : rows) {
        const Json &l = list(row);
        for (std::int64_t i = 0; i < width; ++i)
            values.push_back(l.is_array() && i < static_cast<std::int64_t>(l.size()) ? value(l[static_cast<std::size_t>(i)])
                                                                                     : std::numeric_limits<double>::quiet_NaN());
    }
    return values;
}

Json point(const MetricPoint &p)
{
    return number(p.value);
}

template <typename Test> bool each(const Json &object, const Test &test)
{
    return object.is_object() && std::all_of(object.begin(), object.end(), test);
}

/// What the curves and a run's result read of a line and the line does not have, or empty.
std::string lacking(const Json &line, bool evaluation)
{
    const auto isNumber = [](const Json &v) { return v.is_number(); };
    if (!evaluation) {
        for (const char *key : {"loss", "seconds", "tokens"})
            if (!at(line, key).is_number())
                return key;
        return each(at(line, "time"), isNumber) ? std::string() : "time";
    }
    if (!line.contains("held_out_loss") || !(line["held_out_loss"].is_number() || line["held_out_loss"].is_null()))
        return "held_out_loss";
    if (!each(at(line, "domains"), [](const Json &domain) { return domain.is_object() && domain.contains("loss"); }))
        return "domains";
    if (!line.contains("metrics"))
        return {};
    if (!each(line["metrics"], [](const Json &metric) { return metric.is_object() && (!metric.contains("unit") || metric["unit"].is_string()); }))
        return "metrics";
    const Json &layers = at(line, "decoder_index");
    return layers.is_array() && std::all_of(layers.begin(), layers.end(), [](const Json &v) { return v.is_number_integer(); }) ? std::string() : "decoder_index";
}

} // namespace

Json metricsJson(const MetricReport &report)
{
    Json all = Json::object();
    for (const MetricResult &m : report.metrics) {
        Json entry = Json::object();
        entry["value"] = number(m.overall.value);
        if (m.overall.low) {
            entry["low"] = number(m.overall.low);
            entry["high"] = number(m.overall.high);
        }
        if (m.overall.chance)
            entry["chance"] = number(m.overall.chance);
        if (const MetricInfo *info = findMetric(m.key)) {
            entry["unit"] = info->unit;
            entry["better"] = std::string(toString(info->better));
        }
        if (!m.absent.empty()) {
            entry["absent"] = m.absent;
        } else {
            Json layers = Json::array(), chances = Json::array(), domains = Json::array();
            bool haveChance = false;
            for (const MetricPoint &p : m.byLayer) {
                layers.push_back(point(p));
                chances.push_back(number(p.chance));
                haveChance = haveChance || p.chance.has_value();
            }
            for (const MetricPoint &p : m.byDomain)
                domains.push_back(point(p));
            entry["by_layer"] = std::move(layers);
            if (haveChance)
                entry["chance_by_layer"] = std::move(chances);
            entry["by_domain"] = std::move(domains);
        }
        all[m.key] = std::move(entry);
    }
    return all;
}

Result<RunLog> RunLog::open(const std::filesystem::path &folder, std::int64_t keep)
{
    RunLog log;
    log.m_folder = folder;
    const auto place = folder / "log.jsonl";
    std::error_code error;
    if (std::filesystem::exists(place, error)) {
        SPECTRA_TRY(const std::string text, readTextFile(place, std::uint64_t(8) << 30));
        std::string kept;
        std::int64_t lineNumber = 0;
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t end = text.find('\n', begin);
            ++lineNumber;
            if (end == std::string::npos)
                break; // torn by a kill
            const std::string line = text.substr(begin, end - begin);
            begin = end + 1;
            Json json = Json::parse(line, nullptr, false);
            if (!json.is_object())
                return inputError("is not a JSON object", fmt::format("{}:{}", place.string(), lineNumber), "continue with a log that this program wrote");
            const bool evaluation = json.contains("evaluation");
            const Json &step = evaluation ? json["evaluation"] : at(json, "step");
            if (!step.is_number_integer() || step.get<std::int64_t>() > keep || (json.contains("stage") && json["stage"] != "training"))
                continue;
            if (const std::string key = lacking(json, evaluation); !key.empty())
                return inputError(fmt::format("has no {} as this program writes it", key), fmt::format("{}:{}", place.string(), lineNumber),
                                  "continue with a log that this program wrote");
            if (evaluation && json["held_out_loss"].is_null()) // JSON has no other way to say that a loss is no number
                json["held_out_loss"] = std::numeric_limits<double>::quiet_NaN();
            kept += line + '\n';
            (evaluation ? log.m_evaluations : log.m_steps).push_back(std::move(json));
        }
        SPECTRA_TRY(AtomicFile file, AtomicFile::create(place, true));
        file.stream() << kept;
        SPECTRA_CHECK(file.commit());
    }
    log.m_stream.open(place, std::ios::binary | std::ios::app);
    if (!log.m_stream)
        return workError("cannot be written", place.string());
    return log;
}

Result<void> RunLog::append(const Json &line)
{
    m_stream << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    m_stream.flush();
    return m_stream ? Result<void>()
                    : Result<void>(workError("cannot be written: the disk may be full", (m_folder / "log.jsonl").string(), "make room, then continue with --resume"));
}

Result<void> RunLog::add(const StepReport &r)
{
    Json line{{"step", r.step}, {"loss", r.loss}};
    for (const auto &[name, loss] : r.routerLosses)
        line["router_losses"][name] = loss;
    line["gradients"] = {{"router", r.gradients.router}, {"experts", r.gradients.experts}, {"other", r.gradients.other}, {"all", r.gradients.all}};
    line["rate"] = r.rate;
    line["tokens"] = r.tokens;
    line["seconds"] = r.seconds;
    line["time"] = {{"forward", r.forward},          {"backward", r.backward},        {"optimizer", r.optimizer},  {"attention", r.timing.attention},
                    {"router", r.timing.router},     {"experts", r.timing.experts},   {"dense", r.timing.dense},   {"head", r.timing.head}};
    line["memory"] = peakMemory();
    std::vector<double> cv;
    for (const auto &load : r.loads)
        cv.push_back(variation(load));
    line["load_cv"] = numbers(cv);
    line["dropped"] = numbers(r.dropped);
    line["fell_back"] = numbers(r.fellBack);
    line["violation"] = numbers(r.violation);
    SPECTRA_CHECK(append(line));
    m_steps.push_back(std::move(line));
    return {};
}

Result<void> RunLog::add(const Evaluation &e, const std::vector<std::string> &domains)
{
    Json line{{"evaluation", e.step}, {"stage", e.stage}, {"held_out_loss", e.loss}, {"tokens", e.tokens}, {"seconds", e.seconds}, {"causal", e.causal}};
    for (std::size_t d = 0; d < domains.size(); ++d)
        line["domains"][domains[d]] = {{"loss", e.domainLoss[d]}};
    for (const auto &[name, bytes] : e.memory)
        line["memory_by_part"][name] = bytes;
    if (e.metrics) {
        line["decoder_index"] = e.metrics->decoderIndex;
        line["metrics"] = metricsJson(*e.metrics);
    }
    SPECTRA_CHECK(append(line));
    m_evaluations.push_back(std::move(line));
    return {};
}

bool RunLog::hasEvaluation(std::int64_t step) const
{
    return std::any_of(m_evaluations.begin(), m_evaluations.end(), [step](const Json &row) { return row["evaluation"] == step; });
}

Result<void> RunLog::writeMetrics() const
{
    SPECTRA_TRY(const auto file, ArrayFile::create(m_folder / "metrics.h5", true));
    SPECTRA_CHECK(file->attribute("/", "format", std::string("spectra training metrics 1")));
    const auto steps = static_cast<std::int64_t>(m_steps.size()), evaluations = static_cast<std::int64_t>(m_evaluations.size());
    std::vector<std::int64_t> step, evaluation;
    for (const Json &row : m_steps)
        step.push_back(row["step"].get<std::int64_t>());
    for (const Json &row : m_evaluations)
        evaluation.push_back(row["evaluation"].get<std::int64_t>());
    SPECTRA_CHECK(file->write("/training/step", {steps}, step));
    for (const std::string path : {"loss", "rate", "tokens", "seconds", "memory", "gradients.router", "gradients.experts", "gradients.other", "gradients.all",
                                   "time.forward", "time.backward", "time.optimizer", "time.attention", "time.router", "time.experts", "time.dense", "time.head"}) {
        std::string name = "/training/" + path;
        std::replace(name.begin(), name.end(), '.', '/');
        SPECTRA_CHECK(file->write(name, {steps}, column(m_steps, path)));
    }
    std::set<std::string> terms;
    for (const Json &row : m_steps)
        if (const Json &losses = at(row, "router_losses"); losses.is_object())
            for (const auto &item : losses.items())
                terms.insert(item.key());
    for (const std::string &term : terms)
        SPECTRA_CHECK(file->write("/training/router_losses/" + term, {steps}, column(m_steps, "router_losses." + term)));
    for (const std::string path : {"load_cv", "dropped", "fell_back", "violation"}) {
        std::int64_t width = 0;
        const auto values = matrix(m_steps, [&](const Json &row) -> const Json & { return at(row, path); }, width);
        if (width > 0)
            SPECTRA_CHECK(file->write("/training/layers/" + path, {steps, width}, values));
    }
    if (m_evaluations.empty())
        return file->commit();
    const Json &first = m_evaluations.front();
    std::vector<std::string> domains;
    for (const auto &item : first["domains"].items())
        domains.push_back(item.key());
    SPECTRA_CHECK(file->write("/evaluation/step", {evaluations}, evaluation));
    SPECTRA_CHECK(file->write("/evaluation/domain_names", domains));
    SPECTRA_CHECK(file->write("/evaluation/held_out_loss", {evaluations}, column(m_evaluations, "held_out_loss")));
    std::vector<double> losses;
    for (const Json &row : m_evaluations)
        for (const std::string &domain : domains)
            losses.push_back(row["domains"].contains(domain) ? value(row["domains"][domain]["loss"]) : std::numeric_limits<double>::quiet_NaN());
    SPECTRA_CHECK(file->write("/evaluation/domain_loss", {evaluations, static_cast<std::int64_t>(domains.size())}, losses));
    std::set<std::string> parts;
    for (const Json &row : m_evaluations)
        if (const Json &memory = at(row, "memory_by_part"); memory.is_object())
            for (const auto &item : memory.items())
                parts.insert(item.key());
    for (const std::string &part : parts)
        SPECTRA_CHECK(file->write("/evaluation/memory/" + part, {evaluations}, column(m_evaluations, "memory_by_part." + part)));
    if (!first.contains("metrics"))
        return file->commit();
    const auto layers = first["decoder_index"].get<std::vector<std::int32_t>>();
    SPECTRA_CHECK(file->write("/evaluation/decoder_index", {static_cast<std::int64_t>(layers.size())}, layers));
    for (const auto &item : first["metrics"].items()) {
        // A metric's key may hold a dot, which is no path here.
        const std::string &key = item.key();
        const auto entry = [&](const Json &row) -> const Json & {
            static const Json none;
            return row.contains("metrics") && row["metrics"].contains(key) ? row["metrics"][key] : none;
        };
        std::vector<double> values, chances;
        for (const Json &row : m_evaluations) {
            values.push_back(value(at(entry(row), "value")));
            chances.push_back(value(at(entry(row), "chance")));
        }
        const std::string group = "/evaluation/metrics/" + key;
        SPECTRA_CHECK(file->write(group + "/value", {evaluations}, values));
        SPECTRA_CHECK(file->write(group + "/chance", {evaluations}, chances));
        for (const std::string list : {"by_layer", "by_domain"}) {
            std::int64_t width = 0;
            const auto rows = matrix(m_evaluations, [&](const Json &row) -> const Json & { return at(entry(row), list); }, width);
            if (width > 0)
                SPECTRA_CHECK(file->write(group + "/" + list, {evaluations, width}, rows));
        }
        if (item.value().contains("unit"))
            SPECTRA_CHECK(file->attribute(group, "unit", item.value()["unit"].get<std::string>()));
    }
    return file->commit();
}

} // namespace spectra
