// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/capture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace spectra::test {
namespace {

TEST(Capture, PresetsAreNested)
{
    const FieldMask minimal = Capture::minimal().fields, standard = Capture::standard().fields, full = Capture::full().fields;
    EXPECT_EQ(minimal & standard, minimal);
    EXPECT_EQ(standard & full, standard);
    EXPECT_NE(standard, full);
    EXPECT_TRUE(Capture::standard().has(Field::probabilities));
    EXPECT_FALSE(Capture::standard().has(Field::vectors));
}

TEST(Capture, NamesAreAddedAndDropped)
{
    const auto c = Capture::parse("standard,+vectors,-nll");
    ASSERT_TRUE(c.ok());
    EXPECT_EQ(c->fields, (Capture::standard().fields | bit(Field::vectors)) & ~bit(Field::nll));
    EXPECT_EQ(Capture::parse("+gru")->fields, Capture::standard().fields | bit(Field::gru)) << "without a preset it is standard";
    EXPECT_EQ(Capture::parse("minimal")->fields, Capture::minimal().fields);
    EXPECT_EQ(Capture::parse("full,-hidden,+hidden")->fields, Capture::full().fields) << "in order";
}

TEST(Capture, WrongWordsAreUsageErrors)
{
    for (const char *text : {"", "everything", "standard,vectors", "standard,+", "standard,+no_such", "standard,,", "standard,-experts", "minimal,-tokens"}) {
        const auto c = Capture::parse(text);
        ASSERT_FALSE(c.ok()) << text;
        EXPECT_EQ(c.error().kind, ErrorKind::usage);
        EXPECT_EQ(c.error().where, "--capture");
    }
    EXPECT_THAT(Capture::parse("standard,+no_such").error().mend, testing::HasSubstr("expert_means")) << "the possible names are said";
}

TEST(Capture, TextAndMaskAreTheSame)
{
    for (FieldMask i = 0; i < 200; ++i) {
        Capture c = i % 3 == 0 ? Capture::minimal() : i % 3 == 1 ? Capture::standard() : Capture::full();
        const auto field = static_cast<Field>(i % static_cast<FieldMask>(Field::count_));
        if (field == Field::tokens || field == Field::experts || field == Field::weights)
            continue;
        i % 2 == 0 ? c.add(field) : c.drop(field);
        const auto again = Capture::parse(c.toString());
        ASSERT_TRUE(again.ok()) << c.toString();
        EXPECT_EQ(again->fields, c.fields) << c.toString();
    }
}

TEST(Capture, BytesPerTokenGrowWithWhatIsKept)
{
    const Capture::Sizes sizes{30, 8, 2, 32, 576, 2, 0.25};
    const double minimal = Capture::minimal().bytesPerToken(sizes), standard = Capture::standard().bytesPerToken(sizes), full = Capture::full().bytesPerToken(sizes);
    EXPECT_LT(minimal, standard);
    EXPECT_LT(standard, full);
    // 30 layers of 2 slots: u16 experts, f16 weights, one byte dropped.
    Capture routing;
    routing.add(Field::experts);
    const double without = Capture().bytesPerToken(sizes);
    EXPECT_EQ(routing.bytesPerToken(sizes) - without, 30 * 2 * 2);
    Capture vectors;
    vectors.add(Field::vectors);
    EXPECT_EQ(vectors.bytesPerToken(sizes) - without, 2.0 * 30 * 8 * 32 * 2) << "two vectors of E·D halves per layer";
}

} // namespace
} // namespace spectra::test
