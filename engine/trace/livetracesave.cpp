// SPDX-License-Identifier: GPL-3.0-or-later
// A run in memory becomes an ordinary trace file.
#include "engine/trace/livetraceimpl.h"

#include "engine/trace/tracewriter.h"

#include <cmath>
#include <limits>
#include <span>

namespace spectra {

namespace {

constexpr std::int64_t kStep = 1024; ///< tokens of one piece: what a faster layer may be ahead of a slower one

/// Which sequences have a sampled column in every layer and for every token.
struct SampledSequences {
    std::vector<bool> hidden, outputs;
};

template <typename F> void forEachRecord(const LiveSnapshot &s, F &&visit)
{
    for (const auto &of : s.records) {
        std::size_t sequence = 0;
        for (const auto &[first, record] : of) {
            if (first >= s.tokens)
                break;
            while (sequence + 1 < s.sequences.size() && s.sequences[sequence + 1].offset <= first)
                ++sequence;
            visit(sequence, record);
        }
    }
}

SampledSequences sampledSequences(const LiveSnapshot &s)
{
    const bool layers = !s.records.empty();
    SampledSequences sampled{std::vector<bool>(s.sequences.size(), layers && s.spec.holds(Field::hidden)),
                             std::vector<bool>(s.sequences.size(), layers && s.spec.holds(Field::expertOutputs))};
    forEachRecord(s, [&](std::size_t sequence, const RoutingRecord &r) {
        if (r.hiddenStates.empty())
            sampled.hidden[sequence] = false;
        if (r.expertOutputs.empty())
            sampled.outputs[sequence] = false;
    });
    return sampled;
}

/// The capture set without what the trace does not have as a whole: a column of the file has no holes.
void dropIncomplete(TraceSpec &spec, const LiveSnapshot &s, const SampledSequences &sampled)
{
    FieldMask holes = bit(Field::dense); // layers without experts are not part of a live trace
    bool hidden = false, outputs = false; // of some token
    forEachRecord(s, [&](std::size_t, const RoutingRecord &r) {
        const auto need = [&](Field field, bool there) { holes |= there ? 0 : bit(field); };
        need(Field::dropped, !r.dropped.empty());
        need(Field::logits, !r.logits.empty());
        need(Field::selection, !r.selection.empty());
        need(Field::probabilities, !r.probabilities.empty());
        need(Field::entropy, !r.entropy.empty());
        need(Field::vectors, !r.routingVectors.empty() || !r.expressionVectors.empty());
        need(Field::gru, !r.gruState.empty());
        need(Field::gruPca, !r.gruState.empty());
        hidden |= !r.hiddenStates.empty();
        outputs |= !r.expertOutputs.empty();
    });
    const auto none = [](const std::vector<bool> &of) { return std::find(of.begin(), of.end(), true) == of.end(); };
    if (hidden && none(sampled.hidden))
        holes |= bit(Field::hidden);
    if (outputs && none(sampled.outputs))
        holes |= bit(Field::expertOutputs);
    // What the router does not have stays asked for: the file then says that the router has none.
    for (const Dataset d : {Dataset::denseValues, Dataset::dropped, Dataset::logits, Dataset::selection, Dataset::probabilities, Dataset::entropy,
                            Dataset::routingVectors, Dataset::gru, Dataset::gruPca, Dataset::hiddenValues, Dataset::outputValues})
        if ((holes & bit(schema::fieldOf(d))) != 0 && schema::exists(d, spec))
            spec.capture.drop(schema::fieldOf(d));
    // Tables of the run's end that it did not give; without the weights there are no cosines of them either.
    const auto given = [&](auto LayerTables::*table) { return std::any_of(s.tables.begin(), s.tables.end(), [&](const LayerTables &t) { return !(t.*table).empty(); }); };
    if (!given(&LayerTables::expertInputSum) && schema::exists(Dataset::inputMean, spec))
        spec.capture.drop(Field::expertMeans);
    if (!given(&LayerTables::bufferMeanExpression) && !given(&LayerTables::bufferPotential) && schema::exists(Dataset::bufferPotential, spec))
        spec.capture.drop(Field::buffers);
    if (!given(&LayerTables::routerWeights) && schema::exists(Dataset::routerWeights, spec))
        spec.capture.drop(Field::routerWeights);
    if (!given(&LayerTables::routerWeights))
        spec.available &= ~bit(Field::routerWeights);
    bool means = false;
    for (std::size_t i = 0; i < s.sequences.size(); ++i)
        for (const auto &of : s.means)
            means |= s.ended[i] && of.contains(static_cast<std::int32_t>(i));
    if (means || (!schema::exists(Dataset::routingMeans, spec) && !schema::exists(Dataset::gramRouting, spec)))
        return;
    spec.capture.drop(Field::means);
    if ((spec.available & bit(Field::routerWeights)) != 0)
        spec.available &= ~bit(Field::means); // the Gram matrix of the router's weights stays
    else
        spec.capture.drop(Field::gram);
}

TokenRecord tokensOf(const LiveSnapshot &s, std::size_t sequence, std::int64_t from, std::int64_t to)
{
    const TokenBlock &c = s.columns;
    TokenRecord r;
    r.firstToken = from;
    r.sequence = static_cast<std::int32_t>(sequence);
    const auto take = [&](const auto &column, auto &out) {
        if (static_cast<std::int64_t>(column.size()) >= to)
            out.assign(column.begin() + from, column.begin() + to);
    };
    take(c.id, r.id);
    take(c.text, r.text);
    take(c.position, r.position);
    take(c.phase, r.phase);
    take(c.mask, r.mask);
    take(c.byteOffset, r.byteOffset);
    take(c.nll, r.nll);
    take(c.nextTop1, r.nextTop1);
    // The loss of a sequence's last token has no target in the trace, also where a stop made it the last.
    const SequenceInfo &info = s.sequences[sequence];
    if (to == info.offset + info.length && !s.ended[sequence] && !r.nll.empty())
        r.nll.back() = std::numeric_limits<float>::quiet_NaN();
    return r;
}

Result<void> feed(TraceWriter &writer, const LiveSnapshot &s, const SampledSequences &sampled, const std::stop_token &stop)
{
    const auto experts = static_cast<std::size_t>(s.spec.experts);
    std::vector<std::map<std::int64_t, RoutingRecord>::const_iterator> next;
    for (const auto &of : s.records)
        next.push_back(of.begin());
    for (std::size_t i = 0; i < s.sequences.size(); ++i) {
        const SequenceInfo &info = s.sequences[i];
        SPECTRA_CHECK(writer.beginSequence(info));
        const bool wanted = writer.wantsHidden(static_cast<std::int32_t>(i), info.length);
        const std::int64_t last = info.offset + info.length;
        for (std::int64_t from = info.offset; from < last; from += kStep) {
            const std::int64_t to = std::min(last, from + kStep);
            SPECTRA_CHECK(writer.addTokens(tokensOf(s, i, from, to)));
            for (std::size_t layer = 0; layer < next.size(); ++layer) {
                for (; next[layer] != s.records[layer].end() && next[layer]->first < to; ++next[layer]) {
                    if (stop.stop_requested())
                        return cancelledError();
                    RoutingRecord r = next[layer]->second;
                    if (!wanted || !sampled.hidden[i])
                        r.hiddenStates = {};
                    if (!wanted || !sampled.outputs[i])
                        r.expertOutputs = {};
                    // Above the memory limit a record gives its potentials away, but the trace has kept them.
                    if (const auto kept = s.potentials.find(r.firstToken); r.sinkhornPotentials.empty() && r.sinkhornViolation >= 0 && kept != s.potentials.end()) {
                        const std::span<const float> row = std::span(kept->second).subspan(layer * experts, experts);
                        if (!row.empty() && !std::isnan(row.front()))
                            r.sinkhornPotentials = row;
                    }
                    SPECTRA_CHECK(writer.addRouting(std::move(r)));
                }
            }
        }
        if (!s.ended[i])
            continue; // left open: the writer ends it with its last token
        for (const auto &of : s.means)
            if (const auto means = of.find(static_cast<std::int32_t>(i)); means != of.end())
                SPECTRA_CHECK(writer.addSequenceMeans(means->second));
        SPECTRA_CHECK(writer.endSequence(static_cast<std::int32_t>(i), info));
    }
    // Expert sums at sequence ends serve to continue a killed run: the final tables say all that a finished file keeps.
    return stop.stop_requested() ? Result<void>(cancelledError()) : Result<void>();
}

} // namespace

/// With the mutex held.
LiveSnapshot LiveTrace::Impl::snapshot() const
{
    LiveSnapshot s;
    s.spec = spec;
    s.tokens = tokens();
    for (std::size_t i = 0; i < sequences.size() && sequences[i].offset < s.tokens; ++i) {
        SequenceInfo info = sequences[i];
        // A sequence that generates has been begun with its prompt's length.
        const std::int64_t end = i + 1 < sequences.size() ? std::min(sequences[i + 1].offset, s.tokens) : s.tokens;
        const std::int64_t whole = ended[i] ? info.offset + info.length : end;
        s.ended.push_back(ended[i] && whole <= s.tokens);
        info.length = std::min(whole, s.tokens) - info.offset;
        s.sequences.push_back(std::move(info));
    }
    s.cut = s.sequences.size() < std::max(sequences.size(), spec.plannedLengths.size()) || std::find(s.ended.begin(), s.ended.end(), false) != s.ended.end();
    s.columns = columns;
    s.records = records;
    s.means = means;
    s.potentials = potentials;
    s.tables = tables;
    return s;
}

Result<void> LiveTrace::save(const std::filesystem::path &path, bool overwrite, std::stop_token stop) const
{
    LiveSnapshot s;
    {
        const std::lock_guard lock(m_impl->mutex);
        if (!m_impl->finished)
            return usageError("the run has not ended yet", "trace in memory", "save it when it has ended, or stop it first");
        if (m_impl->tokens() == 0)
            return usageError("the run has no token to save", "trace in memory", "run a prompt to its first token");
        s = m_impl->snapshot();
    }
    if (stop.stop_requested())
        return cancelledError();
    if (!overwrite && TraceWriter::resumable(path))
        return workError("a run that was cut off would be lost", path.string() + ".part", "choose another name, or finish that run first");

    TraceSpec spec = s.spec;
    const SampledSequences sampled = sampledSequences(s);
    dropIncomplete(spec, s, sampled);
    // The writer draws its own sample from the plan: a plan of just these sequences, with room for all, draws just these.
    spec.plannedLengths.clear();
    std::int64_t room = 0;
    for (std::size_t i = 0; i < s.sequences.size(); ++i) {
        const bool wanted = sampled.hidden[i] || sampled.outputs[i];
        spec.plannedLengths.push_back(wanted ? s.sequences[i].length : 0);
        room += spec.plannedLengths.back();
    }
    spec.hiddenTokens = std::max(spec.hiddenTokens, room);
    if (s.cut)
        spec.model.note += std::string(spec.model.note.empty() ? "" : "; ") + "the run was stopped before its end";

    SPECTRA_TRY(const std::unique_ptr<TraceWriter> writer, TraceWriter::create(path, spec, overwrite));
    Result<void> written = feed(*writer, s, sampled, stop);
    if (written.ok())
        written = writer->finish(std::move(s.tables), spec.environment.wallSeconds);
    if (!written.ok())
        writer->discard();
    return written;
}

} // namespace spectra
