// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/engine/trace/tracefixture.h"

#include "engine/trace/half.h"

#include <hdf5.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <span>

namespace spectra::test {
namespace {

/// As the file stores it: through float16 where the trace does.
void expectFloats(const std::vector<float> &got, std::span<const float> want, bool half, const char *what)
{
    ASSERT_EQ(got.size(), want.size()) << what;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const float w = half ? fromHalf(toHalf(want[i])) : want[i];
        if (std::isnan(w))
            ASSERT_TRUE(std::isnan(got[i])) << what << " at " << i;
        else
            ASSERT_EQ(got[i], w) << what << " at " << i;
    }
}

} // namespace

void expectRun(const TraceSource &source, const SyntheticRun &run, std::int64_t tokens)
{
    const auto info = source.info();
    const bool file = !info->file.empty();
    const bool f16 = file && run.spec().f16;
    ASSERT_EQ(info->tokens, tokens);
    HiddenSample sample(run.spec().plannedLengths, run.spec().hiddenTokens, run.spec().seed);
    auto sequences = source.sequences();
    ASSERT_TRUE(sequences.ok()) << why(sequences);
    for (std::int64_t s = 0; s < run.sequences() && run.offset(s) < tokens; ++s) {
        const std::int64_t first = run.offset(s), length = std::min(run.offset(s + 1), tokens) - first;
        const SequenceInfo want = run.info(s), &got = (**sequences)[static_cast<std::size_t>(s)];
        ASSERT_EQ(got.id, want.id);
        ASSERT_EQ(got.domain, want.domain);
        ASSERT_EQ(got.label, want.label);
        ASSERT_EQ(got.offset, first);
        ASSERT_EQ(got.length, length);
        // The text of a sequence that has not ended is that of its prompt.
        ASSERT_TRUE(want.text.starts_with(got.text)) << s;
        ASSERT_TRUE(!got.text.empty() || want.text[0] == '\n' || length < want.length) << s;
        if (length == want.length && info->complete) {
            ASSERT_EQ(got.text, want.text);
            ASSERT_EQ(got.counted, want.counted);
            ASSERT_EQ(got.promptLength, want.promptLength);
        }
        const TokenRange range{first, first + length};
        auto block = source.tokens(range);
        ASSERT_TRUE(block.ok()) << why(block);
        const TokenRecord t = run.tokens(s, 0, length);
        ASSERT_EQ((*block)->id, t.id);
        ASSERT_EQ((*block)->text, t.text);
        ASSERT_EQ((*block)->position, t.position);
        ASSERT_EQ((*block)->phase, t.phase);
        ASSERT_EQ((*block)->mask, t.mask);
        ASSERT_EQ((*block)->byteOffset, t.byteOffset);
        ASSERT_EQ((*block)->nextTop1, t.nextTop1);
        ASSERT_EQ((*block)->sequence, std::vector<std::int32_t>(t.id.size(), static_cast<std::int32_t>(s)));
        expectFloats((*block)->nll, t.nll, false, "nll");
        const bool sampled = sample.wants(static_cast<std::int32_t>(s), want.length);
        for (int layer = 0; layer < run.spec().layers(); ++layer) {
            const RoutingRecord r = run.routing(s, layer, 0, length, sampled);
            const auto column = [&](Column c, std::span<const float> values, bool half, const char *what) {
                if (!info->has(c))
                    return;
                auto b = source.block(c, layer, range);
                ASSERT_TRUE(b.ok()) << what << ": " << why(b);
                expectFloats((*b)->f32, values, half, what);
            };
            auto experts = source.block(Column::experts, layer, range);
            ASSERT_TRUE(experts.ok()) << why(experts);
            ASSERT_TRUE(std::equal(r.expertIds.begin(), r.expertIds.end(), (*experts)->u16.begin(), (*experts)->u16.end()));
            if (info->has(Column::dropped)) {
                auto dropped = source.block(Column::dropped, layer, range);
                ASSERT_TRUE(dropped.ok()) << why(dropped);
                ASSERT_TRUE(std::equal(r.dropped.begin(), r.dropped.end(), (*dropped)->u8.begin(), (*dropped)->u8.end()));
            }
            column(Column::weights, r.weights, f16, "weights");
            column(Column::logits, r.logits, f16, "logits");
            column(Column::selection, r.selection, f16, "selection");
            column(Column::probabilities, r.probabilities, f16, "probabilities");
            column(Column::entropy, r.entropy, false, "entropy");
            column(Column::routingVectors, r.routingVectors, file, "routing vectors");
            column(Column::expressionVectors, r.expressionVectors, file, "expression vectors");
            column(Column::gruState, r.gruState, file, "gru");
            column(Column::hidden, r.hiddenStates, f16, "hidden");
            column(Column::expertOutputs, r.expertOutputs, file, "expert outputs");
            if (::testing::Test::HasFatalFailure())
                return;
        }
    }
}

namespace {

struct Stored {
    std::vector<hsize_t> shape;
    std::vector<char> bytes;
    std::vector<std::string> text;
};

herr_t collect(hid_t root, const char *name, const H5O_info_t *info, void *data)
{
    auto &all = *static_cast<std::map<std::string, Stored> *>(data);
    if (info->type != H5O_TYPE_DATASET)
        return 0;
    const hid_t d = H5Dopen2(root, name, H5P_DEFAULT), type = H5Dget_type(d), space = H5Dget_space(d);
    Stored &s = all[name];
    s.shape.resize(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
    H5Sget_simple_extent_dims(space, s.shape.data(), nullptr);
    const auto n = static_cast<std::size_t>(H5Sget_simple_extent_npoints(space));
    s.bytes.resize(n * H5Tget_size(type));
    if (n > 0) {
        EXPECT_GE(H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, s.bytes.data()), 0) << name;
        if (H5Tis_variable_str(type) > 0) {
            for (std::size_t i = 0; i < n; ++i) {
                char *text = nullptr;
                std::memcpy(&text, s.bytes.data() + i * sizeof text, sizeof text);
                s.text.emplace_back(text != nullptr ? text : "");
            }
            H5Dvlen_reclaim(type, space, H5P_DEFAULT, s.bytes.data());
            s.bytes.clear();
        }
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(d);
    return 0;
}

std::map<std::string, Stored> datasets(const std::filesystem::path &path)
{
    std::map<std::string, Stored> all;
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    EXPECT_GE(file, 0) << path;
    EXPECT_GE(H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, collect, &all, H5O_INFO_BASIC), 0);
    H5Fclose(file);
    return all;
}

} // namespace

void expectSameDatasets(const std::filesystem::path &a, const std::filesystem::path &b)
{
    const auto x = datasets(a), y = datasets(b);
    EXPECT_GT(x.size(), 40u);
    for (const auto &[name, s] : x) {
        const auto it = y.find(name);
        ASSERT_NE(it, y.end()) << name;
        EXPECT_EQ(s.shape, it->second.shape) << name;
        EXPECT_TRUE(s.bytes == it->second.bytes) << name;
        EXPECT_TRUE(s.text == it->second.text) << name;
    }
    EXPECT_EQ(x.size(), y.size());
}

} // namespace spectra::test
