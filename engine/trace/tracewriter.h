// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/routingrecord.h"
#include "engine/trace/tracespec.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace spectra {

/// Writes one trace by the trace page. The file is `name.h5.part` while it grows and `name.h5` when finished; killed at any
/// moment it opens and holds every committed token whole.
///
/// One thread per writer makes every HDF5 call. The add…() calls only queue (64 MiB; they block while it is full) and may
/// come from one producer thread at a time; a failed write surfaces from the next call and from status(). Tokens may
/// arrive in any order of layers and ranges inside a window that the slowest layer bounds.
///
/// Order of calls per sequence: beginSequence, then its tokens and routing, addSequenceMeans per layer, addExpertSums when
/// wantsExpertSums(), endSequence. Sequences are contiguous in token numbers. Several may be open at once.
class TraceWriter {
public:
    /// Creates `path`.part with all its objects. Errors: work (exists and !overwrite, is a folder, not writable, another run
    /// writes it), usage (spec). A `.part` that a killed run left is replaced.
    [[nodiscard]] static Result<std::unique_ptr<TraceWriter>> create(const std::filesystem::path &path, const TraceSpec &spec,
                                                                     bool overwrite);

    struct Resumed {
        std::unique_ptr<TraceWriter> writer;
        std::int64_t sequencesDone = 0;    ///< whole sequences in the file: go on with this one
        std::int64_t tokensDone = 0;       ///< their tokens: the next firstToken
        std::vector<LayerTables> sums;     ///< expert sums and counts at that point, one per layer; empty: none captured
    };
    /// Continues `path`.part from its last whole sequence. Errors: input (no .part, not a trace, damaged, written with other
    /// settings), work (`path` exists and !overwrite, not writable, another run writes it).
    [[nodiscard]] static Result<Resumed> resume(const std::filesystem::path &path, const TraceSpec &spec, bool overwrite = false);
    /// True when there is a `.part` beside `path`.
    [[nodiscard]] static bool resumable(const std::filesystem::path &path);

    /// Neither finished nor cancelled: as cancel() without tables.
    ~TraceWriter();
    TraceWriter(const TraceWriter &) = delete;
    TraceWriter &operator=(const TraceWriter &) = delete;

    /// `info.offset` is the sequence's first token; `length` and `text` may be those of the prompt alone.
    [[nodiscard]] Result<void> beginSequence(SequenceInfo info);
    [[nodiscard]] Result<void> addTokens(TokenRecord record);
    /// Fields that the trace does not hold are ignored; a record lacks no field that it holds, but hidden states and
    /// expert outputs, which come for sampled sequences only.
    [[nodiscard]] Result<void> addRouting(RoutingRecord record);
    /// Hidden states of a layer without experts: `layer` is the ordinal in TraceSpec::denseIndex, `hiddenStates` the values.
    [[nodiscard]] Result<void> addDense(RoutingRecord record);
    [[nodiscard]] Result<void> addSequenceMeans(SequenceMeans means);
    /// Expert input and output sums and counts of the run so far, with the sequence that is about to end. A killed run can
    /// be continued from those sequence ends only that have them (all, where expert means are not captured).
    [[nodiscard]] Result<void> addExpertSums(std::vector<LayerTables> sums);
    /// False where expert means are not captured, or a copy of large sums was given less than a second ago.
    [[nodiscard]] bool wantsExpertSums() const;
    /// `info` as it is now: full text, length, counted. The sequence's number is the order of beginSequence calls.
    [[nodiscard]] Result<void> endSequence(std::int32_t sequence, SequenceInfo info);

    /// True when hidden states (and expert outputs, dense states) of this sequence belong into the trace.
    [[nodiscard]] bool wantsHidden(std::int32_t sequence, std::int64_t length);
    /// The checkpoint's digest, when hashing is done.
    [[nodiscard]] Result<void> setCheckpointSha256(std::string hex);

    /// Writes all that waits, the final tables, closes and renames. No call may follow.
    [[nodiscard]] Result<void> finish(std::vector<LayerTables> tables, double wallSeconds);
    /// Writes all that waits and keeps the `.part`, which resume() continues. No call may follow.
    [[nodiscard]] Result<void> cancel(std::vector<LayerTables> tables = {});
    /// Closes and removes the `.part`: nothing of the run is kept.
    void discard();

    /// Tokens that survive a kill now.
    [[nodiscard]] std::int64_t committed() const;
    /// The first error of the writing thread.
    [[nodiscard]] Result<void> status() const;
    /// The place of the file now: `.part` until finished.
    [[nodiscard]] std::filesystem::path file() const;

private:
    class Impl;
    explicit TraceWriter(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> m_impl;
};

} // namespace spectra
