// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/cli.h"
#include "engine/run/engine.h"

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace spectra::cli {

/// MODEL with router settings: how every subcommand that runs a model names it.
struct ModelOptions {
    std::string model;
    std::string router;
    std::vector<std::string> set;
    int experts = 8, topK = 0;
    std::string compute = "f32";

    void add(CLI::App &app, bool routerFlags = true);
    [[nodiscard]] ModelSpec spec(const Common &common) const;
};

/// PROMPTS: -p FILE, LABEL=FILE or -, and --text.
struct PromptOptions {
    std::vector<std::string> files;
    std::vector<std::string> texts;
    bool parseSpecial = false;

    void add(CLI::App &app);
    /// All prompts in order, each file's prompts together. Errors: usage (none given), input.
    [[nodiscard]] Result<std::vector<Prompt>> read() const;
    [[nodiscard]] bool given() const { return !files.empty() || !texts.empty(); }
};

/// "0,3,5" → integers. Errors (usage) name `flag`.
[[nodiscard]] Result<std::vector<std::int64_t>> parseList(const std::string &text, const std::string &flag);

} // namespace spectra::cli
