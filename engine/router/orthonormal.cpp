// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/orthonormal.h"

#include "engine/router/routerinit.h"

#include <tuple>
#include <vector>

namespace spectra {

void retractRows(const torch::Tensor &t)
{
    const torch::NoGradGuard noGrad;
    const auto [q, r] = torch::linalg_qr(t.transpose(-2, -1));
    const torch::Tensor sign = torch::where(r.diagonal(0, -2, -1) < 0, -1.0, 1.0).to(q.scalar_type());
    t.copy_((q * sign.unsqueeze(-2)).transpose(-2, -1));
}

torch::Tensor orthonormalityPenalty(const torch::Tensor &t)
{
    return (t.matmul(t.transpose(-2, -1)) - torch::eye(t.size(-2), t.options().requires_grad(false))).square().sum();
}

torch::Tensor orthonormalRows(std::int64_t experts, std::int64_t rank, std::int64_t hidden, std::uint64_t seed, std::uint64_t stream)
{
    std::vector<torch::Tensor> parts;
    for (std::int64_t e = 0; e < experts; ++e)
        parts.push_back(orthogonal(rank, hidden, 1.0, seed, stream * 65536 + static_cast<std::uint64_t>(e)));
    return torch::stack(parts);
}

} // namespace spectra
