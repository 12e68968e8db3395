// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/latestjob.h"
#include "views/session.h"
#include "views/view.h"

#include <QApplication>
#include <QFontDatabase>
#include <QImage>
#include <QTest>

#include <gtest/gtest.h>

#include <memory>

namespace spectra::viewtest {

/// Fusion style, C locale, DejaVu Sans 12 px: the same picture everywhere. A qWarning fails the running test.
void prepareApplication();
/// Fails a test that leaves a window, or a job on the pool, behind.
void installListeners();

/// A shown view on a session with a trace, its first picture painted.
struct Shown {
    std::unique_ptr<Session> session;
    std::unique_ptr<View> view;
    [[nodiscard]] QWidget *canvas() const { return view->canvas(); }
};
[[nodiscard]] Shown showView(const QString &id, std::shared_ptr<const TraceSource> trace, QSize size = {480, 320});
/// Waits until nothing runs any more and the view is ready (or failed, or empty).
[[nodiscard]] bool settle(const View &view, int ms = 20000);

/// Compares with tests/images/NAME.png: at most 8 per channel, 0.1 % of the pixels may differ. On failure NAME_actual.png
/// and NAME_diff.png go to the build folder. With SPECTRA_UPDATE_IMAGES set the baseline is written instead.
[[nodiscard]] ::testing::AssertionResult matchesBaseline(const QImage &image, const QString &name);

/// Real mouse events.
void drag(QWidget *widget, const std::vector<QPointF> &path, Qt::KeyboardModifiers modifiers = Qt::NoModifier);
void hover(QWidget *widget, const QPointF &at);

} // namespace spectra::viewtest
