// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/bridge/engineclient.h"

#include <mutex>

namespace spectra {

namespace {

class RunEngine : public EngineClient {
public:
    explicit RunEngine(std::shared_ptr<EngineSink> sink) : m_sink(std::move(sink)) {}

    Result<JobId> submit(Request request) override
    {
        const std::lock_guard lock(m_mutex);
        if (!m_engine)
            m_engine = std::make_unique<Engine>(m_sink);
        return m_engine->submit(std::move(request));
    }
    void cancel(JobId job) override
    {
        const std::lock_guard lock(m_mutex);
        if (m_engine)
            m_engine->cancel(job);
    }
    void cancelAll() override
    {
        const std::lock_guard lock(m_mutex);
        if (m_engine)
            m_engine->cancelAll();
    }
    std::vector<BundledModel> bundledModels() const override { return Engine::bundledModels(); }

private:
    std::mutex m_mutex;
    std::shared_ptr<EngineSink> m_sink;
    std::unique_ptr<Engine> m_engine;
};

} // namespace

std::unique_ptr<EngineClient> makeRunEngine(std::shared_ptr<EngineSink> sink)
{
    return std::make_unique<RunEngine>(std::move(sink));
}

} // namespace spectra
