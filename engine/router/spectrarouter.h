// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/router.h"
#include "engine/router/spectraoptions.h"

#include <memory>
#include <string>
#include <vector>

namespace spectra {

/// The SPECTRA router (method page, sections 1 to 3): GRU routing vectors, projected expression vectors, OSR cost, Sinkhorn
/// transport or its causal rule, top-k, quota in training. Two ways through it: tensors (training, other devices) and, for
/// inference on the CPU, the kernels of engine/rule, whose result does not depend on how tokens are grouped into calls.
///
/// The scope alone decides the rule, in training as at inference: `causal` and `none` take Ē (and potentials) from the buffers,
/// `sequence` and `batch` from the tokens at hand.
class SpectraRouter : public Router {
public:
    using Options = SpectraOptions;
    [[nodiscard]] static const std::vector<OptionField<Options>> &table() { return spectraOptionTable(); }
    SpectraRouter(SpectraOptions options, RouterShape shape);
    ~SpectraRouter() override;

    void initialise(std::uint64_t seed);
    [[nodiscard]] Result<void> load(const TensorLookup &lookup);

    [[nodiscard]] std::string name() const override { return "spectra"; }
    [[nodiscard]] RouterNeeds needs() const override;
    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState &state, Capture capture) override;
    void afterOptimizerStep(const std::vector<torch::Tensor> &loads) override;
    void setTrainingStep(std::int64_t step) override { m_step = step; }
    void setCalibrated() override { m_options.calibratedEpsilon = m_options.sinkhornEpsilon; }
    [[nodiscard]] std::vector<std::string> notes() const override;
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override;
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override;
    [[nodiscard]] std::string options() const override;
    [[nodiscard]] torch::Tensor linearWeights(int layer) const override;
    void to(torch::Device device) override;

    [[nodiscard]] const SpectraOptions &spectraOptions() const { return m_options; }

private:
    struct Sequential {                  ///< GRU, or weight and bias of the linear map in weightIh and biasIh
        torch::Tensor weightIh, weightHh, biasIh, biasHh;
    };
    struct Layer {
        torch::Tensor expressionVectors, linear;                 ///< [E,D], [E,d]
        torch::Tensor meanExpression, potential, penalty;        ///< buffers [E,D], [E], [1] or [E]
        torch::Tensor meanSum, potentialSum, penaltySum;         ///< of the batches since the last optimiser step
        double meanWeight = 0, potentialWeight = 0, penaltyWeight = 0;
    };
    struct Named {
        std::string name;
        torch::Tensor *tensor;
        std::vector<std::int64_t> shape;
    };
    struct FastPath;                     ///< packed weights for CPU inference
    struct Vectors {
        torch::Tensor routing, expression, state;                ///< [N,E,D], [N or 1,E,D], [N,H]
    };

    [[nodiscard]] std::vector<Named> namedParameters();
    [[nodiscard]] std::vector<Named> namedBuffers();
    [[nodiscard]] bool recurrent() const { return m_options.sequential == "gru" && m_options.scoring != "linear"; }
    [[nodiscard]] const Sequential &sequential(int layer) const;
    [[nodiscard]] const torch::Tensor &projector(int layer) const;
    [[nodiscard]] torch::Tensor forwardProjector(int layer, bool training);
    [[nodiscard]] torch::Tensor inferencePotential(const Layer &layer) const;
    [[nodiscard]] double orthoCoefficient() const;

    [[nodiscard]] RoutingStep routeTensors(const RouterInput &input, RouterState &state, Capture capture);
    [[nodiscard]] Vectors vectors(const RouterInput &input, const torch::Tensor &x, RouterState &state);
    void select(RoutingStep &step, const RouterInput &input, const torch::Tensor &q) const;
    void addLosses(RoutingStep &step, const RouterInput &input, const torch::Tensor &q, const torch::Tensor &batchMean) const;
    void keepAverages(Layer &layer, const torch::Tensor &batchMean, const torch::Tensor &potential, const torch::Tensor &penalty, double rows) const;

    SpectraOptions m_options;
    RouterShape m_shape;
    std::vector<Sequential> m_sequential;        ///< one, or one per layer
    std::vector<torch::Tensor> m_projectors;     ///< [E·D,d]: one, or one per layer
    std::vector<Layer> m_layers;
    std::int64_t m_step = 0;
    std::unique_ptr<FastPath> m_fast;
};

} // namespace spectra
