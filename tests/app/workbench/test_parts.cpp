// SPDX-License-Identifier: GPL-3.0-or-later
// The parts that need no window.
#include "support.h"

#include "app/workbench/document/filekind.h"
#include "app/workbench/document/sessiondocument.h"
#include "app/workbench/figure/figurepage.h"
#include "app/workbench/shell/fuzzymatch.h"
#include "app/workbench/shell/ratemeter.h"

#include <QAbstractItemModelTester>
#include <QDir>
#include <QJsonArray>
#include <QSignalSpy>

namespace spectra {

using namespace shelltest;

TEST(FuzzyMatch, LettersMustComeInOrder)
{
    EXPECT_LT(fuzzyMatch(QStringLiteral("xz"), QStringLiteral("Export figure")).score, 0);
    EXPECT_LT(fuzzyMatch(QStringLiteral("gif"), QStringLiteral("figure")).score, 0);
    EXPECT_EQ(fuzzyMatch({}, QStringLiteral("anything")).score, 0);
    const FuzzyMatch match = fuzzyMatch(QStringLiteral("ef"), QStringLiteral("Export figure"));
    ASSERT_GE(match.score, 0);
    EXPECT_EQ(match.positions, (std::vector<int>{0, 7})) << "word starts win over the first letters that fit";
}

TEST(FuzzyMatch, BetterMatchesScoreHigher)
{
    const auto score = [](const char *pattern, const char *text) { return fuzzyMatch(QLatin1String(pattern), QLatin1String(text)).score; };
    EXPECT_GT(score("dark", "Dark theme"), score("dark", "Discard all marks"));
    EXPECT_GT(score("rl", "Restore layout"), score("rl", "Clear all"));
    EXPECT_GT(score("open", "Open"), score("open", "Open the example of the program"));
}

TEST(RateMeter, SaysNothingBeforeItKnows)
{
    RateMeter meter;
    EXPECT_FALSE(meter.rate(0));
    meter.add(0, 0);
    meter.add(0.5, 10);
    EXPECT_FALSE(meter.rate(0.5)) << "half a second is too short";
    meter.add(2, 40);
    ASSERT_TRUE(meter.rate(2));
    EXPECT_DOUBLE_EQ(*meter.rate(2), 20);
    EXPECT_DOUBLE_EQ(*meter.remaining(2, 100), 3);
    EXPECT_DOUBLE_EQ(*meter.remaining(3, 100), 2) << "time goes on between steps";
    EXPECT_FALSE(meter.remaining(2, 0)) << "no total, no remaining time";
    EXPECT_FALSE(meter.rate(13)) << "a stall is no rate";
}

TEST(RateMeter, FollowsAChangeOfRateAndStartsAnew)
{
    RateMeter meter;
    for (int t = 0; t <= 60; ++t)
        meter.add(t, t < 30 ? t * 100 : 3000 + (t - 30) * 10);
    ASSERT_TRUE(meter.rate(60));
    EXPECT_NEAR(*meter.rate(60), 10, 1);
    meter.add(61, 5);
    EXPECT_FALSE(meter.rate(61)) << "fewer steps than before: other work";
}

TEST(RateMeter, TextsAreShort)
{
    EXPECT_EQ(durationText(0.94), QStringLiteral("0.9 s"));
    EXPECT_EQ(durationText(200), QStringLiteral("3 min 20 s"));
    EXPECT_EQ(durationText(7500), QStringLiteral("2 h 5 min"));
    EXPECT_EQ(rateText(12345), QStringLiteral("12,345"));
    EXPECT_EQ(bytesText(412e6), QStringLiteral("412 MB"));
    EXPECT_EQ(bytesText(1.34e9), QStringLiteral("1.3 GB"));
}

TEST(TaskModel, KeepsTheRulesOfModelsAndItsCounts)
{
    TaskModel tasks;
    QAbstractItemModelTester tester(&tasks, QAbstractItemModelTester::FailureReportingMode::Fatal);
    QSignalSpy active(&tasks, &TaskModel::activeChanged);
    int cancelled = 0;
    const quint64 first = tasks.start(QStringLiteral("one"), [&] { ++cancelled; });
    const quint64 second = tasks.start(QStringLiteral("two"));
    tasks.setRunning(first);
    EXPECT_EQ(tasks.activeCount(), 2);
    EXPECT_EQ(tasks.shownTask(), first);
    tasks.setProgress(first, QStringLiteral("reading"), 5, 20, QStringLiteral("tensors"));
    EXPECT_DOUBLE_EQ(tasks.indexOf(first).data(TaskModel::FractionRole).toDouble(), 0.25);
    EXPECT_EQ(tasks.indexOf(first).data(TaskModel::DetailRole).toString(), QStringLiteral("reading · 5 / 20 tensors"));
    EXPECT_FALSE(tasks.indexOf(second).data(TaskModel::CancellableRole).toBool());
    tasks.cancel(first);
    tasks.cancel(first);
    EXPECT_EQ(cancelled, 1) << "a second cancel asks nobody again";
    tasks.finish(first, TaskState::cancelled);
    tasks.setProgress(first, QStringLiteral("late"), 6, 20, {});
    EXPECT_EQ(tasks.indexOf(first).data(TaskModel::DetailRole).toString(), QStringLiteral("cancelled")) << "what ended stays ended";
    tasks.finish(second, TaskState::done, QStringLiteral("9 tokens"));
    EXPECT_EQ(tasks.activeCount(), 0);
    EXPECT_EQ(active.last().first().toInt(), 0);
    tasks.clearFinished();
    EXPECT_EQ(tasks.rowCount(), 0);
}

TEST(FileKind, TellsFilesApartAndSaysWhatIsWrong)
{
    QTemporaryDir folder;
    const auto write = [&](const char *name, const QByteArray &content) {
        QFile file(folder.filePath(QLatin1String(name)));
        EXPECT_TRUE(file.open(QIODevice::WriteOnly));
        file.write(content);
        return file.fileName();
    };
    const QByteArray hdf5 = QByteArray("\x89HDF\r\n\x1a\n") + "rest";
    EXPECT_EQ(*fileKind(write("a.h5", hdf5)), FileKind::trace);
    EXPECT_EQ(*fileKind(write("noending", hdf5)), FileKind::trace) << "content decides, not the name";
    EXPECT_EQ(*fileKind(write("m.gguf", "GGUF\3\0\0\0")), FileKind::gguf);
    EXPECT_EQ(*fileKind(write("p.jsonl", "{\"text\":\"x\"}\n")), FileKind::prompts);
    EXPECT_EQ(*fileKind(write("s.spectra-session", "{}")), FileKind::session);
    QDir(folder.path()).mkdir(QStringLiteral("model"));
    EXPECT_FALSE(fileKind(folder.filePath(QStringLiteral("model"))).ok());
    write("model/config.json", "{}");
    EXPECT_EQ(*fileKind(folder.filePath(QStringLiteral("model"))), FileKind::modelFolder);
    for (const auto &[name, content] : std::initializer_list<std::pair<const char *, QByteArray>>{
             {"bad.h5", "no hdf5"}, {"bad.gguf", "<html>"}, {"empty.txt", ""}, {"pytorch_model.bin", "PK\3\4"},
             {"model.safetensors", "x"}, {"picture.xyz", QByteArray("\0\1\2", 3)}}) {
        const auto kind = fileKind(write(name, content));
        ASSERT_FALSE(kind.ok()) << name;
        EXPECT_EQ(kind.error().kind, ErrorKind::input) << name;
        EXPECT_FALSE(kind.error().mend.empty()) << name;
        EXPECT_NE(kind.error().where.find(name), std::string::npos) << name;
    }
    EXPECT_FALSE(fileKind(folder.filePath(QStringLiteral("missing"))).ok());
}

TEST(SessionDocument, ReadsBackWhatItWrote)
{
    SessionDocument document;
    document.traces = {{QStringLiteral("/a/b.h5"), QStringLiteral("b"), QStringLiteral("u1")}};
    document.linked = QJsonObject{{QStringLiteral("decoder_layer"), 3}};
    document.workspace = QStringLiteral("figure");
    document.layout = QByteArray("\0\xff\x01", 3);
    document.geometry = "geometry";
    document.layoutVersion = 1;
    document.promptText = QStringLiteral("äöü \"quoted\"\n😀");
    document.prompt.experts = 16;
    document.prompt.temperature = 0.5;
    document.views[QStringLiteral("gram")] = QJsonObject{{QStringLiteral("object"), QStringLiteral("routing")}};
    const auto read = SessionDocument::fromJson(document.toJson(QStringLiteral("/a")), QStringLiteral("/a"), QStringLiteral("s"));
    ASSERT_TRUE(read.ok()) << read.error().what << " " << read.error().where;
    EXPECT_EQ(read->traces.size(), 1u);
    EXPECT_EQ(read->traces[0].path, QStringLiteral("/a/b.h5"));
    EXPECT_EQ(read->linked, document.linked);
    EXPECT_EQ(read->layout, document.layout);
    EXPECT_EQ(read->promptText, document.promptText);
    EXPECT_EQ(read->prompt, document.prompt);
    EXPECT_EQ(read->views, document.views);
}

TEST(SessionDocument, AFolderThatMovedIsFoundBesideItsSession)
{
    QTemporaryDir folder;
    QFile trace(folder.filePath(QStringLiteral("t.h5")));
    ASSERT_TRUE(trace.open(QIODevice::WriteOnly));
    SessionDocument document;
    document.traces = {{QStringLiteral("/old/place/t.h5"), {}, {}}};
    const QByteArray json = document.toJson(QStringLiteral("/old/place"));
    const auto read = SessionDocument::fromJson(json, folder.path(), QStringLiteral("s"));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read->traces[0].path, folder.filePath(QStringLiteral("t.h5")));
}

TEST(SessionDocument, HostileInputIsRefusedWithItsPlace)
{
    const auto refused = [](const QByteArray &json) {
        const auto read = SessionDocument::fromJson(json, QStringLiteral("/x"), QStringLiteral("file"));
        if (read.ok())
            return std::string("accepted");
        EXPECT_EQ(read.error().kind, ErrorKind::input);
        EXPECT_EQ(read.error().where.rfind("file", 0), 0u) << read.error().where;
        return read.error().where;
    };
    const QByteArray head = "{\"format\":\"spectra-session\",\"version\":1,";
    EXPECT_NE(refused(""), "accepted");
    EXPECT_NE(refused("[]"), "accepted");
    EXPECT_NE(refused(QByteArray(100'000, '[')), "accepted");
    EXPECT_NE(refused(QByteArray(SessionDocument::maxBytes + 1, ' ')), "accepted");
    EXPECT_EQ(refused("{\"format\":\"other\"}"), "file: format");
    EXPECT_NE(refused("{\"format\":\"spectra-session\",\"version\":2,\"traces\":[]}"), "accepted");
    EXPECT_EQ(refused(head + "\"traces\":{}}"), "file: traces");
    EXPECT_EQ(refused(head + "\"traces\":[{\"path\":7}]}"), "file: traces [0]: path");
    EXPECT_EQ(refused(head + "\"traces\":[],\"layout\":{\"state\":\"*\"}}"), "file: layout: state");
    EXPECT_EQ(refused(head + "\"traces\":[],\"prompt\":{\"experts\":1e300}}"), "file: prompt: experts");
    EXPECT_EQ(refused(head + "\"traces\":[],\"prompt\":{\"top_k\":1.5}}"), "file: prompt: top_k");
    EXPECT_EQ(refused(head + "\"traces\":[],\"linked\":[]}"), "file: linked");
    EXPECT_NE(refused(head + "\"traces\":[" + QByteArray("{\"path\":\"a\"},").repeated(100).chopped(1) + "]}"), "accepted");
}

TEST(FigurePage, PanelsFillThePageWithoutOverlap)
{
    FigureSpec spec;
    for (int count = 1; count <= 7; ++count) {
        const auto places = panelPlaces(spec, count);
        ASSERT_EQ(places.size(), static_cast<std::size_t>(count));
        const QRectF page(QPointF(), spec.sizeMm);
        for (std::size_t i = 0; i < places.size(); ++i) {
            EXPECT_TRUE(page.adjusted(-1e-6, -1e-6, 1e-6, 1e-6).contains(places[i]));
            for (std::size_t j = 0; j < i; ++j)
                EXPECT_FALSE(places[i].intersects(places[j]));
        }
        EXPECT_NEAR(places.back().right(), spec.sizeMm.width(), 1e-6) << "the last row shares the width";
    }
    EXPECT_EQ(panelLetter(QStringLiteral("a"), 0), QStringLiteral("a"));
    EXPECT_EQ(panelLetter(QStringLiteral("(a)"), 2), QStringLiteral("(c)"));
    EXPECT_EQ(panelLetter(QStringLiteral("A"), 26), QStringLiteral("AA"));
    FigureSpec read;
    read.fromJson({{QStringLiteral("width_mm"), 1e9}});
    EXPECT_EQ(read.sizeMm, FigureSpec().sizeMm) << "out of range: kept as it was";
}

} // namespace spectra
