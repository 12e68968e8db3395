// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/cli.h"
#include "app/cli/options.h"
#include "engine/core/files.h"
#include "engine/run/catalog.h"
#include "engine/tokenizer/tokenizer.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>
#include <optional>

namespace spectra::cli {
namespace {

struct Flags {
    ModelOptions model;
    PromptOptions prompts;
    std::optional<std::string> ids;
    bool json = false, noSpecial = false;
};

Result<void> tokenize(const Flags &flags)
{
    SPECTRA_TRY(const auto path, Engine::resolveModel(flags.model.model));
    SPECTRA_TRY(const auto tokenizer, openTokenizer(path));
    if (flags.ids) {
        SPECTRA_TRY(const auto given, parseList(*flags.ids, "--ids"));
        std::vector<std::int32_t> ids;
        for (std::int64_t id : given) {
            if (id < 0 || id >= tokenizer->size())
                return usageError(fmt::format("token id {} is outside the vocabulary of {}", id, tokenizer->size()), "--ids");
            ids.push_back(static_cast<std::int32_t>(id));
        }
        const std::string text = tokenizer->decode(ids);
        if (flags.json)
            outJson(nlohmann::ordered_json{{"text", text}});
        else
            out(text + "\n");
        return {};
    }
    SPECTRA_TRY(const auto prompts, flags.prompts.read());
    nlohmann::ordered_json ids = nlohmann::ordered_json::array(), pieces = nlohmann::ordered_json::array();
    std::string lines;
    for (const Prompt &prompt : prompts) {
        SPECTRA_TRY(const auto encoding, tokenizer->encode(prompt.text, {!flags.noSpecial, flags.prompts.parseSpecial}));
        for (std::int32_t id : encoding.ids) {
            const std::string piece = printableUtf8(tokenizer->piece(id));
            if (flags.json) {
                ids.push_back(id);
                pieces.push_back(piece);
            } else {
                lines += fmt::format("{}\t{}\n", id, piece);
            }
        }
    }
    if (flags.json)
        outJson({{"ids", ids}, {"pieces", pieces}});
    else
        out(lines);
    return {};
}

} // namespace

Command tokenizeCommand()
{
    return {"tokenize", "Text to token ids and pieces, and back", "spectra tokenize smollm2-135m --text 'Hello world' --json",
            [](CLI::App &app, const Common &) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                flags->model.add(app, false);
                flags->prompts.add(app);
                app.add_option("--ids", flags->ids, "Decode these ids instead: 1,2,3");
                app.add_flag("--no-special", flags->noSpecial, "Add no beginning-of-sequence token");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags] { return tokenize(*flags); };
            }};
}

} // namespace spectra::cli
