// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/statebasis.h"

#include "engine/core/random.h"

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>

namespace spectra {

// Subspace iteration with Rayleigh-Ritz steps (Golub and Van Loan, Matrix Computations, section 8.2.4) on the smaller of
// the covariance and the Gram matrix: only the leading axes are wanted, and both may have a thousand rows.
StateBasis fitStateBasis(std::span<const float> rows, std::int64_t width, int components)
{
    using Matrix = Eigen::MatrixXd;
    using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    StateBasis basis;
    basis.mean.assign(static_cast<std::size_t>(width), 0.0F);
    basis.axes.assign(static_cast<std::size_t>(width * components), 0.0F);
    const std::int64_t n = width > 0 ? static_cast<std::int64_t>(rows.size()) / width : 0;
    if (n == 0)
        return basis;
    Matrix x = Eigen::Map<const RowMajor>(rows.data(), n, width).cast<double>();
    const Eigen::RowVectorXd mean = x.colwise().mean();
    for (std::int64_t i = 0; i < width; ++i)
        basis.mean[static_cast<std::size_t>(i)] = static_cast<float>(mean(i));
    x.rowwise() -= mean;
    const bool gram = n < width;
    const Matrix c = gram ? Matrix(x * x.transpose()) : Matrix(x.transpose() * x);
    const std::int64_t size = c.rows();
    const std::int64_t block = std::min<std::int64_t>(size, components + 8);
    Matrix q(size, block);
    Random random(1);
    for (std::int64_t j = 0; j < block; ++j)
        for (std::int64_t i = 0; i < size; ++i)
            q(i, j) = random.normal();
    Eigen::VectorXd values = Eigen::VectorXd::Zero(block);
    for (int step = 0; step < 300; ++step) {
        q = Eigen::HouseholderQR<Matrix>(q).householderQ() * Matrix::Identity(size, block);
        const Matrix cq = c * q;
        const Eigen::SelfAdjointEigenSolver<Matrix> ritz(q.transpose() * cq);
        const Eigen::VectorXd now = ritz.eigenvalues().reverse();
        const Matrix turn = ritz.eigenvectors().rowwise().reverse();
        const Matrix vectors = q * turn, image = cq * turn;
        const std::int64_t wanted = std::min<std::int64_t>(components, block);
        const double residual = (image.leftCols(wanted) - vectors.leftCols(wanted) * now.head(wanted).asDiagonal()).colwise().norm().maxCoeff();
        values = now;
        q = vectors;
        if (residual <= 1e-7 * std::max(now(0), 1e-300))
            break;
        q = image;
    }
    q = Eigen::HouseholderQR<Matrix>(q).householderQ() * Matrix::Identity(size, block);
    const Eigen::SelfAdjointEigenSolver<Matrix> ritz(q.transpose() * c * q);
    q = q * ritz.eigenvectors().rowwise().reverse();
    values = ritz.eigenvalues().reverse();
    for (std::int64_t j = 0; j < std::min<std::int64_t>(components, block); ++j) {
        if (values(j) <= 1e-12 * std::max(values(0), 1e-300))
            break;
        Eigen::VectorXd axis = gram ? Eigen::VectorXd(x.transpose() * q.col(j)) : Eigen::VectorXd(q.col(j));
        axis.normalize();
        Eigen::Index largest = 0;
        axis.cwiseAbs().maxCoeff(&largest);
        if (axis(largest) < 0)
            axis = -axis;
        for (std::int64_t i = 0; i < width; ++i)
            basis.axes[static_cast<std::size_t>(j * width + i)] = static_cast<float>(axis(i));
    }
    return basis;
}

std::vector<float> projectStates(const StateBasis &basis, std::span<const float> rows, int components)
{
    const std::size_t width = basis.mean.size();
    const std::size_t n = width > 0 ? rows.size() / width : 0;
    std::vector<float> out(n * static_cast<std::size_t>(components));
    for (std::size_t t = 0; t < n; ++t) {
        for (std::size_t j = 0; j < static_cast<std::size_t>(components); ++j) {
            double sum = 0;
            for (std::size_t i = 0; i < width; ++i)
                sum += (double(rows[t * width + i]) - double(basis.mean[i])) * double(basis.axes[j * width + i]);
            out[t * static_cast<std::size_t>(components) + j] = static_cast<float>(sum);
        }
    }
    return out;
}

} // namespace spectra
