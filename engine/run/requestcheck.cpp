// SPDX-License-Identifier: GPL-3.0-or-later
// What can be said of a request before any model is opened.
#include "engine/run/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>

namespace spectra {
namespace {

template <typename T> Result<void> range(const char *name, T value, T low, T high)
{
    if (value < low || value > high)
        return usageError(fmt::format("{} is out of range ({} to {})", value, low, high), name);
    return {};
}

Result<void> oneOf(const char *name, const std::string &value, std::initializer_list<std::string_view> known)
{
    if (std::find(known.begin(), known.end(), value) != known.end())
        return {};
    std::string all;
    for (std::string_view k : known)
        all += (all.empty() ? "" : ", ") + std::string(k);
    return usageError(fmt::format("unknown value '{}'", value), name, "one of " + all);
}

Result<void> check(const UpcycleSettings &s)
{
    SPECTRA_CHECK(range("--experts", s.experts, 1, 16384));
    SPECTRA_CHECK(range("--top-k", s.topK, 0, 16384));
    SPECTRA_CHECK(range("--granularity", s.granularity, 1, 16384));
    SPECTRA_CHECK(range("--shared", s.shared, 0, 64));
    if (!(s.noise >= 0 && s.noise <= 10))
        return usageError(fmt::format("{} is out of range (0 to 10)", s.noise), "--noise");
    SPECTRA_CHECK(oneOf("--scaling", s.scaling, {"exact", "nvidia"}));
    return oneOf("--dtype", s.dtype, {"f32", "bf16", "f16"});
}

Result<void> check(const ModelSpec &spec)
{
    SPECTRA_CHECK(oneOf("--compute", spec.compute, {"f32", "bf16", "auto"}));
    SPECTRA_CHECK(oneOf("--device", spec.device, {"cpu", "cuda", "auto"}));
    return spec.upcycle ? check(*spec.upcycle) : Result<void>();
}

Result<void> check(const Sampling &s)
{
    if (!(s.temperature >= 0 && std::isfinite(s.temperature)))
        return usageError("the temperature is a number of at least 0", "--temperature");
    if (!(s.topP > 0 && s.topP <= 1))
        return usageError("top-p lies above 0 and up to 1", "--top-p");
    return range("--top-k-sampling", s.topK, 0, 1 << 24);
}

Result<void> check(const TraceRequest &r)
{
    if (r.prompts.empty())
        return usageError("no prompts", "trace");
    SPECTRA_CHECK(check(r.sampling));
    SPECTRA_CHECK(oneOf("--dtype", r.dtype, {"f16", "f32"}));
    SPECTRA_CHECK(range("--compress", r.compress, 0, 9));
    SPECTRA_CHECK(range("--max-new-tokens", r.maxNewTokens, 0, 1 << 24));
    SPECTRA_CHECK(range("--seq-len", r.sequenceLength, 2, 1 << 24));
    SPECTRA_CHECK(range("--max-tokens", r.maxTokens, std::int64_t(0), std::int64_t(1) << 40));
    SPECTRA_CHECK(range("--hidden-tokens", r.hiddenTokens, std::int64_t(0), std::int64_t(1) << 32));
    if (r.resume && r.output.empty())
        return usageError("there is no file to go on with", "--resume");
    return range("--batch", r.batch, 1, 4096);
}

Result<void> check(const GenerateRequest &r)
{
    SPECTRA_CHECK(check(r.sampling));
    return range("new tokens", r.maxNewTokens, 0, 1 << 24);
}

Result<void> needOutput(const std::filesystem::path &output)
{
    return output.empty() ? Result<void>(usageError("no output was named", "-o")) : Result<void>();
}

Result<void> check(const LogitsRequest &r)
{
    return needOutput(r.output);
}

Result<void> check(const UpcycleRequest &r)
{
    SPECTRA_CHECK(needOutput(r.output));
    SPECTRA_CHECK(range("--calibrate-batches", r.calibrationBatches, 0, 1000000));
    SPECTRA_CHECK(range("--calibrate-batch-tokens", r.calibrationBatchTokens, 0, 1 << 30));
    return check(r.settings);
}

Result<void> check(const CalibrateRequest &r)
{
    SPECTRA_CHECK(needOutput(r.output));
    if (r.prompts.empty())
        return usageError("no prompts", "calibrate");
    SPECTRA_CHECK(range("--batches", r.batches, 1, 1000000));
    SPECTRA_CHECK(range("--batch-tokens", r.batchTokens, 1, 1 << 30));
    return range("--seq-len", r.sequenceLength, 2, 1 << 24);
}

Result<void> check(const TrainRequest &r)
{
    if (!r.dryRun)
        SPECTRA_CHECK(needOutput(r.output));
    SPECTRA_CHECK(oneOf("--device", r.device, {"cpu", "cuda", "auto"}));
    if (r.device == "cuda")
        return usageError("training runs on processors alone", "--device cuda", "leave --device out, or say cpu");
    return range("--max-steps", r.maxSteps, std::int64_t(0), std::int64_t(1) << 40);
}

Result<void> check(const RomaBankRequest &r)
{
    SPECTRA_CHECK(needOutput(r.output));
    return range("--windows", r.windows, std::int64_t(0), std::int64_t(1) << 40);
}

Result<void> check(const EvalRequest &r)
{
    if (r.data.empty())
        return usageError("no data were named", "--data");
    SPECTRA_CHECK(range("--shots", r.shots, -1, 1000));
    SPECTRA_CHECK(range("--limit", r.limit, std::int64_t(0), std::int64_t(1) << 40));
    if (r.sequenceLength != 0)
        SPECTRA_CHECK(range("--seq-len", r.sequenceLength, 2, 1 << 24));
    SPECTRA_CHECK(range("--max-new-tokens", r.maxNewTokens, 0, 1 << 20));
    SPECTRA_CHECK(range("--samples", r.samples, 1, 10000));
    if (!(r.temperature < 0))
        SPECTRA_CHECK(check(Sampling{r.temperature, r.topP, 0}));
    if (r.samples > 1 && r.temperature == 0)
        return usageError("several greedy samples would all be the same", "--samples", "a --temperature above 0");
    if (!(r.programSeconds > 0 && r.programSeconds <= 3600))
        return usageError(fmt::format("{} is out of range (above 0 to 3600)", r.programSeconds), "--program-seconds");
    for (const int k : r.passK)
        SPECTRA_CHECK(range("--pass-k", k, 1, r.samples));
    return {};
}

} // namespace

Result<void> checkRequest(const Request &request)
{
    return std::visit(
        [](const auto &r) -> Result<void> {
            using R = std::decay_t<decltype(r)>;
            if constexpr (requires { r.spec; })
                SPECTRA_CHECK(check(r.spec));
            if constexpr (std::is_same_v<R, LoadRequest> || std::is_same_v<R, UnloadRequest>)
                return {};
            else
                return check(r);
        },
        request);
}

} // namespace spectra
