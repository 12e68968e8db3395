// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/tasktext.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace spectra {
namespace {

/// The verdicts as answers to "does the abstract support the claim".
const std::vector<std::string> kVerdicts = {"yes", "no", "maybe"};

Result<std::size_t> verdict(const JsonLine &line, const std::string &label)
{
    const std::string lower = lowerCase(label);
    for (const char *yes : {"support", "supports", "supported"})
        if (lower == yes)
            return std::size_t(0);
    for (const char *no : {"contradict", "contradicts", "refute", "refutes", "refuted"})
        if (lower == no)
            return std::size_t(1);
    for (const char *maybe : {"nei", "not enough info", "not_enough_info", "noinfo", "no_info", ""})
        if (lower == maybe)
            return std::size_t(2);
    return line.error("the label '" + label + "' is none of SUPPORT, CONTRADICT, NEI");
}

TaskItem itemOf(std::string id, const std::string &abstract, const std::string &claim, std::size_t gold)
{
    TaskItem item;
    item.id = std::move(id);
    item.context = "Abstract: " + abstract + "\nClaim: " + claim + "\nQuestion: Does the abstract support the claim?\nAnswer:";
    setChoices(item, kVerdicts, gold);
    return item;
}

/// Title and sentences by document number.
Result<std::map<std::string, std::string>> readCorpus(const TaskData &data)
{
    std::map<std::string, std::string> corpus;
    const std::string name = "corpus.jsonl";
    if (!data.beside)
        return inputError("claims in the original layout need the file corpus.jsonl beside them", data.path.string());
    auto content = data.beside(name);
    if (!content) {
        content.error().mend = "SciFact's claims name abstracts by number: put its corpus.jsonl beside them, or give lines with abstract and label";
        return content.error().in(data.path.string());
    }
    SPECTRA_CHECK(forEachLine(*content, (data.path.parent_path() / name).string(), [&](const JsonLine &line) -> Result<void> {
        SPECTRA_TRY(const std::int64_t number, line.integer({"doc_id"}));
        SPECTRA_TRY(const auto sentences, line.texts({"abstract"}));
        std::string text;
        for (const std::string &s : sentences)
            text += (text.empty() ? "" : " ") + std::string(stripped(s));
        corpus[std::to_string(number)] = text;
        return {};
    }));
    return corpus;
}

Result<void> fromClaim(const JsonLine &line, const std::map<std::string, std::string> &corpus, std::vector<TaskItem> &items)
{
    SPECTRA_TRY(const std::string claim, line.filledText({"claim"}));
    const nlohmann::json *cited = line.find({"cited_doc_ids"});
    const nlohmann::json *evidence = line.find({"evidence"});
    if (cited == nullptr || !cited->is_array() || cited->empty())
        return line.error("has neither \"abstract\" nor a list \"cited_doc_ids\"");
    if (evidence != nullptr && !evidence->is_object())
        return line.error("\"evidence\" is not an object");
    for (const nlohmann::json &one : *cited) {
        const std::string number = one.is_string() ? one.get<std::string>() : one.dump();
        const auto abstract = corpus.find(number);
        if (abstract == corpus.end())
            return line.error("the abstract " + number + " is not in corpus.jsonl");
        std::size_t gold = 2; // a cited abstract without evidence decides nothing
        if (evidence != nullptr && evidence->contains(number)) {
            const nlohmann::json &sets = (*evidence)[number];
            if (!sets.is_array() || sets.empty() || !sets[0].is_object() || !sets[0].contains("label") || !sets[0]["label"].is_string())
                return line.error("the evidence of abstract " + number + " has no label");
            SPECTRA_TRY(gold, verdict(line, sets[0]["label"].get<std::string>()));
        }
        items.push_back(itemOf(line.id({"id"}) + ":" + number, abstract->second, claim, gold));
    }
    return {};
}

} // namespace

Task scifactTask()
{
    Task task;
    task.name = "scifact";
    task.title = "SciFact: does an abstract support a claim";
    task.source = "data: Wadden et al. 2020, arXiv 2004.14974 (label prediction with the cited abstract given); lm-evaluation-harness has no such task: "
                  "the prompt is this program's own, after PubMedQA's";
    task.layout = "claim, abstract (text or sentences), label; or the original claims (id, claim, evidence, cited_doc_ids) beside corpus.jsonl";
    task.metrics = choiceMetrics(false);
    task.judge = judgeChoice;
    task.read = [](const TaskData &data) -> Result<std::vector<TaskItem>> {
        std::vector<TaskItem> items;
        std::map<std::string, std::string> corpus;
        SPECTRA_CHECK(forEachLine(data.content, data.path.string(), [&](const JsonLine &line) -> Result<void> {
            const nlohmann::json *abstract = line.find({"abstract", "context"});
            if (abstract == nullptr) {
                if (corpus.empty()) {
                    SPECTRA_TRY(corpus, readCorpus(data));
                }
                return fromClaim(line, corpus, items);
            }
            SPECTRA_TRY(const std::string claim, line.filledText({"claim"}));
            std::string text;
            if (abstract->is_array()) {
                SPECTRA_TRY(const auto sentences, line.texts({"abstract", "context"}));
                text = joined(sentences, " ");
            } else {
                SPECTRA_TRY(text, line.filledText({"abstract", "context"}));
            }
            SPECTRA_TRY(const std::string label, line.text({"label", "evidence_label"}));
            SPECTRA_TRY(const std::size_t gold, verdict(line, label));
            items.push_back(itemOf(line.id({"id"}), text, claim, gold));
            return {};
        }));
        return items;
    };
    return task;
}

} // namespace spectra
