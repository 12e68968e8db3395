// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/routingrecord.h"
#include "engine/model/model.h"
#include "engine/run/sequences.h"
#include "engine/trace/livetrace.h"
#include "engine/trace/tracespec.h"
#include "engine/trace/tracewriter.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace spectra {

/// Fields that this model's router can give, and the sizes of its vectors; found by routing one row of ones.
struct RouterAbilities {
    FieldMask fields = ~FieldMask(0);
    int slots = 0;
    int routerDim = 0;
};
[[nodiscard]] Result<RouterAbilities> routerAbilities(Model &model);

/// Turns what a pass says of its layers into records and hands them to the writer and the live trace. Engine thread only.
class Recorder {
public:
    /// Either target may be null.
    Recorder(Model &model, const TraceSpec &spec, TraceWriter *writer, LiveTrace *live);

    /// Continues the expert sums of an interrupted run.
    void restore(const std::vector<LayerTables> &sums);

    /// A sequence whose first token is the trace's `offset`. Several may be open; passes name them by their place in `open`.
    [[nodiscard]] Result<void> begin(std::int32_t sequence, const TokenSequence &tokens, std::int64_t offset, std::int64_t longest);
    /// Hooks for a pass whose rows are, sequence after sequence, `rows[i]` tokens of open sequence `order[i]`, which follow
    /// the tokens that it already has. The recorder must outlive the pass; status() tells whether a record failed.
    [[nodiscard]] PassHooks hooks(const std::vector<std::int32_t> &order, const std::vector<std::int64_t> &rows, PassTiming *timing, std::stop_token stop);
    /// The mask of the rows that a sequence is about to give to a pass.
    void setMask(std::int32_t sequence, std::vector<std::uint8_t> mask);
    /// Token columns of the rows that just passed.
    [[nodiscard]] Result<void> tokens(TokenRecord record);
    [[nodiscard]] Result<void> end(std::int32_t sequence, SequenceInfo info);

    [[nodiscard]] Result<void> status() const;
    /// Tables for TraceWriter::finish.
    [[nodiscard]] std::vector<LayerTables> tables() const;
    /// Top experts per layer of the rows of the last pass, [rows][L]; kept only when asked for.
    void keepTopExperts(bool keep) { m_keepTop = keep; }
    [[nodiscard]] const std::vector<std::vector<std::uint16_t>> &topExperts() const { return m_top; }

private:
    struct OpenSequence {
        std::int32_t number = 0;
        std::int64_t offset = 0, done = 0;        ///< trace token of its first row, rows seen in passes before
        bool hidden = false;
        std::vector<std::uint8_t> mask;           ///< of the rows of this pass
        std::int64_t counted = 0;
        std::vector<std::vector<double>> routing, expression; ///< [L][E·D] sums over counted tokens
    };
    void layer(const RoutingLayer &layer, const std::vector<std::int32_t> &order, const std::vector<std::int64_t> &starts);
    void emit(const RoutingLayer &layer, OpenSequence &sequence, std::int64_t first, std::int64_t last, std::int64_t passStart);
    void fail(Result<void> result);

    Model &m_model;
    TraceSpec m_spec;
    TraceWriter *m_writer;
    LiveTrace *m_live;
    std::vector<OpenSequence> m_open;
    std::vector<ExpertSums> m_sums;
    Result<void> m_status;
    HiddenSample m_liveSample;
    bool m_keepTop = false;
    std::vector<std::vector<std::uint16_t>> m_top;
};

} // namespace spectra
