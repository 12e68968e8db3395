// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/cli.h"
#include "engine/core/files.h"
#include "engine/core/npy.h"
#include "engine/rule/sinkhorn.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <memory>

namespace spectra::cli {
namespace {

struct Flags {
    std::string input, output;
    double epsilon = 0.05, tolerance = 0;
    int iterations = 3;
    bool json = false;
};

Result<void> sinkhorn(const Common &common, const Flags &flags)
{
    rule::SinkhornOptions options;
    options.epsilon = flags.epsilon;
    options.iterations = flags.iterations;
    options.tolerance = flags.tolerance;
    if (std::string why; !options.isValid(&why))
        return usageError(why, "command line");
    if (!flags.output.empty())
        SPECTRA_CHECK(checkOutput(flags.output, common.overwrite));
    SPECTRA_TRY(const NpyArray scores, readNpy(flags.input));
    if (scores.shape.size() != 2 || scores.values.empty())
        return inputError(fmt::format("has {} dimensions and {} values, expected scores [tokens, experts]", scores.shape.size(), scores.values.size()),
                          flags.input);
    std::vector<float> plan(scores.values.size());
    const auto start = std::chrono::steady_clock::now();
    auto result = rule::sinkhorn(scores.values, scores.shape[1], options, plan);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!result)
        return result.error().in(flags.input);
    if (!result->converged)
        note(common, fmt::format("warning: the tolerance {} was not met after {} iterations: the largest column violation is {:.3g}",
                                 flags.tolerance, result->iterations, result->violation));
    if (!flags.output.empty()) {
        SPECTRA_TRY(auto file, AtomicFile::create(flags.output, common.overwrite));
        writeNpy(file.stream(), scores.shape, plan);
        SPECTRA_CHECK(file.commit());
    }
    if (flags.json)
        outJson({{"violation", result->violation}, {"iterations", result->iterations}, {"converged", result->converged}, {"seconds", seconds}});
    else
        out(fmt::format("{} iterations, largest relative column violation {:.3g}, {:.4f} s\n", result->iterations, result->violation, seconds));
    return {};
}

} // namespace

Command sinkhornCommand()
{
    return {"sinkhorn", "The transport solver alone: a plan for scores [tokens, experts]",
            "spectra sinkhorn --input scores.npy --epsilon 0.1 --tolerance 1e-6 -o plan.npy",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("--input", flags->input, "Scores [tokens, experts] as a .npy file, higher is better")->required();
                app.add_option("--epsilon", flags->epsilon, "Temperature: the kernel is exp(score / epsilon)")->capture_default_str();
                auto *iterations = app.add_option("--iterations", flags->iterations, "Row and column updates")
                                       ->check(CLI::Range(0, 1000000))->capture_default_str();
                app.add_option("--tolerance", flags->tolerance, "Go on until the largest relative column violation is at most this")
                    ->excludes(iterations)->check(CLI::PositiveNumber);
                app.add_option("-o,--output", flags->output, "Plan to write (.npy, float32)");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return sinkhorn(common, *flags); };
            }};
}

} // namespace spectra::cli
