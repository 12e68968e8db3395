// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/prompt/promptrunner.h"

#include "engine/core/capture.h"

namespace spectra {

ModelSpec modelSpecOf(const PromptSettings &settings)
{
    ModelSpec spec;
    spec.model = settings.model.toStdString();
    if (settings.upcycle) {
        UpcycleSettings upcycle;
        upcycle.experts = settings.experts;
        upcycle.topK = settings.topK;
        upcycle.router = "spectra";
        upcycle.set = {"router_dim=" + std::to_string(settings.routerDim)};
        spec.upcycle = upcycle;
    }
    return spec;
}

Result<void> checkSettings(const PromptSettings &settings)
{
    if (settings.model.isEmpty())
        return usageError("no model is chosen", "Prompt", "Choose a bundled model, a model folder or a .gguf file.");
    if (settings.upcycle && settings.topK > settings.experts)
        return usageError("top-k is larger than the number of experts", "Prompt settings", "Lower top-k.");
    if (auto capture = Capture::parse(settings.capture.toStdString()); !capture)
        return capture.error().in("Prompt settings");
    return {};
}

PromptRunner::PromptRunner(Session &session, EngineBridge &bridge, Submit submit, QObject *parent)
    : QObject(parent), m_session(session), m_bridge(bridge), m_submit(std::move(submit))
{
    connect(&bridge, &EngineBridge::jobProgress, this, [this](JobId job, const Progress &progress) {
        if (m_job == job)
            Q_EMIT stageChanged(QString::fromStdString(progress.stage));
    });
    connect(&bridge, &EngineBridge::jobTraceOpened, this, [this](JobId job, const std::shared_ptr<const TraceSource> &source) {
        if (m_job != job || !source)
            return;
        m_source = source;
        m_trace = m_session.addTrace(source, m_title);
        m_session.setCurrent(m_trace);
        m_sinceGrowth.start();
        Q_EMIT traceAdded(m_trace);
    });
    connect(&bridge, &EngineBridge::jobTokens, this,
            [this](JobId job, const std::shared_ptr<const std::vector<TokenEvent>> &tokens) {
                if (m_job != job)
                    return;
                m_tokens += static_cast<qint64>(tokens->size());
                Q_EMIT tokensCame(tokens);
                grow(false);
            });
    connect(&bridge, &EngineBridge::jobFinished, this, [this](JobId job, const std::shared_ptr<const Result<Summary>> &result) {
        if (m_job == job)
            finish(*result);
    });
}

Result<void> PromptRunner::runText(const QString &text, const PromptSettings &settings)
{
    if (text.trimmed().isEmpty())
        return usageError("the prompt is empty", "Prompt", "Type a text, or choose one under Samples.");
    SPECTRA_CHECK(checkSettings(settings));
    GenerateRequest request;
    request.spec = modelSpecOf(settings);
    request.text = text.toStdString();
    request.maxNewTokens = settings.maxNewTokens;
    request.sampling = {settings.temperature, settings.topP, settings.sampleTopK};
    request.capture = *Capture::parse(settings.capture.toStdString());
    return run(std::move(request), tr("Prompt %1").arg(m_runs + 1));
}

Result<void> PromptRunner::runPrompts(std::vector<Prompt> prompts, const PromptSettings &settings, const QString &title)
{
    if (prompts.empty())
        return usageError("there are no prompts", title.toStdString(), "Choose a file with at least one text.");
    SPECTRA_CHECK(checkSettings(settings));
    TraceRequest request;
    request.spec = modelSpecOf(settings);
    request.prompts = std::move(prompts);
    request.maxNewTokens = settings.maxNewTokens;
    request.sampling = {settings.temperature, settings.topP, settings.sampleTopK};
    request.capture = *Capture::parse(settings.capture.toStdString());
    return run(std::move(request), title);
}

Result<void> PromptRunner::run(Request request, const QString &title)
{
    if (m_job)
        return usageError("a run is under way", "Prompt", "Stop it first.");
    SPECTRA_TRY(const JobId job, m_submit(std::move(request), title));
    ++m_runs;
    m_job = job;
    m_title = title;
    m_trace = 0;
    m_tokens = 0;
    m_source.reset();
    Q_EMIT started();
    Q_EMIT runningChanged(true);
    return {};
}

void PromptRunner::stop()
{
    if (m_job)
        m_bridge.cancel(*m_job);
}

void PromptRunner::grow(bool now)
{
    if (m_trace == 0 || !m_source || (!now && m_sinceGrowth.elapsed() < growthIntervalMs))
        return;
    m_sinceGrowth.start();
    m_session.updateTrace(m_trace, m_source); // a trace that was closed meanwhile is ignored
}

void PromptRunner::finish(const Result<Summary> &result)
{
    m_job.reset();
    if (result.ok() && result->trace)
        m_source = result->trace;
    if (m_trace == 0 && m_source) {
        m_trace = m_session.addTrace(m_source, m_title);
        m_session.setCurrent(m_trace);
        Q_EMIT traceAdded(m_trace);
    } else {
        grow(true);
    }
    m_source.reset();
    Q_EMIT runningChanged(false);
    if (result.ok())
        Q_EMIT done(*result);
    else
        Q_EMIT failed(result.error());
}

} // namespace spectra
