// SPDX-License-Identifier: GPL-3.0-or-later
// The probe as a child process, and opening a trace behind it.
#include "engine/trace/tracereader.h"

#include "engine/trace/knownfiles.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

extern "C" char **environ;

namespace spectra {
namespace fs = std::filesystem;
namespace {

/// SPECTRA_PROBE, or spectra-probe in the libexec folder that belongs to the running program's folder.
fs::path probeProgram()
{
    if (const char *given = std::getenv("SPECTRA_PROBE"); given != nullptr && *given != '\0')
        return given;
    std::error_code error;
    const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
    for (const char *place : {"../libexec/spectra-probe", "../libexec/spectra/spectra-probe", "libexec/spectra-probe", "spectra-probe"})
        if (fs::path program = folder / place; ::access(program.c_str(), X_OK) == 0)
            return program;
    return {};
}

class Descriptor {
public:
    explicit Descriptor(int fd = -1) : m_fd(fd) {}
    ~Descriptor() { close(); }
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    [[nodiscard]] int get() const { return m_fd; }
    void close()
    {
        if (m_fd >= 0)
            ::close(m_fd);
        m_fd = -1;
    }

private:
    int m_fd;
};

Error refused(const fs::path &path, const std::string &why)
{
    return inputError(why, path.string(), "the file is damaged or was made to do harm; get it again from its source");
}

} // namespace

Result<void> probeTrace(const fs::path &path, const OpenOptions &options)
{
    std::error_code error;
    if (!fs::exists(path, error))
        return inputError("no such file", path.string());
    if (!fs::is_regular_file(path, error))
        return inputError("is not a regular file", path.string());
    const fs::path program = probeProgram();
    if (program.empty())
        return workError("the program spectra-probe, which checks files from outside, was not found", {}, "reinstall, or set SPECTRA_PROBE");
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
        return workError("no pipe could be made: " + std::error_code(errno, std::generic_category()).message());
    Descriptor from(ends[0]), to(ends[1]);
    const Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const std::stop_callback onStop(options.stop, [&wake] {
        const std::uint64_t one = 1;
        (void)!::write(wake.get(), &one, sizeof one);
    });

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to.get(), STDOUT_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3); // nothing of ours reaches the child
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none, standard;
    sigemptyset(&none);
    sigemptyset(&standard);
    for (const int s : {SIGINT, SIGTERM, SIGPIPE, SIGXFSZ})
        sigaddset(&standard, s);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &standard);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const std::string name = program.string(), file = fs::absolute(path, error).string();
    const std::string seconds = std::to_string(static_cast<int>(std::max(1.0, options.probeSeconds)));
    char *const arguments[] = {const_cast<char *>(name.c_str()), const_cast<char *>("--seconds"), const_cast<char *>(seconds.c_str()),
                               const_cast<char *>("--"), const_cast<char *>(file.c_str()), nullptr};
    pid_t child = 0;
    const int rc = ::posix_spawn(&child, name.c_str(), &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    to.close();
    if (rc != 0)
        return workError("spectra-probe could not be started: " + std::error_code(rc, std::generic_category()).message(), name);

    std::string said;
    bool late = false, stopped = false;
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(options.probeSeconds);
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
        std::array<pollfd, 2> wait{pollfd{from.get(), POLLIN, 0}, pollfd{wake.get(), POLLIN, 0}};
        const int ready = ::poll(wait.data(), wait.size(), static_cast<int>(std::clamp<long long>(left, 0, 1 << 30)));
        if (ready < 0 && errno == EINTR)
            continue;
        stopped = (wait[1].revents & POLLIN) != 0;
        late = ready == 0;
        if (ready <= 0 || stopped)
            break;
        char buffer[4096];
        const ssize_t n = ::read(from.get(), buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        said.append(buffer, static_cast<std::size_t>(n));
        if (said.size() > 65536)
            break;
    }
    if (late || stopped || said.size() > 65536)
        ::kill(child, SIGKILL);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (stopped)
        return cancelledError();
    if (late)
        return refused(path, "could not be checked within " + seconds + " s");
    if (WIFSIGNALED(status))
        return refused(path, WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL ? "needs more time to check than any trace" : "crashes the HDF5 library");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && said == "ok\n")
        return {};
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3 && !said.empty()) { // WHAT \x1f WHERE \x1f MEND
        const std::size_t one = said.find('\x1f'), two = one == std::string::npos ? one : said.find('\x1f', one + 1);
        if (two != std::string::npos) {
            std::string mend = said.substr(two + 1);
            while (!mend.empty() && mend.back() == '\n')
                mend.pop_back();
            return inputError(said.substr(0, one), said.substr(one + 1, two - one - 1), std::move(mend));
        }
    }
    return refused(path, "could not be checked (probe ended with status " + std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : -1) + ")");
}

Result<std::shared_ptr<const TraceReader>> openTrace(const fs::path &path, const OpenOptions &options)
{
    if (options.probe && !isKnownFile(path)) {
        SPECTRA_CHECK(probeTrace(path, options));
        rememberFile(path);
    }
    return TraceReader::open(path);
}

} // namespace spectra
