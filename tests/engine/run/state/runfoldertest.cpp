// SPDX-License-Identifier: GPL-3.0-or-later
// A run's folder after a kill at the worst moments.
#include "engine/run/runfolder.h"
#include "tests/support/tinymodel.h"

#include <gmock/gmock.h>

#include <memory>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;

class NoText final : public Corpus {
public:
    [[nodiscard]] const std::vector<DomainSource> &domains() const override { return m_domains; }
    [[nodiscard]] std::span<const std::int32_t> training(std::size_t) const override { return {}; }
    [[nodiscard]] std::span<const std::int32_t> heldOut(std::size_t) const override { return {}; }
    [[nodiscard]] std::int64_t heldOutBytes(std::size_t) const override { return 0; }
    [[nodiscard]] std::string manifest() const override
    {
        return R"({"format":"spectra-corpus-1","domains":[],"filters":{},"split":{},"tokenizer":{},"order":""})";
    }

private:
    std::vector<DomainSource> m_domains;
};

class Folder : public testing::Test {
protected:
    TemporaryFolder folder{"runfolder"};
    TrainConfig config = *TrainConfig::parse(R"({"data":{"domains":{"a":"a.txt"}}})", "test");
    TrainSetup setup = [] {
        TrainSetup s;
        s.corpus = std::make_shared<NoText>();
        s.tokenizerJson = "{}";
        return s;
    }();

    Result<std::unique_ptr<RunFolder>> open(const fs::path &place, bool resume, bool overwrite) const
    {
        return RunFolder::open(place, config, setup, resume, overwrite, "test", 1);
    }
};

TEST_F(Folder, AKillWhileItIsMadeLosesNothingAndBlocksNothing)
{
    const std::vector<std::string> order = {".lock", "environment.json", "tokenizer.json", "config.json"};
    for (const bool resume : {true, false})
        for (std::size_t written = 1; written <= order.size(); ++written) {
            const TemporaryFolder run("begun");
            for (std::size_t i = 0; i < written; ++i)
                run.write(order[i], "{}");
            run.write(".config.json.4711-0.tmp", "{");
            ASSERT_TRUE(RunFolder::check(run.path(), resume, !resume).ok()) << order[written - 1];
            EXPECT_FALSE(RunFolder::check(run.path(), false, false).ok());
            const auto opened = open(run.path(), resume, !resume);
            ASSERT_TRUE(opened) << opened.error().what << ": " << opened.error().where;
            EXPECT_TRUE(fs::exists(run / "manifest.json"));
            EXPECT_FALSE(fs::exists(run / ".config.json.4711-0.tmp"));
            EXPECT_TRUE((*opened)->lastCheckpoint().empty());
        }
}

TEST_F(Folder, WhatIsNoRunIsLeftAlone)
{
    const TemporaryFolder letters("letters"), tokenizer("tokenizer");
    letters.write(".lock", "");
    letters.write("config.json", "{}");
    letters.write("letter.txt", "mine");
    tokenizer.write("tokenizer.json", "{}"); // of a person, who has no lock there
    tokenizer.write("config.json", "{}");
    for (const fs::path &place : {letters.path(), tokenizer.path()})
        for (const bool resume : {true, false}) {
            EXPECT_FALSE(RunFolder::check(place, resume, !resume).ok());
            EXPECT_FALSE(open(place, resume, !resume));
        }
    EXPECT_EQ(readText(letters / "letter.txt"), "mine");
}

TEST_F(Folder, HalfACheckpointIsNotTheLastOneAndGoes)
{
    const fs::path place = folder / "run";
    ASSERT_TRUE(open(place, false, false));
    const fs::path half = place / "checkpoints/.step-000300.4711-2.tmp";
    for (const fs::path &checkpoint : {place / "checkpoints/step-000100", place / "checkpoints/step-000200", half})
        fs::create_directories(checkpoint / "optimizer");
    fs::create_directories(place / "checkpoints/step-");
    fs::create_directories(place / "checkpoints/step-12x");
    const auto again = open(place, true, false);
    ASSERT_TRUE(again) << again.error().what;
    EXPECT_EQ((*again)->lastCheckpoint(), place / "checkpoints/step-000200");
    EXPECT_FALSE(fs::exists(half));
    const auto second = open(place, true, false);
    ASSERT_FALSE(second) << "one process at a time";
    EXPECT_EQ(second.error().kind, ErrorKind::work);
    (*again)->keepCheckpoints(1);
    EXPECT_FALSE(fs::exists(place / "checkpoints/step-000100"));
    EXPECT_TRUE(fs::exists(place / "checkpoints/step-000200"));
}

} // namespace
} // namespace spectra::test
