// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/sinkhorn.h"

#include "engine/rule/hot.h"
#include "engine/rule/kernels.h"
#include "engine/rule/vectormath.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>

namespace spectra::rule {
namespace {

constexpr std::int64_t kLanes = 16;      ///< rows of K are padded to whole vectors
constexpr std::int64_t kBurst = 64;      ///< rows summed in float before they go into the double sums
constexpr double kSafeLog = 40;          ///< |log v| up to which the float kernel keeps its precision

/// z = scale·x (held to ±limit) + g, its maximum taken off, exponential into k [padded]; entries past `experts` become 0.
[[gnu::always_inline]] inline void buildRow(const float *__restrict x, const float *__restrict g, std::int64_t experts, std::int64_t padded, float scale,
                                            float limit, float *__restrict k)
{
    for (std::int64_t i = 0; i < experts; ++i) {
        float z = scale * x[i];
        z = z < -limit ? -limit : z > limit ? limit : z;
        k[i] = z + g[i];
    }
    for (std::int64_t i = experts; i < padded; ++i)
        k[i] = -1e30f;
    float best[kLanes];
    for (std::int64_t l = 0; l < kLanes; ++l)
        best[l] = k[l];
    for (std::int64_t i = kLanes; i < padded; i += kLanes)
        for (std::int64_t l = 0; l < kLanes; ++l)
            best[l] = best[l] > k[i + l] ? best[l] : k[i + l];
    float highest = best[0];
    for (std::int64_t l = 1; l < kLanes; ++l)
        highest = best[l] > highest ? best[l] : highest;
    for (std::int64_t i = 0; i < padded; ++i)
        k[i] = vexp(k[i] - highest);
}

SPECTRA_HOT void buildRows(const float *x, const std::int64_t *rows, const float *g, std::int64_t begin, std::int64_t end, std::int64_t experts,
                           std::int64_t padded, float scale, float limit, float *k)
{
    for (std::int64_t t = begin; t < end; ++t)
        buildRow(x + (rows ? rows[t] : t) * experts, g, experts, padded, scale, limit, k + t * padded);
}

/// Rows of the plan from kernel rows: q = k∘v / (k·v).
SPECTRA_HOT void planRows(const float *k, const float *v, const std::int64_t *rows, std::int64_t begin, std::int64_t end, std::int64_t experts,
                          std::int64_t padded, float *q)
{
    for (std::int64_t t = begin; t < end; ++t) {
        const float *__restrict row = k + t * padded;
        float *__restrict out = q + (rows ? rows[t] : t) * experts;
        float sums[kLanes] = {};
        for (std::int64_t i = 0; i < padded; i += kLanes)
            for (std::int64_t l = 0; l < kLanes; ++l)
                sums[l] += row[i + l] * v[i + l];
        float sum = 0;
        for (std::int64_t l = 0; l < kLanes; ++l)
            sum += sums[l];
        const float inverse = 1.0f / sum;
        for (std::int64_t i = 0; i < experts; ++i)
            out[i] = row[i] * v[i] * inverse;
    }
}

SPECTRA_HOT bool allFinite(const float *x, std::int64_t n)
{
    std::int64_t bad = 0;
    for (std::int64_t i = 0; i < n; ++i)
        bad += !(x[i] - x[i] == 0.0f);
    return bad == 0;
}

struct Free {
    void operator()(float *p) const { std::free(p); }
};

class Solver {
public:
    Solver(std::span<const float> scores, std::int64_t experts, const SinkhornOptions &options, std::span<const std::uint8_t> counted,
           const Executor &executor)
        : m_scores(scores.data()), m_experts(experts), m_padded((experts + kLanes - 1) / kLanes * kLanes), m_options(options), m_executor(executor)
    {
        const auto all = static_cast<std::int64_t>(scores.size()) / experts;
        if (counted.empty()) {
            m_rows = all;
        } else {
            for (std::int64_t t = 0; t < all; ++t)
                (counted[static_cast<std::size_t>(t)] ? m_index : m_others).push_back(t);
            m_rows = static_cast<std::int64_t>(m_index.size());
        }
        m_masked = !counted.empty();
        m_share = static_cast<double>(m_rows) / static_cast<double>(experts);
        m_parts = static_cast<int>(std::clamp<std::int64_t>(m_rows * m_padded / 65536, 1, 64));
        m_partial.resize(static_cast<std::size_t>(m_parts * m_padded));
        m_columns.resize(static_cast<std::size_t>(m_padded));
        m_v.assign(static_cast<std::size_t>(m_padded), 1.0f);
        m_logV.assign(static_cast<std::size_t>(experts), 0.0);
        m_absorbed.assign(static_cast<std::size_t>(experts), 0.0);
        const auto bytes = static_cast<std::size_t>(std::max<std::int64_t>(1, m_rows) * m_padded) * sizeof(float);
        m_kernel.reset(static_cast<float *>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
        if (!m_kernel)
            throw std::bad_alloc();
    }

    SinkhornResult solve(std::span<float> plan)
    {
        SinkhornResult result;
        if (m_rows > 0) {
            if (m_options.tolerance > 0)
                untilTolerance(result);
            else
                fixed(result);
        }
        result.potential.resize(static_cast<std::size_t>(m_experts));
        for (std::size_t i = 0; i < result.potential.size(); ++i)
            result.potential[i] = m_absorbed[i] + m_logV[i];
        if (!plan.empty())
            writePlan(plan, result.potential);
        return result;
    }

private:
    [[nodiscard]] const std::int64_t *index() const { return m_masked ? m_index.data() : nullptr; }
    [[nodiscard]] float scale() const { return static_cast<float>((m_options.inputIsCost ? -1.0 : 1.0) / m_epsilon); }
    [[nodiscard]] float limit() const { return m_options.clampLogits ? 50.0f : 1e30f; }

    template <typename Body> void parts(const Body &body)
    {
        // The cut into parts depends on the size alone, so sums reduced part by part have the same bits on any number of threads.
        const auto one = [&](int part) { body(m_rows * part / m_parts, m_rows * (part + 1) / m_parts, part); };
        const int groups = std::min(m_executor.threads, m_parts);
        if (groups <= 1) {
            for (int part = 0; part < m_parts; ++part)
                one(part);
            return;
        }
        m_executor.run(groups, [&](int group) {
            for (int part = m_parts * group / groups; part < m_parts * (group + 1) / groups; ++part)
                one(part);
        });
    }

    /// K = exp(score/ε + absorbed potentials), each row divided by its largest entry; v = 1.
    void build()
    {
        std::vector<float> g(m_absorbed.begin(), m_absorbed.end());
        parts([&](std::int64_t b, std::int64_t e, int) {
            buildRows(m_scores, index(), g.data(), b, e, m_experts, m_padded, scale(), limit(), m_kernel.get());
        });
        std::fill(m_logV.begin(), m_logV.end(), 0.0);
        std::fill(m_v.begin(), m_v.begin() + m_experts, 1.0f);
        std::fill(m_v.begin() + m_experts, m_v.end(), 0.0f);
    }

    void absorb()
    {
        for (std::size_t i = 0; i < m_absorbed.size(); ++i)
            m_absorbed[i] += m_logV[i];
        centre(m_absorbed);
        build();
    }

    /// Column sums of the row-normalised plan of the present v, divided by v: Σ_t K_ti / (K_t·v). One pass over K.
    void pass()
    {
        const TransportKernel kernel = kernels().transport;
        parts([&](std::int64_t b, std::int64_t e, int part) {
            double *sums = m_partial.data() + part * m_padded;
            std::fill_n(sums, m_padded, 0.0);
            std::vector<float> burst(static_cast<std::size_t>(m_padded));
            for (std::int64_t t = b; t < e; t += kBurst) {
                kernel(m_kernel.get() + t * m_padded, std::min(kBurst, e - t), m_padded, m_v.data(), burst.data());
                for (std::int64_t i = 0; i < m_padded; ++i)
                    sums[i] += static_cast<double>(burst[static_cast<std::size_t>(i)]);
            }
        });
        std::fill(m_columns.begin(), m_columns.end(), 0.0);
        for (int part = 0; part < m_parts; ++part)
            for (std::int64_t i = 0; i < m_padded; ++i)
                m_columns[static_cast<std::size_t>(i)] += m_partial[static_cast<std::size_t>(part * m_padded + i)];
    }

    /// Relative column error of that plan: largest entry, and Euclidean norm for the rate of convergence.
    [[nodiscard]] double violation(double *norm = nullptr) const
    {
        double worst = 0, square = 0;
        for (std::int64_t i = 0; i < m_experts; ++i) {
            const double error = m_columns[static_cast<std::size_t>(i)] * static_cast<double>(m_v[static_cast<std::size_t>(i)]) / m_share - 1;
            worst = std::isfinite(error) ? std::max(worst, std::abs(error)) : std::numeric_limits<double>::infinity();
            square += error * error;
        }
        if (norm)
            *norm = std::sqrt(square);
        return worst;
    }

    [[nodiscard]] bool underflowed() const
    {
        for (std::int64_t i = 0; i < m_experts; ++i)
            if (!(m_columns[static_cast<std::size_t>(i)] > 1e-25) || !std::isfinite(m_columns[static_cast<std::size_t>(i)]))
                return true;
        return false;
    }

    /// v ← v·(share / column)^ω
    void update(double omega)
    {
        double largest = 0;
        for (std::int64_t i = 0; i < m_experts; ++i) {
            double &logV = m_logV[static_cast<std::size_t>(i)];
            const double target = std::log(m_share / m_columns[static_cast<std::size_t>(i)]);
            logV += omega * (target - logV);
            largest = std::max(largest, std::abs(logV));
            m_v[static_cast<std::size_t>(i)] = static_cast<float>(std::exp(logV));
        }
        if (largest > kSafeLog)
            absorb();
    }

    /// One row and column update in the log domain, in double: for columns whose kernel entries all underflow. Slow and rare.
    void logUpdate()
    {
        std::vector<double> high(static_cast<std::size_t>(m_experts), -std::numeric_limits<double>::infinity()), sum(high.size(), 0.0), z(high.size());
        for (std::int64_t t = 0; t < m_rows; ++t) {
            const float *x = m_scores + (m_masked ? m_index[static_cast<std::size_t>(t)] : t) * m_experts;
            double top = -std::numeric_limits<double>::infinity(), total = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                z[i] = std::clamp(static_cast<double>(x[i]) * static_cast<double>(scale()), -static_cast<double>(limit()), static_cast<double>(limit()));
                top = std::max(top, z[i] + m_absorbed[i] + m_logV[i]);
            }
            for (std::size_t i = 0; i < z.size(); ++i)
                total += std::exp(z[i] + m_absorbed[i] + m_logV[i] - top);
            const double f = -top - std::log(total);
            for (std::size_t i = 0; i < z.size(); ++i) {
                const double entry = z[i] + f;
                if (entry > high[i]) {
                    sum[i] = sum[i] * std::exp(high[i] - entry) + 1;
                    high[i] = entry;
                } else {
                    sum[i] += std::exp(entry - high[i]);
                }
            }
        }
        for (std::size_t i = 0; i < z.size(); ++i) {
            m_absorbed[i] = std::log(m_share) - high[i] - std::log(sum[i]);
            m_logV[i] = 0;
        }
        centre(m_absorbed);
        build();
    }

    void fixed(SinkhornResult &result)
    {
        build();
        for (int i = 0; i < m_options.iterations; ++i) {
            pass();
            if (underflowed())
                logUpdate();
            else
                update(1.0);
        }
        pass();
        result.iterations = m_options.iterations;
        result.violation = violation();
    }

    void untilTolerance(SinkhornResult &result)
    {
        // A sharp transport is approached through softer ones: potentials scale with 1/ε (Schmitzer 2019, arXiv 1610.06519, section 3.2).
        const double target = m_epsilon;
        std::vector<double> stages = {target};
        if (m_options.accelerate && !m_options.clampLogits)
            while (stages.back() < 0.05)
                stages.push_back(stages.back() * 2);
        int left = m_options.maxIterations;
        bool met = false;
        for (std::size_t s = stages.size(); s-- > 0;) {
            const bool last = s == 0;
            if (s + 1 < stages.size())
                for (std::size_t i = 0; i < m_absorbed.size(); ++i)
                    m_absorbed[i] = (m_absorbed[i] + m_logV[i]) * (stages[s + 1] / stages[s]);
            m_epsilon = stages[s];
            build();
            const int allowed = last ? left : std::min(left, 30);
            const int used = descend(last ? m_options.tolerance : std::max(0.05, m_options.tolerance), allowed, met, result.violation);
            left -= used;
            result.iterations += used;
            if (left <= 0 && !last) { // no pass left for the stage that counts: report its violation truly
                for (std::size_t i = 0; i < m_absorbed.size(); ++i)
                    m_absorbed[i] = (m_absorbed[i] + m_logV[i]) * (stages[s] / target);
                m_epsilon = target;
                build();
                pass();
                result.violation = violation();
                met = result.violation <= m_options.tolerance;
                break;
            }
        }
        result.converged = met;
    }

    /// Passes at one ε until the violation is at most `tolerance`. Over-relaxed once the rate of convergence is known
    /// (Thibault et al. 2021, Algorithms 14(5):143): ω = 2/(1+√(1−ρ)), back to 1 when the error rises.
    [[nodiscard]] int descend(double tolerance, int allowed, bool &met, double &reached)
    {
        double omega = 1, before = 0, rateBefore = 0, best = std::numeric_limits<double>::infinity(), cap = 1.9;
        int plain = 0, used = 0;
        met = false;
        while (true) {
            pass();
            ++used;
            double norm = 0;
            reached = violation(&norm);
            if (reached <= tolerance) {
                met = true;
                return used;
            }
            if (used >= allowed)
                return used;
            if (underflowed()) {
                logUpdate();
                before = rateBefore = 0;
                plain = 0;
                omega = 1;
                continue;
            }
            if (m_options.accelerate) {
                if (omega > 1 && norm > 3 * best) {
                    omega = 1;
                    cap = 1 + 0.7 * (cap - 1);
                    plain = 0;
                } else if (omega == 1 && before > 0 && norm < before) {
                    const double rate = norm / before;
                    if (++plain >= 2 && std::abs(rate - rateBefore) < 0.1 * (1 - std::min(rate, 0.999)) + 0.02)
                        omega = std::min(cap, 2 / (1 + std::sqrt(1 - std::min(rate, 0.9999))));
                    rateBefore = rate;
                }
                best = std::min(best, norm);
                before = norm;
            }
            update(omega);
        }
    }

    void writePlan(std::span<float> plan, const std::vector<double> &potential)
    {
        if (m_rows > 0)
            parts([&](std::int64_t b, std::int64_t e, int) { planRows(m_kernel.get(), m_v.data(), index(), b, e, m_experts, m_padded, plan.data()); });
        std::vector<float> g(potential.begin(), potential.end()), row(static_cast<std::size_t>(m_padded)), ones(static_cast<std::size_t>(m_padded), 1.0f);
        for (const std::int64_t t : m_others) {
            buildRow(m_scores + t * m_experts, g.data(), m_experts, m_padded, scale(), limit(), row.data());
            planRows(row.data(), ones.data(), nullptr, 0, 1, m_experts, m_padded, plan.data() + t * m_experts);
        }
    }

    const float *m_scores;
    std::int64_t m_experts, m_padded, m_rows = 0;
    const SinkhornOptions &m_options;
    const Executor &m_executor;
    double m_epsilon = m_options.epsilon, m_share = 1;
    bool m_masked = false;
    int m_parts = 1;
    std::vector<std::int64_t> m_index, m_others;
    std::unique_ptr<float[], Free> m_kernel;      ///< [rows, padded]
    std::vector<float> m_v;                       ///< [padded]
    std::vector<double> m_logV, m_absorbed;       ///< [E]; g = absorbed + logV
    std::vector<double> m_columns, m_partial;
};

} // namespace

bool SinkhornOptions::isValid(std::string *why) const
{
    const auto bad = [why](const char *text) {
        if (why)
            *why = text;
        return false;
    };
    if (!(epsilon > 0) || !std::isfinite(epsilon))
        return bad("epsilon must be above 0");
    if (!(tolerance >= 0) || !std::isfinite(tolerance))
        return bad("tolerance must be at least 0");
    if (iterations < 1 || maxIterations < 1)
        return bad("iterations must be at least 1");
    return true;
}

void centre(std::span<double> potential)
{
    const double mean = std::accumulate(potential.begin(), potential.end(), 0.0) / std::max<double>(1.0, static_cast<double>(potential.size()));
    for (double &g : potential)
        g -= mean;
}

Result<SinkhornResult> sinkhorn(std::span<const float> scores, std::int64_t experts, const SinkhornOptions &options, std::span<float> plan,
                                std::span<const std::uint8_t> counted, const Executor &executor)
{
    std::string why;
    if (!options.isValid(&why))
        return usageError(why, "sinkhorn");
    if (experts < 1 || scores.size() % static_cast<std::size_t>(experts) != 0)
        return bugError("scores are not whole rows", "sinkhorn");
    const std::int64_t rows = static_cast<std::int64_t>(scores.size()) / experts;
    if ((!plan.empty() && plan.size() != scores.size()) || (!counted.empty() && static_cast<std::int64_t>(counted.size()) != rows))
        return bugError("plan or mask does not fit the scores", "sinkhorn");
    if (!allFinite(scores.data(), static_cast<std::int64_t>(scores.size()))) {
        std::size_t at = 0;
        while (std::isfinite(scores[at]))
            ++at;
        return inputError("a score is not a finite number", "row " + std::to_string(at / static_cast<std::size_t>(experts)) + ", column "
                                                                + std::to_string(at % static_cast<std::size_t>(experts)));
    }
    try {
        return Solver(scores, experts, options, counted, executor).solve(plan);
    } catch (const std::bad_alloc &) {
        return workError("not enough memory for " + std::to_string(rows) + " x " + std::to_string(experts) + " scores", "sinkhorn");
    }
}

} // namespace spectra::rule
