// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/engine.h"

#include "engine/core/parallel.h"
#include "engine/run/job.h"

#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace spectra {
namespace {

constexpr std::size_t kQueueLength = 64;

Result<Summary> dispatch(const JobContext &context, const Request &request)
{
    return std::visit(
        [&](const auto &r) -> Result<Summary> {
            using R = std::decay_t<decltype(r)>;
            if constexpr (std::is_same_v<R, LoadRequest>)
                return runLoad(context, r);
            else if constexpr (std::is_same_v<R, UnloadRequest>) {
                if (!context.models->drop(r.handle))
                    return usageError(fmt::format("no model has the handle {}", r.handle));
                return Summary{};
            } else if constexpr (std::is_same_v<R, TraceRequest>)
                return runTrace(context, r);
            else if constexpr (std::is_same_v<R, GenerateRequest>)
                return runGenerate(context, r);
            else if constexpr (std::is_same_v<R, LogitsRequest>)
                return runLogits(context, r);
            else if constexpr (std::is_same_v<R, TrainRequest>)
                return runTrain(context, r);
            else if constexpr (std::is_same_v<R, UpcycleRequest>)
                return runUpcycle(context, r);
            else if constexpr (std::is_same_v<R, EvalRequest>)
                return runEval(context, r);
            else if constexpr (std::is_same_v<R, RomaBankRequest>)
                return runRomaBank(context, r);
            else
                return runCalibrate(context, r);
        },
        request);
}

/// The border where exceptions of torch and of the standard library become Errors.
Result<Summary> guarded(const JobContext &context, const Request &request)
{
    try {
        // Not InferenceMode: its tensors keep no version, by which routers see that calibration has changed their buffers.
        // The passes set it themselves.
        const torch::NoGradGuard noGrad;
        return dispatch(context, request);
    } catch (const c10::OutOfMemoryError &error) {
        return workError("out of memory on the device", error.what_without_backtrace());
    } catch (const c10::Error &error) {
        const std::string what = error.what_without_backtrace();
        if (what.find("can't allocate memory") != std::string::npos || what.find("not enough memory") != std::string::npos)
            return workError("out of memory", {}, "a smaller model, --seq-len or --batch");
        return bugError(what, "torch");
    } catch (const std::bad_alloc &) {
        return workError("out of memory", {}, "a smaller model, --seq-len or --batch");
    } catch (const std::exception &error) {
        return bugError(error.what(), "engine");
    }
}

} // namespace

struct Engine::Private {
    struct Job {
        JobId id;
        Request request;
        std::stop_source stop;
    };
    std::shared_ptr<EngineSink> sink;
    int threads = 0;
    std::mutex mutex;
    std::condition_variable_any wake;
    std::deque<std::shared_ptr<Job>> queue;
    std::shared_ptr<Job> running;
    JobId next = 1;
    bool stopping = false;
    std::jthread thread; // last: joined before the rest goes

    void loop(const std::stop_token &stop)
    {
        if (threads <= 0)
            threads = threadCount();
        at::set_num_threads(threads);
        ModelStore models;
        for (;;) {
            std::shared_ptr<Job> job;
            {
                std::unique_lock lock(mutex);
                wake.wait(lock, stop, [this] { return !queue.empty(); });
                if (queue.empty())
                    return;
                job = std::move(queue.front());
                queue.pop_front();
                running = job;
            }
            if (job->stop.stop_requested()) {
                sink->finished(job->id, cancelledError());
            } else {
                sink->started(job->id);
                const JobContext context{job->id, sink.get(), &models, job->stop.get_token(), threads};
                auto result = guarded(context, job->request);
                // A request that came while the last step ran still ends as what it was: done.
                sink->finished(job->id, std::move(result));
            }
            const std::lock_guard lock(mutex);
            running.reset();
        }
    }
};

Engine::Engine(std::shared_ptr<EngineSink> sink, int threads) : d(std::make_unique<Private>())
{
    d->sink = std::move(sink);
    d->threads = threads;
    d->thread = std::jthread([p = d.get()](const std::stop_token &stop) { p->loop(stop); });
}

Engine::~Engine()
{
    {
        const std::lock_guard lock(d->mutex);
        d->stopping = true;
    }
    cancelAll();
    d->thread.request_stop();
    d->wake.notify_all();
    d->thread.join();
}

Result<JobId> Engine::submit(Request request)
{
    SPECTRA_CHECK(checkRequest(request));
    const std::lock_guard lock(d->mutex);
    if (d->stopping)
        return workError("the engine is stopping");
    if (d->queue.size() >= kQueueLength)
        return workError(fmt::format("{} jobs wait already", d->queue.size()), "engine", "wait, or cancel some");
    auto job = std::make_shared<Private::Job>();
    job->id = d->next++;
    job->request = std::move(request);
    d->queue.push_back(job);
    d->wake.notify_all();
    return job->id;
}

void Engine::cancel(JobId id)
{
    const std::lock_guard lock(d->mutex);
    if (d->running && d->running->id == id)
        d->running->stop.request_stop();
    for (const auto &job : d->queue)
        if (job->id == id)
            job->stop.request_stop();
}

void Engine::cancelAll()
{
    const std::lock_guard lock(d->mutex);
    if (d->running)
        d->running->stop.request_stop();
    for (const auto &job : d->queue)
        job->stop.request_stop();
}

} // namespace spectra
