// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/expertbank.h"

#include "engine/core/parallel.h"
#include "engine/model/kernels.h"

#include <algorithm>

namespace spectra {
namespace {

/// Assignments (token, slot) in ascending expert order, stable in token order: a counting sort.
struct Assignments {
    std::vector<std::int64_t> begin;    ///< [E+1] first sorted row of each expert
    std::vector<std::int64_t> token;    ///< [rows] token of each sorted row
    std::vector<std::int64_t> slotRow;  ///< [n·k] sorted row of each slot, −1 for an empty slot
    std::vector<float> weight;          ///< [rows]

    Assignments(const std::int64_t *experts, const float *weights, std::int64_t n, std::int64_t k, std::int64_t count)
        : begin(static_cast<std::size_t>(count + 1), 0), slotRow(static_cast<std::size_t>(n * k), -1)
    {
        for (std::int64_t i = 0; i < n * k; ++i)
            if (experts[i] >= 0 && experts[i] < count)
                ++begin[static_cast<std::size_t>(experts[i] + 1)];
        for (std::size_t e = 1; e < begin.size(); ++e)
            begin[e] += begin[e - 1];
        token.resize(static_cast<std::size_t>(begin.back()));
        weight.resize(token.size());
        std::vector<std::int64_t> next(begin.begin(), begin.end() - 1);
        for (std::int64_t i = 0; i < n * k; ++i) {
            if (experts[i] < 0 || experts[i] >= count)
                continue;
            const std::int64_t row = next[static_cast<std::size_t>(experts[i])]++;
            slotRow[static_cast<std::size_t>(i)] = row;
            token[static_cast<std::size_t>(row)] = i / k;
            weight[static_cast<std::size_t>(row)] = weights[i];
        }
    }
    [[nodiscard]] std::int64_t rows() const { return begin.back(); }
};

void addSums(ExpertSums &sums, const Assignments &a, const torch::Tensor &gathered, const torch::Tensor &outputs, std::span<const std::uint8_t> mask)
{
    const torch::Tensor in = gathered.cpu(), out = outputs.cpu();
    const std::int64_t width = in.size(1);
    const auto experts = static_cast<std::int64_t>(a.begin.size()) - 1;
    if (!sums.input.defined()) {
        sums.input = torch::zeros({experts, width}, torch::kFloat64);
        sums.output = torch::zeros({experts, width}, torch::kFloat64);
        sums.count.assign(static_cast<std::size_t>(experts), 0);
    }
    const float *const x = in.const_data_ptr<float>();
    const float *const y = out.const_data_ptr<float>();
    double *const sx = sums.input.data_ptr<double>();
    double *const sy = sums.output.data_ptr<double>();
    const auto body = [&](std::int64_t first, std::int64_t last, int) {
        for (std::int64_t e = first; e < last; ++e)
            for (std::int64_t r = a.begin[static_cast<std::size_t>(e)]; r < a.begin[static_cast<std::size_t>(e + 1)]; ++r) {
                if (!mask.empty() && !mask[static_cast<std::size_t>(a.token[static_cast<std::size_t>(r)])])
                    continue;
                ++sums.count[static_cast<std::size_t>(e)];
                for (std::int64_t i = 0; i < width; ++i)
                    sx[e * width + i] += static_cast<double>(x[r * width + i]);
                for (std::int64_t i = 0; i < width; ++i)
                    sy[e * width + i] += static_cast<double>(y[r * width + i]);
            }
    };
    if (a.rows() > 64)
        parallelFor(experts, 0, body);
    else
        body(0, experts, 0);
}

torch::Tensor wantedOutputs(const std::vector<std::int64_t> &rows, const Assignments &a, const torch::Tensor &outputs, std::int64_t k)
{
    const torch::Tensor source = outputs.cpu();
    const std::int64_t width = source.size(1);
    torch::Tensor wanted = torch::zeros({static_cast<std::int64_t>(rows.size()), k, width}, torch::kFloat32);
    for (std::size_t m = 0; m < rows.size(); ++m)
        for (std::int64_t s = 0; s < k; ++s) {
            const std::int64_t row = a.slotRow[static_cast<std::size_t>(rows[m] * k + s)];
            if (row >= 0)
                std::copy_n(source.const_data_ptr<float>() + row * width, width,
                            wanted.data_ptr<float>() + (static_cast<std::int64_t>(m) * k + s) * width);
        }
    return wanted;
}

/// One row at a time through all its experts, two parallel regions in all.
void runFew(torch::Tensor &outputs, const torch::Tensor &gathered, const Assignments &a, const FfnWeights &f, Workspace &workspace)
{
    const std::int64_t rows = a.rows(), hidden = gathered.size(1), intermediate = f.intermediate;
    torch::Tensor &gateUp = workspace.get(Workspace::gateUp, rows, 2 * intermediate);
    torch::Tensor &active = workspace.get(Workspace::active, rows, intermediate);
    const bool bf16 = f.gateUp.scalar_type() == torch::kBFloat16;
    const auto *const w1 = static_cast<const std::byte *>(f.gateUp.const_data_ptr());
    const auto *const w2 = static_cast<const std::byte *>(f.down.const_data_ptr());
    const auto size = static_cast<std::int64_t>(f.gateUp.element_size());
    std::vector<kernels::GemvJob> first, second;
    for (std::size_t e = 0; e + 1 < a.begin.size(); ++e)
        for (std::int64_t r = a.begin[e]; r < a.begin[e + 1]; ++r) {
            const auto expert = static_cast<std::int64_t>(e);
            first.push_back({gateUp.data_ptr<float>() + r * 2 * intermediate, w1 + expert * 2 * intermediate * hidden * size,
                             gathered.const_data_ptr<float>() + r * hidden});
            second.push_back({outputs.data_ptr<float>() + r * hidden, w2 + expert * hidden * intermediate * size,
                              active.const_data_ptr<float>() + r * intermediate});
        }
    kernels::gemvMany(first.data(), static_cast<int>(first.size()), 2 * intermediate, hidden, bf16);
    kernels::siluMultiply(active.data_ptr<float>(), gateUp.const_data_ptr<float>(), rows, intermediate);
    kernels::gemvMany(second.data(), static_cast<int>(second.size()), hidden, intermediate, bf16);
}

} // namespace

void runFfn(torch::Tensor &residual, const torch::Tensor &x, const FfnWeights &f, double scale, Workspace &workspace)
{
    torch::Tensor &gateUp = workspace.get(Workspace::gateUp, x.size(0), 2 * f.intermediate);
    torch::Tensor &active = workspace.get(Workspace::active, x.size(0), f.intermediate);
    linear(gateUp, x, f.gateUp, f.gateUpBias, false);
    siluMultiply(active, gateUp);
    if (scale == 1) {
        linear(residual, active, f.down, f.downBias, true);
        return;
    }
    if (f.downBias.defined()) {
        torch::Tensor &product = workspace.get(Workspace::expertOut, x.size(0), residual.size(1));
        linear(product, active, f.down, f.downBias, false);
        residual.add_(product, scale);
        return;
    }
    active.mul_(scale);
    linear(residual, active, f.down, {}, true);
}

Result<torch::Tensor> runExperts(torch::Tensor &residual, const torch::Tensor &x, const RoutingStep &step, const ExpertTask &task,
                                 Workspace &workspace, const std::stop_token &stop)
{
    const FfnWeights &f = *task.experts;
    const bool cpu = x.device().is_cpu();
    const std::int64_t n = x.size(0), k = step.experts.size(1), hidden = x.size(1), count = f.gateUp.size(0);
    const torch::Tensor experts = step.experts.cpu().contiguous();
    const torch::Tensor weights = step.weights.cpu().contiguous();
    const Assignments a(experts.const_data_ptr<std::int64_t>(), weights.const_data_ptr<float>(), n, k, count);
    const std::int64_t rows = a.rows();
    const torch::Tensor &input = step.expertInput.defined() ? step.expertInput : x;
    torch::Tensor wanted;

    if (rows > 0) {
        torch::Tensor &gathered = workspace.get(Workspace::gathered, rows, hidden);
        const torch::Tensor token = torch::from_blob(const_cast<std::int64_t *>(a.token.data()), {rows}, torch::kInt64).to(x.device());
        at::index_select_out(gathered, input, 0, token);
        const torch::Tensor weight = torch::from_blob(const_cast<float *>(a.weight.data()), {rows}, torch::kFloat32).to(x.device());
        if (step.weightOnInput)
            gathered.mul_(weight.unsqueeze(1));
        torch::Tensor &outputs = workspace.get(Workspace::expertOut, rows, hidden);
        if (cpu && rows <= 2 * kernels::kGemvRows && !f.gateUpBias.defined()) {
            runFew(outputs, gathered, a, f, workspace);
        } else {
            for (std::int64_t e = 0; e < count; ++e) {
                const std::int64_t first = a.begin[static_cast<std::size_t>(e)], m = a.begin[static_cast<std::size_t>(e + 1)] - first;
                if (m == 0)
                    continue;
                if (stop.stop_requested())
                    return cancelledError();
                torch::Tensor &gateUp = workspace.get(Workspace::gateUp, m, 2 * f.intermediate);
                torch::Tensor &active = workspace.get(Workspace::active, m, f.intermediate);
                linear(gateUp, gathered.narrow(0, first, m), f.gateUp[e], f.gateUpBias.defined() ? f.gateUpBias[e] : torch::Tensor(), false);
                siluMultiply(active, gateUp);
                torch::Tensor out = outputs.narrow(0, first, m);
                linear(out, active, f.down[e], f.downBias.defined() ? f.downBias[e] : torch::Tensor(), false);
            }
        }
        if (task.sums)
            addSums(*task.sums, a, gathered, outputs, task.mask);
        if (!task.outputRows.empty())
            wanted = wantedOutputs(task.outputRows, a, outputs, k);
        if (cpu) {
            std::vector<float> ones;
            const float *w = weights.const_data_ptr<float>();
            if (step.weightOnInput) {
                ones.assign(static_cast<std::size_t>(n * k), 1.0f);
                w = ones.data();
            }
            kernels::combine(residual.data_ptr<float>(), outputs.const_data_ptr<float>(), a.slotRow.data(), w, task.routedScale, n, k, hidden);
        } else {
            residual.index_add_(0, token, step.weightOnInput ? outputs : outputs * weight.unsqueeze(1), task.routedScale);
        }
    } else if (!task.outputRows.empty()) {
        wanted = torch::zeros({static_cast<std::int64_t>(task.outputRows.size()), k, hidden}, torch::kFloat32);
    }
    if (task.shared)
        runFfn(residual, x, *task.shared, task.sharedScale, workspace);
    return wanted;
}

void intervene(RoutingStep &step, const Intervention &intervention)
{
    const torch::Device device = step.experts.device();
    torch::Tensor experts = step.experts.cpu().clone();
    torch::Tensor weights = step.weights.cpu().clone();
    const std::int64_t n = experts.size(0), k = experts.size(1);
    std::int64_t *const id = experts.data_ptr<std::int64_t>();
    float *const w = weights.data_ptr<float>();
    for (std::int64_t t = 0; t < n; ++t) {
        std::int64_t *const row = id + t * k;
        float *const rowWeight = w + t * k;
        std::int64_t slot = k - 1;
        for (const int forced : intervention.forced) {
            if (slot < 0 || std::find(row, row + k, forced) != row + k)
                continue;
            row[slot--] = forced;
        }
        double before = 0, after = 0;
        for (std::int64_t s = 0; s < k; ++s) {
            before += static_cast<double>(rowWeight[s]);
            if (row[s] >= 0 && std::find(intervention.masked.begin(), intervention.masked.end(), row[s]) != intervention.masked.end()) {
                row[s] = -1;
                rowWeight[s] = 0;
            }
            after += static_cast<double>(rowWeight[s]);
        }
        if (after > 0 && after != before)
            for (std::int64_t s = 0; s < k; ++s)
                rowWeight[s] = static_cast<float>(rowWeight[s] * (before / after));
        // Descending weight again, empty slots last.
        std::vector<std::pair<float, std::int64_t>> order;
        for (std::int64_t s = 0; s < k; ++s)
            order.emplace_back(rowWeight[s], row[s]);
        std::stable_sort(order.begin(), order.end(), [](const auto &a, const auto &b) {
            return (a.second >= 0) != (b.second >= 0) ? a.second >= 0 : a.first > b.first;
        });
        for (std::int64_t s = 0; s < k; ++s) {
            rowWeight[s] = order[static_cast<std::size_t>(s)].first;
            row[s] = order[static_cast<std::size_t>(s)].second;
        }
    }
    step.experts = experts.to(device);
    step.weights = weights.to(device);
}

} // namespace spectra
