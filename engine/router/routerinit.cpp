// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/routerinit.h"

#include "engine/core/random.h"

#include <cmath>
#include <tuple>

namespace spectra {

torch::Tensor normalTensor(std::int64_t rows, std::int64_t columns, double deviation, std::uint64_t seed, std::uint64_t stream)
{
    auto tensor = torch::empty({rows, columns}, torch::kFloat32);
    Random random(seed, stream);
    float *p = tensor.data_ptr<float>();
    for (std::int64_t i = 0; i < rows * columns; ++i)
        p[i] = static_cast<float>(deviation * random.normal());
    return tensor;
}

torch::Tensor xavierUniform(std::int64_t rows, std::int64_t columns, std::uint64_t seed, std::uint64_t stream)
{
    auto tensor = torch::empty({rows, columns}, torch::kFloat32);
    Random random(seed, stream);
    const double bound = std::sqrt(6.0 / static_cast<double>(rows + columns));
    float *p = tensor.data_ptr<float>();
    for (std::int64_t i = 0; i < rows * columns; ++i)
        p[i] = static_cast<float>(random.uniform(-bound, bound));
    return tensor;
}

torch::Tensor orthogonal(std::int64_t rows, std::int64_t columns, double gain, std::uint64_t seed, std::uint64_t stream)
{
    const bool wide = rows <= columns;
    auto tensor = normalTensor(wide ? columns : rows, wide ? rows : columns, 1.0, seed, stream);
    torch::Tensor q, r;
    std::tie(q, r) = torch::linalg_qr(tensor);
    q = q * torch::where(r.diagonal() < 0, -1.0, 1.0); // makes the distribution uniform (Haar), and the result unique
    if (wide)
        q = q.t();
    return (q * gain).contiguous();
}

torch::Tensor unitFrame(std::int64_t rows, std::int64_t columns, std::uint64_t seed, std::uint64_t stream)
{
    if (rows <= columns)
        return orthogonal(rows, columns, 1.0, seed, stream);
    // Alternating projection between tight frames (polar factor) and unit rows (Tropp et al., 2005).
    auto frame = normalTensor(rows, columns, 1.0, seed, stream).to(torch::kFloat64);
    for (int i = 0; i < 500; ++i) {
        const auto [u, s, vh] = torch::linalg_svd(frame, false);
        frame = u.matmul(vh);
        frame = frame / frame.norm(2, 1, true);
    }
    return frame.to(torch::kFloat32).contiguous();
}

} // namespace spectra
