// SPDX-License-Identifier: GPL-3.0-or-later
// What is written is read back by other means.
#include "sampletrace.h"
#include "support.h"

#include "views/export.h"
#include "views/viewfactory.h"

#include <QBuffer>
#include <QFile>
#include <QImageReader>
#include <QJsonArray>
#include <QMimeData>
#include <QProcess>
#include <QStandardPaths>
#include <QSvgRenderer>
#include <QTemporaryDir>
#include <QXmlStreamReader>

namespace spectra::viewtest {
namespace {

struct Figures : ::testing::TestWithParam<const char *> {
    QTemporaryDir folder;
    std::shared_ptr<const TraceSource> trace = sampleTrace();
    QString path(const QString &name) const { return folder.filePath(name); }
    FigureOptions options() const
    {
        FigureOptions o;
        o.layer = 3;
        o.commandLine = QStringLiteral("spectra figure");
        if (QString::fromLatin1(GetParam()) == QLatin1String("space"))
            o.settings = {{QStringLiteral("iterations"), QStringLiteral("60")}};
        return o;
    }
    Result<void> draw(const QString &name, const FigureOptions &o) { return renderFigure(QString::fromLatin1(GetParam()), {trace}, o, path(name)); }
};

QByteArray read(const QString &path)
{
    QFile f(path);
    return f.open(QIODevice::ReadOnly) ? f.readAll() : QByteArray();
}

TEST_P(Figures, PngHasItsSizeAndItsProvenance)
{
    const auto done = draw(QStringLiteral("f.png"), options());
    ASSERT_TRUE(done.ok()) << done.error().what << " " << done.error().where;
    const QImage image(path(QStringLiteral("f.png")));
    EXPECT_EQ(image.width(), 1004); // 85 mm at 300 dpi
    EXPECT_EQ(image.height(), 709);
    EXPECT_NEAR(image.dotsPerMeterX(), 11811, 1);
    const QJsonObject from = readProvenance(path(QStringLiteral("f.png")));
    EXPECT_EQ(from[QStringLiteral("program")], QStringLiteral("SPECTRA Workbench"));
    EXPECT_EQ(from[QStringLiteral("traces")][0][QStringLiteral("uuid")], QStringLiteral("11111111-2222-3333-4444-555555555555"));
    EXPECT_EQ(from[QStringLiteral("traces")][0][QStringLiteral("file")], QStringLiteral("sample.h5")); // no folder
    EXPECT_EQ(from[QStringLiteral("command")], QStringLiteral("spectra figure"));
    EXPECT_EQ(from[QStringLiteral("session")][QStringLiteral("decoder_layer")], 3);
    // The state makes the same view again.
    const std::unique_ptr<View> again(createView(from[QStringLiteral("view")].toString()));
    ASSERT_NE(again, nullptr);
    again->restoreState(from[QStringLiteral("state")].toObject());
    EXPECT_EQ(again->saveState()[QStringLiteral("options")], from[QStringLiteral("state")][QStringLiteral("options")]);
}

TEST_P(Figures, SvgKeepsTextAsText)
{
    ASSERT_TRUE(draw(QStringLiteral("f.svg"), options()).ok());
    const QByteArray svg = read(path(QStringLiteral("f.svg")));
    QXmlStreamReader xml(svg);
    int texts = 0;
    while (!xml.atEnd())
        if (xml.readNext() == QXmlStreamReader::StartElement && xml.name() == QLatin1String("text"))
            ++texts;
    EXPECT_FALSE(xml.hasError()) << xml.errorString().toStdString();
    EXPECT_GE(texts, 5);
    QSvgRenderer renderer;
    ASSERT_TRUE(renderer.load(svg));
    EXPECT_NEAR(static_cast<double>(renderer.defaultSize().width()) / renderer.defaultSize().height(), 85.0 / 60.0, 0.01);
}

TEST_P(Figures, PdfHasWordsAndEmbeddedFonts)
{
    ASSERT_TRUE(draw(QStringLiteral("f.pdf"), options()).ok());
    const QByteArray pdf = read(path(QStringLiteral("f.pdf")));
    EXPECT_TRUE(pdf.startsWith("%PDF-1."));
    EXPECT_TRUE(pdf.contains("/FontFile2"));          // a TrueType font inside the file
    EXPECT_FALSE(pdf.contains("/DCTDecode"));         // no JPEG
    EXPECT_EQ(readProvenance(path(QStringLiteral("f.pdf")))[QStringLiteral("traces")][0][QStringLiteral("uuid")],
              QStringLiteral("11111111-2222-3333-4444-555555555555"));
    const QString pdftotext = QStandardPaths::findExecutable(QStringLiteral("pdftotext"));
    ASSERT_FALSE(pdftotext.isEmpty()) << "poppler-utils is missing";
    QProcess p;
    p.start(pdftotext, {path(QStringLiteral("f.pdf")), QStringLiteral("-")});
    ASSERT_TRUE(p.waitForFinished());
    EXPECT_GE(QString::fromUtf8(p.readAllStandardOutput()).simplified().split(QLatin1Char(' ')).size(), 5);
}

TEST_P(Figures, TheDataOfThePictureComesAsCsvAndLatex)
{
    ASSERT_TRUE(draw(QStringLiteral("f.csv"), options()).ok());
    const QList<QByteArray> lines = read(path(QStringLiteral("f.csv"))).trimmed().split('\n');
    ASSERT_GT(lines.size(), 3);
    const auto columns = lines[0].count(',');
    EXPECT_GT(columns, 2);
    ASSERT_TRUE(draw(QStringLiteral("f.tex"), options()).ok());
    const QByteArray tex = read(path(QStringLiteral("f.tex")));
    EXPECT_TRUE(tex.contains("\\begin{tabular}{"));
    EXPECT_TRUE(tex.contains("\\bottomrule"));
}

TEST_P(Figures, AnExistingFileIsKeptAndNothingPartialIsLeft)
{
    ASSERT_TRUE(draw(QStringLiteral("f.svg"), options()).ok());
    const QByteArray before = read(path(QStringLiteral("f.svg")));
    const auto refused = draw(QStringLiteral("f.svg"), options());
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().kind, ErrorKind::work);
    EXPECT_EQ(read(path(QStringLiteral("f.svg"))), before);
    FigureOptions over = options();
    over.overwrite = true;
    over.theme = ThemeKind::dark;
    EXPECT_TRUE(draw(QStringLiteral("f.svg"), over).ok());
    EXPECT_NE(read(path(QStringLiteral("f.svg"))), before);
    const auto nowhere = renderFigure(QString::fromLatin1(GetParam()), {trace}, options(), path(QStringLiteral("no/such/folder/f.png")));
    ASSERT_FALSE(nowhere.ok());
    EXPECT_EQ(nowhere.error().kind, ErrorKind::work);
    EXPECT_EQ(QDir(folder.path()).entryList(QDir::Files | QDir::Hidden).size(), 1);
}

TEST_P(Figures, EverySizeAndThemeIsDrawn)
{
    for (const QSizeF &size : {QSizeF(40, 30), QSizeF(180, 60), QSizeF(60, 180)})
        for (const ThemeKind theme : {ThemeKind::print, ThemeKind::light, ThemeKind::dark}) {
            FigureOptions o = options();
            o.sizeMm = size;
            o.theme = theme;
            o.dpi = 96;
            o.overwrite = true;
            const auto done = draw(QStringLiteral("s.png"), o);
            ASSERT_TRUE(done.ok()) << done.error().what;
        }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Figures, ::testing::Values("gram", "load", "load-layers", "space", "trajectory", "metrics", "expert", "overlap", "coactivation"));

TEST(FigureErrors, WrongUseIsSaid)
{
    QTemporaryDir folder;
    const std::shared_ptr<const TraceSource> trace = sampleTrace();
    const QString out = folder.filePath(QStringLiteral("f.pdf"));
    const auto kindOf = [&](const QString &kind, const FigureOptions &o, const QString &path) {
        const auto r = renderFigure(kind, {trace}, o, path);
        return r.ok() ? std::string("ok") : (r.error().kind == ErrorKind::usage ? "usage: " : "other: ") + r.error().what;
    };
    EXPECT_EQ(kindOf(QStringLiteral("nonsense"), {}, out), "usage: unknown figure kind");
    EXPECT_EQ(kindOf(QStringLiteral("flow"), {}, out), "usage: this version has no view that draws this kind of figure");
    FigureOptions o;
    o.layer = 2; // decoder layers are 1, 3, 5, 7
    EXPECT_EQ(kindOf(QStringLiteral("gram"), o, out), "usage: this trace has no such layer with experts");
    o = {};
    o.domain = QStringLiteral("cooking");
    EXPECT_EQ(kindOf(QStringLiteral("load"), o, out), "usage: this trace has no such domain");
    o = {};
    o.settings = {{QStringLiteral("objekt"), QStringLiteral("routing")}};
    EXPECT_EQ(kindOf(QStringLiteral("gram"), o, out), "usage: unknown setting");
    o.settings = {{QStringLiteral("object"), QStringLiteral("router_weights")}}; // the sample has none
    EXPECT_TRUE(kindOf(QStringLiteral("gram"), o, out).starts_with("usage: this trace cannot show it"));
    o.settings = {{QStringLiteral("perplexity"), QStringLiteral("1e9")}};
    EXPECT_TRUE(kindOf(QStringLiteral("space"), o, out).starts_with("usage: not a number in the range"));
    o = {};
    o.sizeMm = {0, 60};
    EXPECT_EQ(kindOf(QStringLiteral("gram"), o, out), "usage: figure size is out of range");
    o = {};
    o.dpi = 9'000;
    EXPECT_EQ(kindOf(QStringLiteral("gram"), o, out), "usage: resolution is out of range");
    EXPECT_EQ(kindOf(QStringLiteral("gram"), {}, folder.filePath(QStringLiteral("f.bmp"))), "usage: unknown picture format");
    EXPECT_TRUE(QDir(folder.path()).isEmpty());
}

TEST(FigureErrors, SizesAreRead)
{
    EXPECT_EQ(*parseFigureSize(QStringLiteral("85x60mm")), QSizeF(85, 60));
    EXPECT_EQ(*parseFigureSize(QStringLiteral(" 85.5 x 60 ")), QSizeF(85.5, 60));
    for (const char *bad : {"", "85", "85x", "x60", "-85x60", "85x60cm", "1e9x1", "85x60x3", "5x5"})
        EXPECT_FALSE(parseFigureSize(QString::fromLatin1(bad)).ok()) << bad;
}

TEST(FigureErrors, EveryContractedKindIsKnown)
{
    for (const char *kind : {"gram", "load", "load-layers", "space", "trajectory", "flow", "specialization", "metrics", "expert", "information", "geometry",
                             "dynamics", "training", "compare", "overlap", "coactivation"})
        EXPECT_NE(findFigure(QString::fromLatin1(kind)), nullptr) << kind;
    EXPECT_GE(availableFigures().size(), 9);
}

TEST(Figure, OneDomainOnly)
{
    QTemporaryDir folder;
    FigureOptions o;
    o.domain = QStringLiteral("law");
    const QString out = folder.filePath(QStringLiteral("f.csv"));
    ASSERT_TRUE(renderFigure(QStringLiteral("load"), {sampleTrace()}, o, out).ok());
    EXPECT_TRUE(read(out).startsWith("layer,expert,load,share,relative,law\n"));
}

TEST(Table, QuotesAndNumbersSurvive)
{
    TableData t;
    t.header = {QStringLiteral("a,b"), QStringLiteral("n"), QStringLiteral("f")};
    t.rows = 2;
    t.cell = [](qsizetype r, int c) -> QVariant {
        if (c == 0)
            return r == 0 ? QStringLiteral("say \"hi\"\nthere") : QStringLiteral("50%_of&it");
        return c == 1 ? QVariant(r == 0 ? 0.1 : NAN) : QVariant(0.1f);
    };
    EXPECT_EQ(t.separated(','), QByteArray("\"a,b\",n,f\n\"say \"\"hi\"\"\nthere\",0.1,0.1\n50%_of&it,,0.1\n"));
    EXPECT_EQ(t.separated('\t').count('\n'), 3);
    EXPECT_TRUE(t.latex().contains("50\\%\\_of\\&it"));
}

TEST(Clipboard, HoldsPictureAndDataAtOnce)
{
    Shown shown = showView(QStringLiteral("load"), sampleTrace());
    const std::unique_ptr<QMimeData> mime(clipboardData(*shown.view));
    EXPECT_TRUE(mime->data(QStringLiteral("image/png")).startsWith("\x89PNG"));
    EXPECT_TRUE(mime->data(QStringLiteral("image/svg+xml")).contains("<svg"));
    EXPECT_TRUE(mime->data(QStringLiteral("text/tab-separated-values")).startsWith("layer\texpert\tload"));
    EXPECT_TRUE(mime->hasText());
    EXPECT_TRUE(mime->hasImage());
}

TEST(Provenance, ForeignFilesGiveNothing)
{
    QTemporaryDir folder;
    const QString path = folder.filePath(QStringLiteral("x.png"));
    QImage(8, 8, QImage::Format_RGB32).save(path);
    EXPECT_TRUE(readProvenance(path).isEmpty());
    QFile f(folder.filePath(QStringLiteral("x.pdf")));
    ASSERT_TRUE(f.open(QIODevice::WriteOnly));
    f.write("%PDF-1.4 <spectra:provenance>{broken");
    f.close();
    EXPECT_TRUE(readProvenance(f.fileName()).isEmpty());
    EXPECT_TRUE(readProvenance(folder.filePath(QStringLiteral("missing"))).isEmpty());
}

} // namespace
} // namespace spectra::viewtest
