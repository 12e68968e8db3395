// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <vector>

namespace spectra {

/// A trace file. Opening reads metadata only; blocks come in whole chunks through one cache that all open traces share
/// (128 MiB). Thread-safe. Reads `.part` files of killed runs up to their last commit, and files of other writers by the
/// trace page.
class TraceReader final : public TraceSource {
public:
    /// Opens without the probe: for files that this process wrote. Errors (input): missing, not a trace, a required dataset
    /// missing, mis-shaped or mistyped (names it and what was expected), written by another process right now.
    [[nodiscard]] static Result<std::shared_ptr<const TraceReader>> open(const std::filesystem::path &path);
    ~TraceReader() override;

    [[nodiscard]] std::shared_ptr<const TraceInfo> info() const override;
    [[nodiscard]] Result<std::shared_ptr<const std::vector<SequenceInfo>>> sequences() const override;
    [[nodiscard]] Result<std::shared_ptr<const TokenBlock>> tokens(TokenRange range, std::stop_token stop = {}) const override;
    [[nodiscard]] Result<std::shared_ptr<const Block>> block(Column column, int layer, TokenRange range,
                                                             std::stop_token stop = {}) const override;
    [[nodiscard]] Result<std::shared_ptr<const TableValue>> table(Table table, int layer) const override;

    /// Decoder layers without experts whose hidden states the trace holds; empty: none.
    [[nodiscard]] const std::vector<std::int32_t> &denseIndex() const;
    /// Hidden states [rows, H] of the sampled tokens of `range` in a layer without experts (ordinal in denseIndex()).
    [[nodiscard]] Result<std::shared_ptr<const Block>> dense(int layer, TokenRange range, std::stop_token stop = {}) const;

private:
    class Impl;
    explicit TraceReader(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> m_impl;
};

struct OpenOptions {
    /// Let a child process with limits open the file first. Files that this process wrote or has already probed, unchanged
    /// since, are opened directly.
    bool probe = true;
    double probeSeconds = 60;       ///< a child that takes longer is a refused file
    std::stop_token stop;           ///< ends the child
};

/// Opens a trace from outside. Errors (input) as TraceReader::open, and when the probe refuses the file or dies on it;
/// work: the probe program is not there; cancelled.
[[nodiscard]] Result<std::shared_ptr<const TraceReader>> openTrace(const std::filesystem::path &path,
                                                                   const OpenOptions &options = {});

/// Runs the probe alone: ok when every object of the HDF5 file opens, all text reads and every chunk lies inside the file.
[[nodiscard]] Result<void> probeTrace(const std::filesystem::path &path, const OpenOptions &options = {});

} // namespace spectra
