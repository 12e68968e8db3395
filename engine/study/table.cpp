// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

namespace spectra::study {
namespace {

constexpr std::string_view kQuestions[] = {"same base model", "same expert architecture", "same data order", "same steps", "same hyper-parameters", "same evaluation"};

/// Which question a key of the configuration belongs to; −1: none (the router itself, names, what is only recorded).
int questionOf(const std::string &key)
{
    static const std::set<std::string> experts = {"model.experts", "model.top_k", "model.shared", "model.granularity", "model.moe_layers", "model.intermediate",
                                                  "model.freeze_shared"};
    static const std::set<std::string> steps = {"training.steps", "training.accumulation", "training.batch_sequences", "training.sequence_length"};
    static const std::set<std::string> recorded = {"training.seed", "training.data_seed", "training.target_losses"};
    if (experts.contains(key))
        return 1;
    if (key.starts_with("model.") || key.starts_with("tokenizer."))
        return 0;
    if (key.starts_with("data."))
        return 2;
    if (steps.contains(key))
        return 3;
    if (recorded.contains(key) || key == "name" || key.starts_with("router") || key.starts_with("checkpoint."))
        return -1;
    if (key.starts_with("evaluation."))
        return 5;
    return 4;
}

double meanOf(const std::vector<double> &v)
{
    double sum = 0;
    for (const double x : v)
        sum += x;
    return sum / static_cast<double>(v.size());
}

std::optional<double> atSeed(const TableCell &cell, std::uint64_t seed)
{
    for (std::size_t i = 0; i < cell.seeds.size(); ++i)
        if (cell.seeds[i] == seed)
            return cell.values[i];
    return std::nullopt;
}

/// Values of both on the seeds that both have, in one order.
std::pair<std::vector<double>, std::vector<double>> shared(const TableCell &a, const TableCell &b)
{
    std::pair<std::vector<double>, std::vector<double>> both;
    for (std::size_t i = 0; i < a.seeds.size(); ++i)
        if (const auto other = atSeed(b, a.seeds[i])) {
            both.first.push_back(a.values[i]);
            both.second.push_back(*other);
        }
    return both;
}

void compare(TableCell &cell, const TableCell &baseline)
{
    if (!cell.mean || !baseline.mean)
        return;
    const auto [own, theirs] = shared(cell, baseline);
    // Runs of one seed start from the same dense weights and see the same text: their difference has less noise than either.
    if (own.size() >= 2) {
        cell.test = pairedT(own, theirs);
        cell.testName = "paired t";
    } else {
        cell.test = welchT(cell.values, baseline.values);
        cell.testName = cell.test ? "Welch t" : "";
    }
    const bool paired = !own.empty();
    const double base = paired ? meanOf(theirs) : baseline.mean->mean;
    cell.difference = (paired ? meanOf(own) : cell.mean->mean) - base;
    if (base != 0)
        cell.relative = *cell.difference / std::abs(base);
    cell.cohensD = cohensD(cell.values, baseline.values);
    cell.cliffsDelta = cliffsDelta(cell.values, baseline.values);
}

double sign(const Quantity &column)
{
    return column.better == "higher" ? 1 : -1;
}

void markBest(StudyTable &table)
{
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
        if (table.columns[c].better == "none")
            continue;
        std::optional<double> best;
        for (const TableRow &row : table.rows)
            if (const auto &m = row.cells[c].mean; m && (!best || sign(table.columns[c]) * (m->mean - *best) > 0))
                best = m->mean;
        for (TableRow &row : table.rows)
            row.cells[c].best = best && row.cells[c].mean && row.cells[c].mean->mean == *best;
    }
}

/// A figure of several rows seed by seed, so that its interval is one over seeds. Only seeds that every row has count; without
/// one it comes from the means alone.
std::optional<MeanInterval> overSeeds(const std::vector<const TableCell *> &cells, const std::function<std::optional<double>(const std::vector<double> &)> &figure)
{
    if (cells.empty())
        return std::nullopt;
    std::vector<double> values;
    for (const std::uint64_t seed : cells.front()->seeds) {
        std::vector<double> row;
        for (const TableCell *cell : cells)
            if (const auto v = atSeed(*cell, seed))
                row.push_back(*v);
        if (row.size() == cells.size())
            if (const auto v = figure(row))
                values.push_back(*v);
    }
    if (!values.empty())
        return meanInterval(values);
    std::vector<double> means;
    for (const TableCell *cell : cells)
        means.push_back(cell->mean->mean);
    const auto v = figure(means);
    return v ? meanInterval(std::span(&*v, 1)) : std::nullopt;
}

/// 100·(other − own)/|other| where lower is better, the opposite sign where higher is: positive is an improvement.
std::optional<double> improvement(double own, double other, const Quantity &column)
{
    if (other == 0)
        return std::nullopt;
    return 100 * sign(column) * (own - other) / std::abs(other);
}

void summarise(StudyTable &table, std::size_t focus)
{
    const std::string &name = table.rows[focus].label;
    SummaryRow average{"Average of all rows", false, {}, {}};
    SummaryRow overAverage{fmt::format("Improvement of {} over the others' average", name), true, {}, {}};
    SummaryRow overBest{fmt::format("Improvement of {} over the best other", name), true, {}, {}};
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
        const Quantity &column = table.columns[c];
        std::vector<const TableCell *> all, own, others;
        const TableRow *best = nullptr;
        for (std::size_t r = 0; r < table.rows.size(); ++r) {
            const TableCell &cell = table.rows[r].cells[c];
            if (!cell.mean)
                continue;
            all.push_back(&cell);
            (r == focus ? own : others).push_back(&cell);
            if (r != focus && (best == nullptr || sign(column) * (cell.mean->mean - best->cells[c].mean->mean) > 0))
                best = &table.rows[r];
        }
        average.values.push_back(overSeeds(all, [](const std::vector<double> &v) { return std::optional(meanOf(v)); }));
        average.notes.push_back(all.empty() ? "no row measured it" : all.size() < table.rows.size() ? fmt::format("of the {} rows that measured it", all.size()) : "");
        std::string why = column.better == "none" ? "neither direction is better" : own.empty() ? "not measured for " + name : others.empty() ? "no other row measured it" : "";
        if (!why.empty()) {
            for (SummaryRow *row : {&overAverage, &overBest}) {
                row->values.emplace_back();
                row->notes.push_back(why);
            }
            continue;
        }
        std::vector<const TableCell *> ordered = own;
        ordered.insert(ordered.end(), others.begin(), others.end());
        overAverage.values.push_back(overSeeds(ordered, [&](const std::vector<double> &v) {
            return improvement(v.front(), meanOf({v.begin() + 1, v.end()}), column);
        }));
        overAverage.notes.push_back(overAverage.values.back() ? "" : "the average is 0");
        overBest.values.push_back(overSeeds({own.front(), &best->cells[c]}, [&](const std::vector<double> &v) { return improvement(v[0], v[1], column); }));
        overBest.notes.push_back(overBest.values.back() ? best->label : "the best other is 0");
    }
    table.summary = {std::move(average), std::move(overAverage), std::move(overBest)};
}

Result<std::size_t> findRow(const StudyTable &table, const std::string &label, const std::string &what)
{
    for (std::size_t i = 0; i < table.rows.size(); ++i)
        if (table.rows[i].label == label)
            return i;
    std::vector<std::string_view> names;
    for (const TableRow &row : table.rows)
        names.push_back(row.label);
    const std::string near = nearestName(label, names);
    return usageError(fmt::format("there is no row \"{}\"", label), fmt::format("table \"{}\": {}", table.title, what), near.empty() ? "" : "did you mean \"" + near + "\"?");
}

} // namespace

bool isCausal(const Study &study, const Study::Row &row)
{
    return std::none_of(row.cells.begin(), row.cells.end(), [&](std::size_t i) {
        const Json *causal = valueAt(study.results[i].result, "causal");
        return causal != nullptr && *causal == false;
    });
}

TableCell gather(const Study &study, const Study::Row &row, const Quantity &quantity)
{
    TableCell cell;
    std::vector<double> chances;
    for (const std::size_t i : row.cells) {
        const CellResult &result = study.results[i];
        const std::string seed = fmt::format("seed {}: ", study.cells[i].seed);
        const auto value = result.done ? result.number(quantity.path) : std::nullopt;
        if (!value) {
            cell.missing.push_back(seed + result.absence(quantity.path));
            continue;
        }
        cell.values.push_back(*value * quantity.scale);
        cell.seeds.push_back(study.cells[i].seed);
        if (quantity.path.ends_with(".value"))
            if (const auto chance = result.number(quantity.path.substr(0, quantity.path.size() - 5) + "chance"))
                chances.push_back(*chance * quantity.scale);
    }
    cell.mean = meanInterval(cell.values);
    if (!chances.empty() && chances.size() == cell.values.size())
        cell.chance = meanOf(chances);
    if (!cell.mean)
        cell.reason = cell.missing.empty() ? "not run" : cell.missing.front();
    return cell;
}

Comparability compareConfigs(const Study &study, const std::vector<Study::Row> &rows)
{
    Comparability out;
    std::set<std::string> declared;
    for (const Axis &axis : study.spec.axes)
        for (const AxisValue &value : axis.values)
            for (const auto &[path, inner] : value.set.items())
                declared.insert(path);
    const auto isDeclared = [&](const std::string &key) {
        return std::any_of(declared.begin(), declared.end(), [&](const std::string &d) { return key == d || key.starts_with(d + "."); });
    };
    // Per key the values by row; a run that has not begun shows what it was given, without defaults: only keys that every
    // compared configuration has, or runs that are done, can be told apart.
    const bool anyDone = std::any_of(rows.begin(), rows.end(), [&](const Study::Row &row) {
        return std::any_of(row.cells.begin(), row.cells.end(), [&](std::size_t i) { return study.results[i].done; });
    });
    std::vector<std::string> order;
    std::map<std::string, std::vector<std::pair<std::string, std::set<std::string>>>> values;
    std::size_t counted = 0;
    for (const Study::Row &row : rows) {
        std::vector<std::pair<std::string, Json>> leaves;
        bool used = false;
        for (const std::size_t i : row.cells) {
            if (anyDone && !study.results[i].done)
                continue;
            used = true;
            for (auto &[key, value] : flattened(study.results[i].config)) {
                auto &list = values[key];
                if (list.empty())
                    order.push_back(key);
                if (list.empty() || list.back().first != row.label)
                    list.emplace_back(row.label, std::set<std::string>());
                list.back().second.insert(value.is_string() ? value.get<std::string>() : value.dump());
            }
        }
        counted += used;
    }
    bool same[std::size(kQuestions)];
    std::fill(std::begin(same), std::end(same), true);
    for (const std::string &key : order) {
        const auto &list = values[key];
        // A dense model has one feed-forward block where the others have experts, whatever its configuration says about them.
        const bool dense = key == "router.type" && std::any_of(list.begin(), list.end(), [](const auto &v) { return v.second.contains("dense"); });
        const int question = dense ? 1 : questionOf(key);
        if (question < 0)
            continue;
        const bool equal = list.size() == counted && std::all_of(list.begin(), list.end(), [&](const auto &v) { return v.second == list.front().second; })
            && list.front().second.size() == 1;
        if (equal)
            continue;
        const auto at = static_cast<std::size_t>(question);
        same[at] = false;
        Difference d{key, std::string(kQuestions[at]), isDeclared(key), {}};
        for (const auto &[label, texts] : list) {
            std::string text;
            for (const std::string &t : texts)
                text += (text.empty() ? "" : " / ") + t;
            d.values.emplace_back(label, text);
        }
        out.differences.push_back(std::move(d));
    }
    for (std::size_t q = 0; q < std::size(kQuestions); ++q)
        out.answers.emplace_back(kQuestions[q], same[q]);
    bool seeds = true;
    std::optional<std::set<std::uint64_t>> first;
    for (const Study::Row &row : rows) {
        std::set<std::uint64_t> done;
        for (const std::size_t i : row.cells)
            if (study.results[i].done)
                done.insert(study.cells[i].seed);
        if (!first)
            first = done;
        seeds = seeds && done == *first;
    }
    out.answers.emplace_back("same seeds", seeds);
    return out;
}

Result<StudyTable> makeTable(const Study &study, const TableSpec &spec)
{
    StudyTable table;
    table.title = spec.title;
    table.columns = spec.columns;
    const std::vector<Study::Row> rows = study.rows(spec.rows, spec.where);
    if (rows.empty())
        return usageError("has no rows", "table \"" + spec.title + "\"");
    for (const std::string &name : spec.rows)
        table.rowsTitle += (table.rowsTitle.empty() ? "" : ", ") + study.spec.axis(name)->title;
    for (const Study::Row &row : rows) {
        TableRow out{row.label, false, {}};
        for (const Quantity &column : spec.columns)
            out.cells.push_back(gather(study, row, column));
        out.causal = isCausal(study, row);
        table.rows.push_back(std::move(out));
    }
    table.baseline = spec.baseline.empty() ? study.spec.baseline : spec.baseline;
    if (!table.baseline.empty()) {
        SPECTRA_TRY(const std::size_t base, findRow(table, table.baseline, "baseline"));
        table.rows[base].baseline = true;
        std::vector<double> p;
        for (std::size_t r = 0; r < table.rows.size(); ++r)
            for (std::size_t c = 0; r != base && c < table.columns.size(); ++c) {
                compare(table.rows[r].cells[c], table.rows[base].cells[c]);
                if (const auto &test = table.rows[r].cells[c].test)
                    p.push_back(test->p);
            }
        table.tests = p.size();
        const std::vector<double> adjusted = holm(p);
        std::size_t next = 0;
        for (TableRow &row : table.rows)
            for (TableCell &cell : row.cells)
                if (cell.test)
                    cell.adjusted = adjusted[next++];
    }
    markBest(table);
    std::size_t focus = 0;
    if (!spec.focus.empty()) {
        SPECTRA_TRY(focus, findRow(table, spec.focus, "focus"));
    }
    summarise(table, focus);
    table.comparability = compareConfigs(study, rows);
    return table;
}

} // namespace spectra::study
