// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/statistics/powerlaw.h"
#include "engine/study/table.h"

namespace spectra::study {

/// One curve with its band, or points with their bars. NaN in low and high: one seed, no interval.
struct FigureSeries {
    std::string label;
    std::vector<double> x, y, low, high;
    std::vector<double> xLow, xHigh; ///< planes only
    bool points = false;             ///< marks, not a line
    bool front = false;              ///< plane: not dominated by another
};

/// A picture of a study as plain arrays: whoever draws it needs nothing else.
struct FigureData {
    std::string kind, title, xTitle, yTitle;
    bool logX = false, logY = false;
    std::vector<FigureSeries> series;
    std::vector<std::string> notes;  ///< what is missing and why; fitted laws with their intervals; slopes
};

/// curves: mean over seeds with the 95 % t interval, steps from log.jsonl (long runs in at most 400 bins). plane: the rows' means
/// with intervals, the undominated ones marked by what is better of x and y. lines: means along an axis, a curve for each
/// combination of the other rows. drift: as curves, the last part of training with its least-squares line; the note gives the
/// slope with its interval over seeds. Data that no run has is left out and named in the notes, as are runs that are not done but have
/// a part of their curve. Rows whose inference is not causal say so in their label.
[[nodiscard]] FigureData makeFigure(const Study &study, const FigureSpec &spec);

/// What a study shows whose specification has no "figures" (an empty list: none): training loss, held-out loss, load CV and sequential
/// consistency over training, and the plane of held-out loss and load CV, with every axis among the rows.
[[nodiscard]] std::vector<FigureSpec> defaultFigures(const StudySpec &spec);

struct ScalingLaw {
    std::string label;
    std::vector<double> x, y;        ///< one per run
    std::vector<int> seeds;
    std::optional<PowerLawFit> fit;
    std::string reason;              ///< why there is no fit
    std::vector<std::string> missing; ///< runs that the fit lacks, with their reasons
};
[[nodiscard]] std::vector<ScalingLaw> scalingLaws(const Study &study, const ScalingSpec &spec);
[[nodiscard]] FigureData scalingFigure(const Study &study, const ScalingSpec &spec);
[[nodiscard]] Json scalingJson(const Study &study, const ScalingSpec &spec);

/// Slope of a logged figure over the last `share` of training, per 1,000 steps, over seeds.
struct Drift {
    std::string label;
    std::optional<MeanInterval> slope;
    std::optional<TestResult> test;  ///< against no drift
    std::vector<double> values;      ///< per seed
};
[[nodiscard]] std::vector<Drift> drifts(const Study &study, const FigureSpec &spec);

/// Every point of a figure as CSV: series, x, y, low, high.
[[nodiscard]] std::string figureCsv(const FigureData &figure);

} // namespace spectra::study
