// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/environment.h"

#include "engine/core/version.h"

#include <torch/version.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <sys/resource.h>
#include <sys/utsname.h>

namespace spectra {
namespace {

std::string processorName()
{
    std::ifstream stream("/proc/cpuinfo");
    std::string line;
    while (std::getline(stream, line))
        if (line.starts_with("model name"))
            if (const std::size_t at = line.find(": "); at != std::string::npos)
                return line.substr(at + 2);
    return "unknown";
}

} // namespace

EnvironmentAttributes environmentAttributes(const std::string &commandLine, int threads)
{
    EnvironmentAttributes e;
    e.version = programVersion();
    e.gitCommit = programCommit();
    e.libtorch = TORCH_VERSION;
    e.compiler = programCompiler();
    e.processor = processorName();
    struct utsname name {};
    if (::uname(&name) == 0)
        e.system = fmt::format("{} {}", name.sysname, name.release);
    e.commandLine = commandLine;
    e.threads = threads;
    return e;
}

std::string environmentJson(const EnvironmentAttributes &e)
{
    const nlohmann::ordered_json json{{"version", e.version},     {"git_commit", e.gitCommit}, {"libtorch", e.libtorch},       {"compiler", e.compiler},
                                      {"processor", e.processor}, {"system", e.system},        {"command_line", e.commandLine}, {"threads", e.threads}};
    return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::uint64_t peakMemory()
{
    struct rusage usage {};
    return ::getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::uint64_t>(usage.ru_maxrss) * 1024 : 0;
}

double processorJoules()
{
    // One counter per package; sub-domains (intel-rapl:0:1) are part of their package.
    double joules = -1;
    for (int package = 0; package < 64; ++package) {
        std::ifstream stream(fmt::format("/sys/class/powercap/intel-rapl:{}/energy_uj", package));
        double microjoules = 0;
        if (!(stream >> microjoules))
            break;
        joules = std::max(joules, 0.0) + microjoules * 1e-6;
    }
    return joules;
}

} // namespace spectra
