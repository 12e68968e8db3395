// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"

#include "engine/run/prompts.h"

#include <fmt/format.h>

#include <charconv>

namespace spectra::cli {

void ModelOptions::add(CLI::App &app, bool routerFlags)
{
    app.add_option("MODEL", model, "Hugging Face folder, .gguf file, or a name listed by 'spectra models'")->required();
    if (!routerFlags)
        return;
    app.add_option("--router", router, "Run with another router (a dense model is upcycled on the fly)");
    app.add_option("--set", set, "Router setting key=value (repeatable)")->type_size(1)->expected(1)->take_all();
    app.add_option("--experts", experts, "Experts per layer, when upcycling on the fly")->check(CLI::Range(1, 4096))->capture_default_str();
    app.add_option("--top-k", topK, "Experts per token with --router (default: 2; a model with experts keeps its own)")->check(CLI::Range(1, 4096));
    app.add_option("--compute", compute, "Number format of the matrix products")
        ->check(CLI::IsMember({"f32", "bf16", "auto"}))
        ->capture_default_str();
}

ModelSpec ModelOptions::spec(const Common &common) const
{
    ModelSpec out;
    out.model = model;
    out.compute = compute;
    out.device = common.device;
    out.seed = common.seed;
    if (router.empty()) {
        out.set = set;
    } else {
        UpcycleSettings settings;
        settings.router = router;
        settings.set = set;
        settings.experts = experts;
        settings.topK = topK;
        out.upcycle = settings;
    }
    return out;
}

void PromptOptions::add(CLI::App &app)
{
    app.add_option("-p,--prompts", files, "FILE, LABEL=FILE or - (repeatable); .jsonl: one object a line")->type_size(1)->expected(1)->allow_extra_args(false)->take_all();
    // Without extra arguments: CLI11 would take a text in brackets for a list.
    app.add_option("--text", texts, "A prompt itself (repeatable)")->type_size(1)->expected(1)->allow_extra_args(false)->take_all();
    app.add_flag("--parse-special", parseSpecial, "Text that spells a special token becomes that token");
}

Result<std::vector<Prompt>> PromptOptions::read() const
{
    if (!given())
        return usageError("no prompts", "command line", "give -p FILE, -p LABEL=FILE, -p - or --text STRING");
    std::vector<Prompt> prompts;
    int group = 0;
    for (const std::string &argument : files) {
        SPECTRA_TRY(auto some, promptsOfArgument(argument));
        for (Prompt &p : some) {
            p.group = group;
            prompts.push_back(std::move(p));
        }
        ++group;
    }
    for (std::size_t i = 0; i < texts.size(); ++i) {
        SPECTRA_TRY(auto some, parsePrompts(texts[i], fmt::format("--text:{}", i + 1), false, {}));
        some.front().id = fmt::format("text:{}", i + 1);
        some.front().document.clear();
        some.front().group = group++;
        prompts.push_back(std::move(some.front()));
    }
    return prompts;
}

Result<std::vector<std::int64_t>> parseList(const std::string &text, const std::string &flag)
{
    std::vector<std::int64_t> values;
    std::size_t at = 0;
    while (at <= text.size()) {
        const std::size_t end = std::min(text.find(',', at), text.size());
        std::int64_t value = 0;
        const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, value);
        if (error != std::errc() || stop != text.data() + end)
            return usageError(fmt::format("'{}' is not a comma-separated list of whole numbers", text), flag);
        values.push_back(value);
        at = end + 1;
    }
    return values;
}

} // namespace spectra::cli
