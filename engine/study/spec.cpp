// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/spec.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

namespace spectra::study {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kBetter[] = {"lower", "higher", "none"};
constexpr std::string_view kFigures[] = {"curves", "plane", "lines", "drift"};

std::optional<double> asNumber(const std::string &text)
{
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

Result<Quantity> parseQuantity(const Json &json, const std::string &where)
{
    Quantity q;
    if (json.is_string()) {
        q.path = json.get<std::string>();
    } else {
        SPECTRA_TRY(const Fields f, Fields::of(json, where, {"path", "title", "unit", "better", "decimals", "scale"}));
        SPECTRA_CHECK(f.text("path", q.path, true));
        SPECTRA_CHECK(f.text("title", q.title));
        SPECTRA_CHECK(f.text("unit", q.unit));
        SPECTRA_CHECK(f.choice("better", q.better, kBetter));
        SPECTRA_CHECK(f.whole("decimals", q.decimals, -1, 12));
        SPECTRA_CHECK(f.number("scale", q.scale, -1e12, 1e12));
    }
    if (q.path.empty())
        return usageError("has an empty path", where);
    if (q.title.empty())
        q.title = q.path;
    return q;
}

Result<std::vector<Quantity>> parseQuantities(const Fields &f, std::string_view key)
{
    std::vector<Quantity> all;
    SPECTRA_TRY(const Json *list, f.list(key));
    if (list == nullptr)
        return all;
    for (std::size_t i = 0; i < list->size(); ++i) {
        SPECTRA_TRY(auto q, parseQuantity((*list)[i], fmt::format("{}[{}]", f.placeOf(key), i)));
        all.push_back(std::move(q));
    }
    return all;
}

Result<Json> parseSet(const Json &json, const std::string &where)
{
    if (!json.is_object())
        return usageError("is not an object of settings", where, R"(write {"router.sinkhorn_epsilon": 0.1})");
    for (const auto &[path, value] : json.items()) {
        if (path.empty() || path.front() == '.' || path.back() == '.' || path.find("..") != std::string::npos)
            return usageError(fmt::format("\"{}\" is not a path of a setting", printableUtf8(path)), where, "write object.key");
        for (const char *own : {"training.seed", "training.data_seed", "name"})
            if (path == own)
                return usageError(fmt::format("\"{}\" is the sweep's own", path), where, "every seed of \"seeds\" gives weights and data order");
    }
    return json;
}

Result<AxisValue> parseValue(const Json &json, const std::string &where)
{
    AxisValue v;
    SPECTRA_TRY(const Fields f, Fields::of(json, where, {"label", "set", "number"}));
    SPECTRA_CHECK(f.text("label", v.label, true));
    if (f.has("set")) {
        SPECTRA_TRY(v.set, parseSet(f.at("set"), f.placeOf("set")));
    }
    v.number = asNumber(v.label);
    if (f.has("number")) {
        double number = 0;
        SPECTRA_CHECK(f.number("number", number, -1e300, 1e300));
        v.number = number;
    }
    return v;
}

Result<void> checkLabels(const Axis &axis, const std::string &where)
{
    std::set<std::string> seen;
    for (const AxisValue &v : axis.values)
        if (!seen.insert(v.label).second)
            return usageError(fmt::format("label \"{}\" stands twice", v.label), where);
    if (axis.values.empty())
        return usageError("has no values", where);
    return {};
}

Result<Axis> parseAxis(const Json &json, const std::string &where)
{
    Axis axis;
    SPECTRA_TRY(const Fields f, Fields::of(json, where, {"name", "title", "values"}));
    SPECTRA_CHECK(f.text("name", axis.name, true));
    SPECTRA_CHECK(f.text("title", axis.title));
    if (axis.title.empty())
        axis.title = axis.name;
    SPECTRA_TRY(const Json *values, f.list("values"));
    for (std::size_t i = 0; values != nullptr && i < values->size(); ++i) {
        SPECTRA_TRY(auto value, parseValue((*values)[i], fmt::format("{}[{}]", f.placeOf("values"), i)));
        axis.values.push_back(std::move(value));
    }
    SPECTRA_CHECK(checkLabels(axis, f.placeOf("values")));
    return axis;
}

/// Factors become axes of two values, on first.
Result<FactorialSpec> parseFactorial(const Json &json, const std::string &where, std::vector<Axis> &axes)
{
    FactorialSpec design;
    const Json whole = json.is_array() ? Json{{"factors", json}} : json;
    SPECTRA_TRY(const Fields f, Fields::of(whole, where, {"factors", "generators", "columns", "order"}));
    SPECTRA_TRY(const Json *factors, f.list("factors"));
    if (factors == nullptr || factors->size() < 2 || factors->size() > 12)
        return usageError("needs 2 to 12 factors", where);
    for (std::size_t i = 0; i < factors->size(); ++i) {
        const std::string place = fmt::format("{}[{}]", f.placeOf("factors"), i);
        SPECTRA_TRY(const Fields one, Fields::of((*factors)[i], place, {"name", "on", "off"}));
        Axis axis;
        SPECTRA_CHECK(one.text("name", axis.name, true));
        axis.title = axis.name;
        for (const char *key : {"on", "off"}) {
            AxisValue value;
            value.label = (key[1] == 'n' ? "" : "-") + axis.name;
            value.number = key[1] == 'n' ? 1 : 0;
            if (one.has(key)) {
                SPECTRA_TRY(value.set, parseSet(one.at(key), one.placeOf(key)));
            }
            axis.values.push_back(std::move(value));
        }
        if (axis.values[0].set == axis.values[1].set)
            return usageError("is the same on and off", place);
        design.factors.push_back(axis.name);
        axes.push_back(std::move(axis));
    }
    SPECTRA_CHECK(f.texts("generators", design.generators));
    SPECTRA_CHECK(f.whole("order", design.order, 1, 12));
    SPECTRA_TRY(design.columns, parseQuantities(f, "columns"));
    return design;
}

Result<std::map<std::string, std::string>> parseWhere(const Fields &f, const StudySpec &spec)
{
    std::map<std::string, std::string> where;
    if (!f.has("where"))
        return where;
    if (!f.at("where").is_object())
        return f.wrong("where", "is not an object of axis and label");
    for (const auto &[name, label] : f.at("where").items()) {
        const Axis *axis = spec.axis(name);
        if (axis == nullptr)
            return f.wrong("where", fmt::format("there is no axis \"{}\"", printableUtf8(name)));
        if (!label.is_string() || std::none_of(axis->values.begin(), axis->values.end(), [&](const AxisValue &v) { return v.label == label.get<std::string>(); }))
            return f.wrong("where", fmt::format("axis \"{}\" has no value {}", name, label.dump()));
        where[name] = label.get<std::string>();
    }
    return where;
}

/// "rows": axes. Those that are neither rows nor fixed would be averaged over in silence: refused.
Result<std::vector<std::string>> parseRows(const Fields &f, const StudySpec &spec, const std::map<std::string, std::string> &where)
{
    std::vector<std::string> rows;
    SPECTRA_CHECK(f.texts("rows", rows));
    if (rows.empty()) {
        for (const Axis &axis : spec.axes)
            if (!where.contains(axis.name))
                rows.push_back(axis.name);
        return rows;
    }
    for (const std::string &name : rows) {
        if (spec.axis(name) != nullptr)
            continue;
        std::vector<std::string_view> names;
        for (const Axis &axis : spec.axes)
            names.push_back(axis.name);
        const std::string near = nearestName(name, names);
        return f.wrong("rows", fmt::format("there is no axis \"{}\"", printableUtf8(name)), near.empty() ? "" : "did you mean \"" + near + "\"?");
    }
    for (const Axis &axis : spec.axes)
        if (!where.contains(axis.name) && std::find(rows.begin(), rows.end(), axis.name) == rows.end())
            return f.wrong("rows", fmt::format("axis \"{}\" is left open", axis.name), "name it in \"rows\" or fix it in \"where\"");
    return rows;
}

Result<void> parseTables(const Fields &f, StudySpec &spec)
{
    SPECTRA_TRY(const Json *list, f.list("tables"));
    for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
        TableSpec table;
        const std::string place = fmt::format("{}[{}]", f.placeOf("tables"), i);
        SPECTRA_TRY(const Fields t, Fields::of((*list)[i], place, {"title", "columns", "rows", "where", "baseline", "focus"}));
        SPECTRA_CHECK(t.text("title", table.title, true));
        SPECTRA_TRY(table.columns, parseQuantities(t, "columns"));
        if (table.columns.empty())
            return t.wrong("columns", "is empty");
        SPECTRA_TRY(table.where, parseWhere(t, spec));
        SPECTRA_TRY(table.rows, parseRows(t, spec, table.where));
        SPECTRA_CHECK(t.text("baseline", table.baseline));
        SPECTRA_CHECK(t.text("focus", table.focus));
        spec.tables.push_back(std::move(table));
    }
    return {};
}

Result<void> parseFigures(const Fields &f, StudySpec &spec)
{
    SPECTRA_TRY(const Json *list, f.list("figures"));
    for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
        FigureSpec figure;
        const std::string place = fmt::format("{}[{}]", f.placeOf("figures"), i);
        SPECTRA_TRY(const Fields t, Fields::of((*list)[i], place, {"kind", "title", "x", "y", "rows", "where", "log_x", "log_y", "share"}));
        SPECTRA_CHECK(t.text("kind", figure.kind, true));
        SPECTRA_CHECK(t.choice("kind", figure.kind, kFigures));
        SPECTRA_CHECK(t.text("title", figure.title, true));
        if (!t.has("y"))
            return usageError("has no \"y\"", place);
        SPECTRA_TRY(figure.y, parseQuantity(t.at("y"), t.placeOf("y")));
        if (t.has("x")) {
            SPECTRA_TRY(figure.x, parseQuantity(t.at("x"), t.placeOf("x")));
        } else if (figure.kind == "curves" || figure.kind == "drift") {
            figure.x.path = "step";
            figure.x.title = "step";
        } else {
            return usageError("has no \"x\"", place);
        }
        SPECTRA_TRY(figure.where, parseWhere(t, spec));
        SPECTRA_TRY(figure.rows, parseRows(t, spec, figure.where));
        if (figure.kind == "lines" && std::find(figure.rows.begin(), figure.rows.end(), figure.x.path) == figure.rows.end())
            return t.wrong("x", fmt::format("\"{}\" is not an axis among the rows", figure.x.path), "lines run along an axis");
        SPECTRA_CHECK(t.flag("log_x", figure.logX));
        SPECTRA_CHECK(t.flag("log_y", figure.logY));
        SPECTRA_CHECK(t.number("share", figure.share, 0.01, 1));
        spec.figures.push_back(std::move(figure));
    }
    return {};
}

Result<void> parseScaling(const Fields &f, StudySpec &spec)
{
    if (!f.has("scaling"))
        return {};
    const Json one = f.at("scaling").is_array() ? f.at("scaling") : Json::array({f.at("scaling")});
    for (std::size_t i = 0; i < one.size(); ++i) {
        ScalingSpec law;
        SPECTRA_TRY(const Fields t, Fields::of(one[i], fmt::format("{}[{}]", f.placeOf("scaling"), i), {"title", "x", "y", "by", "offset"}));
        SPECTRA_CHECK(t.text("title", law.title, true));
        for (const char *key : {"x", "y"})
            if (!t.has(key))
                return usageError(fmt::format("has no \"{}\"", key), t.placeOf(key));
        SPECTRA_TRY(law.x, parseQuantity(t.at("x"), t.placeOf("x")));
        SPECTRA_TRY(law.y, parseQuantity(t.at("y"), t.placeOf("y")));
        SPECTRA_CHECK(t.text("by", law.by));
        if (!law.by.empty() && spec.axis(law.by) == nullptr)
            return t.wrong("by", fmt::format("there is no axis \"{}\"", printableUtf8(law.by)));
        SPECTRA_CHECK(t.flag("offset", law.offset));
        spec.scaling.push_back(std::move(law));
    }
    return {};
}

Result<void> parseSeeds(const Fields &f, StudySpec &spec)
{
    SPECTRA_TRY(const Json *list, f.list("seeds"));
    if (list == nullptr)
        return {};
    spec.seeds.clear();
    for (const Json &item : *list) {
        if (!item.is_number_integer() || (!item.is_number_unsigned() && item.get<std::int64_t>() < 0) || item.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
            return f.wrong("seeds", item.dump() + " is not a seed", "use whole numbers from 0");
        const auto seed = item.get<std::uint64_t>();
        if (std::find(spec.seeds.begin(), spec.seeds.end(), seed) != spec.seeds.end())
            return f.wrong("seeds", fmt::format("{} stands twice", seed));
        spec.seeds.push_back(seed);
    }
    if (spec.seeds.empty() || spec.seeds.size() > 1000)
        return f.wrong("seeds", "needs 1 to 1000 seeds");
    return {};
}

Result<void> placeFile(Json &value, bool isFile, const SpecOptions &options, const std::string &where)
{
    SPECTRA_TRY(value, placedFile(value.get<std::string>(), isFile, options, where));
    return {};
}

Result<void> placeFiles(Json &config, const SpecOptions &options, const std::string &where)
{
    const auto inside = [&](const char *object, const char *key) -> Json * {
        const auto o = config.find(object);
        if (o == config.end() || !o->is_object())
            return nullptr;
        const auto k = o->find(key);
        return k == o->end() ? nullptr : &*k;
    };
    if (Json *file = inside("tokenizer", "file"); file != nullptr && file->is_string())
        SPECTRA_CHECK(placeFile(*file, true, options, where + ": tokenizer.file"));
    if (Json *model = inside("model", "checkpoint"); model != nullptr && model->is_string())
        SPECTRA_CHECK(placeFile(*model, false, options, where + ": model.checkpoint"));
    Json *domains = inside("data", "domains");
    if (domains == nullptr || !domains->is_object())
        return {};
    for (auto &[name, value] : domains->items()) {
        const std::string place = where + ": data.domains." + name;
        Json *files = value.is_object() && value.contains("files") ? &value["files"] : &value;
        if (files->is_string())
            SPECTRA_CHECK(placeFile(*files, true, options, place));
        else if (files->is_array())
            for (Json &file : *files)
                if (file.is_string())
                    SPECTRA_CHECK(placeFile(file, true, options, place));
    }
    return {};
}

Result<Json> parseBase(const Fields &f, const SpecOptions &options)
{
    if (!f.has("base"))
        return usageError("has no \"base\"", f.placeOf("base"), "give a training configuration or the name of its file");
    Json base = f.at("base");
    SpecOptions seen = options;
    if (base.is_string()) {
        const fs::path file = options.folder / base.get<std::string>();
        SPECTRA_TRY(base, readJson(file));
        seen.folder = file.parent_path();
    }
    if (!base.is_object())
        return f.wrong("base", "is not a training configuration {…}");
    SPECTRA_CHECK(placeFiles(base, seen, f.placeOf("base")));
    for (const std::string &setting : options.settings) {
        const std::size_t equals = setting.find('=');
        if (equals == std::string::npos || equals == 0)
            return usageError("a setting must look like key=value", "--set " + setting);
        const std::string text = setting.substr(equals + 1);
        const Json value = Json::parse(text, nullptr, false);
        SPECTRA_TRY(const Json set, parseSet(Json{{setting.substr(0, equals), value.is_discarded() ? Json(text) : value}}, "--set " + setting));
        assign(base, setting.substr(0, equals), set.front());
    }
    return base;
}

} // namespace

const Axis *StudySpec::axis(const std::string &axisName) const
{
    for (const Axis &a : axes)
        if (a.name == axisName)
            return &a;
    return nullptr;
}

void assign(Json &config, const std::string &path, const Json &value)
{
    if (path == "router.type") {
        const auto router = config.find("router");
        if (router == config.end() || !router->is_object() || !router->contains("type") || (*router)["type"] != value)
            config["router"] = Json{{"type", value}};
        return;
    }
    Json *place = &config;
    std::size_t at = 0;
    for (std::size_t dot; (dot = path.find('.', at)) != std::string::npos; at = dot + 1) {
        place = &(*place)[path.substr(at, dot - at)];
        if (!place->is_object())
            *place = Json::object();
    }
    (*place)[path.substr(at)] = value;
}

Result<StudySpec> parseSpec(const Json &json, const std::string &where, const SpecOptions &options)
{
    StudySpec spec;
    SPECTRA_TRY(const Fields f, Fields::of(json, where, {"name", "title", "about", "base", "axes", "cells", "factorial", "seeds", "baseline", "tables",
                                                         "figures", "target_losses", "scaling", "claims", "tasks"}));
    SPECTRA_CHECK(f.text("name", spec.name, true));
    if (!isPlainFileName(spec.name) || spec.name.size() > 100)
        return f.wrong("name", "is not a plain name");
    spec.title = spec.name;
    SPECTRA_CHECK(f.text("title", spec.title));
    SPECTRA_CHECK(f.text("about", spec.about));
    SPECTRA_TRY(spec.base, parseBase(f, options));
    SPECTRA_TRY(const Json *axes, f.list("axes"));
    for (std::size_t i = 0; axes != nullptr && i < axes->size(); ++i) {
        SPECTRA_TRY(auto axis, parseAxis((*axes)[i], fmt::format("{}[{}]", f.placeOf("axes"), i)));
        spec.axes.push_back(std::move(axis));
    }
    SPECTRA_TRY(const Json *cells, f.list("cells"));
    if (cells != nullptr) {
        if (!spec.axes.empty())
            return f.wrong("cells", "stands beside \"axes\"", "give one of the two");
        Axis axis{"cell", "Run", {}};
        for (std::size_t i = 0; i < cells->size(); ++i) {
            SPECTRA_TRY(auto value, parseValue((*cells)[i], fmt::format("{}[{}]", f.placeOf("cells"), i)));
            axis.values.push_back(std::move(value));
        }
        SPECTRA_CHECK(checkLabels(axis, f.placeOf("cells")));
        spec.axes.push_back(std::move(axis));
    }
    if (f.has("factorial")) {
        if (!spec.axes.empty())
            return f.wrong("factorial", "stands beside \"axes\" or \"cells\"", "a design has its own runs");
        SPECTRA_TRY(spec.factorial, parseFactorial(f.at("factorial"), f.placeOf("factorial"), spec.axes));
    }
    if (spec.axes.empty())
        return usageError("has nothing that varies", where, "give \"axes\", \"cells\" or \"factorial\"");
    std::set<std::string> names;
    for (const Axis &axis : spec.axes)
        if (!names.insert(axis.name).second)
            return usageError(fmt::format("axis \"{}\" stands twice", axis.name), where);
    SPECTRA_CHECK(parseSeeds(f, spec));
    SPECTRA_CHECK(f.text("baseline", spec.baseline));
    SPECTRA_TRY(const Json *targets, f.list("target_losses"));
    for (std::size_t i = 0; targets != nullptr && i < targets->size(); ++i) {
        if (!(*targets)[i].is_number())
            return f.wrong("target_losses", "is not a list of numbers");
        spec.targetLosses.push_back((*targets)[i].get<double>());
    }
    SPECTRA_TRY(spec.tasks, parseTasks(f, options));
    SPECTRA_CHECK(parseTables(f, spec));
    SPECTRA_CHECK(parseFigures(f, spec));
    SPECTRA_CHECK(parseScaling(f, spec));
    if (f.has("claims")) {
        if (!f.at("claims").is_object())
            return f.wrong("claims", "is not an object of method and label");
        for (const auto &[method, label] : f.at("claims").items()) {
            if (!label.is_string())
                return f.wrong("claims", fmt::format("\"{}\" is not given a label", printableUtf8(method)));
            spec.claims[method] = label.get<std::string>();
        }
    }
    spec.source = json;
    spec.source["base"] = spec.base;
    for (std::size_t i = 0; i < spec.tasks.size(); ++i)
        spec.source["tasks"][i]["data"] = spec.tasks[i].data;
    return spec;
}

Result<StudySpec> readSpec(const fs::path &file, SpecOptions options)
{
    SPECTRA_TRY(const Json json, readJson(file, std::uint64_t(8) << 20));
    options.folder = file.parent_path();
    return parseSpec(json, file.string(), options);
}

} // namespace spectra::study
