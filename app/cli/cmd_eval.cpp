// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobrunner.h"
#include "app/cli/options.h"
#include "engine/run/catalog.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>

namespace spectra::cli {
namespace {

using nlohmann::ordered_json;

struct Flags {
    ModelOptions model;
    EvalRequest request;
    std::string data, shotsData, against, output, passK;
    bool json = false;
};

std::string taskNames()
{
    std::string names;
    for (const TaskEntry &task : taskCatalog())
        names += (names.empty() ? "" : ", ") + task.name;
    return names;
}

std::string number(const ordered_json &value)
{
    return value.is_number() ? fmt::format("{:.4f}", value.get<double>()) : "-";
}

std::string table(const ordered_json &result)
{
    std::string text = fmt::format("{} ({} items)\n", result["task"].get<std::string>(), result["n"].get<std::int64_t>());
    for (const auto &[name, metric] : result["metrics"].items())
        text += fmt::format("  {:<18} {:>10}   [{}, {}]\n", name, number(metric["value"]), number(metric["low"]), number(metric["high"]));
    if (result.contains("against")) {
        const ordered_json &against = result["against"];
        text += fmt::format("against {}: {} items compared, {} right -> wrong, {} wrong -> right (McNemar p = {})\n", against["file"].get<std::string>(),
                            against["compared"].get<std::int64_t>(), against["right_to_wrong"].get<std::int64_t>(),
                            against["wrong_to_right"].get<std::int64_t>(), number(against["mcnemar_p"]));
        for (const ordered_json &flip : against["flips"]) {
            text += fmt::format("  {:<24} {} -> {}", flip["id"].get<std::string>(), flip["answer_before"].get<std::string>(), flip["answer_after"].get<std::string>());
            if (flip.contains("routing"))
                text += fmt::format("   routing differs by {} (most in MoE layer {}: {})", number(flip["routing"]["mean_distance"]),
                                    flip["routing"]["layer"].get<int>(), number(flip["routing"]["distance"]));
            text += '\n';
        }
        if (against.contains("routing_distance_of_flips") || against.contains("routing_distance_of_others"))
            text += fmt::format("  mean routing distance: {} of the items that flipped, {} of the others\n",
                                number(against.value("routing_distance_of_flips", ordered_json())), number(against.value("routing_distance_of_others", ordered_json())));
    }
    return text;
}

Result<void> eval(const Common &common, const Flags &flags)
{
    EvalRequest request = flags.request;
    request.spec = flags.model.spec(common);
    request.data = flags.data;
    request.shotsData = flags.shotsData;
    request.against = flags.against;
    request.output = flags.output;
    request.overwrite = common.overwrite;
    request.allowNonCausal = common.allowNonCausal;
    const std::vector<TaskEntry> tasks = taskCatalog();
    if (std::none_of(tasks.begin(), tasks.end(), [&](const TaskEntry &t) { return t.name == request.task; }))
        return usageError(fmt::format("unknown task '{}'", request.task), "--task", "one of " + taskNames());
    if (!flags.passK.empty()) {
        SPECTRA_TRY(const auto list, parseList(flags.passK, "--pass-k"));
        for (const std::int64_t k : list) {
            if (k < 1 || k > request.samples)
                return usageError(fmt::format("pass@{} needs {} samples at least", k, std::max<std::int64_t>(k, 1)), "--pass-k", "more with --samples");
            request.passK.push_back(static_cast<int>(k));
        }
    }
    SPECTRA_TRY(const Summary summary, runJob(common, std::move(request)));
    const auto result = ordered_json::parse(summary.document, nullptr, false);
    if (result.is_discarded())
        return bugError("the result is not JSON", "eval");
    if (flags.json)
        outJson(result);
    else
        out(table(result));
    return {};
}

} // namespace

Command evalCommand()
{
    return {"eval", "Scores a model: perplexity, multiple choice, word problems, programs",
            "spectra eval smollm2-135m --task arc_easy --data ARC-Easy-Test.jsonl --limit 200 -o items.jsonl",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                EvalRequest &r = flags->request;
                flags->model.add(app);
                app.add_option("--task", r.task, "One of " + taskNames())->required();
                app.add_option("--data", flags->data, "Items, as JSON lines in the task's public layout; ppl and wikitext also take text files")->required();
                app.add_option("--shots", r.shots, "Solved examples before each question (default: the task's own number)")->check(CLI::Range(0, 1000));
                app.add_option("--shots-data", flags->shotsData, "Where solved examples come from (default: the data, without the item itself)");
                app.add_flag("--shots-in-order", r.shotsInOrder, "The first examples of the file instead of drawn ones");
                app.add_option("--limit", r.limit, "The first N items only (0: all)")->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 40))->capture_default_str();
                app.add_option("--against", flags->against, "File of items of another run: which answers flip, and how their routing differs");
                app.add_option("-o,--output", flags->output, "File of items to write (.jsonl)");
                app.add_option("--seq-len", r.sequenceLength, "Tokens of a window or prompt (default: the model's context)")->check(CLI::Range(2, 1 << 20));
                app.add_option("--max-new-tokens", r.maxNewTokens, "Tokens that an answer may have (default: the task's own number)")->check(CLI::Range(1, 1 << 20));
                app.add_option("--samples", r.samples, "Programs drawn per problem")->check(CLI::Range(1, 10000))->capture_default_str();
                app.add_option("--temperature", r.temperature, "0: the most likely token (default: 0, with several samples 0.8)")->check(CLI::Range(0.0, 100.0));
                app.add_option("--top-p", r.topP, "Sample from the smallest set of this probability")->check(CLI::Range(0.0, 1.0))->capture_default_str();
                app.add_option("--pass-k", flags->passK, "k of pass@k, comma-separated (default: 1)");
                app.add_option("--program-seconds", r.programSeconds, "Wall clock of one program")->check(CLI::Range(0.1, 3600.0))->capture_default_str();
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return eval(common, *flags); };
            }};
}

} // namespace spectra::cli
