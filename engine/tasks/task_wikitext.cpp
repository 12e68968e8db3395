// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/rollingscore.h"
#include "engine/tasks/tasktext.h"

#include <fmt/format.h>

namespace spectra {
namespace {

/// Takes white space off the inner side of a pair: `( a )` becomes `(a)`. What lies between the marks is the shortest text up to the
/// next closing mark.
std::string tightened(const std::string &text, char open, char close)
{
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        if (text[at] == open) {
            const std::size_t end = text.find(close, at + 1);
            if (end == std::string::npos) {
                out.append(text, at, std::string::npos);
                break;
            }
            out += open;
            out += stripped(std::string_view(text).substr(at + 1, end - at - 1));
            out += close;
            at = end + 1;
        } else {
            out += text[at++];
        }
    }
    return out;
}

/// Undoes WikiText's tokenisation (marks parted by spaces, " @-@ " inside numbers), with the rules that lm-evaluation-harness took from
/// Megatron-LM, in their order. One rule of theirs, on /' 5/ between slashes, never meets a text and is left out.
std::string detokenized(std::string t)
{
    t = replaced(std::move(t), "s '", "s'");
    for (const auto &[from, to] : {std::pair{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."}, {" : ", ": "}, {" ; ", "; "}, {" . ", ". "}, {" ! ", "! "},
                                   {" ? ", "? "}, {" , ", ", "}})
        t = replaced(std::move(t), from, to);
    t = tightened(t, '(', ')');
    t = tightened(t, '[', ']');
    t = tightened(t, '{', '}');
    t = tightened(t, '"', '"');
    t = tightened(t, '\'', '\'');
    for (const auto &[from, to] : {std::pair{"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="}, {" \xC2\xB0 ", "\xC2\xB0"}, {" \n", "\n"}, {"\n ", "\n"},
                                   {" N ", " 1 "}, {" 's", "'s"}})
        t = replaced(std::move(t), from, to);
    return t;
}

/// Words and bytes are those of the page as published, before detokenisation: so word perplexities are comparable between models.
TaskItem itemOf(std::string id, const std::string &page)
{
    TaskItem item;
    item.id = std::move(id);
    item.words = wordCount(page);
    item.bytes = static_cast<std::int64_t>(page.size());
    item.text = detokenized(page);
    return item;
}

/// A line " = Title = " with single marks begins a page.
bool beginsPage(std::string_view line)
{
    const std::string_view text = stripped(line);
    return text.starts_with("= ") && text.ends_with(" =") && text.size() > 4 && !text.starts_with("= =") && !text.ends_with("= =");
}

} // namespace

Task wikitextTask(const std::string &name)
{
    Task task;
    task.name = name;
    task.title = name == "wikitext2" ? "WikiText-2: pages of Wikipedia" : "WikiText-103: pages of Wikipedia";
    task.source = "Merity et al. 2016, arXiv 1609.07843; detokenised and counted as lm-evaluation-harness 0.4.13";
    task.layout = "JSON lines with page, or the published text file, parted at its \" = Title = \" lines";
    task.kind = TaskKind::rolling;
    task.metrics = perplexityMetrics();
    task.judge = judgeRolling;
    task.read = [](const TaskData &data) -> Result<std::vector<TaskItem>> {
        if (data.path.extension() == ".jsonl")
            return readLines(data, [](const JsonLine &line) -> Result<TaskItem> {
                SPECTRA_TRY(const std::string page, line.filledText({"page", "text"}));
                return itemOf(line.id({"id"}), page);
            });
        if (stripped(data.content).empty())
            return inputError("holds no text", data.path.string());
        if (data.content.find('\0') != std::string::npos)
            return inputError("is binary (it holds a zero byte)", data.path.string(), "text in UTF-8, or JSON lines");
        std::vector<TaskItem> items;
        std::string page;
        const auto finish = [&] {
            if (!stripped(page).empty())
                items.push_back(itemOf(fmt::format("{}", items.size() + 1), page));
            page.clear();
        };
        for (std::size_t at = 0; at < data.content.size();) {
            const std::size_t end = std::min(data.content.find('\n', at), data.content.size() - 1) + 1;
            const std::string_view line = std::string_view(data.content).substr(at, end - at);
            if (beginsPage(line))
                finish();
            page += line;
            at = end;
        }
        finish();
        return items;
    };
    return task;
}

} // namespace spectra
