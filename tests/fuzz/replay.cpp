// SPDX-License-Identifier: GPL-3.0-or-later
// Runs every file of the given folders through a fuzz target, where libFuzzer is not at hand.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);

int main(int argc, char **argv)
{
    std::vector<std::filesystem::path> files;
    for (int i = 1; i < argc; ++i) {
        if (std::filesystem::is_regular_file(argv[i]))
            files.emplace_back(argv[i]);
        std::error_code error;
        for (const auto &entry : std::filesystem::recursive_directory_iterator(argv[i], error))
            if (entry.is_regular_file())
                files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    for (const auto &file : files) {
        std::printf("%s\n", file.c_str());
        std::fflush(stdout); // the last name is the one that crashed
        std::ifstream stream(file, std::ios::binary);
        // Exactly sized, so that a sanitizer sees a read past the end.
        const std::vector<char> bytes{std::istreambuf_iterator<char>(stream), {}};
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t *>(bytes.data()), bytes.size());
    }
    std::printf("%zu inputs\n", files.size());
    return files.empty() ? 1 : 0;
}
