// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/tasks/evaluation.h"
#include "engine/tasks/task.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace spectra::test {

/// A model that a test writes itself: it keeps what it was asked.
class FakeModel : public LanguageModel {
public:
    std::function<ContinuationScore(const std::string &prompt, const std::string &continuation)> score = [](const std::string &, const std::string &c) {
        return ContinuationScore{-static_cast<double>(c.size()), false, 1};
    };
    std::function<std::vector<WindowScore>(const std::string &)> roll;
    std::function<std::vector<std::string>(const std::string &, const GenerationOptions &)> write;
    std::vector<TaskPrompt> prompts;
    std::optional<RoutingSignature> signature;

    Result<std::vector<ContinuationScore>> loglikelihood(const TaskPrompt &prompt, std::span<const std::string> continuations) override
    {
        prompts.push_back(prompt);
        std::vector<ContinuationScore> list;
        for (const std::string &c : continuations)
            list.push_back(score(prompt.shared + prompt.own, c));
        return list;
    }
    Result<std::vector<WindowScore>> rolling(const std::string &text) override { return roll(text); }
    Result<std::vector<std::string>> generate(const TaskPrompt &prompt, const GenerationOptions &options) override
    {
        prompts.push_back(prompt);
        return write(prompt.shared + prompt.own, options);
    }
    std::optional<RoutingSignature> takeSignature() override { return signature; }
};

/// Items of a data file given as text.
inline Result<std::vector<TaskItem>> readTask(const std::string &task, const std::string &content, const std::string &name = "data.jsonl",
                                              const std::map<std::string, std::string> &besides = {})
{
    auto found = findTask(task);
    if (!found)
        return found.error();
    TaskData data;
    data.path = name;
    data.content = content;
    data.beside = [besides](const std::string &other) -> Result<std::string> {
        const auto file = besides.find(other);
        if (file == besides.end())
            return inputError("cannot be read", other);
        return file->second;
    };
    return (*found)->read(data);
}

inline std::vector<TaskItem> goodTask(const std::string &task, const std::string &content, const std::string &name = "data.jsonl",
                                      const std::map<std::string, std::string> &besides = {})
{
    auto items = readTask(task, content, name, besides);
    if (!items) {
        ADD_FAILURE() << task << ": " << items.error().what << ": " << items.error().where;
        return {};
    }
    return *items;
}

inline TaskItem oneItem(const std::string &task, const std::string &content, const std::string &name = "data.jsonl")
{
    auto items = goodTask(task, content, name);
    EXPECT_EQ(items.size(), 1u);
    return items.empty() ? TaskItem{} : items.front();
}

inline const Task &taskOf(const std::string &name)
{
    return **findTask(name);
}

} // namespace spectra::test
