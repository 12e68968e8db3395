// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/bridge/enginebridge.h"

#include <algorithm>

namespace spectra {

EngineBridge::EngineBridge(EngineFactory factory, QObject *parent) : QObject(parent)
{
    m_timer.setSingleShot(true);
    m_timer.setTimerType(Qt::PreciseTimer);
    connect(&m_timer, &QTimer::timeout, this, &EngineBridge::deliver);
    // The engine keeps a share of its sink, but never outlives this object: close() joins it first.
    m_client = factory(std::shared_ptr<EngineSink>(std::shared_ptr<void>(), static_cast<EngineSink *>(this)));
}

EngineBridge::~EngineBridge()
{
    close();
}

Result<JobId> EngineBridge::submit(Request request)
{
    if (!m_client)
        return workError("the program is closing");
    Result<JobId> job = m_client->submit(std::move(request));
    if (job)
        m_openJobs.push_back(*job);
    return job;
}

void EngineBridge::cancel(JobId job)
{
    if (m_client)
        m_client->cancel(job);
}

void EngineBridge::cancelAll()
{
    if (m_client)
        m_client->cancelAll();
}

void EngineBridge::close()
{
    m_timer.stop();
    m_client.reset();
    const std::lock_guard lock(m_mutex);
    m_events.clear();
    m_openJobs.clear();
}

std::vector<BundledModel> EngineBridge::bundledModels() const
{
    return m_client ? m_client->bundledModels() : std::vector<BundledModel>();
}

void EngineBridge::started(JobId job)
{
    post({.kind = Event::Kind::started, .job = job});
}

void EngineBridge::progress(JobId job, const Progress &progress)
{
    post({.kind = Event::Kind::progress, .job = job, .progress = progress});
}

void EngineBridge::tokens(JobId job, std::span<const TokenEvent> tokens)
{
    post({.kind = Event::Kind::tokens, .job = job, .tokens = {tokens.begin(), tokens.end()}});
}

void EngineBridge::traceOpened(JobId job, std::shared_ptr<const TraceSource> trace)
{
    post({.kind = Event::Kind::trace, .job = job, .trace = std::move(trace)});
}

void EngineBridge::finished(JobId job, Result<Summary> result)
{
    post({.kind = Event::Kind::finished,
          .job = job,
          .result = std::make_shared<const Result<Summary>>(std::move(result))});
}

void EngineBridge::post(Event event)
{
    bool wakeNow = false;
    {
        const std::lock_guard lock(m_mutex);
        Event *last = m_events.empty() ? nullptr : &m_events.back();
        Event *before = m_events.size() > 1 ? &m_events[m_events.size() - 2] : nullptr;
        const auto same = [&](const Event *e) { return e && e->kind == event.kind && e->job == event.job; };
        // Progress and tokens usually alternate: look past one event of the other kind.
        const bool past = last && last->job == event.job
                          && (last->kind == Event::Kind::progress || last->kind == Event::Kind::tokens);
        Event *target = same(last) ? last : past && same(before) ? before : nullptr;
        if (target && event.kind == Event::Kind::progress)
            target->progress = std::move(event.progress);
        else if (target && event.kind == Event::Kind::tokens)
            std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(target->tokens));
        else
            m_events.push_back(std::move(event));
        wakeNow = !m_woken;
        m_woken = true;
    }
    if (wakeNow)
        QMetaObject::invokeMethod(this, &EngineBridge::wake, Qt::QueuedConnection);
}

void EngineBridge::wake()
{
    const qint64 passed = m_sinceDelivery.isValid() ? m_sinceDelivery.elapsed() : deliveryIntervalMs;
    if (passed >= deliveryIntervalMs)
        deliver();
    else
        m_timer.start(static_cast<int>(deliveryIntervalMs - passed));
}

void EngineBridge::deliver()
{
    std::vector<Event> events;
    {
        const std::lock_guard lock(m_mutex);
        events.swap(m_events);
        m_woken = false;
    }
    m_sinceDelivery.start();
    for (Event &event : events) {
        switch (event.kind) {
        case Event::Kind::started:
            Q_EMIT jobStarted(event.job);
            break;
        case Event::Kind::progress:
            Q_EMIT jobProgress(event.job, event.progress);
            break;
        case Event::Kind::tokens:
            Q_EMIT jobTokens(event.job, std::make_shared<const std::vector<TokenEvent>>(std::move(event.tokens)));
            break;
        case Event::Kind::trace:
            Q_EMIT jobTraceOpened(event.job, std::move(event.trace));
            break;
        case Event::Kind::finished:
            std::erase(m_openJobs, event.job);
            Q_EMIT jobFinished(event.job, std::move(event.result));
            break;
        }
    }
}

} // namespace spectra
