// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/trace/tracespec.h"
#include "engine/trace/tracewriter.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace spectra {

/// A plausible trace of a run that never was: experts with preferred domains, routing that stays for some tokens, weights
/// and entropy that follow from the probabilities. Everything depends on the options only; every token's values on the seed
/// and the token's place, so a run can be cut and continued anywhere.
struct SyntheticOptions {
    int layers = 4, experts = 8, slots = 2, routerDim = 8, hidden = 16;
    std::int64_t tokens = 2000;              ///< about: whole sequences
    std::int64_t sequenceLength = 100;       ///< mean; lengths vary by ±40 %
    std::vector<std::string> domains{"code", "mathematics", "prose"};
    Capture capture = Capture::full().add(Field::gru).add(Field::expertOutputs).add(Field::dense);
    int denseLayers = 1;
    bool linearRouter = false;               ///< router weights instead of vectors, buffers and GRU states
    bool transport = true;                   ///< one transport batch per sequence
    bool f16 = true;
    int compress = 1;
    bool live = false;
    std::int64_t hiddenTokens = 512;
    std::uint64_t seed = 1;
    int recordTokens = 64;                   ///< tokens of one record
    double flushSeconds = 2;
};

/// The run that the options stand for, piece by piece.
class SyntheticRun {
public:
    explicit SyntheticRun(const SyntheticOptions &options);
    [[nodiscard]] const TraceSpec &spec() const { return m_spec; }
    [[nodiscard]] std::int64_t sequences() const { return static_cast<std::int64_t>(m_lengths.size()); }
    [[nodiscard]] std::int64_t tokens() const { return m_offsets.back(); }
    [[nodiscard]] std::int64_t offset(std::int64_t sequence) const { return m_offsets[static_cast<std::size_t>(sequence)]; }
    [[nodiscard]] SequenceInfo info(std::int64_t sequence) const;
    /// Tokens [from, to) of a sequence (positions).
    [[nodiscard]] TokenRecord tokens(std::int64_t sequence, std::int64_t from, std::int64_t to) const;
    [[nodiscard]] RoutingRecord routing(std::int64_t sequence, int layer, std::int64_t from, std::int64_t to, bool sampled) const;
    [[nodiscard]] RoutingRecord dense(std::int64_t sequence, int layer, std::int64_t from, std::int64_t to) const;
    [[nodiscard]] SequenceMeans means(std::int64_t sequence, int layer) const;
    /// Adds a sequence's expert sums; starts from what is in `sums`.
    void addSums(std::int64_t sequence, std::vector<LayerTables> &sums) const;
    /// Tables of the end of the run with these sums.
    [[nodiscard]] std::vector<LayerTables> tables(const std::vector<LayerTables> &sums) const;

    /// Feeds one sequence: anything with TraceWriter's calls. `Sink` may be TraceWriter or a thin adapter.
    [[nodiscard]] Result<void> feed(TraceWriter &writer, std::int64_t sequence, std::vector<LayerTables> &sums) const;

private:
    [[nodiscard]] int expertOf(std::int64_t sequence, int layer, std::int64_t position) const;
    SyntheticOptions m_options;
    TraceSpec m_spec;
    std::vector<std::int64_t> m_lengths, m_offsets;
};

/// Writes the whole trace to `path` (replaced when there).
[[nodiscard]] Result<void> writeSyntheticTrace(const std::filesystem::path &path, const SyntheticOptions &options = {});

} // namespace spectra
