// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/routingrecord.h"
#include "engine/trace/h5.h"
#include "engine/trace/statebasis.h"
#include "engine/trace/tokencolumn.h"
#include "engine/trace/traceschema.h"
#include "engine/trace/tracespec.h"

#include <array>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace spectra {

/// The file side of TraceWriter: every member runs on the writing thread.
class TraceStore {
public:
    [[nodiscard]] static Result<std::unique_ptr<TraceStore>> create(const std::filesystem::path &part, const TraceSpec &spec);
    /// The file must be a `.part` of the same spec. Position and sums are in the public members below.
    [[nodiscard]] static Result<std::unique_ptr<TraceStore>> resume(const std::filesystem::path &part, const TraceSpec &spec);
    ~TraceStore();

    [[nodiscard]] Result<void> beginSequence(const SequenceInfo &info, bool sampled);
    [[nodiscard]] Result<void> addTokens(TokenRecord record);
    [[nodiscard]] Result<void> addRouting(const RoutingRecord &record);
    [[nodiscard]] Result<void> addDense(const RoutingRecord &record);
    [[nodiscard]] Result<void> addSequenceMeans(SequenceMeans means);
    [[nodiscard]] Result<void> addExpertSums(std::vector<LayerTables> sums);
    [[nodiscard]] Result<void> endSequence(std::int32_t sequence, const SequenceInfo &info);
    [[nodiscard]] Result<void> setCheckpointSha256(const std::string &hex);

    /// Tokens that a commit now would make safe: whole blocks, or with `last` all that every layer has.
    [[nodiscard]] std::int64_t committable(bool last) const;
    [[nodiscard]] Result<void> commit(bool last);
    /// Final tables; `complete` also removes /resume and sets the attributes of a finished file.
    [[nodiscard]] Result<void> writeTables(const std::vector<LayerTables> &tables, bool complete, double wallSeconds);
    [[nodiscard]] Result<void> close(bool sync);
    void abandon()
    {
        if (m_file.valid())
            m_file.abandon();
    }
    [[nodiscard]] std::optional<Error> diskError() const { return m_file.diskError(); }

    [[nodiscard]] std::int64_t committed() const { return m_committed; }
    std::int64_t resumedSequences = 0, resumedTokens = 0, resumedSampled = 0;
    std::vector<LayerTables> resumedSums;

private:
    struct Sequence {
        SequenceInfo info;
        bool sampled = false, ended = false;
        std::int32_t counted = 0;
        std::map<int, SequenceMeans> means;
        std::optional<std::vector<LayerTables>> sums;
    };
    /// State of the run at the end of a whole sequence, as /resume keeps it.
    struct Point {
        std::int64_t sequences = 0, tokens = 0, counted = 0;
        std::vector<double> meanSums; ///< [2,L,E,D] routing, expression; empty where there are none
        std::vector<LayerTables> sums;
    };
    struct Batch {
        std::int64_t end = 0;
        std::vector<float> violation, potentials; ///< [L], [L,E]; NaN where nothing came
    };
    /// Rows of sampled tokens that wait for their commit.
    struct Sampled {
        schema::Dataset values, token;
        h5::Id valuesId = -1, tokenId = -1;
        h5::Type type = h5::Type::f16;
        std::int64_t width = 0, rows = 0; ///< elements of a row; rows in the file
        std::vector<std::int64_t> inner;
        std::vector<std::map<std::int64_t, std::vector<std::byte>>> pieces; ///< per layer, by first token
        std::vector<Coverage> coverage;
    };

    TraceStore() = default;
    [[nodiscard]] Result<void> createObjects();
    [[nodiscard]] Result<void> createScales();
    [[nodiscard]] Result<void> createDataset(schema::Dataset dataset);
    [[nodiscard]] Result<void> writeAttributes();
    [[nodiscard]] Result<void> createResume();
    [[nodiscard]] Result<void> openObjects();
    void prepare(); ///< buffers and sampled columns, when the datasets are open
    [[nodiscard]] Result<void> checkSame() const;
    [[nodiscard]] Result<void> findPoint();
    [[nodiscard]] Result<void> reloadTail();
    [[nodiscard]] Result<void> writePoint();
    [[nodiscard]] Result<void> writeSampled(Sampled &sampled, std::int64_t end);
    void addSampled(Sampled &sampled, int layer, std::int64_t first, std::int64_t n, std::span<const float> values);
    [[nodiscard]] Result<void> writeBatches(std::int64_t end, bool last);
    [[nodiscard]] Result<void> writeTexts(std::int64_t end);
    [[nodiscard]] Result<void> writeTokenScale(std::int64_t end);
    [[nodiscard]] Result<void> writeSequenceRow(std::int64_t row, const SequenceInfo &info, bool begins, bool textChanged);
    [[nodiscard]] Result<void> advanceWhole();
    [[nodiscard]] Result<void> fitStates(bool last);
    [[nodiscard]] Result<void> projectPending();
    [[nodiscard]] Result<void> setSequences(std::int64_t sequences);
    [[nodiscard]] Result<void> setScale(schema::Axis axis, std::int64_t size);
    [[nodiscard]] Result<void> writeGram(schema::Dataset dataset, int layer, const std::vector<float> &vectors, std::int64_t width);
    [[nodiscard]] Result<void> writeTable(schema::Dataset dataset, int layer, const std::vector<float> &values);
    [[nodiscard]] bool has(schema::Dataset d) const { return m_data[static_cast<std::size_t>(d)].valid() || m_columns.contains(d); }
    [[nodiscard]] h5::Id data(schema::Dataset d) const { return m_data[static_cast<std::size_t>(d)].id(); }
    [[nodiscard]] TokenColumn *column(schema::Dataset d);
    [[nodiscard]] h5::DatasetSpec datasetSpec(schema::Dataset dataset) const;
    [[nodiscard]] std::int64_t frontier() const;

    std::filesystem::path m_path; ///< of the `.part`
    TraceSpec m_spec;
    schema::Sizes m_sizes;
    h5::File m_file;
    h5::Handle m_tokensGroup, m_modelGroup;
    std::array<h5::Handle, schema::kDatasets> m_data;
    std::map<schema::Axis, h5::Handle> m_scales;
    std::map<schema::Dataset, TokenColumn> m_columns;
    std::int64_t m_block = 1; ///< commits are multiples of this

    std::int64_t m_committed = 0, m_sequences = 0, m_nextWhole = 0, m_batches = 0;
    std::map<std::int32_t, Sequence> m_open; ///< begun and not yet passed by m_nextWhole
    std::vector<Coverage> m_layerCoverage;
    Coverage m_tokenCoverage;
    std::int64_t m_textBase = 0;
    std::deque<std::string> m_texts;
    std::map<std::int64_t, Batch> m_waitingBatches;
    std::vector<Sampled> m_sampled;

    Point m_now;                ///< at m_nextWhole
    std::deque<Point> m_points; ///< whole sequences that are not committed yet
    std::array<std::int64_t, 2> m_slotTokens{0, 0};
    std::vector<SequenceInfo> m_lateTexts; ///< live: text that is written at the end
    std::vector<std::string> m_lateTokenTexts;

    bool m_fitted = false;
    std::int64_t m_fittedOn = 0;
    std::vector<std::uint8_t> m_masks; ///< of all tokens until the states are fitted
    std::vector<StateBasis> m_bases;
    std::vector<std::map<std::int64_t, std::vector<float>>> m_states; ///< per layer, by first token
    std::string m_lateSha;
};

} // namespace spectra
