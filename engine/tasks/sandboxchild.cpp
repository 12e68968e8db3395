// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/sandboxchild.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace spectra {
namespace {

constexpr unsigned kNobody = 65534;

[[noreturn]] void fail(const SandboxPlan &plan, SandboxStep step)
{
    const SandboxReport report{step, 0, errno, 0};
    if (::write(plan.report, &report, sizeof report) < 0)
        ::_exit(126);
    ::_exit(127);
}

bool writeFile(const char *path, const char *text, std::size_t size, int flags = O_WRONLY)
{
    const int fd = ::open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0)
        return false;
    while (size > 0) {
        const ssize_t n = ::write(fd, text, size);
        if (n <= 0) {
            ::close(fd);
            return false;
        }
        text += n;
        size -= static_cast<std::size_t>(n);
    }
    return ::close(fd) == 0;
}

/// mount_setattr(2) with AT_RECURSIVE: a plain remount would leave submounts as they are.
bool makeReadOnly(const char *path)
{
    struct {
        std::uint64_t set, clear, propagation, user;
    } attributes = {0x1 | 0x2 | 0x4 /* MOUNT_ATTR_RDONLY, NOSUID, NODEV */, 0, 0, 0};
    return ::syscall(442 /* mount_setattr, the same number everywhere */, AT_FDCWD, path, 0x8000u /* AT_RECURSIVE */, &attributes, sizeof attributes) == 0;
}

/// The folder `source` of the machine as `target` of the new root, read-only; a symbolic link is made again; what is not there is left out.
bool show(const char *source, const char *target)
{
    struct stat info {};
    if (::lstat(source, &info) != 0)
        return errno == ENOENT;
    if (S_ISLNK(info.st_mode)) {
        char link[256];
        const ssize_t n = ::readlink(source, link, sizeof link - 1);
        if (n < 0)
            return false;
        link[n] = 0;
        return ::symlink(link, target) == 0;
    }
    return ::mkdir(target, 0755) == 0 && ::mount(source, target, nullptr, MS_BIND | MS_REC, nullptr) == 0 && makeReadOnly(target);
}

bool showDevice(const char *source, const char *target)
{
    return writeFile(target, "", 0, O_WRONLY | O_CREAT) && ::mount(source, target, nullptr, MS_BIND, nullptr) == 0;
}

/// A new root on a tmpfs over /tmp: nothing of the machine is in it but Python, its libraries and two devices.
void buildRoot(const SandboxPlan &plan)
{
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 || ::mount("sandbox", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=0755") != 0
        || ::chdir("/tmp") != 0)
        fail(plan, SandboxStep::mounts);
    if (::mkdir("usr", 0755) != 0 || !show("/usr/bin", "usr/bin") || !show("/usr/lib", "usr/lib") || !show("/usr/lib64", "usr/lib64") || !show("/bin", "bin")
        || !show("/lib", "lib") || !show("/lib64", "lib64"))
        fail(plan, SandboxStep::mounts);
    if (::mkdir("dev", 0755) != 0 || !showDevice("/dev/null", "dev/null") || !showDevice("/dev/urandom", "dev/urandom"))
        fail(plan, SandboxStep::mounts);
    if (!writeFile("program.py", plan.program, plan.programSize, O_WRONLY | O_CREAT))
        fail(plan, SandboxStep::program);
    if (::mkdir("tmp", 0777) != 0 || ::mount("sandbox", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, plan.tmpfsOptions) != 0)
        fail(plan, SandboxStep::mounts);
    // pivot_root(".", ".") stacks the old root on the new one, from where it is taken away.
    if (::syscall(SYS_pivot_root, ".", ".") != 0 || ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
        fail(plan, SandboxStep::root);
    if (::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, nullptr) != 0 || ::chdir("/tmp") != 0)
        fail(plan, SandboxStep::root);
}

bool limit(int what, std::uint64_t value)
{
    const rlimit both = {value, value};
    return ::setrlimit(static_cast<__rlimit_resource>(what), &both) == 0;
}

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr std::uint32_t kArchitecture = 0;
#endif

constexpr sock_filter load(std::uint32_t offset)
{
    return {BPF_LD | BPF_W | BPF_ABS, 0, 0, offset};
}
constexpr sock_filter answer(std::uint32_t value)
{
    return {BPF_RET | BPF_K, 0, 0, value};
}
/// Skips the next instruction unless the loaded word equals `value`.
constexpr sock_filter unlessEqual(std::uint32_t value)
{
    return {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value};
}

#define SPECTRA_DENY(number) unlessEqual(number), answer(SECCOMP_RET_ERRNO | EPERM)

/// No new processes (threads may be), namespaces, mounts, tracing or kernel interfaces that a solution of a puzzle never needs. A list of
/// what is denied, not of what is allowed: Python's needs differ from version to version, and the namespaces hold without it.
bool installFilter()
{
    if (kArchitecture == 0) {
        errno = ENOSYS;
        return false;
    }
    static const sock_filter filter[] = {
        load(4), // seccomp_data.arch
        {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, kArchitecture},
        answer(SECCOMP_RET_KILL_PROCESS),
        load(0), // seccomp_data.nr
        {BPF_JMP | BPF_JGE | BPF_K, 0, 1, 0x40000000u}, // the x32 calls of x86-64
        answer(SECCOMP_RET_KILL_PROCESS),
#ifdef SYS_fork
        SPECTRA_DENY(SYS_fork),
        SPECTRA_DENY(SYS_vfork),
#endif
        // glibc goes back to clone(), whose flags can be looked at.
        unlessEqual(SYS_clone3), answer(SECCOMP_RET_ERRNO | ENOSYS),
        SPECTRA_DENY(SYS_ptrace), SPECTRA_DENY(SYS_process_vm_readv), SPECTRA_DENY(SYS_process_vm_writev), SPECTRA_DENY(SYS_unshare), SPECTRA_DENY(SYS_setns),
        SPECTRA_DENY(SYS_mount), SPECTRA_DENY(SYS_umount2), SPECTRA_DENY(SYS_pivot_root), SPECTRA_DENY(SYS_chroot), SPECTRA_DENY(442), SPECTRA_DENY(428) /* open_tree */,
        SPECTRA_DENY(429) /* move_mount */, SPECTRA_DENY(430) /* fsopen */, SPECTRA_DENY(SYS_keyctl), SPECTRA_DENY(SYS_add_key), SPECTRA_DENY(SYS_request_key),
        SPECTRA_DENY(SYS_bpf), SPECTRA_DENY(SYS_perf_event_open), SPECTRA_DENY(SYS_userfaultfd), SPECTRA_DENY(425) /* io_uring_setup */, SPECTRA_DENY(426),
        SPECTRA_DENY(427), SPECTRA_DENY(SYS_kexec_load), SPECTRA_DENY(SYS_init_module), SPECTRA_DENY(SYS_finit_module), SPECTRA_DENY(SYS_socket),
        SPECTRA_DENY(SYS_socketpair), SPECTRA_DENY(SYS_memfd_create), SPECTRA_DENY(SYS_mlockall),
        // Segments and queues of System V outlive what is mapped of them: memory beyond the limit of the address space.
        SPECTRA_DENY(SYS_shmget), SPECTRA_DENY(SYS_msgget), SPECTRA_DENY(SYS_semget),
        // clone() without CLONE_THREAD would be a process.
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SYS_clone},
        load(16), // low word of the first argument (little endian)
        {BPF_JMP | BPF_JSET | BPF_K, 1, 0, CLONE_THREAD},
        answer(SECCOMP_RET_ERRNO | EPERM),
        answer(SECCOMP_RET_ALLOW),
    };
    const sock_fprog program = {sizeof filter / sizeof filter[0], const_cast<sock_filter *>(filter)};
    return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

bool dropCapabilities()
{
    for (int c = 0; c < 64; ++c)
        if (::prctl(PR_CAPBSET_DROP, c, 0, 0, 0) != 0 && errno != EINVAL)
            return false;
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    const __user_cap_data_struct none[2] = {};
    return ::syscall(SYS_capset, &header, none) == 0;
}

/// Process 1 of the new process namespace.
[[noreturn]] void runProgram(const SandboxPlan &plan)
{
    // Should the guard be killed (out of memory), nobody else would hold the deadline.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        fail(plan, SandboxStep::process);
    buildRoot(plan);
    const int null = ::open("/dev/null", O_RDONLY);
    if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(plan.output, 1) < 0 || ::dup2(plan.output, 2) < 0)
        fail(plan, SandboxStep::root);
    // The report's descriptor closes itself at exec; all others go now.
    if (::dup2(plan.report, 3) < 0 || ::fcntl(3, F_SETFD, FD_CLOEXEC) != 0 || ::syscall(SYS_close_range, 4u, ~0u, 0u) != 0)
        fail(plan, SandboxStep::limits);
    SandboxPlan own = plan;
    own.report = 3;
    const auto cpu = static_cast<std::uint64_t>(plan.seconds) + 1;
    if (!limit(RLIMIT_CPU, cpu) || !limit(RLIMIT_AS, plan.memory) || !limit(RLIMIT_FSIZE, plan.files) || !limit(RLIMIT_NOFILE, 64) || !limit(RLIMIT_CORE, 0)
        || !limit(RLIMIT_MEMLOCK, 0) || !limit(RLIMIT_MSGQUEUE, 0) || !limit(RLIMIT_NPROC, 64))
        fail(own, SandboxStep::limits);
    if (!dropCapabilities() || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !installFilter())
        fail(own, SandboxStep::filter);
    sigset_t all;
    ::sigemptyset(&all);
    ::sigprocmask(SIG_SETMASK, &all, nullptr);
    for (int s = 1; s < 32; ++s)
        ::signal(s, SIG_DFL);
    char *const arguments[] = {const_cast<char *>(plan.python), const_cast<char *>("-I"), const_cast<char *>("-B"), const_cast<char *>("/program.py"), nullptr};
    char *const environment[] = {const_cast<char *>("LC_ALL=C.UTF-8"), const_cast<char *>("HOME=/tmp"), nullptr};
    ::execve(plan.python, arguments, environment);
    fail(own, SandboxStep::start);
}

double now()
{
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

} // namespace

const char *sandboxStepName(SandboxStep step)
{
    switch (step) {
    case SandboxStep::user: return "leaving root's identity";
    case SandboxStep::namespaces: return "making namespaces";
    case SandboxStep::identity: return "mapping the user";
    case SandboxStep::process: return "starting the first process";
    case SandboxStep::mounts: return "mounting the read-only file system";
    case SandboxStep::root: return "changing the root";
    case SandboxStep::program: return "writing the program (is it larger than 4 MB?)";
    case SandboxStep::limits: return "setting limits";
    case SandboxStep::filter: return "filtering system calls";
    case SandboxStep::start: return "starting Python";
    case SandboxStep::ended: break;
    }
    return "nothing";
}

void runSandboxGuard(const SandboxPlan &plan)
{
    ::close(plan.controlOther);
    ::setpgid(0, 0); // Ctrl+C on the terminal is for the parent, which then closes the control pipe
    // Limits on processes do not bind root, and files of root are none of the program's business.
    if (::geteuid() == 0
        && (::setgroups(0, nullptr) != 0 || ::setresgid(kNobody, kNobody, kNobody) != 0 || ::setresuid(kNobody, kNobody, kNobody) != 0
            || ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0))
        fail(plan, SandboxStep::user);
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
        fail(plan, SandboxStep::namespaces);
    if (!writeFile("/proc/self/setgroups", "deny", 4) || !writeFile("/proc/self/uid_map", plan.uidMap, std::strlen(plan.uidMap))
        || !writeFile("/proc/self/gid_map", plan.gidMap, std::strlen(plan.gidMap)))
        fail(plan, SandboxStep::identity);
    const pid_t child = ::fork();
    if (child < 0)
        fail(plan, SandboxStep::process);
    if (child == 0)
        runProgram(plan);
    ::close(plan.output); // the parent sees the end of output when the program is gone
    const double end = now() + plan.seconds;
    SandboxReport report;
    bool killed = false;
    for (;;) {
        const pid_t gone = ::waitpid(child, &report.status, WNOHANG);
        if (gone == child)
            break;
        if (gone < 0 && errno != EINTR) {
            report.status = -1;
            break;
        }
        pollfd control = {plan.control, POLLIN, 0};
        const int closed = ::poll(&control, 1, 5);
        const bool late = now() > end;
        if (!killed && (late || closed > 0)) {
            report.timedOut = late ? 1 : 0;
            ::kill(child, SIGKILL); // the first process of a namespace takes all others with it
            killed = true;
        }
    }
    report.step = SandboxStep::ended;
    if (::write(plan.report, &report, sizeof report) < 0)
        ::_exit(1);
    ::_exit(0);
}

} // namespace spectra
