// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/run/engine.h"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// Prompts of one file. `.jsonl`: one object a line with text, and optionally domain, label, id; any other file: one
/// document. `label` is the domain of all that do not name their own; ids default to FILE:number.
/// Errors (input): missing, empty, binary (a zero byte, also as \u0000 in JSON), larger than 4 GB, a line that is not such
/// an object (it is named).
[[nodiscard]] Result<std::vector<Prompt>> readPrompts(const std::filesystem::path &file, const std::string &label);
/// The same from memory; `name` stands for the file in ids and errors. `jsonl` says which form.
[[nodiscard]] Result<std::vector<Prompt>> parsePrompts(std::string_view content, const std::string &name, bool jsonl, const std::string &label);
/// One PROMPTS argument of the command line: FILE, LABEL=FILE or - (standard input). Split at the first '=' unless a file
/// of that whole name exists.
[[nodiscard]] Result<std::vector<Prompt>> promptsOfArgument(const std::string &argument);
/// A JSON array of token ids. Errors (input): not an array of integers that fit a token id, empty.
[[nodiscard]] Result<std::vector<std::int32_t>> readIds(const std::filesystem::path &file);

/// A bundled set of short texts of one domain.
struct SampleSet {
    std::string name, title;
    std::filesystem::path file;
    int texts = 0;
};
/// Bundled prompt sets, from the resources of the build tree or of the installation.
[[nodiscard]] std::vector<SampleSet> sampleSets();
/// The folder with the program's resources: beside the executable's prefix, or in the source tree of the build.
[[nodiscard]] std::filesystem::path resourceFolder();

} // namespace spectra
