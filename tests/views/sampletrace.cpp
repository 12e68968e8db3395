// SPDX-License-Identifier: GPL-3.0-or-later
#include "sampletrace.h"

#include "analysis/metrics/gram.h"
#include "engine/core/random.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>

namespace spectra::viewtest {

namespace {

using Words = std::array<const char *, 12>;
constexpr std::array<const char *, 4> kDomains = {"code", "mathematics", "law", "prose"};
constexpr std::array<Words, 4> kWords = {{
    {"def", " value", "(", "items", "):", "\n", " return", " sum", " for", " x", " in", " range"},
    {" let", " x", " =", " the", " integral", " of", " f", " over", " a", " closed", " set", "."},
    {" the", " tenant", " shall", " pay", " within", " thirty", " days", " of", " notice", ",", " unless", " waived"},
    {" the", " river", " ran", " low", " and", " nobody", " spoke", " of", " rain", ".", " She", " waited"},
}};

float cosine(const std::vector<float> &v, std::size_t a, std::size_t b, std::size_t d)
{
    double dot = 0, aa = 0, bb = 0;
    for (std::size_t i = 0; i < d; ++i) {
        dot += static_cast<double>(v[a * d + i]) * static_cast<double>(v[b * d + i]);
        aa += static_cast<double>(v[a * d + i]) * static_cast<double>(v[a * d + i]);
        bb += static_cast<double>(v[b * d + i]) * static_cast<double>(v[b * d + i]);
    }
    return static_cast<float>(dot / std::sqrt(aa * bb));
}

} // namespace

std::shared_ptr<ArrayTrace> sampleTrace(const SampleShape &shape)
{
    auto trace = std::make_shared<ArrayTrace>();
    Random random(shape.seed);
    const auto e = static_cast<std::size_t>(shape.experts);
    for (int s = 0; s < shape.sequences; ++s) {
        SequenceInfo info;
        const auto domain = static_cast<std::size_t>(s) % kDomains.size();
        info.domain = kDomains[domain];
        info.id = info.domain + ".jsonl:" + std::to_string(s / 4);
        for (int i = 0; i < shape.length; ++i) {
            const bool bos = i == 0;
            const auto word = random.below(kWords[domain].size());
            const std::string text = bos ? "<s>" : kWords[domain][word];
            trace->all.id.push_back(bos ? 1 : static_cast<std::int32_t>(10 + domain * 12 + word));
            trace->all.byteOffset.push_back(static_cast<std::int32_t>(info.text.size()));
            trace->all.text.push_back(text);
            trace->all.sequence.push_back(s);
            trace->all.position.push_back(i);
            trace->all.mask.push_back(bos ? 0 : 1);
            trace->all.phase.push_back(0);
            trace->all.nll.push_back(i + 1 == shape.length ? std::nanf("") : static_cast<float>(0.4 + 3.2 * random.uniform() * random.uniform()));
            trace->all.nextTop1.push_back(static_cast<std::int32_t>(10 + domain * 12));
            if (!bos)
                info.text += text;
        }
        trace->sequenceInfo.push_back(info);
    }
    const std::size_t n = trace->all.id.size();
    const auto k = static_cast<std::size_t>(shape.slots), d = static_cast<std::size_t>(shape.dimension), h = static_cast<std::size_t>(shape.hidden);
    std::vector<float> centres(e * h);
    for (int l = 0; l < shape.layers; ++l) {
        for (float &v : centres)
            v = static_cast<float>(random.normal() * 2.2);
        std::vector<std::uint16_t> experts(n * k);
        std::vector<float> weights(n * k), probabilities(n * e), entropy(n), hidden(n * h);
        std::vector<double> score(e);
        std::size_t last = 0;
        for (std::size_t t = 0; t < n; ++t) {
            const auto domain = static_cast<std::size_t>(trace->all.sequence[t]) % kDomains.size();
            double sum = 0;
            for (std::size_t x = 0; x < e; ++x) {
                double v = random.normal() * 0.8 - 0.06 * static_cast<double>(x);
                if (x % kDomains.size() == (domain + static_cast<std::size_t>(l)) % kDomains.size())
                    v += 1.1;
                if (t > 0 && x == last)
                    v += 1.0;
                score[x] = std::exp(v);
                sum += score[x];
            }
            std::vector<std::size_t> order(e);
            std::iota(order.begin(), order.end(), std::size_t(0));
            std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return score[a] > score[b]; });
            double chosen = 0, bits = 0;
            for (std::size_t s = 0; s < k; ++s)
                chosen += score[order[s]];
            for (std::size_t s = 0; s < k; ++s) {
                experts[t * k + s] = static_cast<std::uint16_t>(order[s]);
                weights[t * k + s] = static_cast<float>(score[order[s]] / chosen);
            }
            for (std::size_t x = 0; x < e; ++x) {
                const double p = score[x] / sum;
                probabilities[t * e + x] = static_cast<float>(p);
                bits -= p * std::log(p);
            }
            entropy[t] = static_cast<float>(bits);
            last = order[0];
            for (std::size_t i = 0; i < h; ++i)
                hidden[t * h + i] = centres[last * h + i] + static_cast<float>(random.normal());
        }
        trace->setExperts(l, std::move(experts), shape.slots);
        trace->setColumn(Column::weights, l, std::move(weights), {shape.slots});
        if (shape.withProbabilities)
            trace->setColumn(Column::probabilities, l, std::move(probabilities), {shape.experts});
        trace->setColumn(Column::entropy, l, std::move(entropy), {});
        if (shape.withHidden)
            trace->setColumn(Column::hidden, l, std::move(hidden), {shape.hidden});
        if (!shape.vectors)
            continue;
        for (const auto &[mean, gram, sequence] : {std::tuple{Table::meanExpression, Table::gramExpression, Table::sequenceMeanExpression},
                                                   std::tuple{Table::meanRouting, Table::gramRouting, Table::sequenceMeanRouting}}) {
            TableValue vectors{{shape.experts, shape.dimension}, std::vector<float>(e * d)};
            for (std::size_t i = 0; i < e * d; ++i)
                vectors.values[i] = static_cast<float>(random.normal() * 0.35) + (i % d == i / d ? 1.6f : 0.0f);
            TableValue matrix{{shape.experts, shape.experts}, std::vector<float>(e * e)};
            for (std::size_t a = 0; a < e; ++a)
                for (std::size_t b = 0; b < e; ++b)
                    matrix.values[a * e + b] = a == b ? 1.0f : cosine(vectors.values, a, b, d);
            TableValue means{{shape.sequences, shape.experts, shape.dimension}, {}};
            for (int s = 0; s < shape.sequences; ++s)
                for (std::size_t i = 0; i < e * d; ++i)
                    means.values.push_back(vectors.values[i] + static_cast<float>(random.normal() * 0.3));
            trace->tables[{mean, l}] = std::move(vectors);
            trace->tables[{gram, l}] = std::move(matrix);
            trace->tables[{sequence, l}] = std::move(means);
        }
        TableValue inputs{{shape.experts, shape.hidden}, centres};
        trace->tables[{Table::expertInputMean, l}] = std::move(inputs);
    }
    trace->header.experts = shape.experts;
    trace->header.routerDim = shape.dimension;
    trace->header.hidden = shape.hidden;
    trace->header.uuid = "11111111-2222-3333-4444-555555555555";
    trace->header.file = "folder/sample.h5";
    trace->header.model.name = "sample";
    trace->header.model.router = "spectra";
    trace->header.model.experts = shape.experts;
    trace->header.model.topK = shape.slots;
    trace->header.model.checkpointSha256 = std::string(64, 'a');
    for (int l = 0; l < shape.layers; ++l) // decoder layers 1, 3, 5 …: never the same as the ordinal
        trace->header.decoderIndex.push_back(2 * l + 1);
    trace->finish();
    return trace;
}

void GatedTrace::close()
{
    const std::lock_guard lock(m_mutex);
    m_closed = true;
}

void GatedTrace::open()
{
    {
        const std::lock_guard lock(m_mutex);
        m_closed = false;
    }
    m_changed.notify_all();
}

bool GatedTrace::wait(const std::stop_token &stop) const
{
    std::unique_lock lock(m_mutex);
    auto &count = const_cast<std::atomic<int> &>(waiting);
    ++count;
    const bool open = m_changed.wait(lock, stop, [this] { return !m_closed; });
    --count;
    if (!open)
        m_cancelled = true;
    return open;
}

Result<std::shared_ptr<const TokenBlock>> GatedTrace::tokens(TokenRange range, std::stop_token stop) const
{
    if (!wait(stop))
        return cancelledError();
    return m_inner->tokens(range, stop);
}

Result<std::shared_ptr<const Block>> GatedTrace::block(Column column, int layer, TokenRange range, std::stop_token stop) const
{
    if (!wait(stop))
        return cancelledError();
    ++const_cast<std::atomic<int> &>(blocksRead);
    if (broken)
        return inputError("chunk 7 cannot be read", "sample.h5: /routing/experts", "Write the trace again.");
    return m_inner->block(column, layer, range, stop);
}

Result<std::shared_ptr<const TableValue>> GatedTrace::table(Table table, int layer) const
{
    return m_inner->table(table, layer);
}

} // namespace spectra::viewtest
