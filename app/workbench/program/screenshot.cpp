// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/program/screenshot.h"

#include "app/workbench/shell/bannerarea.h"

#include <QApplication>
#include <QPixmap>

#include <algorithm>
#include <cstdio>

namespace spectra {

namespace {

constexpr int lookMs = 60, quietLooks = 4;
constexpr qint64 patienceMs = 300'000;

} // namespace

ScriptedRun::ScriptedRun(MainWindow &window, const ProgramOptions &options, const QElapsedTimer &sinceStart)
    : m_window(window), m_options(options), m_sinceStart(sinceStart)
{
    connect(&m_timer, &QTimer::timeout, this, &ScriptedRun::look);
    m_timer.start(lookMs);
}

void ScriptedRun::look()
{
    if (m_sinceStart.elapsed() > patienceMs) {
        std::fprintf(stderr, "error: the window did not come to rest: %lld s\n", static_cast<long long>(patienceMs / 1000));
        finish(1);
        return;
    }
    m_quiet = m_window.isIdle() ? m_quiet + 1 : 0;
    if (m_quiet < quietLooks)
        return;
    if (!std::exchange(m_prepared, true)) {
        m_quiet = 0;
        if (m_options.timing)
            std::fprintf(stderr, "at rest after %lld ms\n", static_cast<long long>(m_sinceStart.elapsed() - quietLooks * lookMs));
        if (m_options.workspace)
            m_window.showWorkspace(*m_options.workspace);
        Session &session = m_window.workbench().session();
        if (const auto trace = session.current(); trace && m_options.layer) {
            const auto &index = trace->info->decoderIndex;
            const auto at = std::ranges::find(index, *m_options.layer);
            if (at == index.end()) {
                std::fprintf(stderr, "error: the trace has no such layer: --layer %d\n", *m_options.layer);
                finish(2);
                return;
            }
            session.setLayer(static_cast<int>(at - index.begin()));
        }
        return;
    }
    int code = 0;
    for (const Banner *banner : m_window.banners().banners())
        if (banner->notice().kind == Notice::Kind::error) {
            std::fprintf(stderr, "error: %s\n", qPrintable(banner->plainText().replace(QLatin1Char('\n'), QLatin1String(": "))));
            code = 3;
        }
    if (!m_options.screenshot.isEmpty() && !m_window.grab().save(m_options.screenshot)) {
        std::fprintf(stderr, "error: the picture could not be written: %s\n", qPrintable(m_options.screenshot));
        code = 1;
    }
    finish(code);
}

void ScriptedRun::finish(int code)
{
    m_timer.stop();
    m_window.close();
    QApplication::exit(code);
}

} // namespace spectra
