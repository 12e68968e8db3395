// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/adamw.h"
#include "engine/train/optimizerkernels.h"

#include <cmath>

namespace spectra {

GradientNorms gradientNorms(const std::vector<TrainParameter> &parameters)
{
    std::vector<torch::Tensor> gradients;
    std::vector<std::int64_t> elements;
    for (const TrainParameter &parameter : parameters) {
        gradients.push_back(plainGradient(parameter));
        elements.push_back(gradients.back().defined() ? gradients.back().numel() : 0);
    }
    const std::vector<Block> blocks = blocksOf(elements);
    std::vector<double> sums(blocks.size());
    overBlocks(blocks, [&](const Block &block, std::size_t index) {
        sums[index] = kernels::sumOfSquares(gradients[block.tensor].const_data_ptr<float>() + block.begin, block.end - block.begin);
    });

    GradientNorms norms;
    std::array<double, 3> squares = {};
    for (std::size_t b = 0; b < blocks.size(); ++b) {
        const TrainParameter &parameter = parameters[blocks[b].tensor];
        squares[static_cast<std::size_t>(parameter.group)] += sums[b];
        // Squares of f32 numbers do not overflow a double: only an element can make a sum infinite.
        if (norms.finite && !std::isfinite(sums[b])) {
            norms.finite = false;
            norms.badLayer = parameter.layer;
            norms.badName = parameter.name;
        }
    }
    norms.router = std::sqrt(squares[static_cast<std::size_t>(ParameterGroup::router)]);
    norms.experts = std::sqrt(squares[static_cast<std::size_t>(ParameterGroup::experts)]);
    norms.other = std::sqrt(squares[static_cast<std::size_t>(ParameterGroup::other)]);
    norms.all = std::sqrt(squares[0] + squares[1] + squares[2]);
    return norms;
}

} // namespace spectra
