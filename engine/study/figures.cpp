// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/figures.h"

#include "engine/study/tabletext.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

namespace spectra::study {
namespace {

constexpr std::size_t kBins = 400;
const double kNone = std::nan("");
constexpr const char *kNotCausal = " (not causal)";

using Points = std::vector<std::pair<double, double>>;

/// x and y of the lines of a run's log that have both. "step" is the step of a training line and of an evaluation; "tokens" and
/// "seconds" run up over the training steps. Damaged lines (a kill tears the last one) are passed over.
Points readCurve(const std::filesystem::path &folder, const Quantity &x, const Quantity &y)
{
    Points points;
    std::ifstream stream(folder / "log.jsonl", std::ios::binary);
    std::string line;
    double tokens = 0, seconds = 0;
    while (std::getline(stream, line)) {
        if (line.size() > (std::size_t(1) << 24))
            continue;
        const Json json = Json::parse(line, nullptr, false);
        if (!json.is_object())
            continue;
        const auto evaluation = numberAt(json, "evaluation");
        if (!evaluation) {
            tokens += numberAt(json, "tokens").value_or(0);
            seconds += numberAt(json, "seconds").value_or(0);
        } else if (json.contains("stage") && json["stage"] != "training" && json["stage"] != "final") {
            continue; // a calibrated model is no point of the training curve
        }
        const auto value = numberAt(json, y.path);
        std::optional<double> at;
        if (x.path == "step")
            at = evaluation ? evaluation : numberAt(json, "step");
        else if (x.path == "tokens")
            at = tokens;
        else if (x.path == "seconds")
            at = seconds;
        else
            at = numberAt(json, x.path);
        if (value && at)
            points.emplace_back(*at * x.scale, *value * y.scale);
    }
    return points;
}

/// At most kBins points a seed: means over bins of x. All seeds have the same bins, so that one that ended early still lies on the points
/// of the others.
void thin(std::vector<Points> &seeds)
{
    double low = INFINITY, high = -INFINITY;
    bool many = false;
    for (const Points &points : seeds) {
        many = many || points.size() > kBins;
        for (const auto &[x, y] : points) {
            low = std::min(low, x);
            high = std::max(high, x);
        }
    }
    if (!many || !(high > low))
        return;
    const double width = (high - low) / static_cast<double>(kBins);
    for (Points &points : seeds) {
        std::vector<std::pair<double, std::size_t>> bins(kBins);
        for (const auto &[x, y] : points) {
            auto &[sum, count] = bins[std::min(kBins - 1, static_cast<std::size_t>((x - low) / width))];
            sum += y;
            ++count;
        }
        points.clear();
        for (std::size_t b = 0; b < kBins; ++b)
            if (bins[b].second > 0)
                points.emplace_back(low + (static_cast<double>(b) + 0.5) * width, bins[b].first / static_cast<double>(bins[b].second));
    }
}

std::string shownLabel(const Study &study, const Study::Row &row)
{
    return row.label + (isCausal(study, row) ? "" : kNotCausal);
}

void add(FigureSeries &series, double x, const std::vector<double> &values)
{
    const auto m = meanInterval(values);
    series.x.push_back(x);
    series.y.push_back(m->mean);
    series.low.push_back(m->half ? m->mean - *m->half : kNone);
    series.high.push_back(m->half ? m->mean + *m->half : kNone);
}

/// Mean over seeds at every x that a seed has.
FigureSeries overSeeds(const std::string &label, const std::vector<Points> &seeds)
{
    std::map<double, std::vector<double>> byX;
    for (const Points &points : seeds)
        for (const auto &[x, y] : points)
            byX[x].push_back(y);
    FigureSeries series;
    series.label = label;
    for (const auto &[x, values] : byX)
        add(series, x, values);
    return series;
}

std::vector<Points> curvesOf(const Study &study, const Study::Row &row, const FigureSpec &spec, std::vector<std::string> &notes)
{
    std::vector<Points> seeds;
    for (const std::size_t i : row.cells) {
        Points points = readCurve(cellFolder(study.folder, study.cells[i]), spec.x, spec.y);
        if (points.empty())
            notes.push_back(fmt::format("{}, seed {}: {}", row.label, study.cells[i].seed, study.results[i].done ? "not in its log" : study.results[i].reason));
        else if (!study.results[i].done)
            notes.push_back(fmt::format("{}, seed {}: as far as it came ({})", row.label, study.cells[i].seed, study.results[i].reason));
        if (!points.empty())
            seeds.push_back(std::move(points));
    }
    return seeds;
}

/// The last part of a run: from (1 − share) of its last x on.
Points lastPart(const Points &points, double share)
{
    Points out;
    double last = 0;
    for (const auto &[x, y] : points)
        last = std::max(last, x);
    for (const auto &p : points)
        if (p.first >= (1 - share) * last)
            out.push_back(p);
    return out;
}

std::optional<std::pair<double, double>> lineOf(const Points &points)
{
    std::vector<double> x, y;
    for (const auto &[a, b] : points) {
        x.push_back(a);
        y.push_back(b);
    }
    return fitLine(x, y);
}

void addCurves(const Study &study, const FigureSpec &spec, FigureData &figure)
{
    for (const Study::Row &row : study.rows(spec.rows, spec.where)) {
        std::vector<Points> seeds = curvesOf(study, row, spec, figure.notes);
        if (seeds.empty())
            continue;
        thin(seeds);
        figure.series.push_back(overSeeds(shownLabel(study, row), seeds));
    }
}

void addDrift(const Study &study, const FigureSpec &spec, FigureData &figure)
{
    for (const Study::Row &row : study.rows(spec.rows, spec.where)) {
        std::vector<Points> seeds = curvesOf(study, row, spec, figure.notes);
        std::vector<double> slopes, intercepts;
        for (Points &points : seeds) {
            points = lastPart(points, spec.share);
            if (const auto line = lineOf(points)) {
                slopes.push_back(line->first);
                intercepts.push_back(line->second);
            }
        }
        if (seeds.empty())
            continue;
        thin(seeds);
        const std::string label = shownLabel(study, row);
        FigureSeries measured = overSeeds(label, seeds);
        if (const auto slope = meanInterval(slopes); slope && !measured.x.empty()) {
            const auto intercept = meanInterval(intercepts);
            FigureSeries line;
            line.label = label + ", line";
            for (const double x : {measured.x.front(), measured.x.back()}) {
                line.x.push_back(x);
                line.y.push_back(intercept->mean + slope->mean * x);
                line.low.push_back(kNone);
                line.high.push_back(kNone);
            }
            const auto test = oneSampleT(slopes, 0);
            figure.notes.push_back(fmt::format("{}: slope {}{} per 1,000 steps{}", row.label, number(1000 * slope->mean), slope->half ? " ± " + number(1000 * *slope->half, 2) : "",
                                               test ? fmt::format(", p = {:.3g}", test->p) : ", one seed"));
            measured.points = true;
            figure.series.push_back(std::move(measured));
            figure.series.push_back(std::move(line));
        }
    }
}

/// True when `b` is at least as good in both and better in one.
bool dominates(const FigureSeries &b, const FigureSeries &a, const FigureSpec &spec)
{
    const auto gain = [](double other, double own, const Quantity &q) { return q.better == "higher" ? other - own : own - other; };
    const double gx = gain(b.x[0], a.x[0], spec.x), gy = gain(b.y[0], a.y[0], spec.y);
    return gx >= 0 && gy >= 0 && (gx > 0 || gy > 0);
}

void addPlane(const Study &study, const FigureSpec &spec, FigureData &figure)
{
    for (const Study::Row &row : study.rows(spec.rows, spec.where)) {
        const TableCell x = gather(study, row, spec.x), y = gather(study, row, spec.y);
        if (!x.mean || !y.mean) {
            figure.notes.push_back(row.label + ": " + (x.mean ? y.reason : x.reason));
            continue;
        }
        FigureSeries point;
        point.label = shownLabel(study, row);
        point.points = true;
        add(point, x.mean->mean, y.values);
        point.xLow = {x.mean->half ? x.mean->mean - *x.mean->half : kNone};
        point.xHigh = {x.mean->half ? x.mean->mean + *x.mean->half : kNone};
        figure.series.push_back(std::move(point));
    }
    if (spec.x.better == "none" || spec.y.better == "none")
        return;
    for (FigureSeries &a : figure.series)
        a.front = std::none_of(figure.series.begin(), figure.series.end(), [&](const FigureSeries &b) { return dominates(b, a, spec); });
}

void addLines(const Study &study, const FigureSpec &spec, FigureData &figure)
{
    const auto axis = static_cast<std::size_t>(study.spec.axis(spec.x.path) - study.spec.axes.data());
    figure.xTitle = spec.x.title == spec.x.path ? study.spec.axes[axis].title : spec.x.title;
    std::vector<std::string> others;
    std::set<std::string> early;
    for (const std::string &name : spec.rows)
        if (name != spec.x.path)
            others.push_back(name);
    for (const Study::Row &row : study.rows(spec.rows, spec.where)) {
        const Cell &cell = study.cells[row.cells.front()];
        const TableCell y = gather(study, row, spec.y);
        const AxisValue &value = study.spec.axes[axis].values[cell.point[axis]];
        if (!y.mean || !value.number) {
            figure.notes.push_back(row.label + ": " + (value.number ? y.reason : "has no number on this axis"));
            continue;
        }
        const std::string label = cell.label(study.spec, others);
        if (!isCausal(study, row))
            early.insert(label);
        auto series = std::find_if(figure.series.begin(), figure.series.end(), [&](const FigureSeries &s) { return s.label == label; });
        if (series == figure.series.end()) {
            FigureSeries fresh;
            fresh.label = label;
            series = figure.series.insert(figure.series.end(), std::move(fresh));
        }
        add(*series, *value.number, y.values);
    }
    for (FigureSeries &series : figure.series)
        if (early.contains(series.label))
            series.label += kNotCausal;
}

std::vector<double> spread(double low, double high)
{
    std::vector<double> at;
    for (int i = 0; i <= 60; ++i)
        at.push_back(low * std::pow(high / low, i / 60.0));
    return at;
}

std::string intervalText(const char *name, double value, const std::optional<std::pair<double, double>> &interval)
{
    return fmt::format("{} = {}{}", name, number(value, 3), interval ? fmt::format(" [{}, {}]", number(interval->first, 3), number(interval->second, 3)) : "");
}

} // namespace

std::vector<Drift> drifts(const Study &study, const FigureSpec &spec)
{
    std::vector<Drift> all;
    for (const Study::Row &row : study.rows(spec.rows, spec.where)) {
        Drift drift;
        drift.label = row.label;
        std::vector<std::string> ignored;
        for (const Points &points : curvesOf(study, row, spec, ignored))
            if (const auto line = lineOf(lastPart(points, spec.share)))
                drift.values.push_back(1000 * line->first);
        drift.slope = meanInterval(drift.values);
        drift.test = oneSampleT(drift.values, 0);
        all.push_back(std::move(drift));
    }
    return all;
}

FigureData makeFigure(const Study &study, const FigureSpec &spec)
{
    FigureData figure;
    figure.kind = spec.kind;
    figure.title = spec.title;
    const auto heading = [](const Quantity &q) { return q.unit.empty() ? q.title : q.title + " (" + q.unit + ")"; };
    figure.xTitle = heading(spec.x);
    figure.yTitle = heading(spec.y);
    figure.logX = spec.logX;
    figure.logY = spec.logY;
    if (spec.kind == "curves")
        addCurves(study, spec, figure);
    else if (spec.kind == "drift")
        addDrift(study, spec, figure);
    else if (spec.kind == "plane")
        addPlane(study, spec, figure);
    else
        addLines(study, spec, figure);
    return figure;
}

std::vector<FigureSpec> defaultFigures(const StudySpec &spec)
{
    std::vector<std::string> rows;
    for (const Axis &axis : spec.axes)
        rows.push_back(axis.name);
    const Quantity loss{"held_out_loss", "held-out loss", "nats", "lower"}, cv{"metrics.load_cv.value", "load CV", "", "lower"};
    std::vector<FigureSpec> all;
    const auto curves = [&](const char *title, const Quantity &y) {
        FigureSpec figure;
        figure.kind = "curves";
        figure.title = title;
        figure.x = {"step", "step", "", "none"};
        figure.y = y;
        figure.rows = rows;
        all.push_back(std::move(figure));
    };
    curves("Training loss", {"loss", "training loss", "nats", "lower"});
    curves("Held-out loss", loss);
    curves("Load CV over training", cv);
    curves("Sequential consistency over training", {"metrics.sequential_consistency.value", "sequential consistency", "%", "higher", -1, 100});
    FigureSpec plane;
    plane.kind = "plane";
    plane.title = "Loss against balance";
    plane.x = cv;
    plane.y = loss;
    plane.rows = std::move(rows);
    all.push_back(std::move(plane));
    return all;
}

std::vector<ScalingLaw> scalingLaws(const Study &study, const ScalingSpec &spec)
{
    std::vector<ScalingLaw> all;
    const std::vector<std::string> by = spec.by.empty() ? std::vector<std::string>() : std::vector{spec.by};
    for (std::size_t i = 0; i < study.cells.size(); ++i) {
        const std::string label = spec.by.empty() ? study.spec.title : study.cells[i].label(study.spec, by);
        auto law = std::find_if(all.begin(), all.end(), [&](const ScalingLaw &l) { return l.label == label; });
        if (law == all.end()) {
            ScalingLaw fresh;
            fresh.label = label;
            law = all.insert(all.end(), std::move(fresh));
        }
        const std::string run = fmt::format("{}: ", study.cells[i].id);
        if (!study.results[i].done) {
            law->reason = study.results[i].reason;
            law->missing.push_back(run + law->reason);
            continue;
        }
        const auto x = study.results[i].number(spec.x.path), y = study.results[i].number(spec.y.path);
        if (!x || !y) {
            law->reason = "a run has no " + (x ? spec.y.path : spec.x.path);
            law->missing.push_back(run + study.results[i].absence(x ? spec.y.path : spec.x.path));
            continue;
        }
        law->x.push_back(*x * spec.x.scale);
        law->y.push_back(*y * spec.y.scale);
        law->seeds.push_back(static_cast<int>(std::find(study.spec.seeds.begin(), study.spec.seeds.end(), study.cells[i].seed) - study.spec.seeds.begin()));
    }
    for (ScalingLaw &law : all) {
        if (!law.x.empty()) {
            const auto [low, high] = std::minmax_element(law.x.begin(), law.x.end());
            law.fit = bootstrapPowerLaw(law.x, law.y, law.seeds, *low > 0 ? spread(*low, *high) : std::vector<double>(), spec.offset);
        }
        if (!law.fit && law.reason.empty())
            law.reason = spec.offset ? "needs runs at three sizes or more" : "needs runs at two sizes or more";
        else if (law.fit)
            law.reason.clear();
    }
    return all;
}

FigureData scalingFigure(const Study &study, const ScalingSpec &spec)
{
    FigureData figure;
    figure.kind = "scaling";
    figure.title = spec.title;
    figure.xTitle = spec.x.title;
    figure.yTitle = spec.y.title;
    figure.logX = true;
    for (const ScalingLaw &law : scalingLaws(study, spec)) {
        std::map<double, std::vector<double>> byX;
        for (std::size_t i = 0; i < law.x.size(); ++i)
            byX[law.x[i]].push_back(law.y[i]);
        FigureSeries measured;
        measured.label = law.label;
        measured.points = true;
        for (const auto &[x, values] : byX)
            add(measured, x, values);
        if (!measured.x.empty())
            figure.series.push_back(measured);
        if (!law.fit) {
            figure.notes.push_back(law.label + ": no law (" + law.reason + ")");
            continue;
        }
        FigureSeries curve;
        curve.label = law.label + ", fit";
        curve.x = spread(measured.x.front(), measured.x.back());
        for (std::size_t i = 0; i < curve.x.size(); ++i) {
            curve.y.push_back(law.fit->law.at(curve.x[i]));
            curve.low.push_back(law.fit->low.empty() ? kNone : law.fit->low[i]);
            curve.high.push_back(law.fit->high.empty() ? kNone : law.fit->high[i]);
        }
        figure.series.push_back(std::move(curve));
        std::string note = fmt::format("{}: L = a·x^(−b){}: {}, {}", law.label, spec.offset ? " + c" : "", intervalText("a", law.fit->law.a, law.fit->a),
                                       intervalText("b", law.fit->law.b, law.fit->b));
        if (spec.offset)
            note += ", " + intervalText("c", law.fit->law.c, law.fit->c);
        note += law.fit->b ? "; 95 % intervals from resampling seeds" : "; one seed, no interval";
        if (!law.missing.empty())
            note += fmt::format("; {} of {} runs are not in it ({})", law.missing.size(), law.missing.size() + law.x.size(), law.missing.front());
        figure.notes.push_back(std::move(note));
    }
    return figure;
}

Json scalingJson(const Study &study, const ScalingSpec &spec)
{
    const auto interval = [](const std::optional<std::pair<double, double>> &i) { return i ? Json{i->first, i->second} : Json(nullptr); };
    Json json{{"title", spec.title}, {"x", spec.x.path}, {"y", spec.y.path}, {"offset", spec.offset}, {"laws", Json::array()}};
    for (const ScalingLaw &law : scalingLaws(study, spec)) {
        Json entry{{"label", law.label}, {"x", law.x}, {"y", law.y}, {"seed", law.seeds}};
        if (law.fit) {
            entry["a"] = law.fit->law.a;
            entry["b"] = law.fit->law.b;
            entry["c"] = spec.offset ? Json(law.fit->law.c) : Json(nullptr);
            entry["a_interval"] = interval(law.fit->a);
            entry["b_interval"] = interval(law.fit->b);
            entry["c_interval"] = interval(law.fit->c);
            entry["squares"] = law.fit->law.squares;
            entry["resamples"] = law.fit->resamples;
        } else {
            entry["reason"] = law.reason;
        }
        if (!law.missing.empty())
            entry["missing"] = law.missing;
        json["laws"].push_back(std::move(entry));
    }
    return json;
}

std::string figureCsv(const FigureData &figure)
{
    const auto text = [](double v) { return std::isfinite(v) ? fmt::format("{}", v) : std::string(); };
    std::string out = fmt::format("series,{},{},low,high\n", csvText(figure.xTitle), csvText(figure.yTitle));
    for (const FigureSeries &s : figure.series)
        for (std::size_t i = 0; i < s.x.size(); ++i)
            out += fmt::format("{},{},{},{},{}\n", csvText(s.label), text(s.x[i]), text(s.y[i]), text(s.low[i]), text(s.high[i]));
    return out;
}

} // namespace spectra::study
