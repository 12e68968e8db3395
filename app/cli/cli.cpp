// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/cli.h"

#include "engine/core/parallel.h"
#include "engine/core/version.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <unistd.h>

namespace spectra::cli {
namespace {

/// Subcommands of the contract that this version does not have. Saying so beats "unknown subcommand".
constexpr std::string_view kNotYet[] = {"compare", "reroute", "intervene", "import", "export", "bench"};

void addCommon(CLI::App &app, Common &common)
{
    app.add_option("--threads", common.threads, "Threads to compute with (default: all cores)")->check(CLI::Range(1, 1024));
    app.add_option("--device", common.device, "Where models run")->check(CLI::IsMember({"cpu", "cuda", "auto"}))->capture_default_str();
    app.add_option("--seed", common.seed, "Seed of everything random")->capture_default_str()->each([&common](const std::string &) { common.seedGiven = true; });
    app.add_flag("--quiet", common.quiet, "No progress and no notes");
    app.add_option("--log-level", common.logLevel, "Least severity that is logged")
        ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}))
        ->capture_default_str();
    app.add_flag("--overwrite", common.overwrite, "Replace outputs that exist");
    app.add_flag("--allow-noncausal", common.allowNonCausal, "Run routers whose choices depend on later tokens");
}

std::string joined(int argc, char **argv)
{
    std::string line = "spectra";
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        const bool plain = !word.empty() && word.find_first_of(" \t\n'\"\\$*?&|<>;()") == std::string_view::npos;
        std::string quoted = plain ? std::string(word) : "'";
        if (!plain) {
            for (char c : word)
                quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
            quoted += "'";
        }
        line += " " + quoted;
    }
    return line;
}

void setUpLogging(const std::string &level)
{
    auto logger = std::make_shared<spdlog::logger>("spectra", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    logger->set_pattern("%l: %v");
    spdlog::set_default_logger(std::move(logger));
    static const std::map<std::string, spdlog::level::level_enum> levels = {
        {"trace", spdlog::level::trace}, {"debug", spdlog::level::debug}, {"info", spdlog::level::info},
        {"warning", spdlog::level::warn}, {"error", spdlog::level::err}, {"off", spdlog::level::off}};
    spdlog::set_level(levels.at(level));
}

/// errno of the first failed write to standard output.
int g_outputError = 0;

/// Before and after a job nothing is under way that would have to be kept.
extern "C" void onEarlyInterrupt(int)
{
    constexpr char text[] = "\nerror: stopped on request\n";
    if (::write(STDERR_FILENO, text, sizeof text - 1) < 0)
        ::_exit(130);
    ::_exit(130);
}

} // namespace

const std::vector<Command> &commands()
{
    static const std::vector<Command> table = {
        modelsCommand(),  inspectCommand(), tokenizeCommand(), logitsCommand(),   traceCommand(),  upcycleCommand(),
        calibrateCommand(), trainCommand(), romaBankCommand(), sweepCommand(), metricsCommand(), placementCommand(), embedCommand(),    sinkhornCommand(), figureCommand(), reportCommand(), evalCommand(),
    };
    return table;
}

void out(std::string_view text)
{
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
        if (errno != EPIPE && g_outputError == 0)
            g_outputError = errno;
        std::clearerr(stdout);
    }
}

void outJson(const nlohmann::ordered_json &document)
{
    out(document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void printError(const Error &error)
{
    std::string text = "error: " + error.what;
    if (!error.where.empty())
        text += ": " + error.where;
    text += '\n';
    if (!error.mend.empty())
        text += "hint: " + error.mend + '\n';
    std::fwrite(text.data(), 1, text.size(), stderr);
}

void note(const Common &common, std::string_view text)
{
    if (!common.quiet)
        fmt::print(stderr, "{}\n", text);
}

int run(int argc, char **argv)
{
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGINT, onEarlyInterrupt);
    Common common;
    common.commandLine = joined(argc, argv);
    CLI::App app("Runs Mixture-of-Experts language models, records their routing and measures it.", "spectra");
    app.set_version_flag("--version", fmt::format("spectra {} ({})", programVersion(), programCommit()));
    app.require_subcommand(1);
    std::string missing;
    for (std::string_view name : kNotYet)
        missing += (missing.empty() ? "" : ", ") + std::string(name);
    app.footer("Each subcommand explains itself with --help. Not in this version: " + missing + ".");

    std::function<Result<void>()> work;
    std::vector<std::function<Result<void>()>> kept; // the flags of a subcommand live in its function
    for (const Command &command : commands()) {
        CLI::App *sub = app.add_subcommand(std::string(command.name), std::string(command.summary));
        sub->footer("Example:\n  " + std::string(command.example));
        addCommon(*sub, common);
        kept.push_back(command.setUp(*sub, common));
        sub->final_callback([&work, &kept, index = kept.size() - 1] { work = kept[index]; });
    }
    if (argc > 1)
        for (std::string_view name : kNotYet)
            if (name == argv[1]) {
                printError(usageError(fmt::format("'{}' is not in this version", name), "command line",
                                      "spectra --help lists what is"));
                return exitCode(ErrorKind::usage);
            }
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success &success) {
        return app.exit(success);
    } catch (const CLI::ParseError &error) {
        printError(usageError(error.what(), "command line", "see spectra --help, or --help of the subcommand"));
        return exitCode(ErrorKind::usage);
    }
    setUpLogging(common.logLevel);
    if (common.threads > 0)
        setThreadCount(common.threads);
    Result<void> result;
    try {
        result = work();
    } catch (const std::bad_alloc &) {
        result = workError("out of memory");
    } catch (const std::exception &error) {
        result = bugError(error.what(), "uncaught exception");
    }
    if (result.ok() && g_outputError != 0)
        result = workError(fmt::format("cannot be written: {}", std::strerror(g_outputError)), "standard output");
    if (!result.ok()) {
        printError(result.error());
        return exitCode(result.error().kind);
    }
    return 0;
}

} // namespace spectra::cli
