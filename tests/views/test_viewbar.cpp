// SPDX-License-Identifier: GPL-3.0-or-later
// The control bar: whole at any width, and what does not fit stands in the menu.
#include "sampletrace.h"
#include "support.h"

#include "views/viewfactory.h"

#include <QComboBox>
#include <QInputDialog>
#include <QMenu>

namespace spectra::viewtest {

TEST(ViewBar, NothingIsCutAtAnyWidth)
{
    for (const ViewKind &kind : viewKinds()) {
        const Shown shown = showView(kind.id, sampleTrace());
        int least = 100, most = 0;
        for (const int width : {170, 250, 320, 390, 480, 900}) {
            shown.view->resize(width, 320);
            QTest::qWait(1);
            const std::unique_ptr<QMenu> menu(shown.view->createContextMenu(nullptr));
            QStringList inMenu;
            for (const QAction *action : menu->actions())
                inMenu << action->text();
            int visible = 0, right = 0;
            for (const ViewOption &option : shown.view->options()) {
                auto *box = shown.view->findChild<QComboBox *>(option.key);
                if (!option.inBar || option.choices.empty() || box == nullptr)
                    continue;
                if (!box->isVisible()) {
                    EXPECT_TRUE(inMenu.contains(option.label)) << option.key.toStdString();
                    continue;
                }
                ++visible;
                const QString where = QStringLiteral("%1.%2 at %3").arg(kind.id, option.key).arg(width);
                EXPECT_GE(box->width(), box->fontMetrics().horizontalAdvance(box->currentText()) + 20) << where.toStdString();
                EXPECT_GE(box->geometry().left(), right) << where.toStdString();
                right = box->geometry().right();
                EXPECT_LT(box->mapTo(shown.view.get(), box->rect().topRight()).x(), width) << where.toStdString();
            }
            EXPECT_GE(visible, most) << "wider shows more: " << kind.id.toStdString() << " at " << width;
            least = std::min(least, visible);
            most = std::max(most, visible);
        }
        if (kind.id == QLatin1String("space")) {
            EXPECT_LT(least, most);
            EXPECT_EQ(most, 4);
        }
    }
}

TEST(ViewBar, NumbersAreAskedForFromTheMenu)
{
    const Shown shown = showView(QStringLiteral("space"), sampleTrace());
    const std::unique_ptr<QMenu> menu(shown.view->createContextMenu(nullptr));
    auto *ask = menu->findChild<QAction *>(QStringLiteral("perplexity"));
    ASSERT_NE(ask, nullptr);
    EXPECT_TRUE(ask->text().contains(QStringLiteral("30")));
    ask->trigger();
    auto *dialog = shown.view->findChild<QInputDialog *>(QStringLiteral("askNumber"));
    ASSERT_NE(dialog, nullptr);
    dialog->setDoubleValue(12);
    QTest::keyClick(dialog, Qt::Key_Return);
    EXPECT_EQ(shown.view->option(QStringLiteral("perplexity")), QStringLiteral("12"));
    ASSERT_TRUE(settle(*shown.view));
    QTest::qWait(1); // the dialog deletes itself
}

} // namespace spectra::viewtest
