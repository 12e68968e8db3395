// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/spectraoptions.h"

namespace spectra {

const std::vector<OptionField<SpectraOptions>> &spectraOptionTable()
{
    using O = SpectraOptions;
    const double inf = std::numeric_limits<double>::infinity();
    static const std::vector<OptionField<O>> table = {
        {"router_dim", &O::routerDim, "dimension D of routing and expression vectors", 1, 4096, false, {}, true},
        {"gru_scope", &O::gruScope, "one sequential router for all layers, or one per layer", -inf, inf, false, {"global", "per_layer"}, true},
        {"gru_axis", &O::gruAxis, "what the GRU recurs over; carry leaks the future and is for reproduction only", -inf, inf, false,
         {"sequence", "depth", "grid", "carry"}, false},
        {"sequential", &O::sequential, "GRU, or a linear map in its place (ablation -GRU)", -inf, inf, false, {"gru", "linear"}, true},
        {"expression", &O::expression, "what gives the expression vectors: a projection of the token, learned vectors (-Expression), or the routing vectors themselves (degenerate)",
         -inf, inf, false, {"projector", "learned", "literal"}, true},
        {"projector_scope", &O::projectorScope, "one expression projector per layer, or one for all", -inf, inf, false, {"per_layer", "global"}, true},
        {"projector_init", &O::projectorInit, "initialisation of a fresh expression projector", -inf, inf, false, {"orthogonal", "xavier"}, false},
        {"projector_init_gain", &O::projectorInitGain, "factor on the orthogonal initialisation (0.1 is usual when upcycling)", 0, 100, true, {}, false},
        {"projector_orthogonalization", &O::projectorOrthogonalization, "re-orthogonalises the projector in each forward pass", -inf, inf, false,
         {"none", "newton_schulz", "qr", "svd"}, false},
        {"newton_schulz_iterations", &O::newtonSchulzIterations, "steps of the Newton-Schulz iteration", 1, 100, false, {}, false},
        {"scoring", &O::scoring, "OSR cost with transport, domain score (-OSR), or cosine to one vector per expert (-All)", -inf, inf, false,
         {"osr", "domain", "linear"}, true},
        {"speciality_penalty", &O::specialityPenalty, "penalty term of the domain score; used with scoring domain only", -inf, inf, false,
         {"none", "global", "per_expert"}, true},
        {"osr_repulsion_weight", &O::repulsionWeight, "lambda: weight of the repulsion between similar experts", 0, 1000, false, {}, false},
        {"osr_confidence_penalty", &O::confidencePenalty, "beta: weight of the penalty on similarity above the threshold", 0, 1000, false, {}, false},
        {"osr_confidence_threshold", &O::confidenceThreshold, "tau: similarity above which the penalty acts", 0, 1, false, {}, false},
        {"sinkhorn_epsilon", &O::sinkhornEpsilon, "temperature of the transport and of every softmax", 1e-4, 1000, false, {}, false},
        {"sinkhorn_iterations", &O::sinkhornIterations, "row and column updates of the transport, before the last row normalisation", 1, 10000, false, {}, false},
        {"log_sinkhorn_enabled", &O::logSinkhorn, "transport in the log domain; else kernel form with the cost clamped to +-50 epsilon", -inf, inf, false, {}, false},
        {"sinkhorn_scope", &O::sinkhornScope, "what is transported at inference: nothing but stored potentials (causal), a sequence, the batch, or no potentials at all (none)",
         -inf, inf, false, {"causal", "sequence", "batch", "none"}, false},
        {"train_sinkhorn_scope", &O::trainSinkhornScope, "the same in training", -inf, inf, false, {"causal", "sequence", "batch", "none"}, false},
        {"expert_choice_routing", &O::expertChoiceRouting, "in training: each expert takes at most its quota of tokens", -inf, inf, false, {}, false},
        {"expert_choice_capacity_factor", &O::capacityFactor, "alpha: quota in units of the fair share", 0, 1000, true, {}, false},
        {"capacity", &O::capacity,
         "how the quota's slots, ceil(alpha*N*k) in all, are shared: equally (fixed), or in proportion to max(demand, 1/(2E)) with a running average of "
         "each expert's share of the top-k before the quota (dynamic)",
         -inf, inf, false, {"fixed", "dynamic"}, false},
        {"router_jitter_noise", &O::jitterNoise, "in training: router input times U(1-j, 1+j)", 0, 1, false, {}, false},
        {"router_entropy_coef", &O::entropyCoef, "coefficient of the mean entropy of Q in the loss", 0, 1000, false, {}, false},
        {"ortho_loss_coef", &O::orthoLossCoef, "coefficient of the orthogonality loss", 0, 1000, false, {}, false},
        {"ortho_loss_on", &O::orthoLossOn, "what the orthogonality loss acts on", -inf, inf, false, {"expression_means", "projector"}, false},
        {"srip_enabled", &O::srip, "0.7 Frobenius + 0.3 spectral norm (squared) instead of the Frobenius norm alone", -inf, inf, false, {}, false},
        {"so_warmup_steps", &O::soWarmupSteps, "steps over which ortho_loss_coef rises from 0", 0, 1e9, false, {}, false},
        {"so_lambda_max", &O::soLambdaMax, "ceiling of the orthogonality coefficient; -1: ortho_loss_coef", -1, 1000, false, {}, false},
        {"causal_ema", &O::causalEma, "rho of the running averages of mean expression, potential, speciality penalty and demand", 0, 1, false, {}, false},
        {"causal_potential", &O::causalPotential,
         "how training finds the potentials of causal routing: running average of the batch's own (average), or steps that balance the causal rule's "
         "top-k load on each batch (dual); only osr has potentials, and training itself uses them with train_sinkhorn_scope causal alone",
         -inf, inf, false, {"average", "dual"}, false},
        {"causal_potential_step", &O::causalPotentialStep, "eta of causal_potential dual: g_i += eta*(1 - E*share_i) after each optimiser step", 0, 100, true, {}, false},
        {"sequential_loss_coef", &O::sequentialLossCoef,
         "coefficient of the mean of -log sum_i Q_t,i*Q_t+1,i over neighbouring tokens of a sequence: holds routing on along the text (ours; 0 in the drafts; not with scoring linear)", 0, 1000, false, {}, false},
        {"gru_update_bias", &O::gruUpdateBias, "initial bias of the GRU's update gate; > 0 remembers longer", -100, 100, false, {}, false},
        {"calibrated_epsilon", &O::calibratedEpsilon, "epsilon at which the stored potentials were found; 0: the present one", 0, 1000, false, {}, false},
    };
    return table;
}

Result<void> SpectraOptions::isValid() const
{
    for (const auto &field : spectraOptionTable()) {
        SpectraOptions scratch;
        SPECTRA_CHECK(setOption(scratch, field, optionValue(*this, field)));
    }
    const auto clash = [](const char *option, const char *what, const char *mend) {
        return usageError(what, std::string("router option ") + option, mend);
    };
    if (soLambdaMax < 0 && soLambdaMax != -1)
        return clash("so_lambda_max", "a negative ceiling", "use -1 for ortho_loss_coef, or a ceiling of at least 0");
    if (scoring == "linear" && sequentialLossCoef > 0)
        return clash("sequential_loss_coef", "scoring linear has no sequential loss", "use 0, or scoring osr or domain");
    if (orthoLossOn == "projector" && expression != "projector")
        return clash("ortho_loss_on", "there is no projector with expression=" "learned or literal", "use ortho_loss_on=expression_means");
    if (projectorOrthogonalization != "none" && expression != "projector")
        return clash("projector_orthogonalization", "there is no projector with expression=" "learned or literal",
                     "use projector_orthogonalization=none");
    return {};
}

const std::vector<RouterPreset> &spectraAblations()
{
    static const std::vector<RouterPreset> presets = {
        {"-Expression", "spectra-expression", {"expression=learned"}, "a learned token-independent vector per expert in place of the projector"},
        {"-Expression-literal", "", {"expression=literal"}, "degenerate: the routing vectors stand in for the expression vectors, so S = 1 everywhere and routing is a tie"},
        {"-GRU", "spectra-gru", {"sequential=linear"}, "a linear map in place of the GRU"},
        {"-OSR", "spectra-osr", {"scoring=domain"}, "softmax of the domain score, no transport"},
        {"-Repulsion", "spectra-repulsion", {"osr_repulsion_weight=0"}, "no repulsion between similar experts"},
        {"-Quota", "spectra-quota", {"expert_choice_routing=false"}, "no quota in training"},
        {"-SpecialityPenalty", "spectra-speciality_penalty", {"scoring=domain", "speciality_penalty=none"}, "-OSR without its penalty term: compare it with -OSR"},
        {"-Confidence", "spectra-confidence", {"osr_confidence_penalty=0"}, "no penalty on high similarity"},
        {"-OrthoConstraint", "spectra-ortho_constraint", {"ortho_loss_coef=0", "projector_init=xavier", "projector_orthogonalization=none"}, "nothing keeps expressions orthogonal"},
        {"-All", "spectra-all", {"scoring=linear", "router_entropy_coef=0", "ortho_loss_coef=0"}, "cosine to one vector per expert, softmax, top-k: a Switch-like baseline"},
    };
    return presets;
}

} // namespace spectra
