// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/grutraining.h"

#include "engine/rule/hot.h"
#include "engine/rule/kernels.h"
#include "engine/rule/vectormath.h"

#include <algorithm>
#include <cassert>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

namespace spectra::rule {
namespace {

/// Recurrent weights above this leave a core's own cache between steps, so that each thread should hold a part of them only.
constexpr std::int64_t kOwnCache = 2 << 20;

/// Gates of units 0..n: the blocks of gi lie `giBlock` apart, those of gh `ghBlock`. `gates`: r, z, n and gh_n, `width` apart.
SPECTRA_HOT void gatesForward(const float *__restrict gi, std::int64_t giBlock, const float *__restrict gh, std::int64_t ghBlock,
                              const float *__restrict in, std::int64_t n, float *__restrict h, float *__restrict gates, std::int64_t width)
{
    if (gates == nullptr) {
        for (std::int64_t i = 0; i < n; ++i) {
            const float r = vsigmoid(gi[i] + gh[i]);
            const float z = vsigmoid(gi[giBlock + i] + gh[ghBlock + i]);
            const float c = vtanh(gi[2 * giBlock + i] + r * gh[2 * ghBlock + i]);
            h[i] = c + z * (in[i] - c);
        }
        return;
    }
    for (std::int64_t i = 0; i < n; ++i) {
        const float r = vsigmoid(gi[i] + gh[i]);
        const float z = vsigmoid(gi[giBlock + i] + gh[ghBlock + i]);
        const float c = vtanh(gi[2 * giBlock + i] + r * gh[2 * ghBlock + i]);
        h[i] = c + z * (in[i] - c);
        gates[i] = r;
        gates[width + i] = z;
        gates[2 * width + i] = c;
        gates[3 * width + i] = gh[2 * ghBlock + i];
    }
}

/// Gradients of units 0..n of one row; all blocks lie `width` apart. `dgh` receives r, z, n as the recurrent product needs them.
SPECTRA_HOT void gatesBackward(const float *__restrict gates, const float *__restrict in, const float *__restrict dh, std::int64_t n, std::int64_t width,
                               float *__restrict dgi, float *__restrict dgh, float *__restrict din)
{
    for (std::int64_t i = 0; i < n; ++i) {
        const float r = gates[i], z = gates[width + i], c = gates[2 * width + i], hidden = gates[3 * width + i];
        const float dc = dh[i] * (1.0f - z) * (1.0f - c * c);
        const float dz = dh[i] * (in[i] - c) * z * (1.0f - z);
        const float dr = dc * hidden * r * (1.0f - r);
        dgi[i] = dr;
        dgi[width + i] = dz;
        dgi[2 * width + i] = dc;
        dgh[i] = dr;
        dgh[width + i] = dz;
        dgh[2 * width + i] = dc * r;
        din[i] = dh[i] * z;
    }
}

SPECTRA_HOT void addTo(float *__restrict sum, const float *__restrict x, std::int64_t n)
{
    for (std::int64_t i = 0; i < n; ++i)
        sum[i] += x[i];
}

struct Free {
    void operator()(float *p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float[], Free>;

Buffer buffer(std::int64_t floats)
{
    Buffer b(static_cast<float *>(std::aligned_alloc(64, static_cast<std::size_t>((std::max<std::int64_t>(floats, 1) * 4 + 63) / 64 * 64))));
    if (!b)
        throw std::bad_alloc();
    return b;
}

/// What both directions share: sequences, longest first, and how they are cut into groups.
class Plan {
public:
    Plan(const GruSequences &gru, const Executor &executor, GruSplit split)
        : m_width(gru.width), m_panels((gru.width + kPanel - 1) / kPanel), m_sequences(static_cast<std::int64_t>(gru.offsets.size()) - 1),
          m_offsets(gru.offsets), m_executor(executor)
    {
        m_order.resize(static_cast<std::size_t>(m_sequences));
        std::iota(m_order.begin(), m_order.end(), std::int64_t{0});
        std::stable_sort(m_order.begin(), m_order.end(), [this](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
        while (!m_order.empty() && length(m_order.back()) == 0)
            m_order.pop_back();
        const auto running = static_cast<std::int64_t>(m_order.size());
        const bool fits = 3 * m_width * m_width * 4 <= kOwnCache;
        if (split == GruSplit::automatic)
            split = fits && running >= 2 * executor.threads ? GruSplit::sequences : GruSplit::columns;
        m_byColumns = split == GruSplit::columns && executor.threads > 1 && m_panels > 1;
        m_groups = split == GruSplit::columns ? 1 : std::clamp<std::int64_t>(running, 1, executor.threads);
    }

    [[nodiscard]] std::int64_t length(std::int64_t s) const
    {
        return m_offsets[static_cast<std::size_t>(s) + 1] - m_offsets[static_cast<std::size_t>(s)];
    }
    [[nodiscard]] std::int64_t begin(std::int64_t s) const { return m_offsets[static_cast<std::size_t>(s)]; }

    /// body(sequences) for every group, in the order of falling length; groups run at once, each in a thread of its own.
    template <typename Body> void forGroups(const Body &body) const
    {
        if (m_order.empty())
            return;
        const auto one = [&](int g) {
            std::vector<std::int64_t> mine; // dealt out in turn, so that every group has long and short ones
            for (std::size_t i = static_cast<std::size_t>(g); i < m_order.size(); i += static_cast<std::size_t>(m_groups))
                mine.push_back(m_order[i]);
            body(mine);
        };
        if (m_groups == 1)
            one(0);
        else
            m_executor.run(static_cast<int>(m_groups), one);
    }

    /// body(first, last) over the panels of 32 units: all at once, or each thread its own.
    template <typename Body> void forPanels(const Body &body) const
    {
        if (!m_byColumns) {
            body(std::int64_t{0}, m_panels);
            return;
        }
        forRange(m_executor, m_panels, 1, body);
    }

    [[nodiscard]] std::int64_t width() const { return m_width; }
    [[nodiscard]] std::int64_t panels() const { return m_panels; }
    [[nodiscard]] const Executor &executor() const { return m_executor; }

private:
    std::int64_t m_width, m_panels, m_sequences, m_groups = 1;
    std::span<const std::int64_t> m_offsets;
    const Executor &m_executor;
    std::vector<std::int64_t> m_order;
    bool m_byColumns = false;
};

/// Weights in panels of 32 outputs, [depth][32] each, and the bias behind them (see PackedMatrix). Outputs past the end are zero.
Buffer packGates(const GruSequences &gru, const Plan &plan)
{
    const std::int64_t h = gru.width, panels = plan.panels();
    Buffer packed = buffer(3 * panels * kPanel * (h + 1));
    forRange(plan.executor(), 3 * panels, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t p = first; p < last; ++p) {
            float *panel = packed.get() + p * h * kPanel, *bias = packed.get() + 3 * panels * h * kPanel + p * kPanel;
            for (std::int64_t j = 0; j < kPanel; ++j) {
                const std::int64_t unit = p % panels * kPanel + j, row = p / panels * h + unit;
                bias[j] = unit < h ? gru.bias[row] : 0.0f;
                for (std::int64_t k = 0; k < h; ++k)
                    panel[k * kPanel + j] = unit < h ? gru.weight[row * h + k] : 0.0f;
            }
        }
    });
    return packed;
}

/// The transposed product's weights: outputs H over a depth of 3H.
Buffer packTransposed(const GruSequences &gru, const Plan &plan)
{
    const std::int64_t h = gru.width, panels = plan.panels();
    Buffer packed = buffer(panels * kPanel * (3 * h + 1));
    std::fill_n(packed.get() + panels * kPanel * 3 * h, panels * kPanel, 0.0f);
    forRange(plan.executor(), panels, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t p = first; p < last; ++p) {
            const std::int64_t units = std::min(kPanel, h - p * kPanel);
            for (std::int64_t k = 0; k < 3 * h; ++k) {
                float *out = packed.get() + (p * 3 * h + k) * kPanel;
                std::copy_n(gru.weight + k * h + p * kPanel, units, out);
                std::fill(out + units, out + kPanel, 0.0f);
            }
        }
    });
    return packed;
}

} // namespace

void gruForward(const GruSequences &gru, const GruForward &job, const Executor &executor, GruSplit split)
{
    const Plan plan(gru, executor, split);
    const std::int64_t h = gru.width, panels = plan.panels(), padded = panels * kPanel;
    for (std::size_t s = 0; s + 1 < gru.offsets.size(); ++s)
        if (gru.offsets[s + 1] == gru.offsets[s])
            std::copy_n(job.start + static_cast<std::int64_t>(s) * h, h, job.last + static_cast<std::int64_t>(s) * h);
    const Buffer packed = packGates(gru, plan);
    const float *bias = packed.get() + 3 * panels * h * kPanel;
    const ProjectKernel project = kernels().project;

    plan.forGroups([&](const std::vector<std::int64_t> &sequences) {
        const auto count = static_cast<std::int64_t>(sequences.size());
        const Buffer states = buffer(2 * count * h), products = buffer(count * 3 * padded);
        float *now = states.get(), *next = states.get() + count * h;
        // the state that goes into row t of the i-th sequence, units b..e
        const auto enter = [&](std::int64_t i, std::int64_t t, const float *before, std::int64_t b, std::int64_t e, float *to) {
            if (!job.depth) {
                std::copy(before + b, before + e, to + b);
                return;
            }
            const float *depth = job.depth + (plan.begin(sequences[static_cast<std::size_t>(i)]) + t) * h;
            for (std::int64_t u = b; u < e; ++u)
                to[u] = 0.5f * (before[u] + depth[u]);
        };
        for (std::int64_t i = 0; i < count; ++i)
            enter(i, 0, job.start + sequences[static_cast<std::size_t>(i)] * h, 0, h, now + i * h);
        std::int64_t active = count;
        for (std::int64_t t = 0;; ++t) {
            while (active > 0 && plan.length(sequences[static_cast<std::size_t>(active - 1)]) <= t)
                --active;
            if (active == 0)
                break;
            plan.forPanels([&](std::int64_t first, std::int64_t last) {
                const std::int64_t b = first * kPanel, e = std::min(h, last * kPanel);
                const bool whole = last - first == panels;
                for (std::int64_t gate = 0; gate < (whole ? 1 : 3); ++gate)
                    project(packed.get(), bias, h, gate * panels + first, whole ? 3 * panels : gate * panels + last, now, h, active, products.get(), 3 * padded);
                for (std::int64_t i = 0; i < active; ++i) {
                    const std::int64_t s = sequences[static_cast<std::size_t>(i)], row = plan.begin(s) + t;
                    gatesForward(job.gi + row * 3 * h + b, h, products.get() + i * 3 * padded + b, padded, now + i * h + b, e - b, job.h + row * h + b,
                                 job.gates ? job.gates + row * 4 * h + b : nullptr, h);
                    if (job.in)
                        std::copy(now + i * h + b, now + i * h + e, job.in + row * h + b);
                    if (t + 1 < plan.length(s))
                        enter(i, t + 1, job.h + row * h, b, e, next + i * h);
                    else
                        std::copy(job.h + row * h + b, job.h + row * h + e, job.last + s * h + b);
                }
            });
            std::swap(now, next);
        }
    });
}

void gruBackward(const GruSequences &gru, const GruBackward &job, const Executor &executor, GruSplit split)
{
    const Plan plan(gru, executor, split);
    const std::int64_t h = gru.width, panels = plan.panels(), padded = panels * kPanel, rows = gru.offsets.back();
    const auto all = static_cast<std::int64_t>(gru.offsets.size()) - 1;
    for (std::int64_t s = 0; s < all; ++s)
        if (plan.length(s) == 0) {
            if (job.dlast)
                std::copy_n(job.dlast + s * h, h, job.dstart + s * h);
            else
                std::fill_n(job.dstart + s * h, h, 0.0f);
        }
    const Buffer packed = packTransposed(gru, plan);
    const float *zero = packed.get() + panels * 3 * h * kPanel;
    const ProjectKernel project = kernels().project;
    const Buffer candidate = buffer(rows * h);        // dgh_n of every row; its r and z parts are those of dgi
    const Buffer biasSums = buffer(all * 3 * h);
    std::fill_n(biasSums.get(), all * 3 * h, 0.0f);

    plan.forGroups([&](const std::vector<std::int64_t> &sequences) {
        const auto count = static_cast<std::int64_t>(sequences.size());
        const Buffer gradients = buffer(2 * count * 3 * h), products = buffer(count * padded), direct = buffer(count * h), carried = buffer(count * h);
        float *now = gradients.get(), *later = gradients.get() + count * 3 * h; // dgh of step t and of t + 1
        std::int64_t after = 0; // sequences that had a row t + 1
        for (std::int64_t t = count > 0 ? plan.length(sequences[0]) - 1 : -1; t >= -1; --t) {
            std::int64_t active = after;
            while (t >= 0 && active < count && plan.length(sequences[static_cast<std::size_t>(active)]) > t)
                ++active;
            plan.forPanels([&](std::int64_t first, std::int64_t last) {
                const std::int64_t b = first * kPanel, e = std::min(h, last * kPanel), n = e - b;
                project(packed.get(), zero, 3 * h, first, last, later, 3 * h, after, products.get(), padded);
                for (std::int64_t i = 0; i < after; ++i) { // the gradient of h_in of row t + 1 is whole now
                    const std::int64_t s = sequences[static_cast<std::size_t>(i)];
                    float *product = products.get() + i * padded, *carry = t >= 0 ? carried.get() + i * h : job.dstart + s * h;
                    addTo(product + b, direct.get() + i * h + b, n);
                    if (job.ddepth) {
                        float *depth = job.ddepth + (plan.begin(s) + t + 1) * h;
                        for (std::int64_t u = b; u < e; ++u)
                            carry[u] = depth[u] = 0.5f * product[u];
                    } else {
                        std::copy(product + b, product + e, carry + b);
                    }
                }
                if (t < 0)
                    return;
                for (std::int64_t i = 0; i < active; ++i) {
                    const std::int64_t s = sequences[static_cast<std::size_t>(i)], row = plan.begin(s) + t;
                    float *carry = carried.get() + i * h;
                    if (i >= after) {
                        if (job.dlast)
                            std::copy(job.dlast + s * h + b, job.dlast + s * h + e, carry + b);
                        else
                            std::fill(carry + b, carry + e, 0.0f);
                    }
                    if (job.dh)
                        addTo(carry + b, job.dh + row * h + b, n);
                    float *dgh = now + i * 3 * h;
                    gatesBackward(job.gates + row * 4 * h + b, job.in + row * h + b, carry + b, n, h, job.dgi + row * 3 * h + b, dgh + b,
                                  direct.get() + i * h + b);
                    std::copy(dgh + 2 * h + b, dgh + 2 * h + e, candidate.get() + row * h + b);
                    if (job.dbias)
                        for (std::int64_t gate = 0; gate < 3; ++gate)
                            addTo(biasSums.get() + (s * 3 + gate) * h + b, dgh + gate * h + b, n);
                }
            });
            after = active;
            std::swap(now, later);
        }
    });

    if (job.dbias) {
        std::fill_n(job.dbias, 3 * h, 0.0f);
        for (std::int64_t s = 0; s < all; ++s)
            addTo(job.dbias, biasSums.get() + s * 3 * h, 3 * h);
    }
    if (job.dweight) {
        std::fill_n(job.dweight, 3 * h * h, 0.0f);
        const OuterKernel outer = kernels().outer;
        constexpr std::int64_t kRows = 24; // of the weight, per task at least
        forRange(executor, (3 * h + kRows - 1) / kRows, 1, [&](std::int64_t first, std::int64_t last) {
            const std::int64_t b = first * kRows, e = std::min(3 * h, last * kRows), rz = std::clamp(2 * h, b, e);
            if (rz > b)
                outer(job.dgi + b, 3 * h, rz - b, job.in, h, h, rows, job.dweight + b * h, h);
            if (e > rz)
                outer(candidate.get() + rz - 2 * h, h, e - rz, job.in, h, h, rows, job.dweight + rz * h, h);
        });
    }
}

void gruGates(std::int64_t n, std::int64_t width, const float *gi, const float *gh, const float *in, float *h, float *gates, const Executor &executor)
{
    forRange(executor, n, 64, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t)
            gatesForward(gi + t * 3 * width, width, gh + t * 3 * width, width, in + t * width, width, h + t * width, gates ? gates + t * 4 * width : nullptr,
                         width);
    });
}

void gruGatesBackward(std::int64_t n, std::int64_t width, const float *in, const float *gates, const float *dh, float *dgi, float *dgh, float *din,
                      const Executor &executor)
{
    forRange(executor, n, 64, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t)
            gatesBackward(gates + t * 4 * width, in + t * width, dh + t * width, width, width, dgi + t * 3 * width, dgh + t * 3 * width, din + t * width);
    });
}

} // namespace spectra::rule
