// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/optionset.h"

#include <string>
#include <vector>

namespace spectra {

/// The options of the SPECTRA router under their configuration names (source: the SPECTRA paper drafts).
struct SpectraOptions {
    int routerDim = 128;
    std::string gruScope = "global", gruAxis = "sequence", sequential = "gru";
    std::string expression = "projector", projectorScope = "per_layer", projectorInit = "orthogonal";
    double projectorInitGain = 1;
    std::string projectorOrthogonalization = "none";
    int newtonSchulzIterations = 5;
    std::string scoring = "osr", specialityPenalty = "global";
    double repulsionWeight = 0.5, confidencePenalty = 0.5, confidenceThreshold = 0.7;
    double sinkhornEpsilon = 0.05;
    int sinkhornIterations = 3;
    bool logSinkhorn = true;
    std::string sinkhornScope = "causal", trainSinkhornScope = "batch";
    bool expertChoiceRouting = true;
    double capacityFactor = 1.25;
    std::string capacity = "fixed";
    double jitterNoise = 0.01;
    double entropyCoef = 0.1, orthoLossCoef = 0.01;
    std::string orthoLossOn = "expression_means";
    bool srip = true;
    int soWarmupSteps = 0;
    double soLambdaMax = -1;             ///< < 0: orthoLossCoef
    double causalEma = 0.99;
    std::string causalPotential = "average";
    double causalPotentialStep = 0.05;
    double sequentialLossCoef = 0;
    double gruUpdateBias = 0;
    double calibratedEpsilon = 0;        ///< ε at which the stored potentials were found; 0: the present one

    /// Combinations that make no sense together. Errors (usage) name the option.
    [[nodiscard]] Result<void> isValid() const;
};

[[nodiscard]] const std::vector<OptionField<SpectraOptions>> &spectraOptionTable();

/// A named set of settings: an ablation of the method.
struct RouterPreset {
    std::string name;                    ///< "-Repulsion"
    std::string router;                  ///< name in the registry, "spectra-repulsion"; empty: settings only
    std::vector<std::string> settings;   ///< "osr_repulsion_weight=0"
    std::string meaning;
};
[[nodiscard]] const std::vector<RouterPreset> &spectraAblations();

} // namespace spectra
