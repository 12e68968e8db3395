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
///
/// Training in several processes (RouterInput::collective), each with its own sequences and at least one row in every call. With scope
/// `batch` the rows of all processes are one batch: the sums and the count behind Ē (and the speciality penalty) are added up once, the
/// columns' log-sums in every Sinkhorn iteration, all with gradient. With `sequence` each sequence is transported where it lies. In every
/// scope the losses are scaled so that their mean over the processes is the loss of one process with the whole batch: the entropy is
/// (processes / rows of all) times the sum over the process's own rows, the orthogonality loss acts on Ē of all rows and is the same
/// everywhere. So a trainer that averages gradients over processes gets one process's gradient. Running averages move by the rows of all
/// processes and stay equal everywhere. The quota, its capacities and what it drops are each process's own.
class SpectraRouter : public Router {
public:
    using Options = SpectraOptions;
    [[nodiscard]] static const std::vector<OptionField<Options>> &table() { return spectraOptionTable(); }
    static constexpr const char *kFamily = "spectra";
    SpectraRouter(std::string name, SpectraOptions options, RouterShape shape);
    ~SpectraRouter() override;

    void initialise(std::uint64_t seed);
    [[nodiscard]] Result<void> load(const TensorLookup &lookup);

    [[nodiscard]] std::string name() const override { return m_name; }
    [[nodiscard]] std::string family() const override { return kFamily; }
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
        torch::Tensor demand;                                    ///< buffer [E], capacity dynamic only
        torch::Tensor meanSum, potentialSum, penaltySum, demandSum, loadSum; ///< of the batches since the last optimiser step
        double meanWeight = 0, potentialWeight = 0, penaltyWeight = 0, demandWeight = 0;
    };
    struct Named {
        std::string name;
        torch::Tensor *tensor;
        std::vector<std::int64_t> shape;
        double fresh = 0;                ///< value of a fresh buffer
        bool optional = false;           ///< fresh where a checkpoint lacks it
    };
    struct FastPath;                     ///< packed weights for CPU inference
    struct Vectors {
        torch::Tensor routing, expression, state;                ///< [N,E,D], [N or 1,E,D], [N,H]
    };

    struct Batch {                       ///< counted rows here, those of all processes, and Ē [E,D] over the latter before its norm
        double rows = 0, total = 0;
        torch::Tensor mean;
    };
    struct Sums {                        ///< of one batch, for the running averages; undefined: not formed
        double rows = 0, transported = 0; ///< counted rows, and those of a transport
        torch::Tensor potential, penalty, demand, load; ///< weighted by rows; assignments by expert before the quota, and those of the causal rule
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
    void addLosses(RoutingStep &step, const RouterInput &input, const torch::Tensor &all, const torch::Tensor &q, const Batch &batch) const;
    [[nodiscard]] torch::Tensor sequentialLoss(const RouterInput &input, const torch::Tensor &q) const;
    [[nodiscard]] torch::Tensor penaltyOver(const torch::Tensor &routing, double total, Collective *collective) const;
    [[nodiscard]] torch::Tensor demandOf(const torch::Tensor &q) const;
    [[nodiscard]] torch::Tensor causalLoad(const Layer &layer, const torch::Tensor &s) const;
    void ascend(Layer &layer) const;
    void keepAverages(Layer &layer, const Batch &batch, Sums sums, Collective *collective) const;

    std::string m_name;                          ///< "spectra", or that of a preset
    SpectraOptions m_options;
    RouterShape m_shape;
    std::vector<Sequential> m_sequential;        ///< one, or one per layer
    std::vector<torch::Tensor> m_projectors;     ///< [E·D,d]: one, or one per layer
    std::vector<Layer> m_layers;
    std::int64_t m_step = 0;
    std::unique_ptr<FastPath> m_fast;
};

} // namespace spectra
