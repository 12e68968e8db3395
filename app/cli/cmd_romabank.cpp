// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobrunner.h"
#include "app/cli/options.h"
#include "engine/core/files.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>

namespace spectra::cli {
namespace fs = std::filesystem;
namespace {

using nlohmann::ordered_json;

struct Flags {
    ModelOptions model;
    std::string config, output, embeddings;
    std::vector<std::string> set;
    std::int64_t windows = 0;
    bool json = false;
};

Result<void> romaBank(const Common &common, const Flags &flags)
{
    RomaBankRequest request;
    request.spec = flags.model.spec(common);
    SPECTRA_TRY(request.config, readTextFile(flags.config, 1 << 20));
    request.where = flags.config;
    request.folder = fs::path(flags.config).parent_path();
    request.set = flags.set;
    request.output = flags.output;
    request.embeddings = flags.embeddings;
    request.windows = flags.windows;
    request.overwrite = common.overwrite;
    SPECTRA_TRY(const Summary summary, runJob(common, std::move(request)));
    const auto d = ordered_json::parse(summary.document, nullptr, false);
    if (d.is_discarded())
        return bugError("the result is not JSON", "roma-bank");
    if (flags.json) {
        outJson(d);
        return {};
    }
    out(fmt::format("wrote {}: {} samples of {} windows ({:.1f} %), {} tokens each, routing of the last {} MoE layers over {} experts\n"
                    "a sample: {}\nits embedding ({} numbers): {}\nuse it with \"roma\": {{\"bank\": \"{}\"}} in {}\n",
                    flags.output, d["samples"].get<std::int64_t>(), d["windows"].get<std::int64_t>(), 100 * d["samples"].get<double>() / d["windows"].get<double>(),
                    d["sequence_length"].get<std::int64_t>(), d["layers"].get<std::int64_t>(), d["experts"].get<std::int64_t>(), d["success"].get<std::string>(),
                    d["dimension"].get<std::int64_t>(), d["embedding"].get<std::string>(), flags.output, flags.config));
    return {};
}

} // namespace

Command romaBankCommand()
{
    return {"roma-bank",
            "The bank that router roma_like is drawn to: training windows after which the model's most likely token is the text's next one, with its routing there",
            "spectra roma-bank base/final roma.json -o bank && spectra train roma.json -o run --set roma.bank=bank",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                flags->model.add(app, false);
                app.add_option("CONFIG", flags->config, "Configuration (JSON) of the run that will use the bank: router.type roma_like, and its texts, tokenizer and sequence length")->required();
                app.add_option("-o,--output", flags->output, "Folder to write: embeddings.npy, routing.npy, queries.npy, windows.json, texts.jsonl, manifest.json")->required();
                app.add_option("--set", flags->set, "Setting a.b=value over the configuration (repeatable)")->type_size(1)->expected(1)->take_all();
                app.add_option("--windows", flags->windows, "Only so many windows, drawn evenly by --seed (0: all)")
                    ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 40))->capture_default_str();
                app.add_option("--embeddings", flags->embeddings,
                               "Embeddings of the windows by a sentence embedder, .npy [windows, size] in the order of texts.jsonl of a bank made without them "
                               "(default: the model's final hidden state, mean over the window's tokens)");
                app.add_option("--compute", flags->model.compute, "Number format of the matrix products")->check(CLI::IsMember({"f32", "bf16", "auto"}))->capture_default_str();
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return romaBank(common, *flags); };
            }};
}

} // namespace spectra::cli
