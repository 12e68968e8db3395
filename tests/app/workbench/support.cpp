// SPDX-License-Identifier: GPL-3.0-or-later
#include "support.h"

#include "app/workbench/shell/bannerarea.h"
#include "tests/support/qtwatch.h"
#include "views/latestjob.h"

#include <QFile>
#include <QFileInfo>
#include <QStyleFactory>

#include <algorithm>

namespace spectra::shelltest {

namespace {

std::atomic<int> expectedWarnings{0};

void onMessage(QtMsgType type, const QMessageLogContext &context, const QString &text)
{
    if (expectedWarnings == 0)
        test::failOnQtWarning(type, context, text);
}

/// Windows and engine or loader threads that a test leaves behind are failures. Pools of Qt keep idle threads: those of
/// our own pools end with their pool.
class LeakListener : public ::testing::EmptyTestEventListener {
    void OnTestEnd(const ::testing::TestInfo &) override
    {
        QCoreApplication::sendPostedEvents(nullptr, QEvent::DeferredDelete);
        for (const QWidget *w : QApplication::topLevelWidgets())
            if (w->isVisible())
                ADD_FAILURE() << "a window was left behind: " << w->metaObject()->className() << " " << w->objectName().toStdString();
        if (!viewPool()->waitForDone(5000))
            ADD_FAILURE() << "a job was left running";
        const int threads = test::threadsOfProcess();
        if (m_threads < 0)
            m_threads = threads + viewPool()->maxThreadCount() + QThreadPool::globalInstance()->maxThreadCount() + 8; // and parallelFor's, which sleep
        else if (threads > m_threads)
            ADD_FAILURE() << "threads were left behind: " << threads << " now, at most " << m_threads << " expected";
    }
    int m_threads = -1;
};

} // namespace

ExpectWarnings::ExpectWarnings()
{
    ++expectedWarnings;
}
ExpectWarnings::~ExpectWarnings()
{
    --expectedWarnings;
}

void prepareApplication()
{
    QLocale::setDefault(QLocale::c());
    QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
    QFont font(QStringLiteral("DejaVu Sans"));
    font.setPixelSize(12);
    QApplication::setFont(font);
    QApplication::setEffectEnabled(Qt::UI_AnimateCombo, false);
    qInstallMessageHandler(onMessage);
}

void installListeners()
{
    ::testing::UnitTest::GetInstance()->listeners().Append(new LeakListener);
}

FakeEngine::FakeEngine(std::shared_ptr<EngineSink> sink, Script script, std::shared_ptr<Log> log)
    : m_sink(std::move(sink)), m_script(std::move(script)), m_log(std::move(log)), m_thread([this](std::stop_token stop) { run(stop); })
{
}

FakeEngine::~FakeEngine()
{
    cancelAll();
    m_thread.request_stop();
    m_wake.notify_all();
    m_thread.join();
}

Result<JobId> FakeEngine::submit(Request request)
{
    {
        const std::lock_guard lock(m_log->mutex);
        m_log->requests.push_back(std::move(request));
    }
    const std::lock_guard lock(m_mutex);
    m_queue.push_back(m_next);
    m_wake.notify_all();
    return m_next++;
}

void FakeEngine::cancel(JobId job)
{
    const std::lock_guard lock(m_mutex);
    m_cancelled.push_back(job);
    m_wake.notify_all();
}

void FakeEngine::cancelAll()
{
    const std::lock_guard lock(m_mutex);
    for (JobId job = 1; job < m_next; ++job)
        m_cancelled.push_back(job);
    m_wake.notify_all();
}

std::vector<BundledModel> FakeEngine::bundledModels() const
{
    return {{"smollm2-135m", "SmolLM2 135M", "made up", "none", {}, true}};
}

void FakeEngine::run(std::stop_token stop)
{
    while (!stop.stop_requested()) {
        JobId job = 0;
        {
            std::unique_lock lock(m_mutex);
            if (!m_wake.wait(lock, stop, [this] { return !m_queue.empty(); }))
                return;
            job = m_queue.front();
            m_queue.pop_front();
        }
        ++m_log->running;
        play(job, stop);
        --m_log->running;
        ++m_log->finished;
    }
}

void FakeEngine::play(JobId job, std::stop_token stop)
{
    const auto cancelled = [&] {
        const std::lock_guard lock(m_mutex);
        return stop.stop_requested() || std::ranges::find(m_cancelled, job) != m_cancelled.end();
    };
    m_sink->started(job);
    m_sink->progress(job, {"reading tensors", 1, 2, "tensors"});
    if (m_script.trace)
        m_sink->traceOpened(job, m_script.trace);
    for (int i = 0; i < m_script.tokens; i += m_script.tokensPerCall) {
        if (cancelled())
            break;
        std::vector<TokenEvent> events;
        for (int t = i; t < std::min(m_script.tokens, i + m_script.tokensPerCall); ++t)
            events.push_back({t, 0, t, true, "t" + std::to_string(t) + " ", {1, 2, 3, 4}});
        m_sink->tokens(job, events);
        m_sink->progress(job, {"generating", i + m_script.tokensPerCall, m_script.tokens, "tokens"});
    }
    if (m_script.waitsForCancel) {
        std::unique_lock lock(m_mutex);
        m_wake.wait(lock, stop, [&] { return std::ranges::find(m_cancelled, job) != m_cancelled.end(); });
    }
    if (cancelled()) {
        ++m_log->cancelled;
        m_sink->finished(job, cancelledError());
    } else if (m_script.failure) {
        m_sink->finished(job, *m_script.failure);
    } else {
        Summary summary;
        summary.tokens = m_script.tokens;
        summary.tokensPerSecond = 100;
        summary.trace = m_script.trace;
        m_sink->finished(job, summary);
    }
}

Program::Program(FakeEngine::Script played, bool keepsState) : script(std::move(played)), m_keepsState(keepsState)
{
    start();
}

Program::~Program()
{
    holdLoading(false);
    close();
}

void Program::start()
{
    WorkbenchSetup setup;
    setup.engine = [played = script, log = log](std::shared_ptr<EngineSink> sink) { return std::make_unique<FakeEngine>(std::move(sink), played, log); };
    setup.opener = [gate = m_gate](const QString &path, std::stop_token stop) -> Result<std::shared_ptr<const TraceSource>> {
        {
            std::unique_lock lock(gate->mutex);
            gate->changed.wait(lock, stop, [&] { return !gate->closed; });
        }
        if (stop.stop_requested())
            return cancelledError();
        if (QFileInfo(path).fileName().startsWith(QLatin1String("broken")))
            return inputError("the dataset routing/experts is missing", path.toStdString(), "Write the trace again.");
        auto trace = viewtest::sampleTrace();
        trace->header.file = path.toStdString();
        trace->header.uuid = "uuid-" + QFileInfo(path).fileName().toStdString();
        trace->header.complete = true;
        trace->header.model.note = "fresh router: balanced by calibration but untrained";
        trace->header.model.sinkhornScope = "causal";
        trace->header.model.sinkhornEpsilon = 0.05;
        trace->header.model.dtype = "f32";
        trace->header.model.device = "cpu";
        trace->finish();
        return std::shared_ptr<const TraceSource>(trace);
    };
    setup.saver = [saver = saver](const std::shared_ptr<const TraceSource> &trace, const QString &path, bool overwrite, std::stop_token stop) -> Result<void> {
        return *saver ? (*saver)(trace, path, overwrite, std::move(stop)) : workError("no saving in this test", path.toStdString());
    };
    setup.readPrompts = [](const QString &path) -> Result<std::vector<Prompt>> {
        QFile file(path);
        if (!file.open(QIODevice::ReadOnly))
            return inputError("missing", path.toStdString());
        std::vector<Prompt> prompts;
        for (const QByteArray &line : file.readAll().split('\n'))
            if (!line.isEmpty())
            {
                Prompt prompt;
                prompt.domain = "code";
                prompt.text = line.toStdString();
                prompts.push_back(std::move(prompt));
            }
        return prompts;
    };
    setup.exampleTrace = example;
    if (m_keepsState) {
        setup.stateFolder = path(QStringLiteral("state"));
        setup.settings = std::make_shared<QSettings>(path(QStringLiteral("settings.ini")), QSettings::IniFormat);
    }
    workbench = std::make_unique<Workbench>(std::move(setup));
    window = std::make_unique<MainWindow>(*workbench);
    window->resize(1280, 800);
    window->show();
    (void)QTest::qWaitForWindowExposed(window.get());
}

void Program::close()
{
    if (window)
        window->close();
    window.reset();
    workbench.reset();
}

QString Program::makeFile(const QString &name, const QByteArray &content)
{
    QFile file(path(name));
    EXPECT_TRUE(file.open(QIODevice::WriteOnly));
    file.write(content);
    return file.fileName();
}

QString Program::makeTrace(const QString &name)
{
    return makeFile(name, QByteArray("\x89HDF\r\n\x1a\n") + QByteArray(64, 'x'));
}

bool Program::settle(int ms)
{
    return QTest::qWaitFor([this] { return window->isIdle(); }, ms);
}

QStringList Program::errors() const
{
    QStringList texts;
    for (const Banner *banner : window->banners().banners())
        if (banner->notice().kind == Notice::Kind::error)
            texts << banner->plainText();
    return texts;
}

void Program::holdLoading(bool hold)
{
    const std::lock_guard lock(m_gate->mutex);
    m_gate->closed = hold;
    m_gate->changed.notify_all();
}

} // namespace spectra::shelltest
