// SPDX-License-Identifier: GPL-3.0-or-later
// The whole program: real window, real events, real engine, the sample model turned into a SPECTRA mixture.
#include "app/bridge/engineclient.h"
#include "app/bridge/traceloader.h"
#include "app/bridge/tracesaver.h"
#include "app/workbench/mainwindow.h"
#include "app/workbench/prompt/promptview.h"
#include "app/workbench/shell/bannerarea.h"
#include "app/workbench/shell/statusline.h"
#include "engine/core/files.h"
#include "tests/support/qtwatch.h"

#include <QTemporaryDir>
#include <QTest>

#include <gtest/gtest.h>

#include <filesystem>

namespace spectra {
namespace {

struct Live : ::testing::Test {
    void SetUp() override
    {
        ASSERT_TRUE(std::filesystem::exists(cacheFolder() / "models" / "smollm2-135m.gguf")) << "packaging/setup --model fetches the sample model";
        start();
    }
    void TearDown() override { close(); }
    void start()
    {
        WorkbenchSetup setup;
        setup.engine = [](std::shared_ptr<EngineSink> sink) { return makeRunEngine(std::move(sink)); };
        setup.opener = fileTraceOpener();
        setup.saver = liveTraceSaver();
        workbench = std::make_unique<Workbench>(std::move(setup));
        window = std::make_unique<MainWindow>(*workbench);
        window->show();
        ASSERT_TRUE(QTest::qWaitForWindowExposed(window.get()));
    }
    void close()
    {
        if (window)
            window->close();
        window.reset();
        workbench.reset();
    }
    void run(const QString &text, int newTokens)
    {
        PromptSettings settings = window->promptView().settings();
        settings.maxNewTokens = newTokens;
        settings.experts = 4;
        window->promptView().setSettings(settings);
        QPlainTextEdit *editor = window->promptView().editor();
        window->showWorkspace(Workspace::explore);
        editor->setFocus();
        editor->selectAll();
        QTest::keyClicks(editor, text);
        QTest::mouseClick(window->promptView().runButton(), Qt::LeftButton);
    }
    QStringList errors() const
    {
        QStringList texts;
        for (const Banner *banner : window->banners().banners())
            if (banner->notice().kind == Notice::Kind::error)
                texts << banner->plainText();
        return texts;
    }
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<MainWindow> window;
};

TEST_F(Live, APromptIsRunRoutedAndShown)
{
    run(QStringLiteral("The capital of France is"), 6);
    ASSERT_TRUE(QTest::qWaitFor([&] { return !window->isIdle(); }, 5000));
    ASSERT_TRUE(QTest::qWaitFor([&] { return window->isIdle(); }, 300'000));
    ASSERT_TRUE(errors().isEmpty()) << errors().join(u'\n').toStdString();
    const auto trace = workbench->session().current();
    ASSERT_TRUE(trace);
    const auto info = trace->source->info();
    EXPECT_TRUE(info->complete);
    EXPECT_EQ(info->layers(), 30);
    EXPECT_EQ(info->experts, 4);
    EXPECT_GE(info->tokens, 5 + 6);
    // The dense model continues so, and its upcycled form all but equals it.
    QString text;
    for (const auto &token : window->promptView().tokenText()->tokens())
        text += token.text;
    EXPECT_TRUE(text.contains(QStringLiteral("Paris"))) << text.toStdString();
    EXPECT_TRUE(window->statusLine().noteText().contains(QStringLiteral("not trained"))) << window->statusLine().noteText().toStdString();
    for (const char *id : {"gram", "load", "trajectory", "metrics", "space"})
        EXPECT_EQ(window->view(QLatin1String(id))->state(), ViewState::ready) << id;
    // Colour of a token is its top expert in the layer shown.
    const auto &tokens = window->promptView().tokenText()->tokens();
    const auto block = trace->source->block(Column::experts, 0, {0, info->tokens});
    ASSERT_TRUE(block.ok());
    ASSERT_EQ(static_cast<std::int64_t>(tokens.size()), info->tokens);
    for (std::size_t i = 0; i < tokens.size(); ++i)
        EXPECT_EQ(tokens[i].experts[0], (*block)->u16[i * static_cast<std::size_t>(info->slots)]);
}

TEST_F(Live, ARunIsSavedAndOpensAgain)
{
    run(QStringLiteral("Two and two is"), 3);
    ASSERT_TRUE(QTest::qWaitFor([&] { return !window->isIdle(); }, 5000));
    ASSERT_TRUE(QTest::qWaitFor([&] { return window->isIdle(); }, 300'000));
    const auto live = workbench->session().current();
    ASSERT_TRUE(live);
    const auto before = live->source;
    const QTemporaryDir folder;
    const QString file = folder.filePath(QStringLiteral("run.h5"));
    workbench->saveTrace(live->id, file, false);
    ASSERT_TRUE(QTest::qWaitFor([&] { return window->isIdle(); }, 60'000));
    ASSERT_TRUE(errors().isEmpty()) << errors().join(u'\n').toStdString();
    const auto saved = workbench->session().current();
    ASSERT_TRUE(saved);
    EXPECT_EQ(QString::fromStdString(saved->info->file), file) << "the file has taken the place of the run";
    ASSERT_EQ(saved->info->tokens, before->info()->tokens);
    const TokenRange all{0, saved->info->tokens};
    for (int layer : {0, 29}) {
        const auto a = before->block(Column::experts, layer, all), b = saved->source->block(Column::experts, layer, all);
        ASSERT_TRUE(a.ok() && b.ok());
        EXPECT_EQ((*a)->u16, (*b)->u16);
    }
    // A window of tomorrow.
    close();
    start();
    workbench->open({file});
    ASSERT_TRUE(QTest::qWaitFor([&] { return window->isIdle() && workbench->session().current(); }, 60'000));
    EXPECT_TRUE(errors().isEmpty()) << errors().join(u'\n').toStdString();
    EXPECT_EQ(window->view(QStringLiteral("gram"))->state(), ViewState::ready);
}

TEST_F(Live, StopWhileGeneratingKeepsWhatCameAndTheNextRunWorks)
{
    run(QStringLiteral("Once upon a time"), 100'000);
    ASSERT_TRUE(QTest::qWaitFor([&] { return workbench->runner().tokens() >= 12; }, 300'000));
    QTest::mouseClick(window->promptView().runButton(), Qt::LeftButton);
    ASSERT_TRUE(QTest::qWaitFor([&] { return window->isIdle(); }, 20'000));
    EXPECT_TRUE(errors().isEmpty()) << errors().join(u'\n').toStdString();
    ASSERT_EQ(workbench->session().traces().size(), 1u);
    EXPECT_GE(workbench->session().current()->source->info()->tokens, 12);
    run(QStringLiteral("Hello"), 2);
    ASSERT_TRUE(QTest::qWaitFor([&] { return !window->isIdle(); }, 5000));
    ASSERT_TRUE(QTest::qWaitFor([&] { return window->isIdle(); }, 300'000));
    EXPECT_EQ(workbench->session().traces().size(), 2u);
    EXPECT_TRUE(errors().isEmpty()) << errors().join(u'\n').toStdString();
}

TEST_F(Live, ClosingWhileGeneratingLeavesNoThread)
{
    run(QStringLiteral("Once upon a time"), 100'000);
    ASSERT_TRUE(QTest::qWaitFor([&] { return workbench->runner().tokens() >= 6; }, 300'000));
    close();
    const int once = test::threadsOfProcess();
    start();
    run(QStringLiteral("Once upon a time"), 100'000);
    ASSERT_TRUE(QTest::qWaitFor([&] { return workbench->runner().tokens() >= 6; }, 300'000));
    close();
    EXPECT_LE(test::threadsOfProcess(), once) << "the pools of torch stay, everything of ours ends";
}

} // namespace
} // namespace spectra

int main(int argc, char **argv)
{
    qputenv("QT_QPA_PLATFORM", "offscreen");
    qInstallMessageHandler(spectra::test::failOnQtWarning);
    QApplication app(argc, argv);
    ::testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
