// SPDX-License-Identifier: GPL-3.0-or-later
#include "support.h"

int main(int argc, char **argv)
{
    qputenv("QT_QPA_PLATFORM", "offscreen");
    qputenv("QT_FONT_DPI", "96");
    QApplication app(argc, argv);
    spectra::shelltest::prepareApplication();
    ::testing::InitGoogleTest(&argc, argv);
    spectra::shelltest::installListeners();
    return RUN_ALL_TESTS();
}
