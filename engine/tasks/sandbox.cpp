// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/sandbox.h"

#include "engine/tasks/sandboxchild.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace spectra {
namespace {

constexpr std::size_t kKeptOutput = 4096;
constexpr const char *kPython = "/usr/bin/python3";

/// A descriptor that closes itself.
class Descriptor {
public:
    Descriptor() = default;
    ~Descriptor() { close(); }
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    void close()
    {
        if (m_fd >= 0)
            ::close(m_fd);
        m_fd = -1;
    }
    int m_fd = -1;
};

Result<void> openPipe(Descriptor &reader, Descriptor &writer)
{
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
        return workError(fmt::format("no pipe could be opened: {}", std::strerror(errno)), "sandbox");
    reader.m_fd = ends[0];
    writer.m_fd = ends[1];
    return {};
}

/// A word that the program cannot have printed by chance.
std::string secretWord()
{
    std::random_device device;
    std::string word = "spectra-";
    for (int i = 0; i < 4; ++i)
        word += fmt::format("{:08x}", device());
    return word;
}

Error refusal(const SandboxReport &report)
{
    return workError(fmt::format("programs cannot be contained here: {} failed: {}", sandboxStepName(report.step), std::strerror(report.error)), "sandbox",
                     "unprivileged user namespaces must be allowed (sysctl kernel.unprivileged_userns_clone=1, "
                     "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces), and /usr/bin/python3 be there; programs are never run without the sandbox");
}

} // namespace

Result<ProgramRun> runPython(const std::string &program, const SandboxLimits &limits, std::stop_token stop)
{
    if (stop.stop_requested())
        return cancelledError();
    if (::access(kPython, X_OK) != 0)
        return workError("there is no Python to run programs with", kPython, "install python3");
    const std::string word = secretWord();
    // Written straight to the descriptor: the program may have replaced sys.stdout, print and more.
    const std::string whole = program + "\n__import__('os').write(1, b'\\n" + word + "\\n')\n";
    Descriptor reportReader, reportWriter, outputReader, outputWriter, controlReader, controlWriter;
    SPECTRA_CHECK(openPipe(reportReader, reportWriter));
    SPECTRA_CHECK(openPipe(outputReader, outputWriter));
    SPECTRA_CHECK(openPipe(controlReader, controlWriter));
    SandboxPlan plan;
    plan.python = kPython;
    plan.program = whole.data();
    plan.programSize = whole.size();
    plan.seconds = limits.seconds;
    plan.memory = limits.memory;
    plan.files = limits.files;
    std::snprintf(plan.tmpfsOptions, sizeof plan.tmpfsOptions, "size=%llu,nr_inodes=1024,mode=0777", static_cast<unsigned long long>(limits.files));
    std::snprintf(plan.uidMap, sizeof plan.uidMap, "65534 %u 1\n", ::geteuid() == 0 ? 65534u : ::geteuid());
    std::snprintf(plan.gidMap, sizeof plan.gidMap, "65534 %u 1\n", ::geteuid() == 0 ? 65534u : ::getegid());
    plan.report = reportWriter.m_fd;
    plan.output = outputWriter.m_fd;
    plan.control = controlReader.m_fd;
    plan.controlOther = controlWriter.m_fd;
    const pid_t guard = ::fork();
    if (guard < 0)
        return workError(fmt::format("no process could be started: {}", std::strerror(errno)), "sandbox");
    if (guard == 0)
        runSandboxGuard(plan); // does not return
    reportWriter.close();
    outputWriter.close();
    controlReader.close();

    ProgramRun run;
    std::string output;
    SandboxReport report{};
    std::size_t reported = 0;
    bool outputOpen = true, reportOpen = true, found = false, stopped = false;
    // The guard holds the deadline; this one is for a guard that was itself stopped.
    const auto hardEnd = std::chrono::steady_clock::now() + std::chrono::milliseconds(static_cast<std::int64_t>(limits.seconds * 1000) + 5000);
    while (reportOpen) {
        pollfd fds[2] = {{reportReader.m_fd, POLLIN, 0}, {outputOpen ? outputReader.m_fd : -1, POLLIN, 0}};
        const int ready = ::poll(fds, 2, 20);
        if (ready < 0 && errno != EINTR)
            break;
        if (!stopped && stop.stop_requested()) {
            stopped = true;
            controlWriter.close(); // the guard kills the program
        }
        if (std::chrono::steady_clock::now() > hardEnd) {
            run.timedOut = true;
            break;
        }
        if (ready <= 0)
            continue;
        char buffer[8192];
        if ((fds[1].revents & (POLLIN | POLLHUP)) != 0) {
            const ssize_t n = ::read(outputReader.m_fd, buffer, sizeof buffer);
            if (n <= 0)
                outputOpen = false;
            else
                output.append(buffer, static_cast<std::size_t>(n));
            found = found || output.find(word) != std::string::npos;
            if (output.size() > 4 * kKeptOutput)
                output.erase(0, output.size() - kKeptOutput);
        }
        if ((fds[0].revents & (POLLIN | POLLHUP)) != 0) {
            SandboxReport piece{};
            const ssize_t n = ::read(reportReader.m_fd, reinterpret_cast<char *>(&piece), sizeof piece);
            if (n == static_cast<ssize_t>(sizeof piece)) {
                if (reported++ == 0)
                    report = piece; // a step that failed speaks before the guard; writes this small are never torn
            } else {
                reportOpen = false;
            }
        }
    }
    controlWriter.close();
    ::kill(guard, SIGKILL); // it has ended, or hangs
    int status = 0;
    while (::waitpid(guard, &status, 0) < 0 && errno == EINTR) {
    }
    // What the program wrote last may still lie in the pipe.
    if (outputOpen) {
        ::fcntl(outputReader.m_fd, F_SETFL, O_NONBLOCK);
        char buffer[8192];
        for (ssize_t n; (n = ::read(outputReader.m_fd, buffer, sizeof buffer)) > 0;)
            output.append(buffer, static_cast<std::size_t>(n));
        found = found || output.find(word) != std::string::npos;
    }
    if (stopped)
        return cancelledError();
    if (reported == 0 && !run.timedOut)
        return workError("programs cannot be contained here: the sandbox ended without a word", "sandbox");
    if (reported > 0 && report.step != SandboxStep::ended)
        return refusal(report);
    if (reported > 0) {
        run.timedOut = run.timedOut || report.timedOut != 0;
        if (WIFEXITED(report.status))
            run.exitCode = WEXITSTATUS(report.status);
        else if (WIFSIGNALED(report.status))
            run.signal = WTERMSIG(report.status);
    }
    // The word may stand before what the program printed: Python writes its own buffer at the end.
    if (const std::size_t at = output.rfind("\n" + word + "\n"); at != std::string::npos)
        output.erase(at, word.size() + 2);
    if (output.size() > kKeptOutput)
        output.erase(0, output.size() - kKeptOutput);
    run.output = std::move(output);
    run.passed = found && run.exitCode == 0 && !run.timedOut;
    return run;
}

Result<void> checkSandbox()
{
    SPECTRA_TRY(const ProgramRun run, runPython("assert sum([1, 2]) == 3", {}));
    if (!run.passed)
        return workError("programs cannot be contained here: a trivial one does not run", "sandbox", run.output);
    return {};
}

} // namespace spectra
