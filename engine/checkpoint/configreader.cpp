// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/configreader.h"

#include "engine/core/jsontext.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace spectra {

using Json = nlohmann::json;

Result<Json> parseJsonObject(std::string_view text, const std::string &where, std::uint64_t limit)
{
    if (text.size() > limit)
        return inputError(fmt::format("is {} bytes long; at most {} are accepted", text.size(), limit), where);
    SPECTRA_CHECK(checkJsonText(text, where));
    Json json = Json::parse(text.begin(), text.end(), nullptr, false);
    if (json.is_discarded())
        return inputError(text.empty() ? "is empty" : "is not valid JSON", where);
    if (!json.is_object())
        return inputError("must hold a JSON object", where);
    return json;
}

const Json *ConfigReader::value(const char *key) const
{
    const auto it = m_object.find(key);
    return it == m_object.end() || it->is_null() ? nullptr : &*it;
}

bool ConfigReader::has(const char *key) const
{
    return value(key) != nullptr;
}

void ConfigReader::fail(const std::string &key, std::string what, std::string mend)
{
    if (m_result.ok())
        m_result = inputError(std::move(what), m_where + ": key " + key, std::move(mend));
}

void ConfigReader::required(const char *key, std::int64_t &out, std::int64_t low, std::int64_t high)
{
    if (!has(key))
        return fail(key, "is missing");
    optional(key, out, low, high);
}

void ConfigReader::optional(const char *key, std::int64_t &out, std::int64_t low, std::int64_t high)
{
    const Json *v = value(key);
    if (v == nullptr || !ok())
        return;
    const auto outside = [&](const std::string &shown) {
        fail(key, fmt::format("is {}, outside {} to {}", shown, low, high));
    };
    if (v->is_number_unsigned()) {
        const auto n = v->get<std::uint64_t>();
        if (n > static_cast<std::uint64_t>(high) || static_cast<std::int64_t>(n) < low)
            return outside(fmt::format("{}", n));
        out = static_cast<std::int64_t>(n);
    } else if (v->is_number_integer()) {
        const auto n = v->get<std::int64_t>();
        if (n < low || n > high)
            return outside(fmt::format("{}", n));
        out = n;
    } else if (v->is_number_float()) { // some writers store 2048.0
        const auto n = v->get<double>();
        if (!(n >= static_cast<double>(low) && n <= static_cast<double>(high)) || n != std::floor(n))
            return outside(fmt::format("{}", n));
        out = static_cast<std::int64_t>(n);
    } else {
        fail(key, "must be a whole number");
    }
}

void ConfigReader::optional(const char *key, double &out, double low, double high)
{
    const Json *v = value(key);
    if (v == nullptr || !ok())
        return;
    if (!v->is_number())
        return fail(key, "must be a number");
    const double n = v->get<double>();
    if (!(n >= low && n <= high))
        return fail(key, fmt::format("is {}, outside {} to {}", n, low, high));
    out = n;
}

void ConfigReader::optional(const char *key, bool &out)
{
    const Json *v = value(key);
    if (v == nullptr || !ok())
        return;
    if (!v->is_boolean())
        return fail(key, "must be true or false");
    out = v->get<bool>();
}

void ConfigReader::optional(const char *key, std::string &out)
{
    const Json *v = value(key);
    if (v == nullptr || !ok())
        return;
    if (!v->is_string())
        return fail(key, "must be a text");
    out = v->get<std::string>();
}

void ConfigReader::indices(const char *key, std::vector<std::int64_t> &out, std::int64_t below)
{
    const Json *v = value(key);
    if (v == nullptr || !ok())
        return;
    if (!v->is_array())
        return fail(key, "must be a list of whole numbers");
    out.clear();
    for (const Json &item : *v) {
        if (!item.is_number_integer() || item.get<std::int64_t>() < 0
            || (item.is_number_unsigned() && item.get<std::uint64_t>() >= static_cast<std::uint64_t>(below))
            || item.get<std::int64_t>() >= below)
            return fail(key, fmt::format("must hold whole numbers from 0 to {}", below - 1));
        out.push_back(item.get<std::int64_t>());
        if (out.size() > 1 && out[out.size() - 2] >= out.back())
            return fail(key, "must be ascending, each number once");
    }
}

void ConfigReader::tokenIds(const char *key, std::vector<std::int64_t> &out, std::int64_t vocabulary)
{
    const Json *v = value(key);
    if (v == nullptr || !ok())
        return;
    const auto take = [&](const Json &item) {
        if (!item.is_number_integer())
            return fail(key, "must be a token id or a list of token ids");
        const auto id = item.get<std::int64_t>();
        if (id == -1) // "none"
            return;
        if (id < 0 || id >= vocabulary)
            return fail(key, fmt::format("the token id {} is outside the vocabulary of {}", id, vocabulary));
        out.push_back(id);
    };
    out.clear();
    if (!v->is_array())
        return take(*v);
    if (v->size() > 4096)
        return fail(key, "holds more than 4096 token ids");
    for (const Json &item : *v)
        take(item);
}

namespace {
/// YaRN's attention scale of one mscale (Peng et al., arXiv 2309.00071, eq. 22, with transformers' mscale).
double yarnScale(double factor, double mscale)
{
    return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}
} // namespace

void ConfigReader::rope(RopeConfig &out, std::int64_t context, std::int64_t headDim)
{
    static const Json nothing = Json::object();
    optional("rope_theta", out.theta, 1e-3, 1e12);
    optional("partial_rotary_factor", out.partialFactor, 1e-6, 1);
    const char *key = has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    const Json *given = value(key);
    if (given != nullptr && !given->is_object())
        return fail(key, "must be an object");
    const Json &object = given != nullptr ? *given : nothing;
    for (const auto &[name, item] : object.items())
        if (item.is_object())
            return fail(key, "RoPE settings that differ between layers are not supported");
    ConfigReader r(object, m_where + ": " + key);
    std::string type = "default";
    r.optional("type", type);
    r.optional("rope_type", type);
    r.optional("rope_theta", out.theta, 1e-3, 1e12);
    r.optional("partial_rotary_factor", out.partialFactor, 1e-6, 1);
    out.scaling = type == "default" ? "none" : type;
    out.originalContext = static_cast<double>(context);
    if (out.scaling != "none") {
        if (type != "linear" && type != "dynamic" && type != "yarn" && type != "llama3")
            r.fail("rope_type", "RoPE scaling '" + type + "' is not supported: linear, dynamic, yarn and llama3 are");
        if (!r.has("factor"))
            r.fail("factor", "is missing");
        r.optional("factor", out.factor, 1e-6, 1e6);
        r.optional("original_max_position_embeddings", out.originalContext, 1, static_cast<double>(limits::kContext));
        r.optional("low_freq_factor", out.lowFrequencyFactor, 1e-6, 1e6);
        r.optional("high_freq_factor", out.highFrequencyFactor, 1e-6, 1e6);
        if (type == "llama3" && !(out.highFrequencyFactor > out.lowFrequencyFactor))
            r.fail("high_freq_factor", "must be above low_freq_factor");
        r.optional("beta_fast", out.betaFast, 1e-6, 1e6);
        r.optional("beta_slow", out.betaSlow, 1e-6, 1e6);
        r.optional("truncate", out.yarnTruncate);
        if (type == "yarn") {
            double attention = 0, mscale = 0, mscaleAll = 0;
            r.optional("attention_factor", attention, 0, 1e6);
            r.optional("mscale", mscale, 0, 1e6);
            r.optional("mscale_all_dim", mscaleAll, 0, 1e6);
            if (attention > 0)
                out.attentionFactor = attention;
            else if (mscale > 0 && mscaleAll > 0)
                out.attentionFactor = yarnScale(out.factor, mscale) / yarnScale(out.factor, mscaleAll);
        }
    }
    if (m_result.ok())
        m_result = r.result();
    // GGUF files carry Llama-3's scaling as one divisor per frequency; our own folders keep them under this key.
    if (const Json *factors = value("rope_frequency_factors"); factors != nullptr && ok()) {
        if (!factors->is_array() || static_cast<std::int64_t>(factors->size()) != headDim / 2)
            return fail("rope_frequency_factors", fmt::format("must be a list of {} numbers", headDim / 2));
        out.frequencyFactors.clear();
        for (const Json &item : *factors) {
            const double f = item.is_number() ? item.get<double>() : 0;
            if (!(f > 1e-9 && f < 1e9))
                return fail("rope_frequency_factors", "must hold positive numbers");
            out.frequencyFactors.push_back(static_cast<float>(f));
        }
    }
}

} // namespace spectra
