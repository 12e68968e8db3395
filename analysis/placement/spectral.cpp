// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/placement/spectral.h"

#include "engine/core/random.h"

#include <Eigen/Eigenvalues>

#include <cmath>
#include <limits>

namespace spectra {
namespace {

using Matrix = Eigen::MatrixXd;
constexpr int kStarts = 20, kRounds = 300;

/// Nearest centre of every row; returns the sum of squared distances.
double assign(const Matrix &x, const Matrix &centres, std::vector<int> &label)
{
    double inertia = 0;
    for (Eigen::Index i = 0; i < x.rows(); ++i) {
        Eigen::Index best = 0;
        inertia += (centres.rowwise() - x.row(i)).rowwise().squaredNorm().minCoeff(&best);
        label[static_cast<std::size_t>(i)] = static_cast<int>(best);
    }
    return inertia;
}

/// k-means++ seeding (Arthur and Vassilvitskii 2007).
Matrix seeding(const Matrix &x, int k, Random &random)
{
    Matrix centres(k, x.cols());
    centres.row(0) = x.row(static_cast<Eigen::Index>(random.below(static_cast<std::uint64_t>(x.rows()))));
    Eigen::VectorXd far = (x.rowwise() - centres.row(0)).rowwise().squaredNorm();
    for (int c = 1; c < k; ++c) {
        double left = random.uniform() * far.sum();
        Eigen::Index pick = 0;
        if (far.sum() > 0)
            while (pick + 1 < x.rows() && (left -= far[pick]) >= 0)
                ++pick;
        centres.row(c) = x.row(pick);
        far = far.cwiseMin((x.rowwise() - centres.row(c)).rowwise().squaredNorm());
    }
    return centres;
}

/// Gives every group a member: an empty one takes the row that lies farthest from its centre, out of a group that can spare it.
void fillEmpty(const Matrix &x, const Matrix &centres, std::vector<int> &label)
{
    std::vector<int> size(static_cast<std::size_t>(centres.rows()), 0);
    for (const int l : label)
        ++size[static_cast<std::size_t>(l)];
    for (std::size_t empty = 0; empty < size.size(); ++empty) {
        if (size[empty] > 0)
            continue;
        double worst = -1;
        std::size_t taken = 0;
        for (std::size_t i = 0; i < label.size(); ++i) {
            const double far = (x.row(static_cast<Eigen::Index>(i)) - centres.row(label[i])).squaredNorm();
            if (size[static_cast<std::size_t>(label[i])] > 1 && far > worst) {
                worst = far;
                taken = i;
            }
        }
        --size[static_cast<std::size_t>(label[taken])];
        label[taken] = static_cast<int>(empty);
        size[empty] = 1;
    }
}

std::vector<int> kMeans(const Matrix &x, int k, std::uint64_t seed)
{
    std::vector<int> best(static_cast<std::size_t>(x.rows()), 0), label = best;
    double least = std::numeric_limits<double>::infinity();
    for (int start = 0; start < kStarts; ++start) {
        Random random(seed, static_cast<std::uint64_t>(start) + 1);
        Matrix centres = seeding(x, k, random);
        double inertia = std::numeric_limits<double>::infinity();
        for (int round = 0; round < kRounds; ++round) {
            const double now = assign(x, centres, label);
            if (!(now < inertia))
                break;
            inertia = now;
            fillEmpty(x, centres, label);
            centres.setZero();
            Eigen::VectorXd size = Eigen::VectorXd::Zero(k);
            for (std::size_t i = 0; i < label.size(); ++i) {
                centres.row(label[i]) += x.row(static_cast<Eigen::Index>(i));
                size[label[i]] += 1;
            }
            centres = size.cwiseInverse().asDiagonal() * centres;
        }
        inertia = assign(x, centres, label);
        fillEmpty(x, centres, label);
        // A later start must be better by more than rounding, so that equal partitions do not depend on it.
        if (inertia < least * (1 - 1e-9) - 1e-15 || start == 0) {
            least = inertia;
            best = label;
        }
    }
    return best;
}

} // namespace

std::vector<int> spectralGroups(std::span<const double> affinity, std::int64_t n, int groups, std::uint64_t seed)
{
    std::vector<int> label(static_cast<std::size_t>(n), 0);
    if (groups <= 1)
        return label;
    Matrix a(n, n);
    for (Eigen::Index i = 0; i < n; ++i)
        for (Eigen::Index j = 0; j < n; ++j)
            a(i, j) = i == j ? 0 : affinity[static_cast<std::size_t>(i * n + j)];
    Eigen::VectorXd degree = a.rowwise().sum();
    for (Eigen::Index i = 0; i < n; ++i)
        degree[i] = degree[i] > 0 ? 1 / std::sqrt(degree[i]) : 1; // a vertex without edges
    Matrix laplacian = Matrix::Identity(n, n) - degree.asDiagonal() * a * degree.asDiagonal();
    for (Eigen::Index i = 0; i < n; ++i)
        if (a.row(i).sum() <= 0)
            laplacian(i, i) = 0; // alone it is a component of its own, with eigenvalue 0
    const Eigen::SelfAdjointEigenSolver<Matrix> solver(laplacian);
    const Matrix rows = degree.asDiagonal() * solver.eigenvectors().leftCols(groups);
    const std::vector<int> found = kMeans(rows, groups, seed);
    std::vector<int> name(static_cast<std::size_t>(groups), -1);
    int next = 0;
    for (std::size_t i = 0; i < label.size(); ++i) {
        int &to = name[static_cast<std::size_t>(found[i])];
        if (to < 0)
            to = next++;
        label[i] = to;
    }
    return label;
}

} // namespace spectra
