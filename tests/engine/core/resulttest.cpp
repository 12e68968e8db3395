// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace spectra::test {
namespace {

Result<int> half(int n)
{
    if (n % 2 != 0)
        return inputError("is odd", "number", "add one");
    return n / 2;
}

Result<int> quarter(int n)
{
    SPECTRA_TRY(const int h, half(n));
    SPECTRA_TRY(const int q, half(h));
    return q;
}

Result<void> checkQuarter(int n)
{
    SPECTRA_CHECK(quarter(n));
    return {};
}

Result<std::unique_ptr<int>> owned(bool good)
{
    if (!good)
        return workError("no");
    return std::make_unique<int>(5);
}

TEST(Result, CarriesAValueOrAnError)
{
    const Result<int> four = half(8);
    ASSERT_TRUE(four.ok());
    EXPECT_EQ(*four, 4);
    const Result<int> odd = half(7);
    ASSERT_FALSE(odd);
    EXPECT_EQ(odd.error().kind, ErrorKind::input);
    EXPECT_EQ(odd.error().mend, "add one");
}

TEST(Result, MacrosReturnTheFirstError)
{
    EXPECT_EQ(*quarter(12), 3);
    EXPECT_FALSE(quarter(6).ok()) << "the second step fails";
    EXPECT_FALSE(quarter(3).ok());
    EXPECT_TRUE(checkQuarter(4).ok());
    EXPECT_EQ(checkQuarter(6).error().what, "is odd");
}

TEST(Result, MovesWhatCannotBeCopied)
{
    auto good = owned(true);
    ASSERT_TRUE(good.ok());
    const std::unique_ptr<int> value = *std::move(good);
    EXPECT_EQ(*value, 5);
    EXPECT_FALSE(owned(false).ok());
    Result<std::shared_ptr<const int>> converted = std::make_shared<int>(3); // convertible, not the same type
    EXPECT_EQ(**converted, 3);
}

TEST(Result, OuterPlacesComeFirst)
{
    Error error = inputError("is odd");
    error.in("row 3").in("file.json");
    EXPECT_EQ(error.where, "file.json: row 3");
    EXPECT_EQ(error.what, "is odd");
}

TEST(Result, KindsHaveTheExitCodesOfTheCommandLine)
{
    EXPECT_EQ(exitCode(ErrorKind::usage), 2);
    EXPECT_EQ(exitCode(ErrorKind::input), 3);
    EXPECT_EQ(exitCode(ErrorKind::work), 1);
    EXPECT_EQ(exitCode(ErrorKind::bug), 1);
    EXPECT_EQ(exitCode(ErrorKind::cancelled), 130);
}

} // namespace
} // namespace spectra::test
