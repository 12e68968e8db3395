// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/traceschema.h"

#include <algorithm>

namespace spectra::schema {
namespace {

using A = Axis;
using D = Dataset;
using E = Element;
using S = Store;

constexpr const char *kPlain = "1";
constexpr Rule kRules[] = {
    {D::decoderIndex, "/layers/decoder_index", E::i32, {A::layer}, S::table, kPlain, "decoder layer of each traced MoE layer"},
    {D::sequenceId, "/sequences/id", E::text, {A::sequence}, S::growing, "", "name of the sequence"},
    {D::sequenceDomain, "/sequences/domain", E::text, {A::sequence}, S::growing, "", "domain of the text"},
    {D::sequenceText, "/sequences/text", E::text, {A::sequence}, S::growing, "", "text of the whole sequence"},
    {D::sequenceLabel, "/sequences/label", E::text, {A::sequence}, S::growing, "", "label given with the prompt"},
    {D::sequenceOffset, "/sequences/offset", E::i64, {A::sequenceEdge}, S::growing, "tokens", "first token of each sequence, then the end"},
    {D::sequencePrompt, "/sequences/prompt_length", E::i32, {A::sequence}, S::growing, "tokens", "tokens of the prompt"},
    {D::sequenceCounted, "/sequences/counted", E::i32, {A::sequence}, S::growing, "tokens", "counted tokens (mask 1)"},
    {D::tokenId, "/tokens/id", E::i32, {A::token}, S::narrow, kPlain, "token id in the tokenizer's vocabulary"},
    {D::tokenText, "/tokens/text", E::text, {A::token}, S::narrow, "", "the token's own text"},
    {D::tokenSequence, "/tokens/sequence", E::i32, {A::token}, S::narrow, kPlain, "sequence of the token"},
    {D::tokenPosition, "/tokens/position", E::i32, {A::token}, S::narrow, "tokens", "position in the sequence, from 0"},
    {D::tokenPhase, "/tokens/phase", E::u8, {A::token}, S::narrow, kPlain, "0 prompt, 1 generated"},
    {D::tokenMask, "/tokens/mask", E::u8, {A::token}, S::narrow, kPlain, "1 counted, 0 special or padding"},
    {D::tokenByte, "/tokens/byte_offset", E::i32, {A::token}, S::narrow, "bytes", "where the token begins in the UTF-8 of the sequence's text"},
    {D::tokenNll, "/tokens/nll", E::f32, {A::token}, S::narrow, "nats", "minus log probability of the next token"},
    {D::tokenNext, "/tokens/next_top1", E::i32, {A::token}, S::narrow, kPlain, "most likely next token"},
    {D::experts, "/routing/experts", E::u16, {A::layer, A::token, A::slot}, S::narrow, kPlain, "chosen experts, descending weight; 65535 none"},
    {D::weights, "/routing/weights", E::scalar, {A::layer, A::token, A::slot}, S::narrow, kPlain, "weights as applied to expert outputs"},
    {D::logits, "/routing/logits", E::scalar, {A::layer, A::token, A::expert}, S::wide, kPlain, "raw router scores"},
    {D::selection, "/routing/selection", E::scalar, {A::layer, A::token, A::expert}, S::wide, kPlain, "score that chose the experts"},
    {D::probabilities, "/routing/probabilities", E::scalar, {A::layer, A::token, A::expert}, S::wide, kPlain, "full distribution over experts"},
    {D::entropy, "/routing/entropy", E::f32, {A::layer, A::token}, S::narrow, "nats", "entropy of the full distribution"},
    {D::dropped, "/routing/dropped", E::u8, {A::layer, A::token}, S::narrow, "slots", "slots lost to capacity"},
    {D::routingVectors, "/routing/vectors", E::f16, {A::layer, A::token, A::expert, A::dimension}, S::wide, kPlain, "routing vectors r"},
    {D::expressionVectors, "/expression/vectors", E::f16, {A::layer, A::token, A::expert, A::dimension}, S::wide, kPlain, "expression vectors e"},
    {D::routingSequenceMeans, "/routing/sequence_means", E::f32, {A::layer, A::sequence, A::expert, A::dimension}, S::growing, kPlain, "mean raw routing vector over the sequence's counted tokens"},
    {D::expressionSequenceMeans, "/expression/sequence_means", E::f32, {A::layer, A::sequence, A::expert, A::dimension}, S::growing, kPlain, "mean raw expression vector over the sequence's counted tokens"},
    {D::routingMeans, "/routing/mean_vectors", E::f32, {A::layer, A::expert, A::dimension}, S::table, kPlain, "sequence means weighted by counted tokens"},
    {D::expressionMeans, "/expression/mean_vectors", E::f32, {A::layer, A::expert, A::dimension}, S::table, kPlain, "sequence means weighted by counted tokens"},
    {D::routerWeights, "/routing/router_weights", E::f32, {A::layer, A::expert, A::feature}, S::table, kPlain, "rows of the linear router"},
    {D::bufferMean, "/routing/buffers/mean_expression", E::f32, {A::layer, A::expert, A::dimension}, S::table, kPlain, "running mean of expression vectors that causal inference used"},
    {D::bufferPotential, "/routing/buffers/potential", E::f32, {A::layer, A::expert}, S::table, "nats", "log potential that causal inference used"},
    {D::gramRouting, "/gram/routing", E::f32, {A::layer, A::expert, A::expert}, S::table, kPlain, "cosines of the mean routing vectors"},
    {D::gramExpression, "/gram/expression", E::f32, {A::layer, A::expert, A::expert}, S::table, kPlain, "cosines of the mean expression vectors"},
    {D::gramWeights, "/gram/router_weights", E::f32, {A::layer, A::expert, A::expert}, S::table, kPlain, "cosines of the rows of the router"},
    {D::sinkhornViolation, "/sinkhorn/violation", E::f32, {A::layer, A::batch}, S::growing, kPlain, "relative column violation of each transport batch"},
    {D::sinkhornPotentials, "/sinkhorn/potentials", E::f32, {A::layer, A::batch, A::expert}, S::growing, "nats", "log column potentials of each transport batch"},
    {D::batchOffset, "/sinkhorn/batch_offset", E::i64, {A::batchEdge}, S::growing, "tokens", "first token of each transport batch, then the end"},
    {D::gru, "/state/gru", E::f16, {A::layer, A::token, A::state}, S::wide, kPlain, "GRU state"},
    {D::gruPca, "/state/gru_pca", E::f32, {A::layer, A::token, A::component}, S::narrow, kPlain, "GRU state on its principal axes"},
    {D::gruPcaMean, "/state/gru_pca_mean", E::f32, {A::layer, A::state}, S::table, kPlain, "mean of the states that the axes were fitted on"},
    {D::gruPcaBasis, "/state/gru_pca_basis", E::f32, {A::layer, A::component, A::state}, S::table, kPlain, "principal axes, unit length, descending variance"},
    {D::hiddenValues, "/hidden/values", E::scalar, {A::layer, A::sample, A::feature}, S::sampled, kPlain, "router inputs of sampled sequences"},
    {D::hiddenToken, "/hidden/token", E::i64, {A::sample}, S::sampled, kPlain, "token of each row"},
    {D::inputMean, "/experts/input_mean", E::f32, {A::layer, A::expert, A::feature}, S::table, kPlain, "mean hidden state into an expert, counted tokens"},
    {D::outputMean, "/experts/output_mean", E::f32, {A::layer, A::expert, A::feature}, S::table, kPlain, "mean output of an expert, counted tokens"},
    {D::outputValues, "/experts/outputs/values", E::f16, {A::layer, A::outputSample, A::slot, A::feature}, S::sampled, kPlain, "outputs of the chosen experts, sampled tokens"},
    {D::outputToken, "/experts/outputs/token", E::i64, {A::outputSample}, S::sampled, kPlain, "token of each row"},
    {D::denseIndex, "/dense/decoder_index", E::i32, {A::denseLayer}, S::table, kPlain, "decoder layers without experts"},
    {D::denseValues, "/dense/values", E::f16, {A::denseLayer, A::denseSample, A::feature}, S::sampled, kPlain, "hidden states of layers without experts"},
    {D::denseToken, "/dense/token", E::i64, {A::denseSample}, S::sampled, kPlain, "token of each row"},
    {D::physicalToLogical, "/map/physical_to_logical", E::i32, {A::layer, A::physical}, S::table, kPlain, "logical expert of each physical one"},
};
static_assert(std::size(kRules) == kDatasets);

constexpr bool inOrder()
{
    for (std::size_t i = 0; i < kDatasets; ++i)
        if (static_cast<std::size_t>(kRules[i].dataset) != i)
            return false;
    return true;
}
static_assert(inOrder());

} // namespace

int Rule::rank() const
{
    return static_cast<int>(std::find(axes.begin(), axes.end(), Axis::none) - axes.begin());
}

const Rule &rule(Dataset dataset) { return kRules[static_cast<std::size_t>(dataset)]; }
std::span<const Rule> rules() { return kRules; }

const char *scaleName(Axis axis)
{
    constexpr const char *names[] = {"", "layer", "token", "slot", "expert", "dimension", "feature", "sequence", "sequence_edge", "batch",
                                     "batch_edge", "state_dimension", "component", "sample", "output_sample", "dense_sample", "dense_layer", "physical"};
    static_assert(std::size(names) == static_cast<std::size_t>(Axis::count_));
    return names[static_cast<std::size_t>(axis)];
}

bool isUnlimited(Axis axis)
{
    switch (axis) {
    case Axis::token:
    case Axis::sequence:
    case Axis::sequenceEdge:
    case Axis::batch:
    case Axis::batchEdge:
    case Axis::sample:
    case Axis::outputSample:
    case Axis::denseSample: return true;
    default: return false;
    }
}

Sizes sizesOf(const TraceSpec &spec)
{
    Sizes s;
    s[A::layer] = spec.layers();
    s[A::slot] = spec.slots;
    s[A::expert] = spec.experts;
    s[A::dimension] = spec.routerDim;
    s[A::feature] = spec.hidden;
    s[A::state] = std::int64_t(spec.experts) * spec.routerDim;
    s[A::component] = kPcaComponents;
    s[A::denseLayer] = static_cast<std::int64_t>(spec.denseIndex.size());
    s[A::physical] = spec.layers() > 0 ? static_cast<std::int64_t>(spec.physicalToLogical.size()) / spec.layers() : 0;
    s[A::sequenceEdge] = 1;
    s[A::batchEdge] = 1;
    return s;
}

Field fieldOf(Dataset dataset)
{
    switch (dataset) {
    case D::tokenNll: return Field::nll;
    case D::tokenNext: return Field::nextTop1;
    case D::experts: return Field::experts;
    case D::weights: return Field::weights;
    case D::logits: return Field::logits;
    case D::selection: return Field::selection;
    case D::probabilities: return Field::probabilities;
    case D::entropy: return Field::entropy;
    case D::dropped: return Field::dropped;
    case D::routingVectors:
    case D::expressionVectors: return Field::vectors;
    case D::routingSequenceMeans:
    case D::expressionSequenceMeans:
    case D::routingMeans:
    case D::expressionMeans: return Field::means;
    case D::routerWeights: return Field::routerWeights;
    case D::bufferMean:
    case D::bufferPotential: return Field::buffers;
    case D::gramRouting:
    case D::gramExpression:
    case D::gramWeights: return Field::gram;
    case D::sinkhornViolation:
    case D::sinkhornPotentials:
    case D::batchOffset: return Field::sinkhorn;
    case D::gru: return Field::gru;
    case D::gruPca:
    case D::gruPcaMean:
    case D::gruPcaBasis: return Field::gruPca;
    case D::hiddenValues:
    case D::hiddenToken: return Field::hidden;
    case D::inputMean:
    case D::outputMean: return Field::expertMeans;
    case D::outputValues:
    case D::outputToken: return Field::expertOutputs;
    case D::denseIndex:
    case D::denseValues:
    case D::denseToken: return Field::dense;
    default: return Field::tokens;
    }
}

bool exists(Dataset dataset, const TraceSpec &spec)
{
    const bool moe = spec.layers() > 0;
    const auto available = [&](Field f) { return (spec.available & bit(f)) != 0; };
    const bool vectors = spec.routerDim > 0;
    switch (dataset) {
    case D::denseIndex:
    case D::denseValues:
    case D::denseToken: return spec.holds(Field::dense) && !spec.denseIndex.empty() && spec.hidden > 0;
    case D::physicalToLogical: return moe && !spec.physicalToLogical.empty();
    case D::routingVectors:
    case D::expressionVectors:
    case D::gru:
    case D::gruPca:
    case D::gruPcaMean:
    case D::gruPcaBasis:
    case D::routingSequenceMeans:
    case D::expressionSequenceMeans:
    case D::routingMeans:
    case D::expressionMeans:
    case D::bufferMean: return moe && vectors && spec.holds(fieldOf(dataset));
    case D::gramRouting:
    case D::gramExpression: return moe && vectors && spec.holds(Field::gram) && available(Field::means);
    case D::gramWeights: return moe && spec.hidden > 0 && spec.holds(Field::gram) && available(Field::routerWeights);
    case D::routerWeights:
    case D::hiddenValues:
    case D::hiddenToken:
    case D::inputMean:
    case D::outputMean:
    case D::outputValues:
    case D::outputToken: return moe && spec.hidden > 0 && spec.holds(fieldOf(dataset));
    default: break;
    }
    const Field field = fieldOf(dataset);
    if (field == Field::tokens)
        return true;
    if (field == Field::nll || field == Field::nextTop1)
        return spec.holds(field);
    return moe && spec.holds(field);
}

bool isRequired(Dataset dataset, int layers)
{
    switch (dataset) {
    case D::decoderIndex:
    case D::sequenceOffset:
    case D::tokenId:
    case D::tokenSequence:
    case D::tokenPosition: return true;
    case D::experts:
    case D::weights: return layers > 0;
    default: return false;
    }
}

h5::Type fileType(Element element, bool f16)
{
    switch (element) {
    case E::u8: return h5::Type::u8;
    case E::u16: return h5::Type::u16;
    case E::i32: return h5::Type::i32;
    case E::i64: return h5::Type::i64;
    case E::f32: return h5::Type::f32;
    case E::f16: return h5::Type::f16;
    case E::scalar: return f16 ? h5::Type::f16 : h5::Type::f32;
    case E::text: break;
    }
    return h5::Type::text;
}

std::vector<std::int64_t> shape(const Rule &rule, const Sizes &sizes)
{
    std::vector<std::int64_t> out;
    for (int i = 0; i < rule.rank(); ++i)
        out.push_back(sizes[rule.axes[static_cast<std::size_t>(i)]]);
    return out;
}

std::vector<std::int64_t> chunk(const Rule &rule, const Sizes &sizes, h5::Type type)
{
    const int rank = rule.rank();
    int along = -1; // the axis that grows
    for (int i = 0; i < rank; ++i)
        if (isUnlimited(rule.axes[static_cast<std::size_t>(i)]))
            along = i;
    if (along < 0)
        return {};
    constexpr std::int64_t most = std::int64_t(1) << 20;
    std::vector<std::int64_t> out(static_cast<std::size_t>(rank), 1);
    std::int64_t rowBytes = static_cast<std::int64_t>(h5::sizeOf(type));
    for (int i = along + 1; i < rank; ++i) {
        out[static_cast<std::size_t>(i)] = std::max<std::int64_t>(1, sizes[rule.axes[static_cast<std::size_t>(i)]]);
        rowBytes *= out[static_cast<std::size_t>(i)];
    }
    std::int64_t &rows = out[static_cast<std::size_t>(along)];
    if (rule.store == Store::narrow) {
        rows = kNarrowChunk;
        return out;
    }
    if (rule.store == Store::growing) {
        rows = std::clamp<std::int64_t>((std::int64_t(64) << 10) / rowBytes, 1, 1024);
    } else {
        // Small rows in larger blocks: 512 tokens are the price of an early first commit against fewer chunks.
        rows = rowBytes * 256 >= (std::int64_t(16) << 10) ? 256 : 512;
    }
    for (int i = along + 1; i < rank; ++i) { // too wide for 1 MiB: cut the outer inner axes
        std::int64_t &c = out[static_cast<std::size_t>(i)];
        const std::int64_t rest = rows * rowBytes / c;
        const std::int64_t fit = std::max<std::int64_t>(1, most / rest);
        if (c > fit) {
            rowBytes /= c;
            const std::int64_t parts = (c + fit - 1) / fit;
            c = (c + parts - 1) / parts;
            rowBytes *= c;
        }
    }
    return out;
}

std::optional<Dataset> datasetOf(Column column)
{
    switch (column) {
    case Column::experts: return D::experts;
    case Column::weights: return D::weights;
    case Column::logits: return D::logits;
    case Column::selection: return D::selection;
    case Column::probabilities: return D::probabilities;
    case Column::entropy: return D::entropy;
    case Column::dropped: return D::dropped;
    case Column::routingVectors: return D::routingVectors;
    case Column::expressionVectors: return D::expressionVectors;
    case Column::gruState: return D::gru;
    case Column::gruPca: return D::gruPca;
    case Column::hidden: return D::hiddenValues;
    case Column::expertOutputs: return D::outputValues;
    }
    return {};
}

Dataset datasetOf(Table table)
{
    switch (table) {
    case Table::gramRouting: return D::gramRouting;
    case Table::gramExpression: return D::gramExpression;
    case Table::gramRouterWeights: return D::gramWeights;
    case Table::meanRouting: return D::routingMeans;
    case Table::meanExpression: return D::expressionMeans;
    case Table::sequenceMeanRouting: return D::routingSequenceMeans;
    case Table::sequenceMeanExpression: return D::expressionSequenceMeans;
    case Table::routerWeights: return D::routerWeights;
    case Table::bufferMeanExpression: return D::bufferMean;
    case Table::bufferPotential: return D::bufferPotential;
    case Table::expertInputMean: return D::inputMean;
    case Table::expertOutputMean: return D::outputMean;
    case Table::sinkhornViolation: return D::sinkhornViolation;
    case Table::sinkhornPotentials: return D::sinkhornPotentials;
    case Table::gruPcaMean: return D::gruPcaMean;
    case Table::gruPcaBasis: break;
    }
    return D::gruPcaBasis;
}

} // namespace spectra::schema
