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
    PromptOptions prompts;
    CalibrateRequest request;
    std::string output;
    bool json = false;
};

double mean(const std::vector<double> &values)
{
    double sum = 0;
    for (double v : values)
        sum += v;
    return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

Result<void> calibrate(const Common &common, const Flags &flags)
{
    CalibrateRequest request = flags.request;
    request.spec = flags.model.spec(common);
    SPECTRA_TRY(request.prompts, flags.prompts.read());
    request.output = flags.output;
    request.overwrite = common.overwrite;
    SPECTRA_TRY(const Summary summary, runJob(common, std::move(request)));
    if (flags.json) {
        outJson(nlohmann::ordered_json{{"output", flags.output},
                                   {"seconds", summary.seconds},
                                   {"tokens", summary.tokens},
                                   {"cv_before", summary.cvBefore},
                                   {"cv_after", summary.cvAfter}});
        return {};
    }
    std::string text = "layer  CV before  CV after\n";
    for (std::size_t l = 0; l < summary.cvAfter.size(); ++l)
        text += fmt::format("{:5}  {:9.3f}  {:8.3f}\n", l, summary.cvBefore[l], summary.cvAfter[l]);
    text += fmt::format(" mean  {:9.3f}  {:8.3f}\n", mean(summary.cvBefore), mean(summary.cvAfter));
    out(text);
    return {};
}

} // namespace

Command calibrateCommand()
{
    return {"calibrate", "Finds the causal potentials of a SPECTRA model on prompts, weights frozen",
            "spectra calibrate smollm2-8x2 -p texts.jsonl -o smollm2-8x2-balanced",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                CalibrateRequest &r = flags->request;
                flags->model.add(app, false);
                flags->prompts.add(app);
                app.add_option("-o,--output", flags->output, "Folder to write")->required();
                app.add_option("--set", flags->model.set, "Router setting key=value (repeatable)")->type_size(1)->expected(1)->take_all();
                app.add_option("--batches", r.batches, "Batches of dual ascent (the method: 80)")->check(CLI::Range(1, 100000))->capture_default_str();
                app.add_option("--batch-tokens", r.batchTokens, "Counted tokens per batch (the method: 4096)")
                    ->check(CLI::Range(1, 1 << 24))->capture_default_str();
                app.add_option("--seq-len", r.sequenceLength, "Tokens per sequence, BOS counted")->check(CLI::Range(2, 1 << 20))->capture_default_str();
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return calibrate(common, *flags); };
            }};
}

} // namespace spectra::cli
