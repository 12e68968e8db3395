// SPDX-License-Identifier: GPL-3.0-or-later
#include "support.h"

#include "tests/support/qtwatch.h"
#include "views/viewfactory.h"

#include <QDir>
#include <QLocale>
#include <QMouseEvent>
#include <QStyle>
#include <QStyleFactory>
#include <QThreadPool>

#include <cmath>

namespace spectra::viewtest {

namespace {

class LeakListener : public ::testing::EmptyTestEventListener {
    void OnTestEnd(const ::testing::TestInfo &) override
    {
        QCoreApplication::sendPostedEvents(nullptr, QEvent::DeferredDelete);
        for (const QWidget *w : QApplication::topLevelWidgets())
            if (w->isVisible())
                ADD_FAILURE() << "a window was left behind: " << w->metaObject()->className() << " " << w->objectName().toStdString();
        if (!viewPool()->waitForDone(5000) || viewPool()->activeThreadCount() != 0)
            ADD_FAILURE() << "a job was left running";
    }
};

} // namespace

void prepareApplication()
{
    QLocale::setDefault(QLocale::c());
    QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
    QFont font(QStringLiteral("DejaVu Sans"));
    font.setPixelSize(12);
    font.setHintingPreference(QFont::PreferNoHinting);
    font.setStyleStrategy(QFont::PreferAntialias);
    QApplication::setFont(font);
    QApplication::setPalette(Theme::make(ThemeKind::light).palette());
    QApplication::setEffectEnabled(Qt::UI_AnimateCombo, false);
    qInstallMessageHandler(test::failOnQtWarning);
}

void installListeners()
{
    ::testing::UnitTest::GetInstance()->listeners().Append(new LeakListener);
}

bool settle(const View &view, int ms)
{
    return QTest::qWaitFor([&] { return !view.isWorking() && view.state() != ViewState::busy; }, ms);
}

Shown showView(const QString &id, std::shared_ptr<const TraceSource> trace, QSize size)
{
    Shown shown;
    shown.session = std::make_unique<Session>();
    shown.session->addTrace(std::move(trace), QStringLiteral("sample"));
    shown.view.reset(createView(id));
    shown.view->resize(size);
    shown.view->show();
    (void)QTest::qWaitForWindowExposed(shown.view.get());
    shown.view->setSession(shown.session.get());
    EXPECT_TRUE(settle(*shown.view)) << id.toStdString();
    return shown;
}

::testing::AssertionResult matchesBaseline(const QImage &picture, const QString &name)
{
    const QString place = QStringLiteral(SPECTRA_TEST_DIR "/images/") + name + QStringLiteral(".png");
    const QImage image = picture.convertToFormat(QImage::Format_RGB32);
    if (qEnvironmentVariableIsSet("SPECTRA_UPDATE_IMAGES")) {
        QImage small = image;
        return small.save(place, "PNG", 0) ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << "cannot write " << place.toStdString();
    }
    const QString out = QStringLiteral(SPECTRA_BUILD_DIR "/images");
    const QImage baseline = QImage(place).convertToFormat(QImage::Format_RGB32);
    const auto fail = [&](const std::string &why) {
        QDir().mkpath(out);
        image.save(out + QLatin1Char('/') + name + QStringLiteral("_actual.png"));
        return ::testing::AssertionFailure() << why << "; see " << out.toStdString() << "/" << name.toStdString() << "_*.png";
    };
    if (baseline.isNull())
        return fail("no baseline " + place.toStdString());
    if (baseline.size() != image.size())
        return fail("size differs");
    QImage diff(image.size(), QImage::Format_RGB32);
    diff.fill(Qt::black);
    qint64 different = 0;
    for (int y = 0; y < image.height(); ++y)
        for (int x = 0; x < image.width(); ++x) {
            const QRgb a = image.pixel(x, y), b = baseline.pixel(x, y);
            const int most = std::max({std::abs(qRed(a) - qRed(b)), std::abs(qGreen(a) - qGreen(b)), std::abs(qBlue(a) - qBlue(b))});
            if (most > 8) {
                ++different;
                diff.setPixel(x, y, qRgb(255, std::min(255, most * 3), 0));
            }
        }
    const double share = static_cast<double>(different) / (static_cast<double>(image.width()) * image.height());
    if (share <= 0.001)
        return ::testing::AssertionSuccess();
    QDir().mkpath(out);
    diff.save(out + QLatin1Char('/') + name + QStringLiteral("_diff.png"));
    return fail(std::to_string(share * 100) + " % of the pixels differ");
}

void hover(QWidget *widget, const QPointF &at)
{
    QMouseEvent event(QEvent::MouseMove, at, widget->mapToGlobal(at), Qt::NoButton, Qt::NoButton, Qt::NoModifier);
    QApplication::sendEvent(widget, &event);
}

void drag(QWidget *widget, const std::vector<QPointF> &path, Qt::KeyboardModifiers modifiers)
{
    QTest::mousePress(widget, Qt::LeftButton, modifiers, path.front().toPoint());
    for (std::size_t i = 1; i < path.size(); ++i) {
        QMouseEvent event(QEvent::MouseMove, path[i], widget->mapToGlobal(path[i]), Qt::NoButton, Qt::LeftButton, modifiers);
        QApplication::sendEvent(widget, &event);
    }
    QTest::mouseRelease(widget, Qt::LeftButton, modifiers, path.back().toPoint());
}

} // namespace spectra::viewtest
