// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/spectrarouter.h"
#include "engine/rule/gru.h"
#include "engine/rule/osr.h"

#include <vector>

namespace spectra {

/// Inference on the CPU through the kernels of engine/rule. Holds the weights rearranged for those kernels; rearranges them again
/// when a tensor was written to since.
struct SpectraRouter::FastPath {
    explicit FastPath(const SpectraRouter &router);
    [[nodiscard]] RoutingStep route(const SpectraRouter &router, const RouterInput &input, RouterState &state, Capture capture);

private:
    /// Tells whether a tensor's values may have changed.
    struct Stamp {
        const void *data = nullptr;
        std::int64_t version = -1;
        [[nodiscard]] bool renew(const torch::Tensor &tensor);
    };
    struct Recurrence {
        rule::PackedMatrix input, recurrent;
        Stamp stamps[4];
    };
    struct Projector {
        rule::PackedMatrix matrix;
        Stamp stamp;
    };
    struct Tables {                      ///< of one layer's buffers
        std::vector<float> repulsion, potential;
        Stamp mean, potentialStamp;
        double epsilon = -1;
    };

    void refresh(const SpectraRouter &router, int layer);
    void vectors(const SpectraRouter &router, const RouterInput &input, RouterState &state, torch::Tensor &routing, torch::Tensor &expression);
    void lookAhead(const SpectraRouter &router, const RouterInput &input, RouterState &state);
    void transport(const SpectraRouter &router, const RouterInput &input, const torch::Tensor &expression, const torch::Tensor &s, torch::Tensor &cost,
                   torch::Tensor &q, RoutingStep &step) const;
    [[nodiscard]] torch::Tensor domainPlan(const SpectraRouter &router, const RouterInput &input, const torch::Tensor &routing, const torch::Tensor &s) const;

    std::vector<Recurrence> m_recurrences;
    std::vector<Projector> m_projectors;
    std::vector<Tables> m_tables;
    std::vector<float> m_scratch;
    rule::Executor m_executor;
};

} // namespace spectra
