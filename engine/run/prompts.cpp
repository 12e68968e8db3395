// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/prompts.h"

#include "engine/core/files.h"
#include "engine/core/jsontext.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <iostream>

namespace spectra {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::uint64_t kLargestPromptFile = std::uint64_t(4) << 30;

bool blank(std::string_view text)
{
    return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c == ' ' || (c >= 9 && c <= 13); });
}

Result<std::string> stringField(const json &object, const char *key, const std::string &where)
{
    const auto found = object.find(key);
    if (found == object.end() || found->is_null())
        return std::string();
    if (!found->is_string())
        return inputError(fmt::format("\"{}\" is not a string", key), where);
    auto text = found->get<std::string>();
    // JSON can spell it, but no trace can hold it: HDF5 text ends at a zero.
    if (text.find('\0') != std::string::npos)
        return inputError(fmt::format("\"{}\" holds the character U+0000", key), where, "prompts are text");
    return text;
}

} // namespace

Result<std::vector<Prompt>> parsePrompts(std::string_view content, const std::string &name, bool jsonl, const std::string &label)
{
    if (blank(content))
        return inputError("holds no text", name, "a prompt needs at least one character that is not white space");
    if (content.find('\0') != std::string_view::npos)
        return inputError("is binary (it holds a zero byte)", name, "prompts are UTF-8 text or JSON lines");
    std::vector<Prompt> prompts;
    if (!jsonl) {
        Prompt prompt;
        prompt.id = name + ":1";
        prompt.domain = label;
        prompt.text = std::string(content);
        prompt.document = name;
        prompts.push_back(std::move(prompt));
        return prompts;
    }
    if (content.starts_with("\xEF\xBB\xBF"))
        content.remove_prefix(3); // a byte order mark is not JSON
    std::int64_t number = 0;
    while (!content.empty()) {
        ++number;
        const std::size_t end = content.find('\n');
        const std::string_view line = content.substr(0, end);
        content = end == std::string_view::npos ? std::string_view{} : content.substr(end + 1);
        if (blank(line))
            continue;
        const std::string where = fmt::format("{}: line {}", name, number);
        SPECTRA_CHECK(checkJsonText(line, where));
        const json object = json::parse(line, nullptr, false);
        if (object.is_discarded() || !object.is_object())
            return inputError("is not a JSON object in UTF-8", where, "each line is {\"text\": …, \"domain\": …}");
        if (!object.contains("text") || !object["text"].is_string())
            return inputError("has no \"text\"", where, "each line is {\"text\": …, \"domain\": …}");
        Prompt prompt;
        SPECTRA_TRY(prompt.text, stringField(object, "text", where));
        if (blank(prompt.text))
            return inputError("holds no text", where);
        SPECTRA_TRY(prompt.domain, stringField(object, "domain", where));
        SPECTRA_TRY(prompt.label, stringField(object, "label", where));
        SPECTRA_TRY(prompt.id, stringField(object, "id", where));
        if (prompt.domain.empty())
            prompt.domain = label;
        if (prompt.id.empty())
            prompt.id = fmt::format("{}:{}", name, number);
        prompts.push_back(std::move(prompt));
    }
    if (prompts.empty()) // nothing but a byte order mark
        return inputError("holds no text", name);
    return prompts;
}

Result<std::vector<Prompt>> readPrompts(const fs::path &file, const std::string &label)
{
    SPECTRA_TRY(const std::string content, readTextFile(file, kLargestPromptFile));
    auto prompts = parsePrompts(content, file.filename().string(), file.extension() == ".jsonl", label);
    // Ids carry the plain name, so that they do not depend on where the file lies; errors carry the path.
    if (!prompts && file.has_parent_path())
        prompts.error().in(file.parent_path().string());
    return prompts;
}

Result<std::vector<Prompt>> promptsOfArgument(const std::string &argument)
{
    if (argument == "-") {
        std::string content;
        std::vector<char> piece(std::size_t(1) << 20);
        while (std::cin.read(piece.data(), static_cast<std::streamsize>(piece.size())) || std::cin.gcount() > 0) {
            content.append(piece.data(), static_cast<std::size_t>(std::cin.gcount()));
            if (content.size() > kLargestPromptFile)
                return inputError("is longer than 4 GB", "stdin", "give the text in several files");
        }
        return parsePrompts(content, "stdin", false, {});
    }
    std::error_code ignored;
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos || fs::exists(argument, ignored))
        return readPrompts(argument, {});
    return readPrompts(argument.substr(equals + 1), argument.substr(0, equals));
}

Result<std::vector<std::int32_t>> readIds(const fs::path &file)
{
    SPECTRA_TRY(const std::string content, readTextFile(file));
    SPECTRA_CHECK(checkJsonText(content, file.string()));
    const json array = json::parse(content, nullptr, false);
    if (array.is_discarded() || !array.is_array() || array.empty())
        return inputError("is not a JSON array of token ids", file.string());
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < array.size(); ++i) {
        if (!array[i].is_number_integer() || array[i] < 0 || array[i] > 0x7FFFFFFF)
            return inputError("is not a token id", fmt::format("{}: element {}", file.string(), i));
        ids.push_back(array[i].get<std::int32_t>());
    }
    return ids;
}

fs::path resourceFolder()
{
    std::error_code error;
    const fs::path program = fs::read_symlink("/proc/self/exe", error);
    if (!error) {
        const fs::path installed = program.parent_path().parent_path() / "share" / "spectra";
        if (fs::exists(installed / "prompts", error))
            return installed;
    }
    return SPECTRA_RESOURCE_DIR;
}

std::vector<SampleSet> sampleSets()
{
    std::vector<SampleSet> sets;
    std::error_code error;
    for (const auto &entry : fs::directory_iterator(resourceFolder() / "prompts", error)) {
        if (entry.path().extension() != ".jsonl")
            continue;
        const auto prompts = readPrompts(entry.path(), {});
        if (!prompts)
            continue;
        SampleSet set;
        set.name = entry.path().stem().string();
        set.title = set.name;
        if (!set.title.empty() && set.title[0] >= 'a' && set.title[0] <= 'z')
            set.title[0] = static_cast<char>(set.title[0] - 'a' + 'A');
        set.file = entry.path();
        set.texts = static_cast<int>(prompts->size());
        sets.push_back(std::move(set));
    }
    std::sort(sets.begin(), sets.end(), [](const SampleSet &a, const SampleSet &b) { return a.name < b.name; });
    return sets;
}

} // namespace spectra
