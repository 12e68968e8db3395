// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/study/spec.h"

namespace spectra::study {

/// One run of a study.
struct Cell {
    std::string id;                  ///< plain file name, unique: "spectra_s0"
    std::vector<std::size_t> point;  ///< per axis the index of its value
    std::uint64_t seed = 0;
    Json config;                     ///< what `spectra train` gets
    std::string text;                ///< the same as the file's text
    std::string sha256;              ///< of the configuration with sorted keys, its own name left out

    [[nodiscard]] std::string label(const StudySpec &spec, const std::vector<std::string> &axes) const; ///< "ε=0.1, T=8"
};

/// Every combination of the axes (a fraction's where the design has generators) with every seed; seeds innermost. Weights
/// and data order of a run follow from its seed alone, so that runs of one seed start alike and see the same text in the
/// same order. Errors (usage): two axes that set the same key, a generator that cannot be read, more than 10,000 runs.
[[nodiscard]] Result<std::vector<Cell>> makeCells(const StudySpec &spec);

/// SHA-256 of a run's configuration: keys sorted, the run's own name left out.
[[nodiscard]] std::string configSha256(const Json &config);

/// Letters, digits and hyphens of a label: "-GRU" → "no-gru".
[[nodiscard]] std::string slug(const std::string &label);

/// A generator "E = A B C": the product of the signs (+1 on, −1 off) of the right side is the sign of the left one.
struct Generator {
    std::size_t factor = 0;
    std::vector<std::size_t> product;
};
[[nodiscard]] Result<std::vector<Generator>> parseGenerators(const FactorialSpec &design);

} // namespace spectra::study
