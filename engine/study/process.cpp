// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/process.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sched.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace spectra::study {
namespace fs = std::filesystem;
namespace {

struct Descriptor {
    int fd = -1;
    Descriptor() = default;
    explicit Descriptor(int f) : fd(f) {}
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    ~Descriptor()
    {
        if (fd >= 0)
            ::close(fd);
    }
};

int openLog(const fs::path &file, bool append)
{
    return ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0666);
}

Error failed(const std::string &what, const fs::path &where)
{
    return workError(what + ": " + std::strerror(errno), where.string());
}

} // namespace

std::vector<int> coreSet(int slot, int jobs, int threads)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (jobs < 2 || threads < 1 || ::sched_getaffinity(0, sizeof allowed, &allowed) != 0 || static_cast<std::int64_t>(jobs) * threads > CPU_COUNT(&allowed))
        return {};
    std::vector<int> list;
    for (int core = 0, seen = 0; core < CPU_SETSIZE; ++core)
        if (CPU_ISSET(static_cast<std::size_t>(core), &allowed)) {
            if (seen / threads == slot)
                list.push_back(core);
            ++seen;
        }
    return list;
}

Result<ChildProcess> ChildProcess::start(const ProcessOptions &options)
{
    const Descriptor errors(openLog(options.errors, options.append));
    if (errors.fd < 0)
        return failed("cannot be written", options.errors);
    const Descriptor output(options.output.empty() ? ::fcntl(errors.fd, F_DUPFD_CLOEXEC, 0) : openLog(options.output, options.append));
    if (output.fd < 0)
        return failed("cannot be written", options.output.empty() ? options.errors : options.output);
    const Descriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    // The child reports a failed exec through a pipe that a good exec closes.
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
        return failed("no pipe", options.program);
    const Descriptor readEnd(ends[0]);
    std::vector<std::string> words{options.program.string()};
    words.insert(words.end(), options.arguments.begin(), options.arguments.end());
    std::vector<char *> argv;
    for (std::string &word : words)
        argv.push_back(word.data());
    argv.push_back(nullptr);
    cpu_set_t cores;
    CPU_ZERO(&cores);
    for (const int core : options.cores)
        CPU_SET(static_cast<std::size_t>(core), &cores);
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid < 0) {
        ::close(ends[1]);
        return failed("no process can be started", options.program);
    }
    if (pid == 0) {
        // Only calls that are safe between fork and exec.
        ::setpgid(0, 0);
        ::prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (::getppid() != parent)
            ::_exit(126);
        ::dup2(null.fd, STDIN_FILENO);
        ::dup2(output.fd, STDOUT_FILENO);
        ::dup2(errors.fd, STDERR_FILENO);
        if (options.keepOpen >= 0)
            ::fcntl(options.keepOpen, F_SETFD, 0);
        if (!options.cores.empty())
            (void)::sched_setaffinity(0, sizeof cores, &cores); // a place that cannot be had is no reason not to run
        ::signal(SIGINT, SIG_DFL);
        ::execv(argv[0], argv.data());
        const int error = errno;
        if (::write(ends[1], &error, sizeof error) < 0)
            ::_exit(125);
        ::_exit(127);
    }
    ::setpgid(pid, pid); // whoever comes first
    ::close(ends[1]);
    int error = 0;
    ssize_t got = 0;
    while ((got = ::read(readEnd.fd, &error, sizeof error)) < 0 && errno == EINTR) {
    }
    if (got == static_cast<ssize_t>(sizeof error)) {
        ::waitpid(pid, nullptr, 0);
        errno = error;
        return failed("cannot be started", options.program);
    }
    return ChildProcess(pid);
}

ChildProcess::ChildProcess(ChildProcess &&other) noexcept
    : m_pid(std::exchange(other.m_pid, -1)), m_exit(other.m_exit), m_start(other.m_start)
{
}

ChildProcess &ChildProcess::operator=(ChildProcess &&other) noexcept
{
    std::swap(m_pid, other.m_pid);
    std::swap(m_exit, other.m_exit);
    std::swap(m_start, other.m_start);
    return *this;
}

ChildProcess::~ChildProcess()
{
    if (m_pid < 0 || m_exit)
        return;
    ::kill(-m_pid, SIGKILL);
    ::waitpid(m_pid, nullptr, 0);
}

std::optional<ChildProcess::Exit> ChildProcess::poll()
{
    if (m_exit || m_pid < 0)
        return m_exit;
    int status = 0;
    if (::waitpid(m_pid, &status, WNOHANG) != m_pid)
        return std::nullopt;
    Exit exit;
    if (WIFSIGNALED(status)) {
        exit.signal = WTERMSIG(status);
        exit.code = 128 + exit.signal;
    } else {
        exit.code = WEXITSTATUS(status);
    }
    return m_exit = exit;
}

void ChildProcess::send(int signal) const
{
    if (m_pid > 0 && !m_exit)
        ::kill(-m_pid, signal);
}

double ChildProcess::seconds() const
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - m_start).count();
}

std::string fileTail(const fs::path &file, std::int64_t bytes)
{
    std::ifstream stream(file, std::ios::binary);
    if (!stream)
        return {};
    stream.seekg(0, std::ios::end);
    const std::streamoff size = stream.tellg();
    stream.seekg(std::max<std::streamoff>(0, size - bytes));
    return {std::istreambuf_iterator<char>(stream), {}};
}

std::string lastError(const fs::path &log)
{
    const std::string text = fileTail(log, 8192);
    std::string error, hint, last;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        const std::string line = text.substr(at, end - at);
        if (line.starts_with("error: ")) {
            error = line.substr(7);
            hint.clear();
        } else if (line.starts_with("hint: ")) {
            hint = line.substr(6);
        }
        if (!line.empty())
            last = line;
        at = end + 1;
    }
    const std::string said = error.empty() ? last : hint.empty() ? error : error + " (" + hint + ")";
    return printableUtf8(said.substr(0, 1000));
}

Result<FolderLock> FolderLock::take(const fs::path &folder)
{
    const fs::path file = folder / ".lock";
    const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return failed("cannot be written", file);
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
        const bool busy = errno == EWOULDBLOCK;
        const Error error = busy ? workError("another sweep works in this folder, or a run of one is still ending", folder.string(), "wait for it or choose another folder")
                                 : failed("cannot be locked", file);
        ::close(fd);
        return error;
    }
    return FolderLock(fd);
}

FolderLock::FolderLock(FolderLock &&other) noexcept : m_fd(std::exchange(other.m_fd, -1)) {}

FolderLock::~FolderLock()
{
    if (m_fd >= 0)
        ::close(m_fd);
}

} // namespace spectra::study
