// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobrunner.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <optional>
#include <thread>
#include <unistd.h>

namespace spectra::cli {
namespace {

/// The write end of the guard's pipe: all that a signal handler may touch.
std::atomic<int> g_signalPipe{-1};

extern "C" void onInterrupt(int)
{
    const int fd = g_signalPipe.load();
    const char byte = 1;
    if (fd >= 0 && ::write(fd, &byte, 1) < 0)
        ::_exit(130);
}

std::string remainingText(double seconds)
{
    const auto s = static_cast<long>(seconds + 0.5);
    if (s < 60)
        return fmt::format("{} s", s);
    return s < 3600 ? fmt::format("{} min {:02} s", s / 60, s % 60) : fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

/// Prints progress; called from one thread at a time.
class Printer {
public:
    Printer() : m_terminal(::isatty(STDERR_FILENO) == 1) {}
    ~Printer() { endLine(); }

    void operator()(const Progress &p)
    {
        const auto now = std::chrono::steady_clock::now();
        if (p.stage != m_stage) {
            endLine();
            m_stage = p.stage;
            m_start = now;
            m_startDone = p.done;
            m_lastTenth = -1;
        }
        const double elapsed = std::chrono::duration<double>(now - m_start).count();
        const double rate = elapsed > 0.2 ? static_cast<double>(p.done - m_startDone) / elapsed : 0;
        std::string line = p.stage;
        if (p.total > 0)
            line += fmt::format(": {} of {} {}", p.done, p.total, p.unit);
        else if (p.done > 0)
            line += fmt::format(": {} {}", p.done, p.unit);
        if (rate > 0)
            line += rate >= 10 ? fmt::format(", {:.0f} {}/s", rate, p.unit) : fmt::format(", {:.2f} {}/s", rate, p.unit);
        if (rate > 0 && p.total > p.done)
            line += ", " + remainingText(static_cast<double>(p.total - p.done) / rate) + " left";
        if (m_terminal) {
            if (now - m_shown < std::chrono::milliseconds(100) && p.done != p.total)
                return;
            m_shown = now;
            fmt::print(stderr, "\r\033[K{}", line);
            std::fflush(stderr);
            m_open = true;
            return;
        }
        const int tenth = p.total > 0 ? static_cast<int>(p.done * 10 / p.total) : 0;
        if (tenth > m_lastTenth) {
            m_lastTenth = tenth;
            fmt::print(stderr, "{}\n", line);
        }
    }

private:
    void endLine()
    {
        if (m_open)
            fmt::print(stderr, "\r\033[K");
        m_open = false;
    }
    bool m_terminal, m_open = false;
    std::string m_stage;
    std::chrono::steady_clock::time_point m_start, m_shown;
    std::int64_t m_startDone = 0;
    int m_lastTenth = -1;
};

/// Waits for the one job of a command.
class WaitingSink : public EngineSink {
public:
    WaitingSink(const Common &common, ProgressFunction progress) : m_common(common), m_progress(std::move(progress)) {}
    void note(JobId, const std::string &text) override { cli::note(m_common, text); }
    void progress(JobId, const Progress &p) override
    {
        if (m_progress)
            m_progress(p);
    }
    void finished(JobId, Result<Summary> result) override
    {
        {
            const std::lock_guard lock(m_mutex);
            m_result = std::move(result);
        }
        m_changed.notify_all();
    }
    Result<Summary> wait()
    {
        std::unique_lock lock(m_mutex);
        m_changed.wait(lock, [this] { return m_result.has_value(); });
        m_progress = {};
        return std::move(*m_result);
    }

private:
    const Common &m_common;
    ProgressFunction m_progress;
    std::mutex m_mutex;
    std::condition_variable m_changed;
    std::optional<Result<Summary>> m_result;
};

} // namespace

struct InterruptGuard::Private {
    int readEnd = -1, writeEnd = -1;
    struct sigaction oldInt {}, oldTerm {};
    std::stop_source source;
    std::thread listener;
};

InterruptGuard::InterruptGuard() : d(std::make_unique<Private>())
{
    int ends[2];
    if (::pipe(ends) != 0)
        return;
    d->readEnd = ends[0];
    d->writeEnd = ends[1];
    g_signalPipe.store(d->writeEnd);
    struct sigaction action {};
    action.sa_handler = onInterrupt;
    action.sa_flags = SA_RESTART;
    ::sigaction(SIGINT, &action, &d->oldInt);
    ::sigaction(SIGTERM, &action, &d->oldTerm);
    d->listener = std::thread([this] {
        int seen = 0;
        char byte = 0;
        while (::read(d->readEnd, &byte, 1) == 1 && byte != 0) {
            if (++seen > 1)
                ::_exit(130);
            d->source.request_stop();
        }
    });
}

InterruptGuard::~InterruptGuard()
{
    if (d->writeEnd < 0)
        return;
    ::sigaction(SIGINT, &d->oldInt, nullptr);
    ::sigaction(SIGTERM, &d->oldTerm, nullptr);
    g_signalPipe.store(-1);
    const char end = 0;
    if (::write(d->writeEnd, &end, 1) == 1)
        d->listener.join();
    else
        d->listener.detach();
    ::close(d->readEnd);
    ::close(d->writeEnd);
}

std::stop_token InterruptGuard::token() const
{
    return d->source.get_token();
}

ProgressFunction progressPrinter(const Common &common)
{
    if (common.quiet)
        return {};
    return [printer = std::make_shared<Printer>()](const Progress &p) { (*printer)(p); };
}

Result<Summary> runJob(const Common &common, Request request)
{
    InterruptGuard interrupt;
    const auto sink = std::make_shared<WaitingSink>(common, progressPrinter(common));
    Engine engine(sink, common.threads);
    SPECTRA_TRY(const JobId job, engine.submit(std::move(request)));
    const std::stop_callback onStop(interrupt.token(), [&engine, job] { engine.cancel(job); });
    auto result = sink->wait();
    if (result.ok())
        for (const std::string &warning : result->warnings)
            note(common, "warning: " + warning);
    return result;
}

} // namespace spectra::cli
