// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/cuda/cudarule.h"

#include <gtest/gtest.h>

#include <fstream>

namespace spectra {
namespace {

TEST(CudaLoader, SaysPlainlyWhyAGpuCannotBeUsed)
{
    const auto opened = CudaRule::open();
    if (opened.ok()) {
        EXPECT_GE(opened->devices(), 1);
        return;
    }
    EXPECT_EQ(opened.error().kind, ErrorKind::work);
    EXPECT_FALSE(opened.error().what.empty());
    EXPECT_EQ(opened.error().mend.find("--device cpu") == std::string::npos, false);
    std::printf("%s: %s\n", opened.error().where.c_str(), opened.error().what.c_str());
}

TEST(CudaLoader, AFileThatIsNoLibraryIsRefused)
{
    EXPECT_FALSE(CudaRule::open("/nonexistent/libspectra_cuda.so").ok());
    const std::string file = testing::TempDir() + "not_a_library.so";
    std::ofstream(file) << "text";
    const auto opened = CudaRule::open(file);
    ASSERT_FALSE(opened.ok());
    EXPECT_NE(opened.error().what.find("cannot be loaded"), std::string::npos);
    std::remove(file.c_str());
}

} // namespace
} // namespace spectra
