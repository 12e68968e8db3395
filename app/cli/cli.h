// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace spectra::cli {

/// Options that every subcommand takes.
struct Common {
    int threads = 0;                    ///< 0: all cores
    std::string device = "auto";
    std::uint64_t seed = 0;
    bool seedGiven = false;             ///< where a file has a seed of its own, only one that was typed replaces it
    bool quiet = false;
    std::string logLevel = "warning";
    bool overwrite = false;
    bool allowNonCausal = false;
    bool json = false;
    std::string commandLine;            ///< as typed, for provenance
};

/// A subcommand: its flags are added by `setUp`, which stores what to run.
struct Command {
    std::string_view name;
    std::string_view summary;
    std::string_view example;
    /// Adds flags to `app` and returns the work. Flags live in a shared_ptr captured by the returned function.
    std::function<std::function<Result<void>()>(CLI::App &app, const Common &common)> setUp;
};

/// The table of subcommands.
[[nodiscard]] const std::vector<Command> &commands();

/// Runs the command line and returns the process's exit code.
[[nodiscard]] int run(int argc, char **argv);

/// Writes to standard output. A reader that has gone away ends it quietly; run() turns any other failure into an error.
void out(std::string_view text);
/// The one document of --json, with a line feed. Names that are no UTF-8 get U+FFFD.
void outJson(const nlohmann::ordered_json &document);
/// "error: WHAT: WHERE" and "hint: MEND" on standard error.
void printError(const Error &error);
/// A line on standard error, unless --quiet.
void note(const Common &common, std::string_view text);

// One per file cmd_NAME.cpp.
Command modelsCommand();
Command inspectCommand();
Command tokenizeCommand();
Command logitsCommand();
Command traceCommand();
Command upcycleCommand();
Command calibrateCommand();
Command trainCommand();
Command romaBankCommand();
Command sweepCommand();
Command metricsCommand();
Command placementCommand();
Command embedCommand();
Command sinkhornCommand();
Command figureCommand();
Command reportCommand();
Command evalCommand();

} // namespace spectra::cli
