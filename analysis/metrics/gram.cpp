// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/gram.h"

#include "analysis/metrics/loggamma.h"

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace spectra {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

std::string_view gramObjectKey(GramObject object)
{
    switch (object) {
    case GramObject::routing:
        return "routing";
    case GramObject::expression:
        return "expression";
    case GramObject::routerWeights:
        return "router_weights";
    case GramObject::expertInput:
        return "expert_input";
    case GramObject::expertOutput:
        return "expert_output";
    }
    return {};
}

std::vector<double> gramMatrix(MatrixView vectors)
{
    const Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> map(
        vectors.data, vectors.rows, vectors.columns);
    RowMatrix unit = map.cast<double>();
    for (Eigen::Index i = 0; i < unit.rows(); ++i) {
        const double norm = unit.row(i).norm();
        if (norm > 0)
            unit.row(i) /= norm;
    }
    std::vector<double> gram(static_cast<std::size_t>(vectors.rows * vectors.rows));
    Eigen::Map<RowMatrix>(gram.data(), vectors.rows, vectors.rows).noalias() = unit * unit.transpose();
    return gram;
}

std::optional<GramFigures> gramFigures(std::span<const double> gram, std::int64_t experts, bool eigenvalues)
{
    const auto e = static_cast<std::size_t>(std::max<std::int64_t>(experts, 0));
    if (e == 0 || gram.size() < e * e)
        return std::nullopt;
    double squares = 0, absolute = 0, sum = 0, sum2 = 0;
    for (std::size_t i = 0; i < e; ++i)
        for (std::size_t j = 0; j < e; ++j) {
            const double g = gram[i * e + j];
            if (!std::isfinite(g))
                return std::nullopt;
            const double off = g - (i == j ? 1.0 : 0.0);
            squares += off * off;
            if (i != j) {
                absolute += std::abs(g);
                sum += g;
                sum2 += g * g;
            }
        }
    GramFigures figures;
    const auto n = static_cast<double>(e);
    figures.orthogonality = 1 - std::sqrt(squares) / (n * std::numbers::sqrt2);
    if (e >= 2) {
        const double pairs = n * (n - 1);
        figures.offDiagonalMeanAbs = absolute / pairs;
        figures.similarityMean = sum / pairs;
        figures.similarityStd = std::sqrt(std::max(0.0, sum2 / pairs - (sum / pairs) * (sum / pairs)));
        figures.diversity = 1 - sum / pairs;
    }
    if (!eigenvalues)
        return figures;
    const Eigen::Map<const RowMatrix> matrix(gram.data(), experts, experts);
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(0.5 * (matrix + matrix.transpose()),
                                                                Eigen::EigenvaluesOnly);
    const Eigen::VectorXd values = solver.eigenvalues();
    figures.spectrum.assign(values.data(), values.data() + values.size());
    std::reverse(figures.spectrum.begin(), figures.spectrum.end());
    // Gram tables are stored in float32: below this a smallest eigenvalue is rounding.
    const double floor = 1e-6 * figures.spectrum.front();
    if (figures.spectrum.back() > floor && floor > 0) {
        figures.condition = figures.spectrum.front() / figures.spectrum.back();
        double logDet = 0;
        for (const double value : figures.spectrum)
            logDet += std::log(value);
        figures.logDet = logDet;
    }
    return figures;
}

double gramOrthogonalityChance(std::int64_t experts, std::int64_t dimension)
{
    if (experts < 1 || dimension < 1)
        return 0;
    const auto e = static_cast<double>(experts);
    return 1 - std::sqrt((e - 1) / (2 * e * static_cast<double>(dimension)));
}

double absCosineChance(std::int64_t dimension)
{
    if (dimension < 1)
        return 0;
    const double d = static_cast<double>(dimension);
    return std::exp(logGamma(d / 2) - logGamma((d + 1) / 2)) / std::sqrt(std::numbers::pi);
}

} // namespace spectra
