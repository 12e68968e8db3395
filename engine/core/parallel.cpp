// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace spectra {
namespace {

std::atomic<int> g_threads{0};
thread_local bool t_insideParallel = false;

// Waking a sleeping thread takes tens of microseconds, as long as a matrix-vector product of one layer. So a thread that
// has nothing to do looks on for a moment before it sleeps: long enough for the next step of a pass, too short to take
// a core from the GUI.
constexpr std::chrono::microseconds kLookOut{50};

/// True when `ready` became true in time.
template <typename F> bool lookOut(const F &ready)
{
    const auto end = std::chrono::steady_clock::now() + kLookOut;
    do {
        for (int i = 0; i < 16; ++i) {
            if (ready())
                return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

struct Work {
    const std::function<void(std::int64_t, std::int64_t, int)> *body = nullptr;
    std::int64_t n = 0;
    int parts = 0;
    std::atomic<int> next{0};
    std::atomic<int> done{0};
    std::mutex mutex;
    std::condition_variable finished;
    std::exception_ptr error;

    void run()
    {
        t_insideParallel = true;
        for (int part = next.fetch_add(1); part < parts; part = next.fetch_add(1)) {
            try {
                (*body)(n * part / parts, n * (part + 1) / parts, part);
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (!error)
                    error = std::current_exception();
            }
            if (done.fetch_add(1) + 1 == parts) {
                const std::lock_guard lock(mutex);
                finished.notify_all();
            }
        }
        t_insideParallel = false;
    }
};

/// A pool that sleeps when idle: threads that go on spinning starve the GUI on a two-core machine.
class Pool {
public:
    static Pool &instance()
    {
        static Pool pool;
        return pool;
    }
    void offer(const std::shared_ptr<Work> &work, int helpers)
    {
        {
            const std::lock_guard lock(m_mutex);
            while (static_cast<int>(m_threads.size()) < helpers)
                m_threads.emplace_back([this](const std::stop_token &stop) { loop(stop); });
            for (int i = 0; i < helpers; ++i)
                m_queue.push_back(work);
            m_waiting.store(static_cast<int>(m_queue.size()), std::memory_order_release);
            if (m_sleeping == 0)
                return;
        }
        m_wake.notify_all();
    }
    ~Pool()
    {
        for (std::jthread &t : m_threads)
            t.request_stop();
        m_wake.notify_all();
    }

private:
    void loop(const std::stop_token &stop)
    {
        for (;;) {
            std::shared_ptr<Work> work;
            (void)lookOut([this] { return m_waiting.load(std::memory_order_acquire) > 0; });
            {
                std::unique_lock lock(m_mutex);
                ++m_sleeping;
                const bool there = m_wake.wait(lock, stop, [this] { return !m_queue.empty(); });
                --m_sleeping;
                if (!there)
                    return;
                work = std::move(m_queue.front());
                m_queue.pop_front();
                m_waiting.store(static_cast<int>(m_queue.size()), std::memory_order_release);
            }
            work->run();
        }
    }
    std::mutex m_mutex;
    std::condition_variable_any m_wake;
    std::deque<std::shared_ptr<Work>> m_queue;
    std::atomic<int> m_waiting{0}; ///< entries of the queue, to be looked at without the lock
    int m_sleeping = 0;            ///< threads that must be woken
    std::vector<std::jthread> m_threads; // last: joined before the queue goes
};

} // namespace

int threadCount()
{
    const int set = g_threads.load();
    return set > 0 ? set : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void setThreadCount(int threads)
{
    g_threads.store(std::max(0, threads));
}

void parallelFor(std::int64_t n, int parts, const std::function<void(std::int64_t, std::int64_t, int)> &body)
{
    if (n <= 0)
        return;
    if (parts <= 0)
        parts = threadCount();
    parts = static_cast<int>(std::min<std::int64_t>(parts, n));
    const int helpers = std::min(threadCount(), parts) - 1;
    if (parts == 1 || helpers <= 0 || t_insideParallel) {
        for (int part = 0; part < parts; ++part)
            body(n * part / parts, n * (part + 1) / parts, part);
        return;
    }
    const auto work = std::make_shared<Work>();
    work->body = &body;
    work->n = n;
    work->parts = parts;
    Pool::instance().offer(work, helpers);
    work->run();
    if (lookOut([&] { return work->done.load(std::memory_order_acquire) == parts; })) {
        const std::lock_guard lock(work->mutex); // whoever ended last has let go of it
        if (work->error)
            std::rethrow_exception(work->error);
        return;
    }
    std::unique_lock lock(work->mutex);
    work->finished.wait(lock, [&] { return work->done.load() == parts; });
    if (work->error)
        std::rethrow_exception(work->error);
}

} // namespace spectra
