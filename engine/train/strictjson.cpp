// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/strictjson.h"

#include "engine/core/jsontext.h"

#include <algorithm>
#include <set>
#include <vector>

namespace spectra {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostBytes = std::size_t(1) << 20;
constexpr std::size_t kMostKeys = 1024; // ordered objects are searched key by key
constexpr int kMostDepth = 16;

struct Refused {
    std::string what, key;
};

/// Sees every key as the parser meets it: the tree itself would keep one of two equal ones without a word.
class KeyWatch {
public:
    bool operator()(int /*depth*/, Json::parse_event_t event, Json &parsed)
    {
        switch (event) {
        case Json::parse_event_t::object_start:
            m_open.emplace_back();
            break;
        case Json::parse_event_t::object_end:
            if (!m_open.empty())
                m_open.pop_back();
            break;
        case Json::parse_event_t::key: {
            Level &level = m_open.back();
            level.key = parsed.get<std::string>();
            if (!level.keys.insert(level.key).second)
                throw Refused{"has a key twice", path()};
            if (level.keys.size() > kMostKeys)
                throw Refused{"has an object of more than " + std::to_string(kMostKeys) + " keys", path()};
            break;
        }
        default:
            break;
        }
        return true;
    }

private:
    struct Level {
        std::set<std::string> keys;
        std::string key;
    };
    [[nodiscard]] std::string path() const
    {
        std::string text;
        for (const Level &level : m_open)
            text += (text.empty() ? "" : ".") + level.key.substr(0, 100);
        return text;
    }
    std::vector<Level> m_open;
};

std::string lineAndColumn(std::string_view text, std::size_t byte)
{
    const std::string_view before = text.substr(0, std::min(byte > 0 ? byte - 1 : 0, text.size()));
    const auto line = std::count(before.begin(), before.end(), '\n');
    const std::size_t start = before.rfind('\n');
    return "line " + std::to_string(line + 1) + ", column " + std::to_string(before.size() - (start == std::string_view::npos ? 0 : start + 1) + 1);
}

} // namespace

Result<Json> parseStrictJson(std::string_view text, const std::string &where)
{
    if (text.size() > kMostBytes)
        return inputError("is larger than 1 MiB", where, "a configuration is a few kilobytes of JSON");
    SPECTRA_CHECK(checkJsonText(text, where, kMostDepth));
    try {
        return Json::parse(text, KeyWatch());
    } catch (const Refused &refused) {
        return inputError(refused.what, where + ": " + refused.key, "give each key once");
    } catch (const Json::parse_error &error) {
        return inputError("is not valid JSON", where + ": " + lineAndColumn(text, error.byte), "comments and trailing commas are not JSON");
    } catch (const Json::exception &) {
        return inputError("holds a number that is too large", where);
    }
}

} // namespace spectra
