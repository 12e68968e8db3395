// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/tinymodel.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <unistd.h>

namespace spectra::test {
namespace fs = std::filesystem;
using nlohmann::ordered_json;
namespace {

/// The character that byte-level vocabularies write for a byte (GPT-2's table), as UTF-8.
std::string byteCharacter(unsigned byte)
{
    const auto printable = [](unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
    unsigned code = byte;
    if (!printable(byte)) {
        code = 256;
        for (unsigned b = 0; b < byte; ++b)
            code += printable(b) ? 0u : 1u;
    }
    if (code < 128)
        return std::string(1, static_cast<char>(code));
    return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

} // namespace

TemporaryFolder::TemporaryFolder(const std::string &name)
{
    static std::atomic<int> counter{0};
    m_path = fs::temp_directory_path() / ("spectra-" + name + "-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1)));
    fs::remove_all(m_path);
    fs::create_directories(m_path);
}

TemporaryFolder::~TemporaryFolder()
{
    std::error_code ignored;
    fs::remove_all(m_path, ignored);
}

fs::path TemporaryFolder::write(const std::string &name, const std::string &text) const
{
    std::ofstream(m_path / name, std::ios::binary) << text;
    return m_path / name;
}

std::vector<std::string> TemporaryFolder::entries() const
{
    std::vector<std::string> names;
    for (const auto &entry : fs::directory_iterator(m_path))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

std::string tinyTokenizerJson(const TinyTokenizer &options)
{
    ordered_json vocabulary = ordered_json::object();
    const auto add = [&](const std::string &piece) {
        if (!vocabulary.contains(piece))
            vocabulary[piece] = vocabulary.size();
    };
    for (const char *special : {"<unk>", "<s>", "</s>"})
        add(special);
    for (unsigned b = 33; b < 127; ++b)
        add(byteCharacter(b));
    for (char c : std::string(" \n\té日本😀ж"))
        add(byteCharacter(static_cast<unsigned char>(c)));
    const std::string space = byteCharacter(' ');
    ordered_json merges = ordered_json::array();
    for (const auto &[left, right] : {std::pair<std::string, std::string>{"t", "h"}, {"th", "e"}, {space, "the"}, {"i", "n"}, {"e", "r"}}) {
        merges.push_back(left + " " + right);
        add(left + right);
    }
    while (vocabulary.size() < 128)
        add("[filler" + std::to_string(vocabulary.size()) + "]");
    ordered_json added = ordered_json::array();
    int id = 0;
    for (const char *special : {"<unk>", "<s>", "</s>"})
        added.push_back({{"id", id++}, {"content", special}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", true}});
    ordered_json document{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added}, {"normalizer", nullptr}};
    document["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    document["post_processor"] = nullptr;
    if (options.bos)
        document["post_processor"] = ordered_json::parse(
            R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
                "pair":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
                "special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}})");
    document["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    document["model"] = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr}, {"end_of_word_suffix", nullptr},
                         {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", false}, {"vocab", vocabulary}, {"merges", merges}};
    return document.dump();
}

fs::path tinyModel(const std::string &name, const fs::path &place, const TinyTokenizer &options)
{
    fs::create_directories(place);
    for (const auto &entry : fs::directory_iterator(fs::path(SPECTRA_FIXTURE_DIR) / "models" / name))
        if (entry.path().filename() != "expected.safetensors" && entry.path().filename() != "config.json")
            fs::copy_file(entry.path(), place / entry.path().filename(), fs::copy_options::overwrite_existing);
    ordered_json config = ordered_json::parse(readText(fs::path(SPECTRA_FIXTURE_DIR) / "models" / name / "config.json"));
    if (options.eos < 0)
        config.erase("eos_token_id");
    else
        config["eos_token_id"] = options.eos;
    std::ofstream(place / "config.json") << config.dump(2);
    std::ofstream(place / "tokenizer.json") << tinyTokenizerJson(options);
    return place;
}

std::map<std::string, ExpectedArray> readExpectedArrays(const fs::path &file)
{
    const std::string bytes = readText(file);
    std::map<std::string, ExpectedArray> arrays;
    if (bytes.size() < 8)
        return arrays;
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    const ordered_json header = ordered_json::parse(bytes.substr(8, length));
    for (const auto &[name, entry] : header.items()) {
        if (name == "__metadata__")
            continue;
        ExpectedArray array;
        array.shape = entry["shape"].get<std::vector<std::int64_t>>();
        const auto begin = entry["data_offsets"][0].get<std::uint64_t>(), end = entry["data_offsets"][1].get<std::uint64_t>();
        const char *data = bytes.data() + 8 + length + begin;
        if (entry["dtype"] == "I64") {
            array.i64.resize((end - begin) / 8);
            std::memcpy(array.i64.data(), data, end - begin);
        } else {
            array.f32.resize((end - begin) / 4);
            std::memcpy(array.f32.data(), data, end - begin);
        }
        arrays[name] = std::move(array);
    }
    return arrays;
}

std::string readText(const fs::path &file)
{
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

} // namespace spectra::test
