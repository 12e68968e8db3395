// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/configreader.h"
#include "engine/checkpoint/tensorbinder.h"

namespace spectra {

/// What `"model_type": "spectra"` adds to a base family's config.json (method page, section 7; keys in the README).
void readSpectraConfig(ConfigReader &reader, ModelConfig &config);
/// Experts and shared experts of a layer in `moeLayers`, the dense FFN of any other.
void bindSpectraFeedForward(TensorBinder &binder, const ModelConfig &config, std::int64_t layer);
/// Everything of the routers as it is stored: model.router.*, model.layers.i.mlp.router.*.
void bindSpectraRouters(TensorBinder &binder, const ModelConfig &config);

} // namespace spectra
