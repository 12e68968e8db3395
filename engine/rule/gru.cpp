// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/gru.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <memory>
#include <numeric>

namespace spectra::rule {
namespace {

constexpr std::int64_t kBlock = 48; ///< rows per task: small enough that the recurrence starts early
/// Recurrent weights above this leave a core's own cache between steps: then reading them is the cost of a step, and all cores share it.
constexpr std::int64_t kOwnCache = 3 << 20;

/// One job's working memory and steps.
class Runner {
public:
    Runner(const VectorJob &job, std::vector<float> &scratch, const Executor &executor)
        : m_job(job), m_executor(executor), m_sequences(static_cast<std::int64_t>(job.offsets.size()) - 1),
          m_inputWidth(job.input->paddedOutputs()), m_padded(job.input->blockWidth()),
          m_split(executor.threads > 1 && job.recurrent && job.recurrent->bytes() > kOwnCache)
    {
        const std::size_t needed = static_cast<std::size_t>(job.n * m_inputWidth);
        if (scratch.size() < needed)
            scratch.resize(needed);
        m_inputs = scratch.data();
    }

    void run()
    {
        if (m_job.axis == VectorJob::Axis::none || m_job.axis == VectorJob::Axis::depth) {
            fewRowsOr([this] { forRange(m_executor, m_job.n, kBlock, [this](std::int64_t b, std::int64_t e) { rows(b, e, true, true); }); });
            forRange(m_executor, m_job.n, kBlock, [this](std::int64_t b, std::int64_t e) { independentStates(b, e); });
        } else if (m_sequences == 1 && m_job.n > m_executor.threads && !m_split) {
            pipeline();
        } else {
            fewRowsOr([this] { forRange(m_executor, m_job.n, kBlock, [this](std::int64_t b, std::int64_t e) { rows(b, e, true, true); }); });
            // Sequences do not meet: each thread advances its share of them together.
            const int parts = m_split ? 1 : static_cast<int>(std::clamp<std::int64_t>(m_sequences / 4, 1, m_executor.threads));
            const auto some = [&](int part) { advance(m_sequences * part / parts, m_sequences * (part + 1) / parts); };
            if (parts == 1)
                some(0);
            else
                m_executor.run(parts, some);
        }
    }

private:
    void project(const PackedMatrix &w, const float *x, std::int64_t xStride, std::int64_t n, float *out) const
    {
        if (w.paddedOutputs() == m_job.width) {
            w.project(x, xStride, n, out, m_job.width);
            return;
        }
        std::vector<float> padded(static_cast<std::size_t>(w.paddedOutputs()));
        for (std::int64_t t = 0; t < n; ++t) {
            w.project(x + t * xStride, xStride, 1, padded.data(), w.paddedOutputs());
            std::copy_n(padded.data(), m_job.width, out + t * m_job.width);
        }
    }

    /// Input part and expression vectors of rows b..e.
    void rows(std::int64_t b, std::int64_t e, bool inputs, bool expressions) const
    {
        const std::int64_t d = m_job.input->depth();
        if (inputs)
            m_job.input->project(m_job.x + b * d, d, e - b, m_inputs + b * m_inputWidth, m_inputWidth);
        if (expressions && m_job.projector)
            project(*m_job.projector, m_job.x + b * d, d, e - b, m_job.expression + b * m_job.width);
    }

    /// A few rows are bound by reading the weights: split those between threads instead of the rows.
    template <typename Otherwise> void fewRowsOr(const Otherwise &otherwise) const
    {
        const PackedMatrix *projector = m_job.projector;
        const bool whole = !projector || projector->paddedOutputs() == m_job.width;
        const std::int64_t weights = m_job.input->bytes() + (projector ? projector->bytes() : 0);
        if (m_executor.threads == 1 || m_job.n >= kBlock || !whole || weights < (std::int64_t{1} << 20)) {
            otherwise();
            return;
        }
        const std::int64_t first = m_job.input->panels(), all = first + (projector ? projector->panels() : 0), d = m_job.input->depth();
        m_executor.run(m_executor.threads, [&](int part) {
            const std::int64_t b = all * part / m_executor.threads, e = all * (part + 1) / m_executor.threads;
            if (b < first)
                m_job.input->project(m_job.x, d, m_job.n, m_inputs, m_inputWidth, b, std::min(e, first));
            if (e > first)
                projector->project(m_job.x, d, m_job.n, m_job.expression, m_job.width, std::max(b, first) - first, e - first);
        });
    }

    void recurrentProduct(const float *h, std::int64_t n, float *gh) const
    {
        if (!m_split) {
            m_job.recurrent->project(h, m_padded, n, gh, m_inputWidth);
            return;
        }
        forRange(m_executor, m_job.recurrent->panels(), 4, [&](std::int64_t first, std::int64_t last) {
            m_job.recurrent->project(h, m_padded, n, gh, m_inputWidth, first, last);
        });
    }

    void independentStates(std::int64_t b, std::int64_t e) const
    {
        if (m_job.axis == VectorJob::Axis::none) {
            for (std::int64_t t = b; t < e; ++t)
                std::copy_n(m_inputs + t * m_inputWidth, m_job.width, m_job.routing + t * m_job.width);
            return;
        }
        const std::int64_t group = 24;
        std::vector<float> h(static_cast<std::size_t>(group * m_padded)), gh(static_cast<std::size_t>(group * m_inputWidth));
        for (std::int64_t t = b; t < e; t += group) {
            const std::int64_t n = std::min(group, e - t);
            std::fill(h.begin(), h.end(), 0.0f);
            if (m_job.below)
                for (std::int64_t i = 0; i < n; ++i)
                    std::copy_n(m_job.below + (t + i) * m_job.width, m_job.width, h.data() + i * m_padded);
            m_job.recurrent->project(h.data(), m_padded, n, gh.data(), m_inputWidth);
            for (std::int64_t i = 0; i < n; ++i) {
                kernels().gates(m_inputs + (t + i) * m_inputWidth, gh.data() + i * m_inputWidth, m_padded, h.data() + i * m_padded);
                std::copy_n(h.data() + i * m_padded, m_job.width, m_job.routing + (t + i) * m_job.width);
            }
        }
    }

    void loadStart(std::int64_t s, float *h) const
    {
        std::fill_n(h, m_padded, 0.0f);
        if (m_job.start)
            std::copy_n(m_job.start + s * m_job.startStride, m_job.width, h);
    }

    void storeEnd(std::int64_t s, const float *h) const
    {
        if (m_job.end)
            std::copy_n(h, m_job.width, m_job.end + s * m_job.endStride);
    }

    /// State that goes into the step of row t.
    void mix(std::int64_t t, float *h) const
    {
        if (m_job.axis != VectorJob::Axis::grid)
            return;
        for (std::int64_t i = 0; i < m_job.width; ++i)
            h[i] = 0.5f * (h[i] + (m_job.below ? m_job.below[t * m_job.width + i] : 0.0f));
    }

    /// Sequences first..last in step: at step t all that still have a row share one product.
    void advance(std::int64_t first, std::int64_t last) const
    {
        const std::int64_t count = last - first;
        std::vector<std::int64_t> order(static_cast<std::size_t>(count));
        std::iota(order.begin(), order.end(), first);
        const auto length = [&](std::int64_t s) { return m_job.offsets[static_cast<std::size_t>(s) + 1] - m_job.offsets[static_cast<std::size_t>(s)]; };
        std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
        std::vector<float> h(static_cast<std::size_t>(count * m_padded)), gh(static_cast<std::size_t>(count * m_inputWidth));
        for (std::int64_t i = 0; i < count; ++i)
            loadStart(order[static_cast<std::size_t>(i)], h.data() + i * m_padded);
        const std::int64_t steps = count > 0 ? length(order[0]) : 0;
        std::int64_t active = count;
        for (std::int64_t t = 0; t < steps; ++t) {
            while (active > 0 && length(order[static_cast<std::size_t>(active - 1)]) <= t)
                --active;
            const bool ready = t == 0 && m_job.ready && m_job.axis == VectorJob::Axis::sequence;
            if (m_job.axis == VectorJob::Axis::grid)
                for (std::int64_t i = 0; i < active; ++i)
                    mix(m_job.offsets[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] + t, h.data() + i * m_padded);
            if (!ready)
                recurrentProduct(h.data(), active, gh.data());
            for (std::int64_t i = 0; i < active; ++i) {
                const std::int64_t s = order[static_cast<std::size_t>(i)], row = m_job.offsets[static_cast<std::size_t>(s)] + t;
                float *state = h.data() + i * m_padded;
                kernels().gates(m_inputs + row * m_inputWidth, ready ? m_job.ready + s * m_inputWidth : gh.data() + i * m_inputWidth, m_padded, state);
                std::copy_n(state, m_job.width, m_job.routing + row * m_job.width);
            }
        }
        for (std::int64_t i = 0; i < count; ++i)
            storeEnd(order[static_cast<std::size_t>(i)], h.data() + i * m_padded);
    }

    /// One long sequence: one thread runs the recurrence as soon as a block of input products is there, the others make them and
    /// the expression vectors; whoever waits helps.
    void pipeline()
    {
        const std::int64_t blocks = (m_job.n + kBlock - 1) / kBlock, tasks = blocks * (m_job.projector ? 2 : 1);
        std::atomic<std::int64_t> next{0};
        std::vector<std::atomic<int>> done(static_cast<std::size_t>(blocks));
        const auto doTask = [&](std::int64_t id) {
            const std::int64_t block = id % blocks, b = block * kBlock, e = std::min(m_job.n, b + kBlock);
            rows(b, e, id < blocks, id >= blocks);
            if (id < blocks) {
                done[static_cast<std::size_t>(block)].store(1, std::memory_order_release);
                done[static_cast<std::size_t>(block)].notify_all();
            }
        };
        const auto drain = [&] {
            for (std::int64_t id = next.fetch_add(1); id < tasks; id = next.fetch_add(1))
                doTask(id);
        };
        const auto recur = [&] {
            std::vector<float> h(static_cast<std::size_t>(m_padded)), gh(static_cast<std::size_t>(m_inputWidth));
            loadStart(0, h.data());
            for (std::int64_t block = 0; block < blocks; ++block) {
                auto &flag = done[static_cast<std::size_t>(block)];
                while (flag.load(std::memory_order_acquire) == 0) {
                    const std::int64_t id = next.fetch_add(1);
                    if (id < tasks)
                        doTask(id);
                    else
                        flag.wait(0, std::memory_order_acquire);
                }
                for (std::int64_t t = block * kBlock; t < std::min(m_job.n, (block + 1) * kBlock); ++t) {
                    mix(t, h.data());
                    const bool ready = t == 0 && m_job.ready && m_job.axis == VectorJob::Axis::sequence;
                    if (!ready)
                        m_job.recurrent->project(h.data(), m_padded, 1, gh.data(), m_inputWidth);
                    kernels().gates(m_inputs + t * m_inputWidth, ready ? m_job.ready : gh.data(), m_padded, h.data());
                    std::copy_n(h.data(), m_job.width, m_job.routing + t * m_job.width);
                }
            }
            storeEnd(0, h.data());
        };
        const auto body = [&](int part) {
            if (part == 0)
                recur();
            drain();
        };
        const int parts = static_cast<int>(std::min<std::int64_t>(m_executor.threads, 1 + tasks / 2));
        if (parts <= 1)
            body(0);
        else
            m_executor.run(parts, body);
    }

    const VectorJob &m_job;
    const Executor &m_executor;
    std::int64_t m_sequences, m_inputWidth, m_padded;
    bool m_split;
    float *m_inputs = nullptr;
};

} // namespace

void computeVectors(const VectorJob &job, std::vector<float> &scratch, const Executor &executor)
{
    assert(job.input && (job.axis == VectorJob::Axis::none || job.recurrent));
    assert(job.offsets.size() >= 2 && job.offsets.back() == job.n);
    Runner(job, scratch, executor).run();
}

} // namespace spectra::rule
