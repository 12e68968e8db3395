// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/study/fields.h"

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace spectra::study {

/// One point of an axis: what it sets in the base configuration, as dotted paths ("router.sinkhorn_epsilon").
struct AxisValue {
    std::string label;
    Json set = Json::object();
    std::optional<double> number;    ///< for figures along the axis; given, or the label where it is a number
};

/// What varies in a study: a router, one setting, a size.
struct Axis {
    std::string name, title;
    std::vector<AxisValue> values;
};

/// A figure of a run: a number of its result.json by dotted path, or of its configuration ("config.model.experts").
struct Quantity {
    std::string path, title, unit;
    std::string better = "none";     ///< lower | higher | none
    std::int64_t decimals = -1;      ///< −1: from the interval
    double scale = 1;                ///< shown value = scale · number (100 for per cent)
};

struct TableSpec {
    std::string title;
    std::vector<Quantity> columns;
    std::vector<std::string> rows;   ///< axes whose combinations are the rows; empty: all
    std::map<std::string, std::string> where; ///< axis → label: only these runs
    std::string baseline;            ///< a row's label; empty: the study's
    std::string focus;               ///< the row whose improvement over the others is stated; empty: the first
};

struct FigureSpec {
    std::string kind;                ///< curves: y over training, one curve a row | plane: a point a row | lines: y along an axis | drift: y over the last part of training with its slope
    std::string title;
    Quantity x, y;                   ///< curves and drift: paths in the lines of log.jsonl; lines: x.path is the axis
    std::vector<std::string> rows;
    std::map<std::string, std::string> where;
    bool logX = false, logY = false;
    double share = 0.5;              ///< drift: the last part of training that counts
};

/// L = a·x^(−b) + c over the runs.
struct ScalingSpec {
    std::string title;
    Quantity x, y;
    std::string by;                  ///< axis with a law of its own for each label; empty: one law
    bool offset = true;
};

/// What every finished run is scored on. Its numbers have the paths "tasks.NAME.metrics.METRIC.value".
struct TaskSpec {
    std::string name;                ///< letters, digits, "_" and "-"; given, or the task's own
    std::string task;                ///< as `spectra eval --task` knows it
    std::string title;
    std::string data;                ///< absolute; "$DATA/…" in the file
    std::int64_t shots = -1;         ///< −1: the task's own number
    std::int64_t limit = 0;          ///< the first items only; 0: all
};

/// Parts that are switched on and off together: a two-level design. Each factor is an axis of two values, "NAME" and "-NAME".
struct FactorialSpec {
    std::vector<std::string> factors;
    std::vector<std::string> generators; ///< of a fraction: "E = A B C D"
    std::vector<Quantity> columns;
    std::int64_t order = 2;          ///< highest interaction that is reported
};

/// A study as its file describes it. Strict: an unknown key is an error.
struct StudySpec {
    std::string name, title, about;
    Json base = Json::object();      ///< a training configuration; paths of files absolute
    std::vector<Axis> axes;
    std::optional<FactorialSpec> factorial;
    std::vector<std::uint64_t> seeds = {0, 1, 2};
    std::string baseline;
    std::vector<TableSpec> tables;
    std::vector<FigureSpec> figures;
    std::vector<ScalingSpec> scaling;
    std::vector<double> targetLosses;
    std::vector<TaskSpec> tasks;
    std::map<std::string, std::string> claims; ///< method of the claims file → row's label
    Json source;                     ///< the same as JSON, base put in, reads back to an equal study

    [[nodiscard]] const Axis *axis(const std::string &name) const;
};

struct SpecOptions {
    std::filesystem::path folder;    ///< relative files are seen from here
    std::string data;                ///< takes the place of "$DATA"
    bool keepData = false;           ///< "$DATA" stays as it is: a study that is only read, on a machine without its texts
    std::vector<std::string> settings; ///< "a.b=value" into the base
};

/// Errors: usage (keys, values, labels that stand twice, $DATA without a folder), input (a base file).
[[nodiscard]] Result<StudySpec> parseSpec(const Json &json, const std::string &where, const SpecOptions &options);
/// Reads a file; relative files are seen from its folder.
[[nodiscard]] Result<StudySpec> readSpec(const std::filesystem::path &file, SpecOptions options);

/// A name of a file in a specification made absolute: "$DATA/x", or one that is seen from the specification's folder; `isFile`:
/// relative names are files in any case, else only where such a file is there. Errors (usage): $DATA without a folder.
[[nodiscard]] Result<std::string> placedFile(std::string text, bool isFile, const SpecOptions &options, const std::string &where);
/// The list "tasks". Errors (usage): keys, values, two tasks of one name.
[[nodiscard]] Result<std::vector<TaskSpec>> parseTasks(const Fields &fields, const SpecOptions &options);

/// Puts `value` at a dotted path of a configuration. "router" and "router.type" replace the whole router: options of one
/// method mean nothing to another.
void assign(Json &config, const std::string &path, const Json &value);

} // namespace spectra::study
