// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/router.h"

#include <nlohmann/json.hpp>

#include <fstream>
#include <string>
#include <vector>

namespace spectra::test {

/// tests/fixtures/spectra/reference.{json,bin}: numbers of an independent double-precision implementation.
class SpectraFixture {
public:
    SpectraFixture()
    {
        const std::string folder = std::string(SPECTRA_TEST_DIR) + "/fixtures/spectra/";
        std::ifstream json(folder + "reference.json");
        m_json = nlohmann::json::parse(json);
        std::ifstream bin(folder + "reference.bin", std::ios::binary | std::ios::ate);
        m_floats.resize(static_cast<std::size_t>(bin.tellg()) / sizeof(float));
        bin.seekg(0);
        bin.read(reinterpret_cast<char *>(m_floats.data()), static_cast<std::streamsize>(m_floats.size() * sizeof(float)));
    }
    [[nodiscard]] const nlohmann::json &json() const { return m_json; }
    [[nodiscard]] torch::Tensor tensor(const nlohmann::json &at) const
    {
        const auto shape = at["shape"].get<std::vector<std::int64_t>>();
        return torch::from_blob(const_cast<float *>(m_floats.data()) + at["at"].get<std::size_t>(), shape, torch::kFloat32).clone();
    }
    [[nodiscard]] std::unique_ptr<Router> router(const nlohmann::json &c) const
    {
        const RouterShape shape{c["hidden"], c["experts"], c["topk"], c["moe_layers"].get<std::vector<std::int64_t>>()};
        auto made = loadRouter(c["options"].dump(), shape, [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
            return c["tensors"].contains(name) ? tensor(c["tensors"][name]) : torch::Tensor();
        });
        if (!made.ok())
            throw std::runtime_error(made.error().where + ": " + made.error().what);
        return std::move(*made);
    }
    [[nodiscard]] RouterInput input(const nlohmann::json &c, int layer) const
    {
        RouterInput input;
        input.x = tensor(c["x"][static_cast<std::size_t>(layer)]);
        input.offsets = c["offsets"].get<std::vector<std::int64_t>>();
        if (c.contains("mask"))
            input.mask = tensor(c["mask"]) > 0.5;
        input.layer = layer;
        input.layers = static_cast<int>(c["x"].size());
        input.training = c["training"];
        return input;
    }

private:
    nlohmann::json m_json;
    std::vector<float> m_floats;
};

} // namespace spectra::test
