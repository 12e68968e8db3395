// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/traindecoder.h"

#include "engine/train/trainexperts.h"

#include <chrono>
#include <optional>
#include <utility>

namespace spectra::train {
namespace {

using torch::Tensor;

/// Adds the time of its life to a counter, if there is one.
class Stopwatch {
public:
    explicit Stopwatch(double *counter) : m_counter(counter), m_begin(std::chrono::steady_clock::now()) {}
    ~Stopwatch()
    {
        if (m_counter)
            *m_counter += std::chrono::duration<double>(std::chrono::steady_clock::now() - m_begin).count();
    }
    Stopwatch(const Stopwatch &) = delete;
    Stopwatch &operator=(const Stopwatch &) = delete;

private:
    double *m_counter;
    std::chrono::steady_clock::time_point m_begin;
};

BankWeights bankOf(const FfnWeights &f)
{
    return {f.gateUp, f.down, f.gateUpBias, f.downBias};
}

Tensor addFfn(const Tensor &hidden, const Tensor &x, const FfnWeights &f, double scale, bool bf16)
{
    const Assignments all = assignAll(x.size(0));
    return combine(hidden, expertRows(x, {}, all, bankOf(f), bf16), {}, all, scale);
}

RoutingStep detached(const RoutingStep &step)
{
    RoutingStep copy = step;
    for (Tensor *t : {&copy.experts, &copy.weights, &copy.dropped, &copy.logits, &copy.selection, &copy.probabilities, &copy.routingVectors,
                      &copy.expressionVectors, &copy.cost, &copy.gruState, &copy.potentials, &copy.expertInput})
        if (t->defined())
            *t = t->detach();
    for (auto &[name, loss] : copy.losses)
        loss = loss.detach();
    return copy;
}

} // namespace

void TrainDecoder::tell(TrainOutput &record, const RoutingStep &step, const DecoderPass &pass) const
{
    const Tensor experts = step.experts.detach().cpu().contiguous();
    const Tensor mask = pass.routing.mask;
    const std::int64_t n = experts.size(0), slots = experts.size(1);
    const auto *const id = experts.const_data_ptr<std::int64_t>();
    const bool *const counts = mask.defined() ? mask.const_data_ptr<bool>() : nullptr;
    const Tensor dropped = step.dropped.defined() ? step.dropped.detach().cpu().to(torch::kUInt8).contiguous() : Tensor();
    Tensor load = torch::zeros({config.experts}, torch::kInt64);
    std::int64_t counted = 0, lost = 0;
    for (std::int64_t t = 0; t < n; ++t) {
        if (counts && !counts[t])
            continue;
        ++counted;
        if (dropped.defined())
            lost += dropped.const_data_ptr<std::uint8_t>()[t];
        for (std::int64_t s = t * slots; s < (t + 1) * slots; ++s)
            if (id[s] >= 0 && id[s] < config.experts)
                ++load.data_ptr<std::int64_t>()[id[s]];
    }
    record.loads.push_back(load);
    record.dropped.push_back(counted > 0 ? static_cast<double>(lost) / static_cast<double>(counted * config.topK) : 0);
    record.fellBack.push_back(step.fellBack);
    record.violation.push_back(step.violation);
    if (pass.keepSteps)
        record.steps.push_back(detached(step));
}

LayerResult TrainDecoder::experts(const LayerWeights &w, const Tensor &hidden, const Tensor &normed, RouterState &state, const DecoderPass &pass,
                                  TrainOutput *record, bool recomputing) const
{
    RoutingStep step;
    {
        const Stopwatch watch(record ? &record->timing.router : nullptr);
        RouterInput input = pass.routing;
        input.x = normed;
        input.layer = w.ordinal;
        input.recomputing = recomputing;
        Capture capture;
        if (pass.keepSteps)
            capture.add(Field::logits).add(Field::selection).add(Field::probabilities).add(Field::vectors);
        step = router->route(input, state, capture);
    }
    LayerResult result;
    {
        const Stopwatch watch(record ? &record->timing.experts : nullptr);
        const Assignments a = assign(step.experts, config.experts);
        const Tensor &input = step.expertInput.defined() ? step.expertInput : normed;
        const Tensor rows = expertRows(input, step.weightOnInput ? step.weights : Tensor(), a, bankOf(w.experts), pass.bf16);
        if (pass.routing.training && router->needs().expertOutputs)
            router->lossAfterExperts(step, slotOutputs(rows, a));
        result.hidden = combine(hidden, rows, step.weightOnInput ? Tensor() : step.weights, a, config.routedScalingFactor);
        if (config.sharedExperts > 0)
            result.hidden = addFfn(result.hidden, normed, w.shared, config.sharedScalingFactor, pass.bf16);
    }
    result.losses = step.losses;
    if (record)
        tell(*record, step, pass);
    return result;
}

LayerResult TrainDecoder::layer(std::size_t index, const Tensor &x, RouterState &state, const DecoderPass &pass, TrainOutput *record, bool recomputing) const
{
    const LayerWeights &w = weights.layers[index];
    Tensor hidden, normed;
    {
        const Stopwatch watch(record ? &record->timing.attention : nullptr);
        const Tensor qkv = linear({}, rmsNorm(x, w.inputNorm, config.normEpsilon), w.qkv, w.qkvBias, pass.bf16);
        if (record && pass.attentionLogits) {
            const Tensor largest = largestLogits(qkv, pass.cos, pass.sin, pass.sizes).unsqueeze(0);
            record->maxAttentionLogits = record->maxAttentionLogits.defined() ? torch::cat({record->maxAttentionLogits, largest}) : largest;
        }
        hidden = linear(x, attention(qkv, pass.cos, pass.sin, pass.sizes, pass.bf16), w.output, w.outputBias, pass.bf16);
        normed = rmsNorm(hidden, w.postNorm, config.normEpsilon);
    }
    if (w.ordinal >= 0)
        return experts(w, hidden, normed, state, pass, record, recomputing);
    const Stopwatch watch(record ? &record->timing.dense : nullptr);
    return {addFfn(hidden, normed, w.dense, 1, pass.bf16), {}};
}

namespace {

/// What a layer that runs twice is told, and how its results lie in the node's outputs: hidden, then the parts of the state that
/// the layer made anew, then the losses in the order of their names.
struct LayerCall : torch::CustomClassHolder {
    const TrainDecoder *decoder = nullptr;
    std::size_t index = 0;
    std::shared_ptr<const DecoderPass> pass;
    TrainOutput *record = nullptr;       ///< of the first run only
    bool depthMade = false, tokenMade = false;
    std::vector<std::string> losses;

    [[nodiscard]] std::vector<Tensor> run(const Tensor &x, const Tensor &depth, const Tensor &token, bool recomputing)
    {
        RouterState state;
        state.depth = depth;
        state.token = token;
        const LayerResult result = decoder->layer(index, x, state, *pass, record, recomputing);
        record = nullptr;
        std::vector<Tensor> out = {result.hidden};
        depthMade = state.depth.defined() && !state.depth.is_same(depth);
        tokenMade = state.token.defined() && !state.token.is_same(token);
        if (depthMade)
            out.push_back(state.depth);
        if (tokenMade)
            out.push_back(state.token);
        losses.clear();
        for (const auto &[name, loss] : result.losses) {
            losses.push_back(name);
            out.push_back(loss);
        }
        return out;
    }
};

class LayerNode : public torch::autograd::Function<LayerNode> {
public:
    /// `anchor` is a leaf that asks for a gradient and gets none: the layer's weights, whose gradients form in the second run, are
    /// no inputs of this node.
    static torch::autograd::variable_list forward(torch::autograd::AutogradContext *ctx, const Tensor &x, const Tensor & /*anchor*/,
                                                  const std::optional<Tensor> &maybeDepth, const std::optional<Tensor> &maybeToken,
                                                  const c10::intrusive_ptr<LayerCall> &call)
    {
        const Tensor depth = maybeDepth.value_or(Tensor()), token = maybeToken.value_or(Tensor());
        ctx->save_for_backward({x, depth, token});
        ctx->saved_data["call"] = c10::IValue::make_capsule(call);
        ctx->set_materialize_grads(false);
        return call->run(x, depth, token, false);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *ctx, torch::autograd::variable_list gradients)
    {
        const auto saved = ctx->get_saved_variables();
        const auto holder = ctx->saved_data["call"].toCapsule();
        auto *const call = static_cast<LayerCall *>(holder.get());
        const torch::AutoGradMode grad(true);
        std::vector<Tensor> inputs;
        for (const Tensor &t : saved)
            inputs.push_back(t.defined() ? t.detach().set_requires_grad(t.requires_grad()) : t);
        const std::vector<Tensor> outputs = call->run(inputs[0], inputs[1], inputs[2], true);
        std::vector<Tensor> roots, seeds;
        for (std::size_t i = 0; i < outputs.size(); ++i)
            if (gradients[i].defined() && outputs[i].requires_grad()) {
                roots.push_back(outputs[i]);
                seeds.push_back(gradients[i]);
            }
        if (!roots.empty())
            torch::autograd::backward(roots, seeds);
        const auto gradient = [](const Tensor &t) { return t.defined() ? t.grad() : Tensor(); };
        return {gradient(inputs[0]), Tensor(), gradient(inputs[1]), gradient(inputs[2]), Tensor()};
    }
};

} // namespace

LayerResult TrainDecoder::layerAgainInBackward(std::size_t index, const Tensor &x, RouterState &state, std::shared_ptr<const DecoderPass> pass,
                                               TrainOutput *record) const
{
    auto call = c10::make_intrusive<LayerCall>();
    call->decoder = this;
    call->index = index;
    call->pass = std::move(pass);
    call->record = record;
    const Tensor anchor = torch::zeros({1}).set_requires_grad(true);
    const auto maybe = [](const Tensor &t) { return t.defined() ? std::optional<Tensor>(t) : std::optional<Tensor>(); };
    const torch::autograd::variable_list out = LayerNode::apply(x, anchor, maybe(state.depth), maybe(state.token), call);
    LayerResult result;
    std::size_t at = 0;
    result.hidden = out[at++];
    if (call->depthMade)
        state.depth = out[at++];
    if (call->tokenMade)
        state.token = out[at++];
    for (const std::string &name : call->losses)
        result.losses[name] = out[at++];
    return result;
}

} // namespace spectra::train
