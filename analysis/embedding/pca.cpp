// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/pca.h"

#include "engine/core/random.h"

#include <Eigen/Dense>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

namespace spectra {
namespace {

using Matrix = Eigen::MatrixXd;
constexpr std::int64_t kFullColumns = 640;
constexpr Eigen::Index kBlock = 512;

struct Decomposition {
    Matrix axes;              ///< [d,c]
    Eigen::VectorXd variance; ///< [c]
};

/// Visits centred rows in blocks of doubles; false when stopped.
template <typename Visit>
bool centredBlocks(MatrixView x, const Eigen::RowVectorXd &mean, const std::stop_token &stop, const Visit &visit)
{
    using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const RowMatrix> map(x.data, x.rows, x.columns);
    for (Eigen::Index first = 0; first < x.rows; first += kBlock) {
        if (stop.stop_requested())
            return false;
        const Eigen::Index rows = std::min(kBlock, x.rows - first);
        const Matrix block = map.middleRows(first, rows).cast<double>().rowwise() - mean;
        visit(first, block);
    }
    return true;
}

void leading(const Eigen::VectorXd &values, const Matrix &vectors, int count, double scale, Decomposition &to)
{
    const Eigen::Index n = values.size();
    to.axes = vectors.rightCols(count).rowwise().reverse();
    to.variance.resize(count);
    for (Eigen::Index c = 0; c < count; ++c)
        to.variance[c] = std::max(0.0, values[n - 1 - c] * scale);
}

bool full(MatrixView x, const Eigen::RowVectorXd &mean, int count, const std::stop_token &stop, Decomposition &to)
{
    const double scale = 1.0 / static_cast<double>(x.rows - 1);
    if (x.columns <= x.rows) {
        Matrix covariance = Matrix::Zero(x.columns, x.columns);
        if (!centredBlocks(x, mean, stop, [&](Eigen::Index, const Matrix &b) {
                covariance.selfadjointView<Eigen::Lower>().rankUpdate(b.transpose());
            }))
            return false;
        const Eigen::SelfAdjointEigenSolver<Matrix> solver(covariance);
        leading(solver.eigenvalues(), solver.eigenvectors(), count, scale, to);
        return !stop.stop_requested();
    }
    // Fewer rows than columns: the Gram matrix of the rows has the same spectrum.
    Matrix centred(x.rows, x.columns);
    if (!centredBlocks(x, mean, stop,
                       [&](Eigen::Index first, const Matrix &b) { centred.middleRows(first, b.rows()) = b; }))
        return false;
    const Matrix gram = centred * centred.transpose();
    const Eigen::SelfAdjointEigenSolver<Matrix> solver(gram);
    leading(solver.eigenvalues(), solver.eigenvectors(), count, scale, to);
    Matrix axes = centred.transpose() * to.axes;
    for (Eigen::Index c = 0; c < axes.cols(); ++c)
        if (const double norm = axes.col(c).norm(); norm > 0)
            axes.col(c) /= norm;
    to.axes = axes;
    return !stop.stop_requested();
}

Matrix orthonormal(const Matrix &m)
{
    const Eigen::HouseholderQR<Matrix> qr(m);
    return qr.householderQ() * Matrix::Identity(m.rows(), m.cols());
}

bool randomized(MatrixView x, const Eigen::RowVectorXd &mean, int count, std::uint64_t seed,
                const std::stop_token &stop, Decomposition &to)
{
    constexpr int passes = 7, extra = 10;
    const Eigen::Index width = std::min<Eigen::Index>(count + extra, std::min(x.rows, x.columns));
    Random random(seed, 0x706361ull);
    Matrix basis(x.columns, width);
    for (Eigen::Index c = 0; c < width; ++c)
        for (Eigen::Index r = 0; r < x.columns; ++r)
            basis(r, c) = random.normal();
    basis = orthonormal(basis);
    Matrix small = Matrix::Zero(width, width);
    for (int pass = 0; pass <= passes; ++pass) {
        const bool last = pass == passes;
        Matrix next = Matrix::Zero(x.columns, width);
        if (!centredBlocks(x, mean, stop, [&](Eigen::Index, const Matrix &b) {
                const Matrix projected = b * basis;
                if (last)
                    small.noalias() += projected.transpose() * projected;
                else
                    next.noalias() += b.transpose() * projected;
            }))
            return false;
        if (!last)
            basis = orthonormal(next);
    }
    const Eigen::SelfAdjointEigenSolver<Matrix> solver(small);
    leading(solver.eigenvalues(), solver.eigenvectors(), count, 1.0 / static_cast<double>(x.rows - 1), to);
    to.axes = basis * to.axes;
    return true;
}

} // namespace

Result<PcaResult> pca(MatrixView points, const PcaOptions &options, std::stop_token stop)
{
    const auto began = std::chrono::steady_clock::now();
    if (points.rows < 1 || points.columns < 1 || points.data == nullptr)
        return inputError("there are no points to project");
    if (options.components < 1)
        return usageError("the number of components is at least 1", "components");
    PcaResult result;
    result.rows = points.rows;
    result.columns = points.columns;
    Eigen::RowVectorXd mean = Eigen::RowVectorXd::Zero(points.columns);
    for (std::int64_t i = 0; i < points.rows; ++i)
        for (std::int64_t j = 0; j < points.columns; ++j) {
            if (!std::isfinite(points(i, j)))
                return inputError("a value is NaN or infinite",
                                  "row " + std::to_string(i) + ", column " + std::to_string(j));
            mean[j] += static_cast<double>(points(i, j));
        }
    mean /= static_cast<double>(points.rows);
    for (std::int64_t j = 0; j < points.columns; ++j)
        result.mean.push_back(static_cast<float>(mean[j]));
    result.components = static_cast<int>(std::min<std::int64_t>({options.components, points.rows, points.columns}));
    double total = 0;
    if (!centredBlocks(points, mean, stop, [&](Eigen::Index, const Matrix &b) { total += b.squaredNorm(); }))
        return cancelledError();

    Decomposition d;
    if (points.rows < 2) {
        d.axes = Matrix::Identity(points.columns, result.components);
        d.variance = Eigen::VectorXd::Zero(result.components);
    } else {
        const bool small = std::min(points.columns, points.rows) <= kFullColumns;
        const bool direct = options.solver == PcaSolver::full || (options.solver == PcaSolver::automatic && small);
        if (!(direct ? full(points, mean, result.components, stop, d)
                     : randomized(points, mean, result.components, options.seed, stop, d)))
            return cancelledError();
    }
    for (Eigen::Index c = 0; c < d.axes.cols(); ++c) {
        Eigen::Index largest = 0;
        d.axes.col(c).cwiseAbs().maxCoeff(&largest);
        if (d.axes(largest, c) < 0)
            d.axes.col(c) = -d.axes.col(c);
    }
    const Eigen::Index count = result.components;
    result.scores.resize(static_cast<std::size_t>(points.rows * count));
    if (!centredBlocks(points, mean, stop, [&](Eigen::Index first, const Matrix &b) {
            const Matrix projected = b * d.axes;
            for (Eigen::Index r = 0; r < projected.rows(); ++r)
                for (Eigen::Index c = 0; c < count; ++c)
                    result.scores[static_cast<std::size_t>((first + r) * count + c)] =
                        static_cast<float>(projected(r, c));
        }))
        return cancelledError();
    for (Eigen::Index c = 0; c < count; ++c) {
        for (Eigen::Index j = 0; j < points.columns; ++j)
            result.axes.push_back(static_cast<float>(d.axes(j, c)));
        result.explainedVariance.push_back(d.variance[c]);
        const double all = points.rows > 1 ? total / static_cast<double>(points.rows - 1) : 0;
        result.explainedVarianceRatio.push_back(all > 0 ? d.variance[c] / all : 0);
    }
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return result;
}

} // namespace spectra
