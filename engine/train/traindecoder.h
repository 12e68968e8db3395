// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/modelconfig.h"
#include "engine/model/weights.h"
#include "engine/router/router.h"
#include "engine/train/trainmodel.h"
#include "engine/train/trainops.h"

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace spectra::train {

/// What all layers of one forward pass share; lives until its backward pass is done.
struct DecoderPass {
    AttentionSizes sizes;
    torch::Tensor cos, sin;              ///< [T, half]
    RouterInput routing;                 ///< all but x and layer
    bool bf16 = false, attentionLogits = false, keepSteps = false;
};

/// What one layer gives.
struct LayerResult {
    torch::Tensor hidden;                ///< [N,H]
    std::map<std::string, torch::Tensor> losses;
};

/// The layers of a TrainModel. Internal to it.
class TrainDecoder {
public:
    ModelConfig config;
    Weights weights;                     ///< leaves
    std::unique_ptr<Router> router;      ///< nullptr: dense

    /// One layer; moves `state` on. `record` receives what is told about the pass and may be nullptr. `recomputing`: once more, for
    /// the gradients.
    [[nodiscard]] LayerResult layer(std::size_t index, const torch::Tensor &x, RouterState &state, const DecoderPass &pass, TrainOutput *record,
                                    bool recomputing) const;
    /// The same, but of the layer only x and the state are kept; the backward pass runs it again. `pass` and this decoder must live
    /// until then.
    [[nodiscard]] LayerResult layerAgainInBackward(std::size_t index, const torch::Tensor &x, RouterState &state, std::shared_ptr<const DecoderPass> pass,
                                                   TrainOutput *record) const;

private:
    [[nodiscard]] LayerResult experts(const LayerWeights &w, const torch::Tensor &hidden, const torch::Tensor &normed, RouterState &state,
                                      const DecoderPass &pass, TrainOutput *record, bool recomputing) const;
    void tell(TrainOutput &record, const RoutingStep &step, const DecoderPass &pass) const;
};

} // namespace spectra::train
