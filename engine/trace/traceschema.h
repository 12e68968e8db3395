// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/trace/h5.h"
#include "engine/trace/tracespec.h"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The trace page as a table: what writer, reader and validator know of every dataset.
namespace spectra::schema {

inline constexpr std::string_view kFormat = "spectra-trace";
inline constexpr std::string_view kVersion = "1.0";
inline constexpr std::int64_t kPcaTokens = 1024; ///< counted tokens that the GRU basis is fitted on
inline constexpr int kPcaComponents = 8;
inline constexpr std::int64_t kNarrowChunk = 4096;

enum class Axis : std::uint8_t {
    none, layer, token, slot, expert, dimension, feature, sequence, sequenceEdge, batch, batchEdge, state, component, sample,
    outputSample, denseSample, denseLayer, physical, count_
};
/// Name of the dimension scale of an axis, at the root of the file.
[[nodiscard]] const char *scaleName(Axis axis);
[[nodiscard]] bool isUnlimited(Axis axis);

enum class Element : std::uint8_t { u8, u16, i32, i64, f32, f16, scalar /* f16 or f32 */, text };

/// How the writer puts it into the file.
enum class Store : std::uint8_t {
    narrow,   ///< per token, uncompressed chunks of 4,096 tokens, written in place
    wide,     ///< per token, compressed blocks, appended whole
    sampled,  ///< rows of sampled tokens, uncompressed, written in place
    growing,  ///< per sequence or batch, uncompressed, written in place
    table,    ///< of fixed size
};

enum class Dataset : std::uint8_t {
    decoderIndex,
    sequenceId, sequenceDomain, sequenceText, sequenceLabel, sequenceOffset, sequencePrompt, sequenceCounted,
    tokenId, tokenText, tokenSequence, tokenPosition, tokenPhase, tokenMask, tokenByte, tokenNll, tokenNext,
    experts, weights, logits, selection, probabilities, entropy, dropped, routingVectors, expressionVectors,
    routingSequenceMeans, expressionSequenceMeans, routingMeans, expressionMeans, routerWeights, bufferMean, bufferPotential,
    gramRouting, gramExpression, gramWeights, sinkhornViolation, sinkhornPotentials, batchOffset,
    gru, gruPca, gruPcaMean, gruPcaBasis, hiddenValues, hiddenToken, inputMean, outputMean, outputValues, outputToken,
    denseIndex, denseValues, denseToken, physicalToLogical, count_
};
inline constexpr std::size_t kDatasets = static_cast<std::size_t>(Dataset::count_);

struct Rule {
    Dataset dataset;
    const char *path;
    Element element;
    std::array<Axis, 4> axes;
    Store store;
    const char *units;
    const char *meaning;
    [[nodiscard]] int rank() const;
};
[[nodiscard]] const Rule &rule(Dataset dataset);
[[nodiscard]] std::span<const Rule> rules();

/// Sizes of all axes of one trace.
struct Sizes {
    std::array<std::int64_t, static_cast<std::size_t>(Axis::count_)> of{};
    std::int64_t &operator[](Axis a) { return of[static_cast<std::size_t>(a)]; }
    std::int64_t operator[](Axis a) const { return of[static_cast<std::size_t>(a)]; }
};
[[nodiscard]] Sizes sizesOf(const TraceSpec &spec);

/// True when a run with this spec has the dataset.
[[nodiscard]] bool exists(Dataset dataset, const TraceSpec &spec);
/// True when no trace goes without it.
[[nodiscard]] bool isRequired(Dataset dataset, int layers);
[[nodiscard]] h5::Type fileType(Element element, bool f16);
/// Shape with sizes put in; the inner axes of a per-token dataset are those after the token axis.
[[nodiscard]] std::vector<std::int64_t> shape(const Rule &rule, const Sizes &sizes);
/// Chunk shape for writing (empty: contiguous).
[[nodiscard]] std::vector<std::int64_t> chunk(const Rule &rule, const Sizes &sizes, h5::Type type);

[[nodiscard]] std::optional<Dataset> datasetOf(Column column);
[[nodiscard]] Dataset datasetOf(Table table);
/// The capture field that a dataset belongs to.
[[nodiscard]] Field fieldOf(Dataset dataset);

} // namespace spectra::schema
