// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobrunner.h"
#include "app/cli/options.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <charconv>
#include <memory>

namespace spectra::cli {
namespace {

struct Flags {
    ModelOptions model;
    PromptOptions prompts;
    std::string capture = "standard";
    std::vector<std::string> maskExperts, forceExperts;
    TraceRequest request;
    std::string output;
    bool json = false;
};

Result<std::vector<std::pair<int, int>>> layerExperts(const std::vector<std::string> &words, const char *flag)
{
    std::vector<std::pair<int, int>> pairs;
    for (const std::string &word : words) {
        std::pair<int, int> pair;
        const char *end = word.data() + word.size();
        const auto layer = std::from_chars(word.data(), end, pair.first);
        bool good = layer.ec == std::errc() && layer.ptr != end && *layer.ptr == ':';
        if (good) {
            const auto expert = std::from_chars(layer.ptr + 1, end, pair.second);
            good = expert.ec == std::errc() && expert.ptr == end && pair.first >= 0 && pair.second >= 0;
        }
        if (!good)
            return usageError(fmt::format("'{}' is not LAYER:EXPERT", word), flag, "a decoder layer and an expert's index, as 3:0");
        pairs.push_back(pair);
    }
    return pairs;
}

Result<void> trace(const Common &common, Flags &flags)
{
    TraceRequest request = flags.request;
    request.spec = flags.model.spec(common);
    SPECTRA_TRY(request.capture, Capture::parse(flags.capture));
    SPECTRA_TRY(request.maskExperts, layerExperts(flags.maskExperts, "--mask-expert"));
    SPECTRA_TRY(request.forceExperts, layerExperts(flags.forceExperts, "--force-expert"));
    SPECTRA_TRY(request.prompts, flags.prompts.read());
    request.parseSpecial = flags.prompts.parseSpecial;
    request.output = flags.output;
    request.overwrite = common.overwrite;
    request.allowNonCausal = common.allowNonCausal;
    request.commandLine = common.commandLine;
    SPECTRA_TRY(const Summary summary, runJob(common, std::move(request)));
    if (flags.json) {
        nlohmann::ordered_json shares = nlohmann::ordered_json::object();
        for (const auto &[component, share] : summary.timeShares)
            shares[component] = share;
        outJson(nlohmann::ordered_json{{"output", flags.output},
                                   {"tokens", summary.tokens},
                                   {"sequences", summary.sequences},
                                   {"seconds", summary.seconds},
                                   {"load_seconds", summary.loadSeconds},
                                   {"tokens_per_s", summary.tokensPerSecond},
                                   {"bytes_per_token", summary.bytesPerToken},
                                   {"time_share", shares}});
    } else {
        note(common, fmt::format("{} tokens of {} sequences in {:.1f} s ({:.0f} tokens/s): {}", summary.tokens, summary.sequences,
                                 summary.seconds, summary.tokensPerSecond, flags.output));
    }
    return {};
}

} // namespace

Command traceCommand()
{
    return {"trace", "Runs prompts and writes their routing to a trace",
            "spectra trace smollm2-135m --router spectra -p code=main.cpp -o trace.h5",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                TraceRequest &r = flags->request;
                flags->model.add(app);
                flags->prompts.add(app);
                app.add_option("-o,--output", flags->output, "Trace to write (.h5)")->required();
                app.add_option("--capture", flags->capture, "minimal, standard or full, then ,+name or ,-name")->capture_default_str();
                app.add_option("--max-new-tokens", r.maxNewTokens, "Tokens to generate after each prompt")
                    ->check(CLI::Range(0, 1 << 20))->capture_default_str();
                app.add_option("--temperature", r.sampling.temperature, "0: the most likely token")
                    ->check(CLI::Range(0.0, 100.0))->capture_default_str();
                app.add_option("--top-p", r.sampling.topP, "Sample from the smallest set of this probability")
                    ->check(CLI::Range(0.0, 1.0))->capture_default_str();
                app.add_option("--top-k-sampling", r.sampling.topK, "Sample from the k most likely tokens (0: all)")
                    ->check(CLI::Range(0, 1 << 24))->capture_default_str();
                app.add_option("--seq-len", r.sequenceLength, "Tokens per sequence, BOS counted")
                    ->check(CLI::Range(2, 1 << 20))->capture_default_str();
                app.add_option("--max-tokens", r.maxTokens, "Tokens per file, BOS not counted (0: all)")
                    ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 40))->capture_default_str();
                app.add_option("--batch", r.batch, "Sequences run together")->check(CLI::Range(1, 4096))->capture_default_str();
                app.add_option("--compress", r.compress, "Deflate level of wide columns")->check(CLI::Range(0, 9))->capture_default_str();
                app.add_option("--dtype", r.dtype, "Storage of scores and probabilities")
                    ->check(CLI::IsMember({"f16", "f32"}))->capture_default_str();
                app.add_option("--hidden-tokens", r.hiddenTokens, "Tokens whose hidden states are kept with capture 'hidden'")
                    ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 32))->capture_default_str();
                app.add_flag("--resume", r.resume, "Go on with the .part of a killed run");
                app.add_flag("--ignore-disk-space", r.ignoreDiskSpace, "Start even when the trace is not expected to fit the disk");
                app.add_flag("--live", r.live, "Let other processes read along (HDF5 SWMR)");
                app.add_option("--mask-expert", flags->maskExperts, "Take an expert out: LAYER:EXPERT (repeatable)")->type_size(1)->expected(1)->take_all();
                app.add_option("--force-expert", flags->forceExperts, "Put an expert in: LAYER:EXPERT (repeatable)")->type_size(1)->expected(1)->take_all();
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return trace(common, *flags); };
            }};
}

} // namespace spectra::cli
