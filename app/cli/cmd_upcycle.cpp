// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobrunner.h"
#include "app/cli/options.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace spectra::cli {
namespace {

struct Flags {
    ModelOptions model;
    PromptOptions calibration;
    UpcycleSettings settings;
    std::string output;
    int batches = 80, batchTokens = 4096;
    bool json = false;
};

Result<void> upcycle(const Common &common, const Flags &flags)
{
    UpcycleRequest request;
    request.spec.model = flags.model.model;
    request.spec.device = common.device;
    request.spec.seed = common.seed;
    request.settings = flags.settings;
    request.output = flags.output;
    request.overwrite = common.overwrite;
    if (flags.calibration.given()) {
        SPECTRA_TRY(request.calibration, flags.calibration.read());
        request.calibrationBatches = flags.batches;
        request.calibrationBatchTokens = flags.batchTokens;
    }
    SPECTRA_TRY(const Summary summary, runJob(common, std::move(request)));
    const bool measured = summary.maxLogitDifference >= 0;
    if (flags.json) {
        nlohmann::ordered_json document{{"output", flags.output}, {"seconds", summary.seconds}};
        document["max_logit_difference"] = measured ? nlohmann::ordered_json(summary.maxLogitDifference) : nlohmann::ordered_json(nullptr);
        document["probe_tokens"] = summary.tokens;
        if (!summary.cvAfter.empty())
            document["calibration"] = {{"cv_before", summary.cvBefore}, {"cv_after", summary.cvAfter}};
        outJson(document);
        return {};
    }
    std::string text = fmt::format("wrote {} in {:.1f} s\n", flags.output, summary.seconds);
    if (measured)
        text += fmt::format("largest logit difference to the source on {} probe tokens: {:.3g}\n", summary.tokens, summary.maxLogitDifference);
    if (flags.settings.router.starts_with("spectra")) // or one of its ablations
        text += summary.cvAfter.empty() ? "the router is fresh: random, unbalanced, untrained (--calibrate balances it)\n"
                                        : "the router is balanced by calibration but untrained\n";
    out(text);
    return {};
}

} // namespace

Command upcycleCommand()
{
    return {"upcycle", "Dense model to mixture of experts, or another router for one",
            "spectra upcycle smollm2-135m -o smollm2-8x2 --experts 8 --top-k 2 --router spectra",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                UpcycleSettings &s = flags->settings;
                flags->model.add(app, false);
                app.add_option("-o,--output", flags->output, "Folder to write")->required();
                app.add_option("--experts", s.experts, "Experts per layer")->check(CLI::Range(1, 4096))->capture_default_str();
                app.add_option("--top-k", s.topK, "Experts per token (default: 2; a model with experts keeps its own)")->check(CLI::Range(1, 4096));
                app.add_option("--shared", s.shared, "Shared experts")->check(CLI::Range(0, 64))->capture_default_str();
                app.add_option("--granularity", s.granularity, "Each expert is this part of the FFN")->check(CLI::Range(1, 256))->capture_default_str();
                app.add_option("--router", s.router, "Router")->capture_default_str();
                app.add_option("--set", s.set, "Router setting key=value (repeatable; for spectra router_dim is 32 unless set)")
                    ->type_size(1)->expected(1)->take_all();
                app.add_option("--noise", s.noise, "Relative rms of the noise on the experts")->check(CLI::Range(0.0, 10.0))->capture_default_str();
                app.add_option("--layers", s.layers, "all, every:N, from:N or a list")->capture_default_str();
                app.add_option("--scaling", s.scaling, "How slices are scaled with --granularity")
                    ->check(CLI::IsMember({"exact", "nvidia"}))->capture_default_str();
                app.add_option("--dtype", s.dtype, "Storage")->check(CLI::IsMember({"f32", "bf16", "f16"}))->capture_default_str();
                app.add_option("--calibrate", flags->calibration.files, "Prompts on which the causal potentials are found (repeatable)")
                    ->type_size(1)->expected(1)->take_all();
                app.add_option("--calibrate-batches", flags->batches, "Batches of dual ascent (the method: 80)")
                    ->check(CLI::Range(1, 100000))->capture_default_str();
                app.add_option("--calibrate-batch-tokens", flags->batchTokens, "Counted tokens per batch (the method: 4096)")
                    ->check(CLI::Range(1, 1 << 24))->capture_default_str();
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return upcycle(common, *flags); };
            }};
}

} // namespace spectra::cli
