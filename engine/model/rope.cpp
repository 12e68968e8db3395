// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace spectra {
namespace {

std::vector<float> plainFrequencies(double theta, std::int64_t half)
{
    std::vector<float> f(static_cast<std::size_t>(half));
    const auto width = static_cast<float>(2 * half);
    for (std::int64_t j = 0; j < half; ++j)
        f[static_cast<std::size_t>(j)] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(static_cast<float>(2 * j) / width)));
    return f;
}

/// Llama 3.1: long wavelengths are divided by the factor, short ones stay, those between are blended.
void scaleLlama3(std::vector<float> &frequencies, const RopeConfig &c, double context)
{
    const double longest = context / c.lowFrequencyFactor;
    const double shortest = context / c.highFrequencyFactor;
    for (float &f : frequencies) {
        const double wave = 2 * std::numbers::pi / f;
        if (wave < shortest)
            continue;
        if (wave > longest) {
            f = static_cast<float>(f / c.factor);
            continue;
        }
        const double smooth = (context / wave - c.lowFrequencyFactor) / (c.highFrequencyFactor - c.lowFrequencyFactor);
        f = static_cast<float>((1 - smooth) * f / c.factor + smooth * f);
    }
}

/// YaRN: interpolation for slow pairs, extrapolation for quick ones, a linear ramp between the two borders.
void scaleYarn(std::vector<float> &frequencies, const RopeConfig &c, double factor, double context)
{
    const auto width = static_cast<double>(2 * frequencies.size());
    const auto border = [&](double rotations) {
        return width * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(c.theta));
    };
    double low = std::max(std::floor(border(c.betaFast)), 0.0);
    double high = std::min(std::ceil(border(c.betaSlow)), width - 1);
    if (low == high)
        high += 0.001;
    for (std::size_t j = 0; j < frequencies.size(); ++j) {
        const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
        const double plain = frequencies[j];
        frequencies[j] = static_cast<float>(plain / factor * ramp + plain * (1 - ramp));
    }
}

} // namespace

Result<Rope> Rope::make(const ModelConfig &config)
{
    const RopeConfig &c = config.rope;
    Rope rope;
    rope.m_config = c;
    rope.m_context = config.context;
    const auto width = static_cast<std::int64_t>(static_cast<double>(config.headDim) * c.partialFactor);
    if (width <= 0 || width % 2 != 0 || width > config.headDim)
        return inputError("the rotated width of a head must be even and positive", "rope: " + std::to_string(width));
    if (!(c.theta > 1) || !(c.factor > 0) || !std::isfinite(c.theta) || !std::isfinite(c.factor))
        return inputError("rope base and factor must be positive", "rope_theta, factor");
    rope.m_half = width / 2;
    const double context = c.originalContext > 0 ? c.originalContext : static_cast<double>(config.context);
    std::vector<float> f = plainFrequencies(c.theta, rope.m_half);
    if (c.scaling == "none" || c.scaling == "dynamic") {
    } else if (c.scaling == "linear") {
        for (float &v : f)
            v = static_cast<float>(v / c.factor);
    } else if (c.scaling == "llama3") {
        if (!(context > 0) || !(c.lowFrequencyFactor > 0) || !(c.highFrequencyFactor > c.lowFrequencyFactor))
            return inputError("rope scaling llama3 needs 0 < low_freq_factor < high_freq_factor", "rope_scaling");
        scaleLlama3(f, c, context);
    } else if (c.scaling == "yarn") {
        if (!(context > 0))
            return inputError("rope scaling yarn needs original_max_position_embeddings", "rope_scaling");
        scaleYarn(f, c, c.factor, context);
        rope.m_attention = c.attentionFactor.value_or(c.factor <= 1 ? 1.0 : 0.1 * std::log(c.factor) + 1);
    } else {
        return inputError("rope scaling is not supported", "rope_scaling: " + c.scaling, "Supported: linear, dynamic, yarn, llama3");
    }
    if (!c.frequencyFactors.empty()) {
        if (c.frequencyFactors.size() != f.size())
            return inputError("rope_freqs does not fit the head", "rope_freqs.weight");
        for (std::size_t j = 0; j < f.size(); ++j)
            f[j] /= c.frequencyFactors[j];
    }
    rope.m_fixed = std::move(f);
    return rope;
}

std::vector<float> Rope::frequencies(std::int64_t length) const
{
    if (m_config.scaling != "dynamic" || length <= m_context || m_half < 2)
        return m_fixed;
    const auto width = static_cast<double>(2 * m_half);
    const double stretch = m_config.factor * static_cast<double>(length) / static_cast<double>(m_context) - (m_config.factor - 1);
    return plainFrequencies(m_config.theta * std::pow(stretch, width / (width - 2)), m_half);
}

void Rope::angles(std::int64_t firstPosition, std::int64_t count, std::int64_t length, float *cos, float *sin) const
{
    const std::vector<float> f = frequencies(length);
    const auto attention = static_cast<float>(m_attention);
    for (std::int64_t t = 0; t < count; ++t)
        for (std::int64_t j = 0; j < m_half; ++j) {
            const float angle = static_cast<float>(firstPosition + t) * f[static_cast<std::size_t>(j)];
            cos[t * m_half + j] = std::cos(angle) * attention;
            sin[t * m_half + j] = std::sin(angle) * attention;
        }
}

} // namespace spectra
