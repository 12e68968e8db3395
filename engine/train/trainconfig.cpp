// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainconfig.h"

#include "engine/core/closestname.h"
#include "engine/router/router.h"
#include "engine/train/strictjson.h"
#include "engine/train/trainconfigfields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace spectra {
namespace {

using Json = nlohmann::ordered_json;
using Special = ConfigField::Special;

constexpr std::size_t kMostDomains = 256, kMostFiles = 65536, kMostTargets = 64, kLongestText = 4096;

/// A value for a message: what stands in the file, cut where it is long.
std::string shown(const Json &value)
{
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

Error notA(const Json &value, const char *kind, const std::string &place, std::string mend)
{
    return usageError("value " + shown(value) + " is not " + kind, place, std::move(mend));
}

Result<std::int64_t> readWhole(const Json &value, const ConfigField &field, const std::string &place)
{
    // 1e6 is a float to JSON and a whole number to a person.
    const double number = value.is_number() ? value.get<double>() : 0.5;
    if (number != std::floor(number))
        return notA(value, "a whole number", place, "use " + field.range());
    if (!(number >= field.low && number <= field.high))
        return usageError("value " + shown(value) + " is out of range", place, "use " + field.range());
    return static_cast<std::int64_t>(number);
}

Result<double> readNumber(const Json &value, const ConfigField &field, const std::string &place)
{
    if (!value.is_number())
        return notA(value, "a number", place, "use " + field.range());
    const auto number = value.get<double>();
    if (!(number >= field.low && number <= field.high) || (field.lowOpen && number == field.low)
        || (field.highOpen && number == field.high))
        return usageError("value " + shown(value) + " is out of range", place, "use " + field.range());
    return number;
}

Result<std::uint64_t> readSeed(const Json &value, const std::string &place)
{
    if (!value.is_number_unsigned())
        return notA(value, "a seed", place, "use a whole number from 0 to 18446744073709551615");
    return value.get<std::uint64_t>();
}

Result<std::string> readText(const Json &value, const std::string &place)
{
    if (!value.is_string())
        return notA(value, "text", place, "write it in quotation marks");
    auto text = value.get<std::string>();
    if (text.size() > kLongestText)
        return usageError("text of more than " + std::to_string(kLongestText) + " bytes", place);
    for (const char c : text)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            return usageError("text with a control character", place);
    return text;
}

/// Reads one document; knows for every key where it came from.
class Reader {
public:
    Reader(Json json, std::string where) : m_json(std::move(json)), m_where(std::move(where)) {}
    Result<void> apply(const std::string &setting);
    Result<TrainConfig> read();

private:
    [[nodiscard]] std::string place(const std::string &path) const
    {
        const bool set = std::any_of(m_set.begin(), m_set.end(), [&](const std::string &s) { return s == path || path.starts_with(s + "."); });
        return set ? "--set " + path : m_where + ": " + path;
    }
    [[nodiscard]] Error unknown(const std::string &path) const
    {
        const std::string shortened = path.substr(0, 200);
        return usageError("unknown key \"" + shortened + "\"", place(shortened), "did you mean \"" + nearestConfigKey(shortened) + "\"?");
    }
    [[nodiscard]] const Json *find(const ConfigField &field) const;
    Result<void> checkKeys() const;
    Result<void> readPlain(TrainConfig &config, const ConfigField &field, const Json &value) const;
    Result<void> readSpecial(TrainConfig &config, const ConfigField &field, const Json &value) const;
    Result<void> readRouter(TrainConfig &config, const Json &value) const;
    Result<void> readDomains(TrainConfig &config, const Json &value) const;
    Result<TrainConfig::Domain> readDomain(const std::string &name, const Json &value) const;
    Result<std::vector<std::string>> readFiles(const Json &value, const std::string &place) const;
    Result<void> readTargets(TrainConfig &config, const Json &value) const;
    Result<void> readRates(TrainConfig &config, const Json &value) const;
    Result<void> applyDomain(const std::string &rest, const Json &value);

    Json m_json;
    std::string m_where;
    std::vector<std::string> m_set; ///< paths given by settings
};

/// The object under `key`, made if there is none; a value of another kind stays for the reader to complain of.
Json *objectIn(Json &json, const std::string &key)
{
    if (!json.contains(key))
        json[key] = Json::object();
    return json[key].is_object() ? &json[key] : nullptr;
}

Result<void> Reader::applyDomain(const std::string &rest, const Json &value)
{
    Json *data = objectIn(m_json, "data");
    Json *domains = data ? objectIn(*data, "domains") : nullptr;
    if (!domains)
        return {};
    // A domain's name may hold dots; only a part of a domain that is there already can be meant by the last word.
    for (const char *part : {"files", "weight"}) {
        const std::string ending = std::string(".") + part;
        if (!rest.ends_with(ending) || domains->contains(rest))
            continue;
        const std::string name = rest.substr(0, rest.size() - ending.size());
        if (!domains->contains(name))
            break;
        Json &domain = (*domains)[name];
        if (!domain.is_object())
            domain = Json::object({{"files", domain}});
        domain[part] = value;
        return {};
    }
    (*domains)[rest] = value;
    return {};
}

Result<void> Reader::apply(const std::string &setting)
{
    const std::string where = "--set " + setting.substr(0, 200);
    const auto equals = setting.find('=');
    if (equals == std::string::npos || equals == 0 || setting[equals - 1] == '.')
        return usageError("a setting must look like key=value", where, "for example training.steps=2000");
    const std::string path = setting.substr(0, equals), raw = setting.substr(equals + 1);
    const auto dot = path.find('.');
    const std::string section = path.substr(0, dot), rest = dot == std::string::npos ? "" : path.substr(dot + 1);
    const ConfigField *field = findConfigField(path);

    Json value = raw;
    const bool plainText = field && field->special == Special::none && std::holds_alternative<std::string TrainConfig::*>(field->member);
    if (auto parsed = parseStrictJson(raw, where); parsed.ok() && (!plainText || parsed->is_string()))
        value = std::move(*parsed);
    if (Json::parse(value.dump(-1, ' ', false, Json::error_handler_t::replace)) != value)
        return usageError("a setting is not UTF-8 text", where);

    m_set.push_back(path);
    if (section == "router") {
        if (rest.empty()) {
            m_json["router"] = value;
        } else if (rest == "type") {
            // Another method's options mean nothing to this one; its own stay.
            const Json &now = m_json.contains("router") ? m_json["router"] : Json();
            if (!now.is_object() || !now.contains("type") || now["type"] != value)
                m_json["router"] = Json::object({{"type", value}});
        } else {
            if (!m_json.contains("router"))
                m_json["router"] = Json::parse(TrainConfig().routerJson);
            if (m_json["router"].is_string())
                m_json["router"] = Json::object({{"type", m_json["router"]}});
            if (m_json["router"].is_object()) {
                const auto type = m_json["router"].contains("type") ? m_json["router"]["type"] : Json("spectra");
                for (const RouterInfo &info : routerRegistry())
                    for (const RouterOption &option : info.options)
                        if (type == info.name && option.name == rest && option.type == "enum")
                            value = raw; // "none" and 1 alike are names here
                m_json["router"][rest] = value;
            }
        }
        return {};
    }
    if (path.starts_with("data.domains.") && path.size() > 13)
        return applyDomain(path.substr(13), value);
    const auto &keys = trainConfigKeys();
    if (std::find(keys.begin(), keys.end(), path) == keys.end())
        return unknown(path);
    if (rest.empty()) {
        m_json[section] = value;
        return {};
    }
    Json *object = objectIn(m_json, section);
    if (!object)
        return {};
    if (const std::string rates = "learning_rate."; section == "optimizer" && rest.starts_with(rates)) {
        Json &all = (*object)["learning_rate"];
        if (all.is_number())
            all = Json::object({{"router", all}, {"experts", all}, {"other", all}});
        else if (all.is_null())
            all = Json::object();
        if (all.is_object())
            all[rest.substr(rates.size())] = value;
        return {};
    }
    (*object)[rest] = value;
    return {};
}

const Json *Reader::find(const ConfigField &field) const
{
    const Json *object = &m_json;
    if (!field.section.empty()) {
        const auto section = m_json.find(field.section);
        if (section == m_json.end())
            return nullptr;
        object = &*section;
    }
    const auto found = object->find(field.key);
    return found == object->end() ? nullptr : &*found;
}

Result<void> Reader::checkKeys() const
{
    if (!m_json.is_object())
        return usageError("a configuration is a JSON object", m_where);
    for (const auto &[name, section] : m_json.items()) {
        if (findConfigField(name))
            continue;
        const auto &keys = trainConfigKeys();
        if (std::find(keys.begin(), keys.end(), name) == keys.end())
            return unknown(name);
        if (!section.is_object())
            return notA(section, "an object", place(name), "write \"" + name + "\": {...}");
        for (const auto &[key, value] : section.items())
            if (!findConfigField(name + "." + key))
                return unknown(name + "." + key);
    }
    return {};
}

Result<void> Reader::readPlain(TrainConfig &config, const ConfigField &field, const Json &value) const
{
    const std::string where = place(field.path());
    if (const auto *text = std::get_if<std::string TrainConfig::*>(&field.member)) {
        SPECTRA_TRY(config.**text, readText(value, where));
        if (!field.values.empty() && std::find(field.values.begin(), field.values.end(), config.**text) == field.values.end())
            return usageError("unknown value \"" + (config.**text).substr(0, 100) + "\"", where,
                              "did you mean \"" + closestName(config.**text, field.values) + "\"? use " + field.range());
    } else if (const auto *whole = std::get_if<std::int64_t TrainConfig::*>(&field.member)) {
        SPECTRA_TRY(config.**whole, readWhole(value, field, where));
    } else if (const auto *seed = std::get_if<std::uint64_t TrainConfig::*>(&field.member)) {
        SPECTRA_TRY(config.**seed, readSeed(value, where));
    } else if (const auto *number = std::get_if<double TrainConfig::*>(&field.member)) {
        SPECTRA_TRY(config.**number, readNumber(value, field, where));
    } else if (const auto *flag = std::get_if<bool TrainConfig::*>(&field.member)) {
        if (!value.is_boolean())
            return notA(value, "true or false", where, "use true or false");
        config.**flag = value.get<bool>();
    }
    return {};
}

Result<void> Reader::readRouter(TrainConfig &config, const Json &value) const
{
    const std::string where = place("router");
    Json router = value;
    if (router.is_string())
        router = Json::object({{"type", value}});
    if (!router.is_object())
        return notA(value, "an object", where, R"(write "router": {"type": "spectra"})");
    if (!router.contains("type"))
        return usageError("a router has no \"type\"", where, "`spectra models --routers` lists them");
    if (!router["type"].is_string())
        return notA(router["type"], "a router's name", place("router.type"), "`spectra models --routers` lists them");
    const auto type = router["type"].get<std::string>();
    const RouterInfo *info = nullptr;
    std::vector<std::string> names;
    for (const RouterInfo &entry : routerRegistry()) {
        names.push_back(entry.name);
        if (entry.name == type)
            info = &entry;
    }
    if (!info) {
        auto error = defaultRouterOptions(type.substr(0, 200)).error();
        error.where = place("router.type");
        error.mend = "did you mean \"" + closestName(type, names) + "\"? " + error.mend;
        return error;
    }
    names.clear();
    for (const RouterOption &option : info->options)
        names.push_back(option.name);
    auto options = applyRouterSettings(router.dump(), {}, false);
    if (!options.ok()) {
        Error error = std::move(options.error());
        for (const auto &[key, option] : router.items())
            if (key != "type" && !names.empty() && std::find(names.begin(), names.end(), key) == names.end()) {
                error.in(place("router." + key.substr(0, 200)));
                error.mend = "did you mean \"router." + closestName(key, names) + "\"? " + error.mend;
                return error;
            }
        return error.in(where);
    }
    config.routerJson = std::move(*options);
    return {};
}

Result<std::vector<std::string>> Reader::readFiles(const Json &value, const std::string &where) const
{
    const Json list = value.is_array() ? value : Json::array({value});
    if (list.empty())
        return usageError("a domain has no file", where, "name at least one");
    if (list.size() > kMostFiles)
        return usageError("a domain has more than " + std::to_string(kMostFiles) + " files", where);
    std::vector<std::string> files;
    std::set<std::string> seen;
    for (const Json &file : list) {
        SPECTRA_TRY(std::string path, readText(file, where));
        if (path.empty())
            return usageError("a file's name is empty", where);
        if (!seen.insert(path).second)
            return usageError("a domain names the file \"" + path.substr(0, 200) + "\" twice", where);
        files.push_back(std::move(path));
    }
    return files;
}

Result<TrainConfig::Domain> Reader::readDomain(const std::string &name, const Json &value) const
{
    const std::string path = "data.domains." + name.substr(0, 200);
    TrainConfig::Domain domain;
    SPECTRA_TRY(domain.name, readText(name, place(path)));
    if (domain.name.empty() || domain.name.size() > 64 || domain.name.find('/') != std::string::npos)
        return usageError("a domain's name has 1 to 64 bytes and no slash", place(path));
    if (!value.is_object()) {
        SPECTRA_TRY(domain.files, readFiles(value, place(path)));
        return domain;
    }
    for (const auto &[key, part] : value.items()) {
        if (key == "files") {
            SPECTRA_TRY(domain.files, readFiles(part, place(path + ".files")));
        } else if (key == "weight") {
            const ConfigField weight{.key = "weight", .low = 0, .high = 1e6, .lowOpen = true};
            SPECTRA_TRY(domain.weight, readNumber(part, weight, place(path + ".weight")));
        } else {
            return usageError("unknown key \"" + key.substr(0, 200) + "\"", place(path),
                              "did you mean \"" + closestName(key, {"files", "weight"}) + "\"?");
        }
    }
    if (domain.files.empty())
        return usageError("a domain has no file", place(path), R"(write {"files": ["FILE"], "weight": 1})");
    return domain;
}

Result<void> Reader::readDomains(TrainConfig &config, const Json &value) const
{
    const std::string where = place("data.domains");
    if (!value.is_object())
        return notA(value, "an object", where, R"(write "domains": {"NAME": "FILE"})");
    if (value.size() > kMostDomains)
        return usageError("more than " + std::to_string(kMostDomains) + " domains", where);
    for (const auto &[name, entry] : value.items()) {
        SPECTRA_TRY(auto domain, readDomain(name, entry));
        config.domains.push_back(std::move(domain));
    }
    return {};
}

Result<void> Reader::readTargets(TrainConfig &config, const Json &value) const
{
    const std::string where = place("training.target_losses");
    const ConfigField loss{.key = "target_losses", .low = 0, .high = 1000, .lowOpen = true};
    if (!value.is_array() || value.size() > kMostTargets)
        return notA(value, "a list of at most 64 numbers", where, "write for example [4.0, 3.5]");
    config.targetLosses.clear();
    for (const Json &item : value) {
        SPECTRA_TRY(const double target, readNumber(item, loss, where));
        config.targetLosses.push_back(target);
    }
    return {};
}

Result<void> Reader::readRates(TrainConfig &config, const Json &value) const
{
    const std::string path = "optimizer.learning_rate";
    const ConfigField rate{.key = "learning_rate", .low = 0, .high = 10};
    if (value.is_number()) {
        SPECTRA_TRY(const double all, readNumber(value, rate, place(path)));
        config.rateRouter = config.rateExperts = config.rateOther = all;
        return {};
    }
    if (!value.is_object())
        return notA(value, "a number or an object", place(path), R"(write 1e-3, or {"router": 1e-3, "experts": 1e-3, "other": 1e-3})");
    for (const auto &[key, part] : value.items()) {
        double TrainConfig::*member = key == "router" ? &TrainConfig::rateRouter
            : key == "experts"                        ? &TrainConfig::rateExperts
            : key == "other"                          ? &TrainConfig::rateOther
                                                      : nullptr;
        if (!member)
            return unknown(path + "." + key);
        SPECTRA_TRY(config.*member, readNumber(part, rate, place(path + "." + key)));
    }
    return {};
}

Result<void> Reader::readSpecial(TrainConfig &config, const ConfigField &field, const Json &value) const
{
    switch (field.special) {
    case Special::router: return readRouter(config, value);
    case Special::domains: return readDomains(config, value);
    case Special::targetLosses: return readTargets(config, value);
    case Special::learningRate: return readRates(config, value);
    case Special::dataSeed:
        if (value.is_null()) {
            config.dataSeed.reset();
        } else {
            SPECTRA_TRY(const std::uint64_t seed, readSeed(value, place(field.path())));
            config.dataSeed = seed;
        }
        break;
    case Special::none: break;
    }
    return {};
}

Result<TrainConfig> Reader::read()
{
    SPECTRA_CHECK(checkKeys());
    TrainConfig config;
    for (const ConfigField &field : trainConfigFields()) {
        const Json *value = find(field);
        if (value)
            SPECTRA_CHECK(field.special == Special::none ? readPlain(config, field, *value) : readSpecial(config, field, *value));
        else if (field.special == Special::router)
            SPECTRA_CHECK(readRouter(config, Json::parse(config.routerJson)));
    }
    const auto given = [&](const char *path) { return find(*findConfigField(path)) != nullptr; };
    if (!given("model.kv_heads"))
        config.kvHeads = config.heads;
    // What a short run leaves unsaid fits into it.
    if (!given("schedule.warmup"))
        config.warmup = std::min(config.warmup, config.steps / 10);
    if (!given("evaluation.every"))
        config.evaluateEvery = std::min(config.evaluateEvery, config.steps);
    if (!given("checkpoint.every"))
        config.checkpointEvery = std::min(config.checkpointEvery, config.steps);
    SPECTRA_CHECK(checkTrainConfig(config, m_where));
    return config;
}

} // namespace

Result<TrainConfig> TrainConfig::parse(std::string_view json, const std::string &where, const std::vector<std::string> &settings)
{
    SPECTRA_TRY(auto document, parseStrictJson(json, where));
    if (!document.is_object())
        return usageError("a configuration is a JSON object", where, R"(write {"training": {...}, "data": {...}})");
    Reader reader(std::move(document), where);
    for (const std::string &setting : settings)
        SPECTRA_CHECK(reader.apply(setting));
    return reader.read();
}

std::string TrainConfig::toJson() const
{
    Json json = Json::object();
    for (const ConfigField &field : trainConfigFields()) {
        Json value;
        switch (field.special) {
        case Special::none: value = std::visit([this](auto member) { return Json(this->*member); }, field.member); break;
        case Special::router: value = Json::parse(routerJson, nullptr, false); break;
        case Special::dataSeed: value = dataSeed ? Json(*dataSeed) : Json(); break;
        case Special::targetLosses: value = Json(targetLosses); break;
        case Special::learningRate: value = Json::object({{"router", rateRouter}, {"experts", rateExperts}, {"other", rateOther}}); break;
        case Special::domains:
            value = Json::object();
            for (const Domain &domain : domains)
                value[domain.name] = Json::object({{"files", domain.files}, {"weight", domain.weight}});
            break;
        }
        (field.section.empty() ? json : json[field.section])[field.key] = std::move(value);
    }
    return json.dump(2);
}

} // namespace spectra
