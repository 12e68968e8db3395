// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/tracewriter.h"

#include "engine/core/files.h"
#include "engine/trace/knownfiles.h"
#include "engine/trace/tracestore.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <fcntl.h>
#include <functional>
#include <mutex>
#include <sys/file.h>
#include <thread>
#include <unistd.h>
#include <utility>

namespace spectra {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

/// Records gather this long before the writing thread wakes, unless they are many.
constexpr std::chrono::milliseconds kGather{50};

fs::path partOf(const fs::path &path)
{
    fs::path part = path;
    part += ".part";
    return part;
}

/// An error when another process is writing this file.
Result<void> checkUnlocked(const fs::path &file)
{
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return {};
    const bool busy = ::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    ::close(fd);
    if (busy)
        return workError("is in use: another run is writing it, or a program has it open", file.string(), "wait until that has ended, or stop it");
    return {};
}

std::size_t bytesOf(const TokenRecord &r)
{
    std::size_t bytes = r.id.size() * 32;
    for (const std::string &text : r.text)
        bytes += sizeof text + text.size();
    return bytes;
}
std::size_t bytesOf(const std::vector<LayerTables> &tables)
{
    std::size_t bytes = 0;
    for (const LayerTables &t : tables)
        bytes += 8 * (t.expertInputSum.size() + t.expertOutputSum.size() + t.expertCount.size());
    return bytes;
}

} // namespace

class TraceWriter::Impl {
public:
    using Task = std::function<Result<void>(TraceStore &)>;

    fs::path path, part;
    TraceSpec spec;
    HiddenSample sample;
    std::int32_t begun = 0; ///< producer thread
    Clock::time_point lastSums{};
    std::size_t lastSumBytes = 0;

    std::unique_ptr<TraceStore> store; ///< writing thread only, between start and join
    std::atomic<std::int64_t> committed{0};

    mutable std::mutex mutex;
    std::condition_variable room, work;
    std::deque<std::pair<Task, std::size_t>> queue;
    std::size_t queued = 0;
    std::optional<Error> error;
    bool ending = false;
    bool blocked = false; ///< the producer waits for room
    bool finished = false; ///< renamed
    std::jthread thread;

    /// Makes the store on the writing thread and leaves that thread serving the queue.
    Result<void> start(std::function<Result<std::unique_ptr<TraceStore>>()> make)
    {
        Result<void> made;
        bool ready = false;
        std::condition_variable begin;
        thread = std::jthread([&, make = std::move(make)] {
            auto opened = make();
            {
                const std::lock_guard lock(mutex);
                if (opened)
                    store = std::move(*opened);
                else
                    made = opened.error();
                committed = store ? store->committed() : 0;
                ready = true;
                begin.notify_one();
            }
            // From here on nothing of start()'s frame is touched.
            if (store)
                serve();
        });
        std::unique_lock lock(mutex);
        begin.wait(lock, [&] { return ready; });
        lock.unlock();
        if (!made)
            thread.join();
        return made;
    }

    void serve()
    {
        Clock::time_point last = Clock::now() - std::chrono::hours(1); // the first whole block is committed at once
        const auto pause = std::chrono::duration<double>(spec.flushSeconds);
        for (;;) {
            Task task;
            std::size_t bytes = 0;
            {
                std::unique_lock lock(mutex);
                if (queue.empty() && !ending) {
                    // Time to commit while nothing else is to be done, but not more often than agreed.
                    const bool committable = store->committable(false) > store->committed();
                    const auto due = last + std::chrono::duration_cast<Clock::duration>(pause / 2);
                    const auto now = Clock::now();
                    work.wait_until(lock, committable && due < now + kGather ? due : now + kGather, [&] { return enough(); });
                }
                if (!queue.empty()) {
                    task = std::move(queue.front().first);
                    bytes = queue.front().second;
                    queue.pop_front();
                } else if (ending) {
                    return;
                }
            }
            Result<void> done;
            if (task)
                done = guarded([&] { return task(*store); });
            if (done && store->committable(false) > store->committed() && Clock::now() - last >= pause * (task ? 0.75 : 0.5)) {
                done = guarded([&] { return store->commit(false); });
                committed = store->committed();
                last = Clock::now();
            }
            if (const auto disk = store->diskError(); done && disk)
                done = *disk;
            const std::lock_guard lock(mutex);
            queued -= bytes;
            if (!done) {
                fail(done.error());
                return;
            }
            room.notify_all();
        }
    }

    /// With the mutex held: it is worth waking the writing thread. A record at a time would cost the model a core.
    [[nodiscard]] bool enough() const
    {
        return ending || blocked || queue.size() >= 512 || queued >= std::min<std::size_t>(std::size_t(1) << 20, static_cast<std::size_t>(spec.queueBytes) / 4);
    }

    template <typename F> static Result<void> guarded(F &&function)
    {
        try {
            return function();
        } catch (const std::bad_alloc &) {
            return workError("not enough memory to write the trace");
        } catch (const std::exception &exception) {
            return bugError(exception.what(), "trace");
        }
    }

    /// With the mutex held, on the writing thread: nothing more is written, and producers hear of it.
    void fail(Error what)
    {
        if (const auto disk = store->diskError())
            what = *disk; // why the call failed, in the words of the system
        if (what.where.find(part.filename().string()) == std::string::npos)
            what.in(part.string());
        error = std::move(what);
        queue.clear();
        queued = 0;
        store->abandon();
        (void)store->close(false).ok();
        room.notify_all();
    }

    Result<void> push(std::size_t bytes, Task task)
    {
        std::unique_lock lock(mutex);
        // A record larger than the whole queue goes in alone.
        const auto fits = [&] { return error || queue.empty() || queued + bytes <= static_cast<std::size_t>(spec.queueBytes); };
        if (!fits()) {
            blocked = true;
            work.notify_one();
            room.wait(lock, fits);
            blocked = false;
        }
        if (error)
            return *error;
        if (ending)
            return bugError("the trace is closed", part.string());
        queue.emplace_back(std::move(task), bytes);
        queued += bytes;
        if (enough())
            work.notify_one();
        return {};
    }

    /// Lets the queue run empty, runs `last` and ends the thread.
    Result<void> end(Task last)
    {
        if (!thread.joinable())
            return status();
        if (last)
            (void)push(0, std::move(last)).ok();
        {
            const std::lock_guard lock(mutex);
            ending = true;
            work.notify_one();
        }
        thread.join();
        return status();
    }

    Result<void> status() const
    {
        const std::lock_guard lock(mutex);
        return error ? Result<void>(*error) : Result<void>();
    }
};

TraceWriter::TraceWriter(std::unique_ptr<Impl> impl) : m_impl(std::move(impl)) {}

TraceWriter::~TraceWriter()
{
    if (m_impl->thread.joinable())
        (void)cancel().ok();
}

bool TraceWriter::resumable(const fs::path &path)
{
    std::error_code ignored;
    return fs::is_regular_file(partOf(path), ignored);
}

Result<std::unique_ptr<TraceWriter>> TraceWriter::create(const fs::path &path, const TraceSpec &spec, bool overwrite)
{
    SPECTRA_CHECK(spec.check());
    SPECTRA_CHECK(checkOutput(path, overwrite));
    std::error_code ignored;
    if (fs::is_directory(path, ignored) || fs::is_directory(partOf(path), ignored))
        return workError("is a folder", path.string(), "give the name of a file");
    fs::path fresh = partOf(path);
    fresh += ".new";
    SPECTRA_CHECK(checkUnlocked(partOf(path)));
    SPECTRA_CHECK(checkUnlocked(fresh));
    auto impl = std::make_unique<Impl>();
    impl->path = path;
    impl->part = partOf(path);
    impl->spec = spec;
    impl->sample = HiddenSample(spec.plannedLengths, spec.hiddenTokens, spec.seed);
    SPECTRA_CHECK(impl->start([part = impl->part, spec] { return TraceStore::create(part, spec); }));
    return std::unique_ptr<TraceWriter>(new TraceWriter(std::move(impl)));
}

Result<TraceWriter::Resumed> TraceWriter::resume(const fs::path &path, const TraceSpec &spec, bool overwrite)
{
    SPECTRA_CHECK(spec.check());
    SPECTRA_CHECK(checkOutput(path, overwrite));
    if (!resumable(path))
        return inputError("there is no run to continue", partOf(path).string(), "start one without --resume");
    SPECTRA_CHECK(checkUnlocked(partOf(path)));
    auto impl = std::make_unique<Impl>();
    impl->path = path;
    impl->part = partOf(path);
    impl->spec = spec;
    impl->sample = HiddenSample(spec.plannedLengths, spec.hiddenTokens, spec.seed);
    Resumed resumed;
    auto make = [part = impl->part, spec, &resumed, &sample = impl->sample]() -> Result<std::unique_ptr<TraceStore>> {
        auto store = TraceStore::resume(part, spec);
        if (store) {
            resumed.sequencesDone = (*store)->resumedSequences;
            resumed.tokensDone = (*store)->resumedTokens;
            resumed.sums = std::move((*store)->resumedSums);
            sample.reserve((*store)->resumedSampled);
        }
        return store;
    };
    SPECTRA_CHECK(impl->start(std::move(make)));
    impl->begun = static_cast<std::int32_t>(resumed.sequencesDone);
    resumed.writer = std::unique_ptr<TraceWriter>(new TraceWriter(std::move(impl)));
    return resumed;
}

Result<void> TraceWriter::beginSequence(SequenceInfo info)
{
    const bool sampled = m_impl->sample.wants(m_impl->begun++, info.length);
    const std::size_t bytes = info.text.size() + 256;
    return m_impl->push(bytes, [info = std::move(info), sampled](TraceStore &store) { return store.beginSequence(info, sampled); });
}

Result<void> TraceWriter::addTokens(TokenRecord record)
{
    const std::size_t bytes = bytesOf(record);
    return m_impl->push(bytes, [record = std::move(record)](TraceStore &store) mutable { return store.addTokens(std::move(record)); });
}

Result<void> TraceWriter::addRouting(RoutingRecord record)
{
    const std::size_t bytes = record.buffer ? record.buffer->size() : 0;
    return m_impl->push(bytes, [record = std::move(record)](TraceStore &store) { return store.addRouting(record); });
}

Result<void> TraceWriter::addDense(RoutingRecord record)
{
    const std::size_t bytes = record.buffer ? record.buffer->size() : 0;
    return m_impl->push(bytes, [record = std::move(record)](TraceStore &store) { return store.addDense(record); });
}

Result<void> TraceWriter::addSequenceMeans(SequenceMeans means)
{
    const std::size_t bytes = 4 * (means.routing.size() + means.expression.size()) + 128;
    return m_impl->push(bytes, [means = std::move(means)](TraceStore &store) mutable { return store.addSequenceMeans(std::move(means)); });
}

bool TraceWriter::wantsExpertSums() const
{
    if (!m_impl->spec.holds(Field::expertMeans) || m_impl->spec.layers() == 0)
        return false;
    return m_impl->lastSumBytes < (std::size_t(4) << 20) || Clock::now() - m_impl->lastSums > std::chrono::seconds(1);
}

Result<void> TraceWriter::addExpertSums(std::vector<LayerTables> sums)
{
    m_impl->lastSums = Clock::now();
    const std::size_t bytes = m_impl->lastSumBytes = bytesOf(sums);
    return m_impl->push(bytes, [sums = std::move(sums)](TraceStore &store) mutable { return store.addExpertSums(std::move(sums)); });
}

Result<void> TraceWriter::endSequence(std::int32_t sequence, SequenceInfo info)
{
    const std::size_t bytes = info.text.size() + 256;
    return m_impl->push(bytes, [sequence, info = std::move(info)](TraceStore &store) { return store.endSequence(sequence, info); });
}

bool TraceWriter::wantsHidden(std::int32_t sequence, std::int64_t length) { return m_impl->sample.wants(sequence, length); }

Result<void> TraceWriter::setCheckpointSha256(std::string hex)
{
    return m_impl->push(hex.size(), [hex = std::move(hex)](TraceStore &store) { return store.setCheckpointSha256(hex); });
}

Result<void> TraceWriter::finish(std::vector<LayerTables> tables, double wallSeconds)
{
    Impl &impl = *m_impl;
    auto last = [&impl, tables = std::move(tables), wallSeconds](TraceStore &store) -> Result<void> {
        SPECTRA_CHECK(store.commit(true));
        impl.committed = store.committed();
        SPECTRA_CHECK(store.writeTables(tables, true, wallSeconds));
        return store.close(true);
    };
    SPECTRA_CHECK(impl.end(std::move(last)));
    std::error_code error;
    fs::rename(impl.part, impl.path, error);
    if (error)
        return workError("cannot be put in place: " + error.message(), impl.path.string(), "the finished trace is in " + impl.part.string());
    impl.finished = true;
    rememberFile(impl.path);
    return {};
}

Result<void> TraceWriter::cancel(std::vector<LayerTables> tables)
{
    Impl &impl = *m_impl;
    auto last = [&impl, tables = std::move(tables)](TraceStore &store) -> Result<void> {
        SPECTRA_CHECK(store.commit(true));
        impl.committed = store.committed();
        SPECTRA_CHECK(store.writeTables(tables, false, 0));
        return store.close(true);
    };
    SPECTRA_CHECK(impl.end(std::move(last)));
    rememberFile(impl.part);
    return {};
}

void TraceWriter::discard()
{
    Impl &impl = *m_impl;
    if (impl.finished)
        return;
    (void)impl.end([](TraceStore &store) {
              store.abandon();
              (void)store.close(false).ok();
              return Result<void>();
          }).ok();
    std::error_code ignored;
    fs::remove(impl.part, ignored);
}

std::int64_t TraceWriter::committed() const { return m_impl->committed; }
Result<void> TraceWriter::status() const { return m_impl->status(); }
fs::path TraceWriter::file() const { return m_impl->finished ? m_impl->path : m_impl->part; }

} // namespace spectra
