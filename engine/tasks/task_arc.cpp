// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"

#include <algorithm>

namespace spectra {
namespace {

/// Texts and labels of the choices: {"text": [...], "label": [...]} as on the Hugging Face hub, or a list of {text, label} inside the
/// question as AI2 published it.
Result<TaskItem> item(const JsonLine &line)
{
    TaskItem item;
    std::vector<std::string> choices, labels;
    std::string question;
    const nlohmann::json *asked = line.find({"question"});
    if (asked == nullptr)
        return line.missing({"question"});
    const auto strings = [&](const nlohmann::json &object, const char *key, std::vector<std::string> &list) {
        if (!object.is_object() || !object.contains(key) || !object[key].is_array())
            return false;
        for (const nlohmann::json &v : object[key]) {
            if (!v.is_string())
                return false;
            list.push_back(v.get<std::string>());
        }
        return true;
    };
    if (asked->is_object()) {
        const JsonLine inner(*asked, line.where() + ": question", line.number());
        SPECTRA_TRY(question, inner.filledText({"stem"}));
        const nlohmann::json *list = inner.find({"choices"});
        if (list == nullptr || !list->is_array())
            return inner.error("has no list of \"choices\"");
        for (const nlohmann::json &choice : *list) {
            const JsonLine one(choice, inner.where() + ": choices", line.number());
            if (!choice.is_object())
                return one.error("is not an object with text and label");
            SPECTRA_TRY(auto text, one.filledText({"text"}));
            SPECTRA_TRY(auto label, one.filledText({"label"}));
            choices.push_back(std::move(text));
            labels.push_back(std::move(label));
        }
    } else {
        SPECTRA_TRY(question, line.filledText({"question"}));
        const nlohmann::json *given = line.find({"choices"});
        if (given == nullptr || !strings(*given, "text", choices) || !strings(*given, "label", labels))
            return line.error("\"choices\" is not {\"text\": [strings], \"label\": [strings]}");
    }
    if (choices.size() != labels.size() || choices.size() < 2)
        return line.error("needs at least two choices, with a label each");
    if (std::any_of(choices.begin(), choices.end(), [](const std::string &c) { return c.empty(); }))
        return line.error("one of the choices is empty");
    SPECTRA_TRY(const std::string key, line.filledText({"answerKey"}));
    const auto gold = std::find(labels.begin(), labels.end(), key);
    if (gold == labels.end())
        return line.error("\"answerKey\" '" + key + "' is none of the labels");
    item.id = line.id({"id"});
    item.context = "Question: " + question + "\nAnswer:";
    setChoices(item, std::move(choices), static_cast<std::size_t>(gold - labels.begin()));
    return item;
}

} // namespace

Task arcTask(const std::string &name)
{
    // Clark et al. 2018, arXiv 1803.05457.
    const bool challenge = name == "arc_challenge";
    return lineTask(name, challenge ? "ARC-Challenge: science questions that retrieval does not answer" : "ARC-Easy: science questions",
                    "question, choices {text, label}, answerKey", challenge ? 25 : 0, true, item);
}

} // namespace spectra
