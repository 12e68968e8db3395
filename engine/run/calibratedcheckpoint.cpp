// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/calibratedcheckpoint.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>

namespace spectra {
namespace {

class CalibratedCheckpoint final : public Checkpoint {
public:
    CalibratedCheckpoint(std::shared_ptr<const Checkpoint> base, const Router &router) : m_base(std::move(base)), m_config(m_base->config())
    {
        m_config.routerJson = router.options();
        m_config.routerCalibrated = true;
        m_tensors = m_base->tensors();
        for (const auto &[name, tensor] : router.buffers()) {
            const torch::Tensor values = tensor.to(torch::kCPU, torch::kFloat32).contiguous();
            m_values[name].assign(values.data_ptr<float>(), values.data_ptr<float>() + values.numel());
            const auto known = std::find_if(m_tensors.begin(), m_tensors.end(), [&, &key = name](const TensorInfo &t) { return t.name == key; });
            TensorInfo info;
            info.name = info.sourceName = name;
            info.shape = values.sizes().vec();
            info.bytes = static_cast<std::uint64_t>(values.numel()) * 4;
            if (known == m_tensors.end())
                m_tensors.push_back(std::move(info));
            else
                *known = std::move(info);
        }
    }
    [[nodiscard]] Format format() const override { return m_base->format(); }
    [[nodiscard]] const std::filesystem::path &path() const override { return m_base->path(); }
    [[nodiscard]] const ModelConfig &config() const override { return m_config; }
    [[nodiscard]] const std::vector<TensorInfo> &tensors() const override { return m_tensors; }
    [[nodiscard]] const TensorInfo *find(std::string_view name) const override
    {
        for (const TensorInfo &t : m_tensors)
            if (t.name == name)
                return &t;
        return nullptr;
    }
    [[nodiscard]] Result<void> readF32(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const override
    {
        const auto own = m_values.find(tensor.name);
        if (own == m_values.end())
            return m_base->readF32(tensor, out, firstRow, rows);
        const std::size_t width = tensor.shape.empty() || tensor.shape[0] == 0 ? 1 : own->second.size() / static_cast<std::size_t>(tensor.shape[0]);
        const std::size_t first = static_cast<std::size_t>(firstRow) * width;
        if (first + out.size() > own->second.size())
            return bugError("a read past the end of a tensor", tensor.name);
        std::copy_n(own->second.begin() + static_cast<std::ptrdiff_t>(first), out.size(), out.begin());
        return {};
    }
    [[nodiscard]] std::span<const std::byte> raw(const TensorInfo &tensor) const override
    {
        const auto own = m_values.find(tensor.name);
        return own == m_values.end() ? m_base->raw(tensor) : std::as_bytes(std::span<const float>(own->second));
    }
    void release(const TensorInfo &tensor) const override
    {
        if (!m_values.contains(tensor.name))
            m_base->release(tensor);
    }
    [[nodiscard]] std::optional<std::filesystem::path> tokenizerFile() const override { return m_base->tokenizerFile(); }
    [[nodiscard]] std::optional<GgufVocabulary> vocabulary() const override { return m_base->vocabulary(); }
    [[nodiscard]] Result<std::string> sha256(std::stop_token stop) const override { return m_base->sha256(stop); }
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> metadata() const override { return m_base->metadata(); }
    [[nodiscard]] std::string configJson() const override
    {
        auto config = nlohmann::ordered_json::parse(m_base->configJson(), nullptr, false);
        if (!config.is_object())
            return m_base->configJson();
        config["router"] = nlohmann::ordered_json::parse(m_config.routerJson, nullptr, false);
        if (!config.contains("upcycling") || !config["upcycling"].is_object())
            config["upcycling"] = nlohmann::ordered_json::object();
        config["upcycling"]["router_calibrated"] = true;
        return config.dump(2);
    }

private:
    std::shared_ptr<const Checkpoint> m_base;
    ModelConfig m_config;
    std::vector<TensorInfo> m_tensors;
    std::map<std::string, std::vector<float>, std::less<>> m_values;
};

} // namespace

std::shared_ptr<const Checkpoint> withCalibratedRouter(std::shared_ptr<const Checkpoint> base, const Router &router)
{
    return std::make_shared<CalibratedCheckpoint>(std::move(base), router);
}

} // namespace spectra
