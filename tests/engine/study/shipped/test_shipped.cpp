// SPDX-License-Identifier: GPL-3.0-or-later
// The studies that come with the program: every run of each is a training configuration that `spectra train` takes.
#include "engine/router/router.h"
#include "engine/study/claims.h"
#include "engine/study/effects.h"
#include "engine/study/table.h"
#include "engine/train/trainconfig.h"
#include "engine/train/upcycle.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

namespace spectra {
namespace {
namespace fs = std::filesystem;

const fs::path kStudies = fs::path(SPECTRA_SOURCE_DIR) / "resources" / "studies";

std::vector<fs::path> shipped()
{
    std::vector<fs::path> files;
    for (const auto &entry : fs::directory_iterator(kStudies))
        if (entry.path().extension() == ".json" && entry.path().stem() != "base" && entry.path().stem() != "reference")
            files.push_back(entry.path());
    return files;
}

TEST(ShippedStudies, everyRunIsAConfigurationThatTrainTakes)
{
    ASSERT_GE(shipped().size(), 15u);
    std::set<std::string> seen;
    for (const fs::path &file : shipped()) {
        study::SpecOptions options;
        options.data = "/data";
        const auto spec = study::readSpec(file, options);
        ASSERT_TRUE(spec) << file << ": " << spec.error().what << ": " << spec.error().where << " (" << spec.error().mend << ")";
        EXPECT_EQ(spec->name, file.stem());
        const auto cells = study::makeCells(*spec);
        ASSERT_TRUE(cells) << file << ": " << cells.error().what;
        study::Study empty;
        empty.spec = *spec;
        empty.cells = *cells;
        for (const study::Cell &cell : *cells) {
            empty.results.push_back({false, "not run", study::Json::object(), cell.config});
            if (cell.seed != spec->seeds.front() || !seen.insert(cell.sha256).second)
                continue;
            const auto config = TrainConfig::parse(cell.text, cell.id);
            ASSERT_TRUE(config) << file << ": " << config.error().what << ": " << config.error().where << " (" << config.error().mend << ")";
            EXPECT_EQ(config->dataSeed, cell.seed);
            if (config->start != "scratch")
                continue;
            RouterShape shape;
            shape.hidden = config->hidden;
            shape.experts = config->experts;
            shape.topK = config->topK;
            shape.vocabulary = config->vocabulary;
            shape.moeLayers = *LayerChoice::parse(config->moeLayers)->resolve(config->layers);
            const auto router = makeRouter(config->routerJson, shape, 0);
            EXPECT_TRUE(router) << file << ", " << cell.id << ": " << (router ? "" : router.error().what + " " + router.error().where);
        }
        for (const study::TableSpec &table : spec->tables) {
            const auto made = study::makeTable(empty, table);
            EXPECT_TRUE(made) << file << ": " << (made ? "" : made.error().what + ": " + made.error().where);
        }
        EXPECT_TRUE(study::factorialEffects(empty)) << file;
        const auto again = study::parseSpec(spec->source, "study.json", {});
        EXPECT_TRUE(again) << "what the study's folder keeps reads back";
    }
}

TEST(ShippedStudies, theClaimsAreWhole)
{
    const auto claims = study::readClaims(kStudies / "reference.json");
    ASSERT_TRUE(claims) << claims.error().what << ": " << claims.error().where;
    EXPECT_EQ(claims->size(), 147u);
    std::size_t kinds[3] = {};
    for (const study::Claim &c : *claims)
        ++kinds[static_cast<std::size_t>(c.kind)];
    for (const std::size_t n : kinds)
        EXPECT_GT(n, 0u);
}

} // namespace
} // namespace spectra
