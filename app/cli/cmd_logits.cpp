// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobrunner.h"
#include "app/cli/options.h"
#include "engine/run/prompts.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace spectra::cli {
namespace {

struct Flags {
    ModelOptions model;
    PromptOptions prompts;
    std::string idsFile, output;
    bool layers = false, json = false;
};

Result<void> logits(const Common &common, const Flags &flags)
{
    LogitsRequest request;
    request.spec = flags.model.spec(common);
    if (!flags.idsFile.empty()) {
        if (flags.prompts.given())
            return usageError("--ids-file and prompts exclude each other", "command line");
        SPECTRA_TRY(request.prompt.ids, readIds(flags.idsFile));
        request.prompt.id = flags.idsFile;
    } else {
        SPECTRA_TRY(auto prompts, flags.prompts.read());
        if (prompts.size() != 1)
            return usageError(fmt::format("logits takes one prompt, not {}", prompts.size()), "command line");
        request.prompt = std::move(prompts.front());
    }
    request.parseSpecial = flags.prompts.parseSpecial;
    request.layers = flags.layers;
    request.output = flags.output;
    request.overwrite = common.overwrite;
    SPECTRA_TRY(const Summary summary, runJob(common, std::move(request)));
    if (flags.json)
        outJson({{"output", flags.output}, {"tokens", summary.tokens}, {"seconds", summary.seconds}});
    else
        note(common, fmt::format("logits of {} tokens in {}", summary.tokens, flags.output));
    return {};
}

} // namespace

Command logitsCommand()
{
    return {"logits", "Raw logits (and, with --layers, hidden states and routing) as HDF5",
            "spectra logits smollm2-135m --text 'Hello world' -o logits.h5",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                flags->model.add(app);
                flags->prompts.add(app);
                app.add_option("--ids-file", flags->idsFile, "JSON array of token ids: one sequence, nothing added or cut");
                app.add_option("-o,--output", flags->output, "HDF5 file to write")->required();
                app.add_flag("--layers", flags->layers, "Also the residual stream and each router's input, logits, probabilities, experts, weights");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return logits(common, *flags); };
            }};
}

} // namespace spectra::cli
