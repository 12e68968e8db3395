// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/run/engine.h"
#include "engine/trace/h5.h"
#include "tests/support/tinymodel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace spectra::test {

/// Keeps every event of an engine in order, and waits for ends.
class CollectingSink : public EngineSink {
public:
    struct Event {
        JobId job = 0;
        std::string kind;
        Progress progress;
    };
    /// To be called on the engine thread with each event, after it is kept.
    void onEvent(std::function<void(const Event &)> call)
    {
        const std::lock_guard lock(m_mutex);
        m_onEvent = std::move(call);
    }

    void started(JobId job) override { keep({job, "started", {}}); }
    void progress(JobId job, const Progress &p) override { keep({job, "progress", p}); }
    void note(JobId job, const std::string &) override { keep({job, "note", {}}); }
    void tokens(JobId job, std::span<const TokenEvent> events) override
    {
        {
            const std::lock_guard lock(m_mutex);
            m_tokens[job].insert(m_tokens[job].end(), events.begin(), events.end());
        }
        keep({job, "tokens", {}});
    }
    void traceOpened(JobId job, std::shared_ptr<const TraceSource> trace) override
    {
        {
            const std::lock_guard lock(m_mutex);
            m_traces[job] = std::move(trace);
        }
        keep({job, "trace", {}});
    }
    void finished(JobId job, Result<Summary> result) override
    {
        keep({job, "finished", {}});
        const std::lock_guard lock(m_mutex);
        m_results.emplace(job, std::move(result));
        m_changed.notify_all();
    }

    Result<Summary> wait(JobId job)
    {
        std::unique_lock lock(m_mutex);
        m_changed.wait(lock, [&] { return m_results.contains(job); });
        return m_results.at(job);
    }
    std::vector<Event> events()
    {
        const std::lock_guard lock(m_mutex);
        return m_events;
    }
    std::vector<std::string> kinds(JobId job)
    {
        std::vector<std::string> list;
        for (const Event &e : events())
            if (e.job == job)
                list.push_back(e.kind);
        return list;
    }
    std::vector<TokenEvent> tokensOf(JobId job)
    {
        const std::lock_guard lock(m_mutex);
        return m_tokens[job];
    }
    std::shared_ptr<const TraceSource> traceOf(JobId job)
    {
        const std::lock_guard lock(m_mutex);
        return m_traces[job];
    }

private:
    void keep(Event event)
    {
        std::function<void(const Event &)> call;
        {
            const std::lock_guard lock(m_mutex);
            m_events.push_back(event);
            call = m_onEvent;
        }
        if (call)
            call(event);
    }
    std::mutex m_mutex;
    std::condition_variable m_changed;
    std::function<void(const Event &)> m_onEvent;
    std::vector<Event> m_events;
    std::map<JobId, Result<Summary>> m_results;
    std::map<JobId, std::vector<TokenEvent>> m_tokens;
    std::map<JobId, std::shared_ptr<const TraceSource>> m_traces;
};

/// An engine whose events are kept.
struct Bench {
    std::shared_ptr<CollectingSink> sink = std::make_shared<CollectingSink>();
    Engine engine{sink, 1};

    Result<Summary> run(Request request)
    {
        auto job = engine.submit(std::move(request));
        if (!job)
            return job.error();
        return sink->wait(*job);
    }
    Summary good(Request request)
    {
        auto result = run(std::move(request));
        if (!result) {
            ADD_FAILURE() << result.error().what << ": " << result.error().where << " (" << result.error().mend << ")";
            return {};
        }
        return *result;
    }
    /// The error that a request must end with.
    Error bad(Request request)
    {
        auto result = run(std::move(request));
        EXPECT_FALSE(result.ok());
        return result.ok() ? Error{} : result.error();
    }
};

inline Prompt promptOf(std::string text, std::string domain = {}, int group = 0)
{
    static int number = 0;
    Prompt p;
    p.id = "p:" + std::to_string(++number);
    p.text = std::move(text);
    p.domain = std::move(domain);
    p.group = group;
    return p;
}

/// Text of about `words` words, from a seeded choice.
inline std::string someText(int words, unsigned seed)
{
    static const char *const list[] = {"the", "river", "bends", "twice", "before", "mill", "3.14", "then", "other", "in", "x=1;", "caf\xC3\xA9", "there", "winter"};
    std::string text;
    unsigned state = seed * 2654435761u + 12345u;
    for (int i = 0; i < words; ++i) {
        state = state * 1664525u + 1013904223u;
        text += (text.empty() ? "" : " ") + std::string(list[(state >> 16) % std::size(list)]);
    }
    return text;
}

/// A dataset as floats with its shape.
struct Values {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
};
inline Values readValues(const std::filesystem::path &path, const std::string &name)
{
    Values out;
    auto file = h5::File::open(path, h5::File::Mode::read);
    if (!file) {
        ADD_FAILURE() << path << ": " << file.error().what;
        return out;
    }
    auto dataset = h5::openDataset(file->id(), name);
    if (!dataset) {
        ADD_FAILURE() << name << ": " << dataset.error().what;
        return out;
    }
    out.shape = *h5::shapeOf(dataset->id());
    std::int64_t count = 1;
    for (std::int64_t n : out.shape)
        count *= n;
    out.values.resize(static_cast<std::size_t>(count));
    const auto read = h5::readSlab(dataset->id(), std::vector<std::int64_t>(out.shape.size(), 0), out.shape, h5::Type::f32, out.values.data());
    EXPECT_TRUE(read.ok()) << name;
    return out;
}

/// Every numeric dataset and text of an HDF5 file, by path, for comparing two of them.
struct FileContent {
    std::map<std::string, Values> numbers;
    std::map<std::string, std::vector<std::string>> texts;
};
inline FileContent readAll(const std::filesystem::path &path)
{
    FileContent content;
    auto file = h5::File::open(path, h5::File::Mode::read);
    if (!file) {
        ADD_FAILURE() << path << ": " << file.error().what;
        return content;
    }
    const auto objects = h5::listObjects(file->id());
    if (!objects) {
        ADD_FAILURE() << path << ": " << objects.error().what;
        return content;
    }
    for (const h5::Object &o : *objects) {
        if (!o.dataset)
            continue;
        auto dataset = h5::openDataset(file->id(), o.path);
        if (!dataset)
            continue;
        const auto info = h5::describe(dataset->id());
        if (!info) {
            ADD_FAILURE() << path << " " << o.path << ": " << info.error().what << ": " << info.error().where;
            continue;
        }
        if (info->type == h5::Type::text) {
            auto text = h5::readText(dataset->id(), 0, info->shape.at(0));
            if (text)
                content.texts[o.path] = *text;
            continue;
        }
        Values v;
        v.shape = info->shape;
        std::int64_t count = 1;
        for (std::int64_t n : v.shape)
            count *= n;
        v.values.resize(static_cast<std::size_t>(count));
        if (count > 0) {
            EXPECT_TRUE(h5::readSlab(dataset->id(), std::vector<std::int64_t>(v.shape.size(), 0), v.shape, h5::Type::f32, v.values.data()).ok()) << o.path;
        }
        content.numbers[o.path] = std::move(v);
    }
    return content;
}

/// Fails for each dataset that the two files do not share, or in which they differ by more than `tolerance`.
inline void expectSame(const FileContent &a, const FileContent &b, float tolerance = 0)
{
    EXPECT_EQ(a.texts, b.texts);
    ASSERT_EQ(a.numbers.size(), b.numbers.size());
    for (const auto &[path, x] : a.numbers) {
        ASSERT_TRUE(b.numbers.contains(path)) << path;
        const Values &y = b.numbers.at(path);
        ASSERT_EQ(x.shape, y.shape) << path;
        float worst = 0;
        std::size_t odd = 0;
        for (std::size_t i = 0; i < x.values.size(); ++i) {
            if (std::isnan(x.values[i]) || std::isnan(y.values[i]))
                odd += std::isnan(x.values[i]) != std::isnan(y.values[i]) ? 1 : 0;
            else
                worst = std::max(worst, std::abs(x.values[i] - y.values[i]));
        }
        EXPECT_EQ(odd, 0u) << path;
        EXPECT_LE(worst, tolerance) << path;
    }
}

} // namespace spectra::test
