// SPDX-License-Identifier: GPL-3.0-or-later
// The pictures themselves: each view in both themes, at one and two device pixels a point.
#include "sampletrace.h"
#include "support.h"

#include "views/tokentextview.h"
#include "views/tracecolumns.h"
#include "views/viewfactory.h"

#include <QPainter>

namespace spectra::viewtest {
namespace {

struct Case {
    const char *view;
    std::vector<std::pair<const char *, const char *>> options;
    const char *name;
};

void PrintTo(const Case &c, std::ostream *out)
{
    *out << c.name;
}

struct Images : ::testing::TestWithParam<std::tuple<Case, ThemeKind, int>> {};

TEST_P(Images, LookAsTheyDid)
{
    const auto &[which, kind, dpr] = GetParam();
    Session session;
    session.setSynchronous(true);
    session.addTrace(sampleTrace(), QStringLiteral("sample"));
    session.setLayer(1);
    const std::unique_ptr<View> view(createView(QString::fromLatin1(which.view)));
    view->setSynchronous(true);
    const Theme theme = Theme::make(kind, QStringLiteral("DejaVu Sans"), 12);
    view->setTheme(theme);
    view->setSession(&session);
    for (const auto &[key, value] : which.options) {
        const auto set = view->setOption(QString::fromLatin1(key), QString::fromLatin1(value));
        ASSERT_TRUE(set.ok()) << set.error().what;
    }
    RowSet rows(session.current()->selection.size());
    rows.insertRange(6, 40);
    session.select(rows, SelectMode::replace, {});
    session.focusToken(18);
    session.highlight(23);
    ASSERT_EQ(view->state(), ViewState::ready) << view->message().toStdString();
    QImage image(QSize(480, 320) * dpr, QImage::Format_RGB32);
    image.setDevicePixelRatio(dpr);
    image.fill(theme.panel);
    {
        QPainter p(&image);
        view->paintFigure(p, QRectF(0, 0, 480, 320), theme);
    }
    EXPECT_TRUE(matchesBaseline(image, QStringLiteral("%1_%2_%3x").arg(QString::fromLatin1(which.name), themeName(kind)).arg(dpr)));
}

INSTANTIATE_TEST_SUITE_P(Views, Images,
                         ::testing::Combine(::testing::Values(Case{"gram", {}, "gram"}, Case{"gram", {{"layers", "all"}, {"object", "routing"}}, "gram_layers"},
                                                              Case{"load", {}, "load"}, Case{"load", {{"mode", "layers"}}, "load_layers"},
                                                              Case{"space", {{"method", "pca"}}, "space"},
                                                              Case{"space", {{"method", "pca"}, {"object", "probabilities"}, {"color", "entropy"}}, "space_entropy"},
                                                              Case{"trajectory", {}, "trajectory"}, Case{"trajectory", {{"color", "entropy"}, {"range", "trace"}}, "trajectory_entropy"},
                                                              Case{"metrics", {{"intervals", "off"}}, "metrics"}, Case{"details", {}, "details"}),
                                            ::testing::Values(ThemeKind::light, ThemeKind::dark), ::testing::Values(1, 2)));

TEST(Images, TokenText)
{
    const auto trace = sampleTrace();
    Session session;
    session.setSynchronous(true);
    session.addTrace(trace, QStringLiteral("sample"));
    for (const ThemeKind kind : {ThemeKind::light, ThemeKind::dark}) {
        TokenTextView text;
        text.setTheme(Theme::make(kind, QStringLiteral("DejaVu Sans"), 12));
        text.setSession(&session);
        text.resize(320, 200);
        std::vector<ShownToken> tokens;
        for (int i = 1; i < 40; ++i)
            tokens.push_back({QString::fromStdString(trace->all.text[static_cast<std::size_t>(i)]), i, i > 30,
                              {trace->columns.at({Column::experts, 0}).u16[static_cast<std::size_t>(2 * i)]},
                              {trace->columns.at({Column::weights, 0}).f32[static_cast<std::size_t>(2 * i)]}});
        text.setTokens(tokens);
        session.focusToken(5);
        session.highlight(9);
        EXPECT_TRUE(matchesBaseline(text.viewport()->grab().toImage(), QStringLiteral("tokentext_%1").arg(themeName(kind))));
    }
}

/// The theme's own promises: text can be read on its background, experts can be told from both.
TEST(Themes, Contrast)
{
    const auto contrast = [](const QColor &a, const QColor &b) {
        const double x = luminance(a), y = luminance(b);
        return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
    };
    for (const ThemeKind kind : {ThemeKind::light, ThemeKind::dark, ThemeKind::print}) {
        const Theme t = Theme::make(kind);
        EXPECT_GE(contrast(t.text, t.panel), 7) << themeName(kind).toStdString();
        EXPECT_GE(contrast(t.muted, t.panel), 4.5);
        EXPECT_GE(contrast(t.accent, t.panel), 4.5);
        EXPECT_GE(contrast(t.selection, t.panel), 4.5);
        EXPECT_GE(contrast(t.error, t.panel), 4.5);
        EXPECT_GE(contrast(t.warning, t.panel), 4.5);
        for (int e = 0; e < 8; ++e)
            EXPECT_GE(contrast(expertColor(e), t.panel), 1.9) << "E" << e << " " << themeName(kind).toStdString();
    }
    for (int a = 0; a < 32; ++a)
        for (int b = 0; b < a; ++b)
            EXPECT_TRUE(expertColor(a) != expertColor(b) || expertGlyph(a) != expertGlyph(b)) << a << " " << b;
    for (const ColorMapId id : {ColorMapId::viridis, ColorMapId::cividis, ColorMapId::magma}) {
        double last = -1; // lightness only grows: readable in grey
        for (int i = 0; i <= 32; ++i) {
            const double l = luminance(ColorMap::get(id).color(i / 32.0));
            EXPECT_GT(l, last - 1e-3) << ColorMap::name(id).toStdString() << " at " << i;
            last = l;
        }
    }
}

} // namespace
} // namespace spectra::viewtest
