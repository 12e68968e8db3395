// SPDX-License-Identifier: GPL-3.0-or-later
// spectra-probe [--seconds N] -- FILE: checks an HDF5 file under limits. Prints "ok" and exits 0, or what is wrong and
// exits 3; on a file that harms the library it dies, and the caller refuses the file.
#include "engine/trace/probe.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

int main(int argc, char **argv)
{
    int seconds = 60;
    const char *file = nullptr;
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = std::atoi(argv[++i]);
        else if (std::strcmp(argv[i], "--") == 0 && i + 1 < argc)
            file = argv[++i];
    }
    if (file == nullptr || seconds < 1) {
        std::fputs("usage: spectra-probe [--seconds N] -- FILE\n", stderr);
        return 2;
    }
    spectra::limitThisProcess(std::int64_t(2) << 30, seconds);
    std::string what, where = file, mend;
    try {
        auto probed = spectra::probeFile(file);
        if (probed) {
            std::puts("ok");
            std::fflush(stdout);
            std::_Exit(0); // HDF5's own closing down of what a strange file left is not needed
        }
        what = probed.error().what;
        where = probed.error().where;
        mend = probed.error().mend;
    } catch (const std::bad_alloc &) {
        what = "needs more memory to check than any trace";
    } catch (const std::exception &exception) {
        what = exception.what();
    }
    std::printf("%s\x1f%s\x1f%s\n", what.c_str(), where.c_str(), mend.c_str());
    std::fflush(stdout);
    std::_Exit(3);
}
