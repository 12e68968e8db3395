// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainer.h"

#include "engine/train/qkclip.h"
#include "engine/train/statefile.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

namespace spectra {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start)
{
    return std::chrono::duration<double>(Clock::now() - start).count();
}

bool finite(const torch::Tensor &t)
{
    return torch::isfinite(t).all().item<bool>();
}

/// Every gradient in one buffer, so that processes exchange one message a step. Behind them stands for each parameter whether it has
/// one: what no process trains must not get a gradient of 0, by which weight decay would move it.
void averageGradients(const std::vector<TrainParameter> &parameters, Collective &collective)
{
    std::int64_t count = 0;
    for (const TrainParameter &p : parameters)
        count += p.value.numel();
    auto all = torch::zeros({count + static_cast<std::int64_t>(parameters.size())}, torch::kFloat32);
    auto has = all.narrow(0, count, static_cast<std::int64_t>(parameters.size()));
    std::int64_t at = 0, number = 0;
    for (const TrainParameter &p : parameters) {
        if (p.value.grad().defined()) {
            all.narrow(0, at, p.value.numel()).copy_(p.value.grad().reshape({-1}));
            has[number] = 1;
        }
        at += p.value.numel();
        ++number;
    }
    collective.sumInPlace(all);
    all /= collective.size();
    at = number = 0;
    for (const TrainParameter &p : parameters) {
        if (has[number++].item<float>() == 0) {
            at += p.value.numel();
            continue;
        }
        const auto part = all.narrow(0, at, p.value.numel()).view(p.value.sizes());
        torch::Tensor value = p.value;
        if (value.grad().defined())
            value.mutable_grad().copy_(part);
        else
            value.mutable_grad() = part.clone();
        at += p.value.numel();
    }
}

/// What routers keep of their own batches (biases, running means) must stay the same in every process.
void averageBuffers(const Router &router, Collective &collective)
{
    for (auto &[name, buffer] : router.buffers()) {
        if (!buffer.is_floating_point())
            continue;
        auto sum = buffer.to(torch::kFloat64).contiguous();
        collective.sumInPlace(sum);
        torch::Tensor target = buffer;
        target.copy_(sum / collective.size());
    }
}

/// Logits above `limit` in this step's batches shrink the query and key rows of their head.
void clipAttention(const TrainModel &model, const torch::Tensor &maxLogits, double limit)
{
    const ModelConfig &c = model.config();
    for (const TrainParameter &p : model.parameters())
        if (p.name.ends_with("self_attn.qkv.weight")) {
            const std::string bias = p.name.substr(0, p.name.size() - 6) + "bias";
            torch::Tensor biasValue;
            for (const TrainParameter &other : model.parameters())
                if (other.name == bias)
                    biasValue = other.value;
            qkClip(p.value, biasValue, c.heads, c.kvHeads, c.headDim, maxLogits[p.layer], limit);
        }
}

} // namespace

Result<std::unique_ptr<Trainer>> Trainer::create(std::unique_ptr<TrainModel> model, TrainerOptions options)
{
    std::unique_ptr<Trainer> trainer(new Trainer);
    trainer->m_options = std::move(options);
    for (const TrainParameter &p : model->parameters()) {
        const bool shared = p.name.find(".shared_expert") != std::string::npos;
        const bool frozen = (trainer->m_options.routerOnly && p.group != ParameterGroup::router) || (shared && trainer->m_options.freezeShared);
        torch::Tensor value = p.value;
        value.set_requires_grad(!frozen);
        if (!frozen)
            trainer->m_parameters.push_back(p);
    }
    if (trainer->m_parameters.empty())
        return usageError("nothing is trained: the model has no router, and everything else is frozen", "model.start",
                          "start from a model with experts, or train all of it (start: upcycle)");
    SPECTRA_TRY(trainer->m_optimizer, makeOptimizer(trainer->m_parameters, trainer->m_options.optimizer));
    trainer->m_model = std::move(model);
    return trainer;
}

void Trainer::gather(StepReport &report, const TrainOutput &output, std::vector<torch::Tensor> &loads, double share) const
{
    report.loss += share * output.loss.item<double>();
    for (const auto &[name, loss] : output.routerLosses)
        report.routerLosses[name] += share * loss.item<double>();
    const auto add = [share](std::vector<double> &to, const std::vector<double> &from) {
        to.resize(from.size(), 0);
        for (std::size_t i = 0; i < from.size(); ++i)
            to[i] += share * from[i];
    };
    add(report.dropped, output.dropped);
    add(report.fellBack, output.fellBack);
    add(report.violation, output.violation);
    if (loads.empty())
        for (const torch::Tensor &load : output.loads)
            loads.push_back(load.to(torch::kFloat64).clone());
    else
        for (std::size_t l = 0; l < loads.size(); ++l)
            loads[l] += output.loads[l];
    report.timing.attention += output.timing.attention;
    report.timing.router += output.timing.router;
    report.timing.experts += output.timing.experts;
    report.timing.dense += output.timing.dense;
    report.timing.head += output.timing.head;
}

void Trainer::share(StepReport &report, std::vector<torch::Tensor> &loads)
{
    Collective *const collective = m_options.pass.collective;
    if (collective && collective->size() > 1) {
        std::vector<double> values = {report.loss};
        for (const auto &[name, loss] : report.routerLosses)
            values.push_back(loss);
        auto all = torch::tensor(values, torch::kFloat64);
        collective->sumInPlace(all);
        all /= collective->size();
        report.loss = all[0].item<double>();
        std::int64_t i = 1;
        for (auto &[name, loss] : report.routerLosses)
            loss = all[i++].item<double>();
        for (torch::Tensor &load : loads)
            collective->sumInPlace(load);
    }
    for (const torch::Tensor &load : loads) {
        const auto parts = (load / load.sum().clamp_min(1)).contiguous();
        report.loads.emplace_back(parts.data_ptr<double>(), parts.data_ptr<double>() + parts.numel());
    }
}

std::string Trainer::firstBadPlace(const TrainBatch &batch)
{
    const torch::NoGradGuard noGrad;
    for (const TrainParameter &p : m_model->parameters())
        if (!finite(p.value))
            return p.layer >= 0 ? fmt::format("layer {}: weights {}", p.layer, p.name) : "weights " + p.name;
    std::string place = "the output head";
    TrainPassOptions options = m_options.pass;
    options.activationCheckpointing = false;
    options.collective = nullptr; // the other processes do not come along
    options.onHidden = [&](std::int64_t layer, const torch::Tensor &hidden) {
        if (place == "the output head" && !finite(hidden))
            place = layer < 0 ? "the embedding" : fmt::format("layer {}", layer);
    };
    // Only to find the place: whether it ends well does not matter any more.
    (void)m_model->forward(batch, options);
    return place;
}

Result<StepReport> Trainer::step(std::span<const TrainBatch> batches, std::stop_token stop)
{
    const torch::AutoGradMode withGradients(true);
    if (batches.empty())
        return bugError("a step without a batch", "trainer");
    const auto begin = Clock::now();
    StepReport report;
    report.step = m_steps + 1;
    const auto fails = [&](const std::string &what, const std::string &place) {
        m_optimizer->zeroGradients();
        return workError(what, fmt::format("step {}: {}", report.step, place),
                         "lower the learning rate, raise the warm-up, or clip more; earlier checkpoints are intact");
    };
    m_optimizer->zeroGradients();
    const double share = 1.0 / static_cast<double>(batches.size());
    std::vector<torch::Tensor> loads;
    torch::Tensor attention;
    TrainPassOptions pass = m_options.pass;
    pass.attentionLogits = m_options.qkClip > 0;
    for (const TrainBatch &batch : batches) {
        if (stop.stop_requested())
            return cancelledError();
        auto start = Clock::now();
        // Kept until the next micro-batch: a layer that runs again in the backward pass sees the same ones.
        if (Router *const router = m_model->router())
            router->setManifold(batch.manifold);
        SPECTRA_TRY(TrainOutput output, m_model->forward(batch, pass, stop));
        report.forward += since(start);
        report.tokens += batch.ids.numel();
        if (!std::isfinite(output.loss.item<double>()))
            return fails("the loss is not finite", firstBadPlace(batch));
        torch::Tensor loss = output.loss;
        for (const auto &[name, term] : output.routerLosses) {
            if (!std::isfinite(term.item<double>()))
                return fails("the router's loss \"" + name + "\" is not finite", firstBadPlace(batch));
            loss = loss + term;
        }
        gather(report, output, loads, share);
        if (output.maxAttentionLogits.defined())
            attention = attention.defined() ? torch::maximum(attention, output.maxAttentionLogits) : output.maxAttentionLogits;
        start = Clock::now();
        // Dividing the loss keeps the sum of gradients what one large batch would give.
        (loss * share).backward();
        report.backward += since(start);
    }
    const auto start = Clock::now();
    Collective *const collective = m_options.pass.collective;
    if (collective && collective->size() > 1)
        averageGradients(m_parameters, *collective);
    report.gradients = gradientNorms(m_parameters);
    if (!report.gradients.finite)
        return fails("a gradient is not finite",
                     report.gradients.badLayer >= 0 ? fmt::format("layer {}: {}", report.gradients.badLayer, report.gradients.badName) : report.gradients.badName);
    {
        const torch::NoGradGuard noGrad;
        this->share(report, loads);
        report.rate = m_options.schedule.factor(m_steps);
        GroupRates rates = m_options.peakRates;
        for (double &rate : rates)
            rate *= report.rate;
        if (!m_options.schedule.routerLearns(m_steps))
            rates[static_cast<std::size_t>(ParameterGroup::router)] = 0;
        const double scale = m_options.clip > 0 && report.gradients.all > m_options.clip ? m_options.clip / report.gradients.all : 1;
        m_optimizer->step(rates, scale);
        if (attention.defined() && collective && collective->size() > 1) {
            // The largest of all processes, by the one operation that there is: each writes its own row.
            auto all = torch::zeros({collective->size(), attention.numel()}, torch::kFloat64);
            all[collective->rank()] = attention.reshape({-1}).to(torch::kFloat64);
            collective->sumInPlace(all);
            attention = std::get<0>(all.max(0)).view(attention.sizes());
        }
        if (attention.defined() && !m_options.routerOnly)
            clipAttention(*m_model, attention, m_options.qkClip);
        if (Router *const router = m_model->router()) {
            router->afterOptimizerStep(loads);
            if (collective && collective->size() > 1)
                averageBuffers(*router, *collective);
        }
    }
    ++m_steps;
    report.optimizer = since(start);
    report.seconds = since(begin);
    return report;
}

std::int64_t Trainer::processes() const
{
    return m_options.pass.collective ? m_options.pass.collective->size() : 1;
}

std::map<std::string, std::uint64_t> Trainer::memory() const
{
    std::map<std::string, std::uint64_t> bytes{{"weights", 0}, {"gradients", 0}, {"optimizer", 0}};
    for (const TrainParameter &p : m_model->parameters())
        bytes["weights"] += p.value.nbytes();
    if (const Router *const router = m_model->router())
        for (const auto &[name, buffer] : router->buffers())
            bytes["weights"] += buffer.nbytes();
    for (const TrainParameter &p : m_parameters)
        if (p.value.grad().defined())
            bytes["gradients"] += p.value.grad().nbytes();
    for (const auto &[name, tensor] : m_optimizer->state())
        bytes["optimizer"] += tensor.nbytes();
    return bytes;
}

Result<void> Trainer::saveState(const std::filesystem::path &folder, std::stop_token stop) const
{
    return writeState(folder / "optimizer", m_optimizer->state(), {{"steps", m_steps}, {"processes", processes()}}, std::move(stop));
}

Result<void> Trainer::loadState(const std::filesystem::path &folder)
{
    const auto place = folder / "optimizer";
    SPECTRA_TRY(const StoredState state, readState(place));
    const auto steps = state.numbers.find("steps");
    if (steps == state.numbers.end())
        return inputError("does not say how many steps were done", place.string(), "continue from an earlier checkpoint");
    // Another number of processes would take other parts of the order of the data, and another global batch.
    if (const auto stored = state.numbers.find("processes"); stored != state.numbers.end() && stored->second != processes())
        return inputError(fmt::format("was trained by {} processes, and there are {}", stored->second, processes()), place.string(),
                          fmt::format("continue with {}", stored->second == 1 ? "one process" : fmt::format("mpirun -n {}", stored->second)));
    if (auto loaded = m_optimizer->load(state.tensors); !loaded.ok())
        return loaded.error().in(place.string());
    m_steps = steps->second;
    if (m_model->router())
        m_model->router()->setTrainingStep(m_steps);
    return {};
}

} // namespace spectra
