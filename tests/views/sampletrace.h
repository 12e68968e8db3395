// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/arraytrace.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>

namespace spectra::viewtest {

struct SampleShape {
    int layers = 4, experts = 8, slots = 2, dimension = 16, hidden = 24;
    int sequences = 24, length = 40; ///< the first token of each sequence is masked
    bool vectors = true, withHidden = true, withProbabilities = true;
    unsigned seed = 3;
};

/// A small trace that has some structure: domains prefer experts, neighbours tend to keep theirs. The same numbers on
/// every machine.
[[nodiscard]] std::shared_ptr<ArrayTrace> sampleTrace(const SampleShape &shape = {});

/// A trace whose reads wait until they are let through, or fail: for what views do meanwhile.
class GatedTrace : public TraceSource {
public:
    explicit GatedTrace(std::shared_ptr<const TraceSource> inner) : m_inner(std::move(inner)) {}
    void close();              ///< reads wait from now on
    void open();               ///< all go on
    std::atomic<bool> broken{false};   ///< reads of columns fail
    std::atomic<int> blocksRead{0}, waiting{0};
    [[nodiscard]] bool wasCancelled() const { return m_cancelled; }

    [[nodiscard]] std::shared_ptr<const TraceInfo> info() const override { return m_inner->info(); }
    [[nodiscard]] Result<std::shared_ptr<const std::vector<SequenceInfo>>> sequences() const override { return m_inner->sequences(); }
    [[nodiscard]] Result<std::shared_ptr<const TokenBlock>> tokens(TokenRange range, std::stop_token stop = {}) const override;
    [[nodiscard]] Result<std::shared_ptr<const Block>> block(Column column, int layer, TokenRange range,
                                                             std::stop_token stop = {}) const override;
    [[nodiscard]] Result<std::shared_ptr<const TableValue>> table(Table table, int layer) const override;

private:
    bool wait(const std::stop_token &stop) const;
    std::shared_ptr<const TraceSource> m_inner;
    mutable std::mutex m_mutex;
    mutable std::condition_variable_any m_changed;
    mutable std::atomic<bool> m_cancelled{false};
    bool m_closed = false;
};

} // namespace spectra::viewtest
