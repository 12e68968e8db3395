// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/tracereader.h"

#include "engine/trace/tracefile.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <set>

namespace spectra {
namespace fs = std::filesystem;
using schema::Axis;
using schema::Dataset;
using View = TraceFile::View;

namespace {

constexpr std::int64_t kMostBytes = std::int64_t(4) << 30; ///< of one answer

constexpr Column kColumns[] = {Column::experts, Column::weights, Column::logits, Column::selection, Column::probabilities, Column::entropy,
                               Column::dropped, Column::routingVectors, Column::expressionVectors, Column::gruState, Column::gruPca,
                               Column::hidden, Column::expertOutputs};
constexpr Table kTables[] = {Table::gramRouting, Table::gramExpression, Table::gramRouterWeights, Table::meanRouting, Table::meanExpression,
                             Table::sequenceMeanRouting, Table::sequenceMeanExpression, Table::routerWeights, Table::bufferMeanExpression,
                             Table::bufferPotential, Table::expertInputMean, Table::expertOutputMean, Table::sinkhornViolation,
                             Table::sinkhornPotentials, Table::gruPcaMean, Table::gruPcaBasis};

bool isSampled(Dataset d) { return schema::rule(d).store == schema::Store::sampled; }

} // namespace

class TraceReader::Impl {
public:
    std::shared_ptr<TraceFile> file;
    std::shared_ptr<const TraceInfo> info;
    std::shared_ptr<const std::vector<SequenceInfo>> sequences;
    std::vector<std::int32_t> denseIndex;
    bool hasText = false;

    mutable std::mutex mutex;
    mutable std::map<Dataset, std::shared_ptr<const std::vector<std::int64_t>>> samples; ///< tokens of sampled rows

    [[nodiscard]] Result<void> load();
    void loadAttributes(TraceInfo &i) const;
    void findMissing(TraceInfo &i) const;
    [[nodiscard]] Result<void> loadSequences(TraceInfo &i);
    [[nodiscard]] Result<std::shared_ptr<const std::vector<std::int64_t>>> sampledTokens(Dataset token) const;
    [[nodiscard]] Result<std::shared_ptr<const Block>> block(Column column, const View &view, int layer, TokenRange range, std::stop_token stop) const;
    [[nodiscard]] Error outside(TokenRange range) const
    {
        return usageError("tokens " + std::to_string(range.first) + " to " + std::to_string(range.last) + " are outside the trace's "
                              + std::to_string(info->tokens), file->name());
    }
    [[nodiscard]] bool covers(TokenRange range) const { return range.first >= 0 && range.first <= range.last && range.last <= info->tokens; }
};

TraceReader::TraceReader(std::unique_ptr<Impl> impl) : m_impl(std::move(impl)) {}
TraceReader::~TraceReader() = default;

Result<std::shared_ptr<const TraceReader>> TraceReader::open(const fs::path &path)
{
    auto impl = std::make_unique<Impl>();
    try {
        SPECTRA_TRY(impl->file, TraceFile::open(path));
        SPECTRA_CHECK(impl->load());
    } catch (const std::bad_alloc &) {
        return inputError("is too large for this machine's memory", path.string());
    }
    return std::shared_ptr<const TraceReader>(new TraceReader(std::move(impl)));
}

void TraceReader::Impl::loadAttributes(TraceInfo &i) const
{
    const auto object = [&](const char *path) {
        auto opened = h5::isGroup(file->id(), path) || std::string(path) == "/" ? h5::openGroup(file->id(), path) : Result<h5::Handle>(h5::Handle());
        return opened ? std::move(*opened) : h5::Handle();
    };
    const h5::Handle root = object("/"), model = object("model"), environment = object("environment");
    const auto text = [](const h5::Handle &o, const char *name) { return o.valid() ? h5::textAttribute(o.id(), name).value_or("") : std::string(); };
    const auto integer = [](const h5::Handle &o, const char *name, std::int64_t otherwise) {
        return o.valid() ? h5::integerAttribute(o.id(), name).value_or(otherwise) : otherwise;
    };
    const auto small = [&](const h5::Handle &o, const char *name, std::int32_t otherwise) {
        return static_cast<std::int32_t>(std::clamp<std::int64_t>(integer(o, name, otherwise), INT32_MIN, INT32_MAX));
    };
    const auto number = [](const h5::Handle &o, const char *name) { return o.valid() ? h5::numberAttribute(o.id(), name) : std::nullopt; };
    i.uuid = text(root, "uuid");
    i.created = text(root, "created");
    i.generator = text(root, "generator");
    i.formatVersion = text(root, "format_version");
    ModelAttributes &m = i.model;
    m.name = text(model, "name");
    m.architecture = text(model, "architecture");
    m.router = text(model, "router");
    m.config = text(model, "config");
    m.checkpointSha256 = text(model, "checkpoint_sha256");
    m.dtype = text(model, "dtype");
    m.device = text(model, "device");
    m.tokenizerSha256 = text(model, "tokenizer_sha256");
    m.layers = small(model, "n_layers", 0);
    m.experts = small(model, "n_experts", i.experts);
    m.topK = small(model, "top_k", i.slots);
    m.sharedExperts = small(model, "n_shared_experts", 0);
    m.routerDim = small(model, "router_dim", i.routerDim);
    m.hidden = small(model, "hidden_size", i.hidden);
    m.scoreFunction = text(model, "score_function");
    m.sinkhornScope = text(model, "sinkhorn_scope");
    m.gruAxis = text(model, "gru_axis");
    m.normalizeTopK = integer(model, "normalize_top_k", 1) != 0;
    m.scoreBeforeTopK = integer(model, "score_before_top_k", 1) != 0;
    m.causal = integer(model, "causal", 1) != 0;
    m.routedScalingFactor = number(model, "routed_scaling_factor").value_or(1);
    m.groups = small(model, "n_groups", 1);
    m.topKGroups = small(model, "top_k_groups", 1);
    m.capacityFactor = number(model, "capacity_factor");
    m.sinkhornEpsilon = number(model, "sinkhorn_epsilon");
    m.repulsionWeight = number(model, "repulsion_weight");
    if (model.valid() && h5::integerAttribute(model.id(), "sinkhorn_iterations"))
        m.sinkhornIterations = small(model, "sinkhorn_iterations", 0);
    m.trainingStep = integer(model, "training_step", 0);
    m.seed = integer(model, "seed", 0);
    m.note = text(model, "note");
    EnvironmentAttributes &e = i.environment;
    e.version = text(environment, "version");
    e.gitCommit = text(environment, "git_commit");
    e.libtorch = text(environment, "libtorch");
    e.compiler = text(environment, "compiler");
    e.processor = text(environment, "processor");
    e.system = text(environment, "system");
    e.commandLine = text(environment, "command_line");
    e.threads = small(environment, "threads", 0);
    e.wallSeconds = number(environment, "wall_seconds").value_or(0);
}

/// Why a column or table is not there: not asked for, or the router has none, or the run did not get so far.
void TraceReader::Impl::findMissing(TraceInfo &i) const
{
    const auto root = h5::openGroup(file->id(), "/");
    const std::string captured = root ? h5::textAttribute(root->id(), "capture").value_or("") : "";
    const Result<Capture> capture = captured.empty() ? Result<Capture>(Capture{}) : Capture::parse(captured);
    const auto reason = [&](Dataset d) -> std::string {
        const View &view = file->view(d);
        const Field field = schema::fieldOf(d);
        if (!view.present()) {
            if (captured.empty() || !capture)
                return "the source of this trace did not give it";
            if (!capture->has(field))
                return "not captured: trace with --capture " + captured + ",+" + std::string(fieldName(field));
            return "the router '" + i.model.router + "' has none";
        }
        if (isSampled(d) && view.rows == 0)
            return "no sequence was small enough to be sampled: raise --hidden-tokens";
        if (schema::rule(d).axes[1] == Axis::batch && view.rows == 0)
            return "the run had no transport batches";
        if (!file->complete() && schema::rule(d).store == schema::Store::table && view.info.shape[0] > 0) {
            float first = 0;
            const std::vector<std::int64_t> one(view.info.shape.size(), 1), zero(view.info.shape.size(), 0);
            if (!h5::readSlab(view.handle.id(), zero, one, h5::Type::f32, &first) || std::isnan(first))
                return "written at the end of a run, and this one was stopped before";
        }
        return {};
    };
    for (const Column column : kColumns)
        if (std::string why = reason(*schema::datasetOf(column)); !why.empty())
            i.missingColumns.emplace(column, std::move(why));
    for (const Table table : kTables)
        if (std::string why = reason(schema::datasetOf(table)); !why.empty())
            i.missingTables.emplace(table, std::move(why));
}

Result<void> TraceReader::Impl::loadSequences(TraceInfo &i)
{
    const std::int64_t n = file->sequences();
    std::vector<std::int64_t> offset(static_cast<std::size_t>(n) + 1);
    const View &edges = file->view(Dataset::sequenceOffset);
    if (auto read = h5::readSlab(edges.handle.id(), {0}, {n + 1}, h5::Type::i64, offset.data()); !read)
        return file->at(read.error(), Dataset::sequenceOffset);
    if (offset[0] != 0 && i.tokens > 0)
        return file->at(inputError("does not begin with 0"), Dataset::sequenceOffset);
    std::int64_t used = 0;
    while (used < n && (offset[static_cast<std::size_t>(used)] < i.tokens || file->complete()))
        ++used;
    std::vector<SequenceInfo> list(static_cast<std::size_t>(used));
    for (std::size_t s = 0; s < list.size(); ++s) {
        // A run that was killed ends inside its last sequence.
        const std::int64_t end = s + 1 == list.size() && !file->complete() ? i.tokens : offset[s + 1];
        if (offset[s] < 0 || end < offset[s] || end > i.tokens)
            return file->at(inputError("entry " + std::to_string(s + 1) + " is " + std::to_string(end) + " after " + std::to_string(offset[s])
                                       + ", with " + std::to_string(i.tokens) + " tokens in all"), Dataset::sequenceOffset);
        list[s].offset = offset[s];
        list[s].length = end - offset[s];
        list[s].promptLength = static_cast<std::int32_t>(list[s].length);
        list[s].counted = static_cast<std::int32_t>(list[s].length);
    }
    if (file->complete() && !list.empty() && list.back().offset + list.back().length != i.tokens)
        return file->at(inputError("does not end with the number of tokens"), Dataset::sequenceOffset);
    const auto integers = [&](Dataset d, std::int32_t SequenceInfo::*member) -> Result<void> {
        const View &view = file->view(d);
        if (!view.present())
            return {};
        std::vector<std::int32_t> values(list.size());
        if (auto read = h5::readSlab(view.handle.id(), {0}, {used}, h5::Type::i32, values.data()); !read)
            return file->at(read.error(), d);
        for (std::size_t s = 0; s < list.size(); ++s)
            list[s].*member = static_cast<std::int32_t>(std::clamp<std::int64_t>(values[s], 0, list[s].length));
        return {};
    };
    SPECTRA_CHECK(integers(Dataset::sequencePrompt, &SequenceInfo::promptLength));
    SPECTRA_CHECK(integers(Dataset::sequenceCounted, &SequenceInfo::counted));
    const auto texts = [&](Dataset d, std::string SequenceInfo::*member) -> Result<void> {
        const View &view = file->view(d);
        if (!view.present())
            return {};
        auto values = h5::readText(view.handle.id(), 0, used, std::size_t(1) << 30, !file->complete());
        if (!values)
            return file->at(values.error(), d);
        for (std::size_t s = 0; s < list.size(); ++s)
            list[s].*member = std::move((*values)[s]);
        return {};
    };
    SPECTRA_CHECK(texts(Dataset::sequenceId, &SequenceInfo::id));
    SPECTRA_CHECK(texts(Dataset::sequenceDomain, &SequenceInfo::domain));
    SPECTRA_CHECK(texts(Dataset::sequenceText, &SequenceInfo::text));
    SPECTRA_CHECK(texts(Dataset::sequenceLabel, &SequenceInfo::label));
    i.sequences = used;
    std::set<std::string> seen;
    for (const SequenceInfo &s : list)
        if (seen.insert(s.domain).second)
            i.domains.push_back(s.domain);
    sequences = std::make_shared<const std::vector<SequenceInfo>>(std::move(list));
    return {};
}

Result<void> TraceReader::Impl::load()
{
    TraceInfo i;
    const schema::Sizes &sizes = file->sizes();
    i.file = file->name();
    i.complete = file->complete();
    i.tokens = file->tokens();
    i.experts = static_cast<std::int32_t>(std::max<std::int64_t>(0, sizes[Axis::expert]));
    i.slots = static_cast<std::int32_t>(std::max<std::int64_t>(0, sizes[Axis::slot]));
    i.routerDim = static_cast<std::int32_t>(std::max<std::int64_t>(0, sizes[Axis::dimension]));
    i.hidden = static_cast<std::int32_t>(std::max<std::int64_t>(0, sizes[Axis::feature]));
    i.decoderIndex = file->integers(Dataset::decoderIndex);
    if (static_cast<std::int64_t>(i.decoderIndex.size()) != sizes[Axis::layer])
        return file->at(inputError("cannot be read"), Dataset::decoderIndex);
    loadAttributes(i);
    SPECTRA_CHECK(loadSequences(i));
    findMissing(i);
    i.hasNll = file->view(Dataset::tokenNll).present();
    i.hasNextTop1 = file->view(Dataset::tokenNext).present();
    hasText = file->view(Dataset::tokenText).present();
    i.sampledTokens = file->view(Dataset::hiddenToken).present() ? file->view(Dataset::hiddenToken).rows : 0;
    denseIndex = file->view(Dataset::denseValues).present() ? file->integers(Dataset::denseIndex) : std::vector<std::int32_t>();
    info = std::make_shared<const TraceInfo>(std::move(i));
    return {};
}

std::shared_ptr<const TraceInfo> TraceReader::info() const { return m_impl->info; }
Result<std::shared_ptr<const std::vector<SequenceInfo>>> TraceReader::sequences() const { return m_impl->sequences; }
const std::vector<std::int32_t> &TraceReader::denseIndex() const { return m_impl->denseIndex; }

Result<std::shared_ptr<const TokenBlock>> TraceReader::tokens(TokenRange range, std::stop_token stop) const
{
    const Impl &m = *m_impl;
    if (!m.covers(range))
        return m.outside(range);
    const auto n = static_cast<std::size_t>(range.size());
    auto block = std::make_shared<TokenBlock>();
    block->range = range;
    const auto read = [&](Dataset d, auto &values) -> Result<void> {
        const View &view = m.file->view(d);
        if (!view.present())
            return {};
        values.resize(n);
        return m.file->rows(view, 0, range.first, range.last, values.data(), stop);
    };
    try {
        SPECTRA_CHECK(read(Dataset::tokenId, block->id));
        SPECTRA_CHECK(read(Dataset::tokenSequence, block->sequence));
        SPECTRA_CHECK(read(Dataset::tokenPosition, block->position));
        SPECTRA_CHECK(read(Dataset::tokenByte, block->byteOffset));
        SPECTRA_CHECK(read(Dataset::tokenNext, block->nextTop1));
        SPECTRA_CHECK(read(Dataset::tokenPhase, block->phase));
        SPECTRA_CHECK(read(Dataset::tokenMask, block->mask));
        SPECTRA_CHECK(read(Dataset::tokenNll, block->nll));
        if (m.hasText) {
            SPECTRA_TRY(block->text, m.file->texts(m.file->view(Dataset::tokenText), range.first, range.last, stop));
        }
        // What a foreign writer left out has a plain meaning.
        block->mask.resize(n, 1);
        block->phase.resize(n, 0);
        block->byteOffset.resize(n, 0);
        block->text.resize(n);
    } catch (const std::bad_alloc &) {
        return workError("not enough memory for these tokens", m.file->name());
    }
    const auto sequences = static_cast<std::int32_t>(std::min<std::int64_t>(m.info->sequences, INT32_MAX));
    for (const std::int32_t s : block->sequence)
        if (s < 0 || s >= sequences)
            return m.file->at(inputError("names sequence " + std::to_string(s) + " of " + std::to_string(sequences)), Dataset::tokenSequence);
    return std::shared_ptr<const TokenBlock>(std::move(block));
}

Result<std::shared_ptr<const std::vector<std::int64_t>>> TraceReader::Impl::sampledTokens(Dataset token) const
{
    const std::lock_guard lock(mutex);
    if (const auto it = samples.find(token); it != samples.end())
        return it->second;
    const View &view = file->view(token);
    if (!view.present())
        return file->at(inputError("the dataset is missing"), token);
    if (view.rows > info->tokens && file->complete())
        return file->at(inputError("has more rows than the trace has tokens"), token);
    std::vector<std::int64_t> tokens(static_cast<std::size_t>(std::min(view.rows, info->tokens)));
    if (auto read = file->rows(view, 0, 0, static_cast<std::int64_t>(tokens.size()), tokens.data(), {}); !read)
        return read.error();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] >= info->tokens && !file->complete()) { // rows of a block that was not committed any more
            tokens.resize(i);
            break;
        }
        if (tokens[i] < 0 || tokens[i] >= info->tokens || (i > 0 && tokens[i] <= tokens[i - 1]))
            return file->at(inputError("row " + std::to_string(i) + " names token " + std::to_string(tokens[i]) + ", out of order or outside the trace"), token);
    }
    auto shared = std::make_shared<const std::vector<std::int64_t>>(std::move(tokens));
    samples.emplace(token, shared);
    return shared;
}

Result<std::shared_ptr<const Block>> TraceReader::Impl::block(Column column, const View &view, int layer, TokenRange range, std::stop_token stop) const
{
    auto block = std::make_shared<Block>();
    block->column = column;
    block->layer = layer;
    block->range = range;
    block->inner = view.inner;
    std::int64_t first = range.first, last = range.last;
    if (isSampled(view.id)) {
        const Dataset token = view.id == Dataset::hiddenValues ? Dataset::hiddenToken
            : view.id == Dataset::outputValues                 ? Dataset::outputToken
                                                               : Dataset::denseToken;
        SPECTRA_TRY(const auto tokens, sampledTokens(token));
        first = std::lower_bound(tokens->begin(), tokens->end(), range.first) - tokens->begin();
        last = std::lower_bound(tokens->begin(), tokens->end(), range.last) - tokens->begin();
        block->token.assign(tokens->begin() + first, tokens->begin() + last);
        if (last > view.rows)
            return file->at(inputError("has fewer rows than its token dataset"), view.id);
    }
    block->rows = last - first;
    if (view.width > 0 && block->rows > kMostBytes / 4 / view.width)
        return usageError("a block of " + std::to_string(block->rows) + " rows is too large", file->name(), "ask for fewer tokens at once");
    const auto n = static_cast<std::size_t>(block->rows * view.width);
    void *to = nullptr;
    try {
        if (column == Column::experts) {
            block->u16.resize(n);
            to = block->u16.data();
        } else if (column == Column::dropped) {
            block->u8.resize(n);
            to = block->u8.data();
        } else {
            block->f32.resize(n);
            to = block->f32.data();
        }
    } catch (const std::bad_alloc &) {
        return workError("not enough memory for this block", file->name());
    }
    SPECTRA_CHECK(file->rows(view, layer, first, last, to, stop));
    for (const std::uint16_t e : block->u16)
        if (e >= info->experts && e != kNoExpert)
            return file->at(inputError("names expert " + std::to_string(e) + " of " + std::to_string(info->experts)), view.id);
    return std::shared_ptr<const Block>(std::move(block));
}

Result<std::shared_ptr<const Block>> TraceReader::block(Column column, int layer, TokenRange range, std::stop_token stop) const
{
    const Impl &m = *m_impl;
    if (layer < 0 || layer >= m.info->layers())
        return usageError("layer " + std::to_string(layer) + " of " + std::to_string(m.info->layers()), m.file->name());
    if (!m.covers(range))
        return m.outside(range);
    const View &view = m.file->view(*schema::datasetOf(column));
    if (!view.present() || !m.info->has(column))
        return usageError(std::string(schema::rule(*schema::datasetOf(column)).path) + " is not in the trace", m.file->name(),
                          m.info->missingColumns.contains(column) ? m.info->missingColumns.at(column) : "");
    return m.block(column, view, layer, range, stop);
}

Result<std::shared_ptr<const Block>> TraceReader::dense(int layer, TokenRange range, std::stop_token stop) const
{
    const Impl &m = *m_impl;
    if (layer < 0 || layer >= static_cast<int>(m.denseIndex.size()))
        return usageError("layer " + std::to_string(layer) + " of " + std::to_string(m.denseIndex.size()) + " without experts", m.file->name());
    if (!m.covers(range))
        return m.outside(range);
    return m.block(Column::hidden, m.file->view(Dataset::denseValues), layer, range, stop);
}

Result<std::shared_ptr<const TableValue>> TraceReader::table(Table table, int layer) const
{
    const Impl &m = *m_impl;
    const Dataset d = schema::datasetOf(table);
    if (layer < 0 || layer >= m.info->layers())
        return usageError("layer " + std::to_string(layer) + " of " + std::to_string(m.info->layers()), m.file->name());
    const View &view = m.file->view(d);
    if (!m.info->has(table) || !view.present())
        return usageError(std::string(schema::rule(d).path) + " is not in the trace", m.file->name(),
                          m.info->missingTables.contains(table) ? m.info->missingTables.at(table) : "");
    auto value = std::make_shared<TableValue>();
    std::vector<std::int64_t> offset(view.info.shape.size(), 0), count = view.info.shape;
    offset[0] = layer;
    count[0] = 1;
    if (schema::rule(d).axes[1] == Axis::sequence)
        count[1] = std::min(count[1], m.info->sequences);
    value->shape.assign(count.begin() + 1, count.end());
    std::int64_t n = 1;
    for (const std::int64_t c : value->shape)
        if (__builtin_mul_overflow(n, c, &n) || n > kMostBytes / 4)
            return m.file->at(inputError("is too large to be read at once"), d);
    try {
        value->values.resize(static_cast<std::size_t>(n));
    } catch (const std::bad_alloc &) {
        return workError("not enough memory for this table", m.file->name());
    }
    if (auto read = h5::readSlab(view.handle.id(), offset, count, h5::Type::f32, value->values.data()); !read)
        return m.file->at(read.error(), d);
    return std::shared_ptr<const TableValue>(std::move(value));
}

} // namespace spectra
