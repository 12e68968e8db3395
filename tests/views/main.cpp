// SPDX-License-Identifier: GPL-3.0-or-later
// `test_views --shots DIR [ID…]` paints every view at several sizes and in both themes into DIR, for people to look at.
#include "sampletrace.h"
#include "support.h"

#include "views/viewfactory.h"

#include <QDir>

#include <iostream>

namespace {

int shots(const QString &folder, const QStringList &only)
{
    using namespace spectra;
    QDir().mkpath(folder);
    viewtest::SampleShape large;
    large.experts = 64;
    large.layers = 16;
    large.sequences = 40;
    large.length = 120;
    large.slots = 4;
    const std::pair<const char *, std::shared_ptr<ArrayTrace>> traces[] = {{"small", viewtest::sampleTrace()}, {"large", viewtest::sampleTrace(large)}};
    for (const auto &[name, trace] : traces)
        for (const ViewKind &kind : viewKinds()) {
            if (!only.isEmpty() && !only.contains(kind.id))
                continue;
            for (const ThemeKind theme : {ThemeKind::light, ThemeKind::dark})
                for (const QSize size : {QSize(320, 240), QSize(520, 340), QSize(1000, 420)}) {
                    Session session;
                    session.setSynchronous(true);
                    session.addTrace(trace, QStringLiteral("sample"));
                    session.setLayer(2);
                    QApplication::setPalette(Theme::make(theme).palette());
                    const std::unique_ptr<View> view(createView(kind.id));
                    view->setSynchronous(true);
                    view->setTheme(Theme::make(theme));
                    view->resize(size);
                    view->setSession(&session);
                    RowSet rows(session.current()->selection.size());
                    rows.insertRange(50, 58);
                    session.select(rows, SelectMode::replace, QStringLiteral("some"));
                    session.setSelectedExperts({2});
                    session.focusToken(53);
                    session.highlight(61);
                    view->show();
                    QTest::qWait(20);
                    const QString file = QStringLiteral("%1/%2_%3_%4_%5.png").arg(folder, kind.id, QString::fromLatin1(name), themeName(theme)).arg(size.width());
                    view->grab().save(file);
                    std::cout << file.toStdString() << "  " << view->subtitle().toStdString() << "\n";
                }
        }
    return 0;
}

} // namespace

int main(int argc, char **argv)
{
    qputenv("QT_QPA_PLATFORM", "offscreen");
    qputenv("QT_FONT_DPI", "96");
    QApplication app(argc, argv);
    spectra::viewtest::prepareApplication();
    if (argc > 2 && QString::fromLocal8Bit(argv[1]) == QLatin1String("--shots")) {
        QStringList only;
        for (int i = 3; i < argc; ++i)
            only << QString::fromLocal8Bit(argv[i]);
        return shots(QString::fromLocal8Bit(argv[2]), only);
    }
    ::testing::InitGoogleTest(&argc, argv);
    spectra::viewtest::installListeners();
    return RUN_ALL_TESTS();
}
