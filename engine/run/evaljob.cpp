// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/run/catalog.h"
#include "engine/run/job.h"
#include "engine/run/tasklanguagemodel.h"
#include "engine/tasks/evaluation.h"
#include "engine/tasks/flips.h"
#include "engine/tasks/programtask.h"
#include "engine/tasks/sandbox.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace spectra {
namespace fs = std::filesystem;
using nlohmann::ordered_json;
namespace {

constexpr std::uint64_t kLargestDataFile = std::uint64_t(4) << 30;

/// Items of a file, with the SHA-256 of everything that was read for them.
struct ReadItems {
    std::vector<TaskItem> items;
    std::string sha256;
};

Result<ReadItems> readItems(const Task &task, const fs::path &file)
{
    ReadItems read;
    Sha256 sum;
    TaskData data;
    data.path = file;
    SPECTRA_TRY(data.content, readTextFile(file, kLargestDataFile));
    sum.add(std::as_bytes(std::span(data.content)));
    data.beside = [&](const std::string &name) -> Result<std::string> {
        SPECTRA_TRY(auto content, readTextFile(file.parent_path() / name, kLargestDataFile));
        sum.add(std::as_bytes(std::span(content)));
        return content;
    };
    SPECTRA_TRY(read.items, task.read(data));
    read.sha256 = sum.hex();
    return read;
}

ordered_json finite(double v)
{
    return std::isfinite(v) ? ordered_json(v) : ordered_json(nullptr);
}

ordered_json flipsDocument(const Comparison &comparison, const std::string &file)
{
    ordered_json flips = ordered_json::array();
    for (const Flip &flip : comparison.flips) {
        ordered_json one = {{"id", flip.id}, {"before", finite(flip.before)}, {"after", finite(flip.after)},
                            {"answer_before", flip.answerBefore}, {"answer_after", flip.answerAfter}};
        if (flip.routing)
            one["routing"] = {{"mean_distance", finite(flip.routing->mean)}, {"layer", flip.routing->worstLayer}, {"distance", finite(flip.routing->worst)},
                              {"distances", flip.routing->layers}};
        flips.push_back(std::move(one));
    }
    ordered_json document = {{"file", file}, {"compared", comparison.compared}, {"only_here", comparison.onlyHere}, {"only_there", comparison.onlyThere},
                             {"right_to_wrong", comparison.lost}, {"wrong_to_right", comparison.gained}, {"mcnemar_p", finite(comparison.mcnemarP)}};
    if (comparison.routingOfFlips)
        document["routing_distance_of_flips"] = finite(*comparison.routingOfFlips);
    if (comparison.routingOfOthers)
        document["routing_distance_of_others"] = finite(*comparison.routingOfOthers);
    document["flips"] = std::move(flips);
    return document;
}

/// Writes what is finished beside the output, so that a stop loses nothing. Says where.
void keepPart(const fs::path &output, const std::string &lines, Error &error)
{
    if (output.empty() || lines.empty())
        return;
    fs::path part = output;
    part += ".part";
    auto file = AtomicFile::create(part, true);
    if (!file)
        return;
    file->stream() << lines;
    if (file->commit().ok())
        error.mend = "the items that were finished are kept in " + part.string();
}

} // namespace

std::vector<TaskEntry> taskCatalog()
{
    std::vector<TaskEntry> list;
    for (const Task &task : taskRegistry()) {
        TaskEntry entry{task.name, task.title, task.source, task.layout, task.shots, {}};
        for (const TaskMetric &metric : task.metrics)
            entry.metrics.push_back(metric.name);
        list.push_back(std::move(entry));
    }
    return list;
}

Result<Summary> runEval(const JobContext &context, const EvalRequest &request)
{
    const auto start = std::chrono::steady_clock::now();
    SPECTRA_TRY(const Task *known, findTask(request.task));
    Task chosen = *known;
    const Task *const task = &chosen;
    if (chosen.programs && !request.passK.empty())
        chosen.metrics = passMetrics(request.passK);
    if (!request.output.empty())
        SPECTRA_CHECK(checkOutput(request.output, request.overwrite));
    const int shots = request.shots < 0 ? task->shots : request.shots;
    if (shots > 0 && task->kind == TaskKind::rolling)
        return usageError("there are no solved examples for a perplexity", "--shots");
    if (request.samples > 1 && !task->programs)
        return usageError(fmt::format("'{}' is not judged by several samples", task->name), "--samples", "humaneval and mbpp are");
    context.report({"reading " + request.data.filename().string(), 0, 0, "items"});
    SPECTRA_TRY(ReadItems data, readItems(*task, request.data));
    ReadItems pool;
    if (!request.shotsData.empty()) {
        SPECTRA_TRY(pool, readItems(*task, request.shotsData));
    }
    std::optional<EarlierRun> earlier;
    if (!request.against.empty()) {
        SPECTRA_TRY(const std::string content, readTextFile(request.against, kLargestDataFile));
        SPECTRA_TRY(earlier, readEarlierRun(content, request.against.string(), task->name));
    }
    if (task->programs)
        SPECTRA_CHECK(checkSandbox());

    SPECTRA_TRY(const auto loaded, context.models->get(request.spec, context.progress(), context.stop));
    if (!loaded->model->causal() && !request.allowNonCausal)
        return usageError("the router's choices depend on later tokens: a score would use what it is asked for", "router",
                          "give --allow-noncausal to score it all the same, or use another router");
    TaskLanguageModel model(*loaded, request.sequenceLength, context.stop);
    EvaluationOptions options;
    options.shots = shots;
    options.shotsInOrder = request.shotsInOrder;
    options.seed = request.spec.seed;
    options.generation = task->generation;
    options.generation.samples = request.samples;
    options.generation.topP = request.topP;
    options.generation.temperature = request.temperature >= 0 ? request.temperature : request.samples > 1 ? 0.8 : 0;
    if (request.maxNewTokens > 0)
        options.generation.maxTokens = request.maxNewTokens;
    options.settings.shots = shots;
    options.settings.passK = request.passK.empty() ? std::vector<int>{1} : request.passK;
    options.settings.programSeconds = request.programSeconds;
    options.settings.stop = context.stop;
    options.progress = context.progress();
    options.stop = context.stop;

    std::vector<TaskItem> items = data.items;
    if (request.limit > 0 && request.limit < static_cast<std::int64_t>(items.size()))
        items.resize(static_cast<std::size_t>(request.limit));
    std::string lines;
    std::vector<ComparedItem> compared;
    const auto evaluation = evaluate(*task, items, request.shotsData.empty() ? data.items : pool.items, model, options,
                                     [&](std::size_t index, const ItemResult &result) -> Result<void> {
                                         if (!request.output.empty())
                                             lines += itemLine(*task, items[index], result) + "\n";
                                         if (earlier)
                                             compared.push_back({items[index].id, result.judgement.right, result.judgement.answer, result.routing});
                                         return {};
                                     });
    if (!evaluation) {
        Error error = evaluation.error();
        keepPart(request.output, lines, error);
        return error;
    }
    Summary summary;
    summary.model = loaded->handle;
    summary.output = request.output;
    summary.tokens = model.tokens();
    summary.sequences = evaluation->items;
    summary.loadSeconds = loaded->loadSeconds;
    summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    summary.tokensPerSecond = summary.seconds > 0 ? static_cast<double>(summary.tokens) / summary.seconds : 0;
    if (model.truncated() > 0)
        summary.warnings.push_back(fmt::format("{} prompts were longer than the context and lost their beginning", model.truncated()));

    ordered_json metrics = ordered_json::object();
    bool bootstrap = false;
    for (const MetricValue &m : evaluation->metrics) {
        metrics[m.name] = {{"value", finite(m.value)}, {"low", finite(m.low)}, {"high", finite(m.high)}, {"interval", m.interval}};
        bootstrap = bootstrap || m.interval == "bootstrap";
    }
    ordered_json document = {{"task", task->name}, {"n", evaluation->items}, {"metrics", metrics}};
    document["model"] = loaded->model->config().name;
    document["router"] = loaded->model->router() != nullptr ? loaded->model->router()->name() : "dense";
    document["causal"] = loaded->model->causal();
    if (!loaded->note.empty())
        document["note"] = loaded->note;
    document["data"] = {{"file", request.data.string()}, {"sha256", data.sha256}, {"items", data.items.size()}};
    document["shots"] = {{"n", shots}, {"from", shots == 0 ? "none" : request.shotsData.empty() ? "data" : request.shotsData.string()},
                         {"order", request.shotsInOrder ? "file" : "drawn"}};
    if (!request.shotsData.empty())
        document["shots"]["sha256"] = pool.sha256;
    document["seed"] = request.spec.seed;
    document["confidence"] = 0.95;
    if (bootstrap)
        document["resampled"] = evaluation->resampled;
    if (task->kind == TaskKind::generate)
        document["generation"] = {{"samples", options.generation.samples}, {"temperature", options.generation.temperature},
                                  {"top_p", options.generation.topP}, {"max_new_tokens", options.generation.maxTokens}};
    document["tokens"] = summary.tokens;
    document["seconds"] = summary.seconds;
    if (earlier)
        document["against"] = flipsDocument(compareRuns(compared, *earlier), request.against.string());
    if (!request.output.empty()) {
        SPECTRA_TRY(auto file, AtomicFile::create(request.output, request.overwrite));
        file.stream() << lines;
        SPECTRA_CHECK(file.commit());
        document["output"] = request.output.string();
    }
    summary.document = document.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    return summary;
}

} // namespace spectra
