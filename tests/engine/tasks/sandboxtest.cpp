// SPDX-License-Identifier: GPL-3.0-or-later
// Programs that nobody has read are contained: each test runs one that tries to get out. Where the machine allows no sandbox, programs
// are refused, and that is what is tested.
#include "engine/tasks/sandbox.h"

#include <gmock/gmock.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

namespace spectra {
namespace {
using testing::HasSubstr;
using testing::Not;

class Sandbox : public testing::Test {
protected:
    void SetUp() override
    {
        const auto can = checkSandbox();
        if (!can.ok()) {
            EXPECT_EQ(can.error().kind, ErrorKind::work);
            EXPECT_THAT(can.error().what, HasSubstr("programs cannot be contained here"));
            GTEST_SKIP() << can.error().what;
        }
    }
    static ProgramRun run(const std::string &program, double seconds = 20)
    {
        SandboxLimits limits;
        limits.seconds = seconds;
        auto result = runPython(program, limits);
        if (!result.ok()) {
            ADD_FAILURE() << result.error().what;
            return {};
        }
        return *result;
    }
    /// The attempt must fail with an exception in the program, not by luck.
    static void denied(const std::string &attempt)
    {
        const ProgramRun ran = run("try:\n    " + attempt + "\nexcept BaseException as e:\n    print('denied', type(e).__name__)\nelse:\n    print('escaped')\n");
        EXPECT_THAT(ran.output, HasSubstr("denied")) << attempt;
        EXPECT_THAT(ran.output, Not(HasSubstr("escaped"))) << attempt;
    }
};

TEST_F(Sandbox, RightProgramsPassAndWrongOnesFail)
{
    EXPECT_TRUE(run("def f(x):\n    return x + 1\nassert f(1) == 2").passed);
    EXPECT_TRUE(run("import math, re, json, heapq, itertools, collections, typing, hashlib, random, string, functools, datetime, decimal, fractions").passed);
    const ProgramRun wrong = run("assert 1 == 2, 'no it is not'");
    EXPECT_FALSE(wrong.passed);
    EXPECT_EQ(wrong.exitCode, 1);
    EXPECT_THAT(wrong.output, HasSubstr("no it is not"));
    EXPECT_FALSE(run("this is no program").passed);
    EXPECT_FALSE(run("import numpy_that_is_not_there").passed);
}

TEST_F(Sandbox, EndingEarlyIsNotPassing)
{
    EXPECT_FALSE(run("import sys\nsys.exit(0)\nassert False").passed);
    EXPECT_FALSE(run("import os\nos._exit(0)").passed);
    EXPECT_FALSE(run("import os\nos._exit(127)").passed);
    EXPECT_FALSE(run("import sys, io\nsys.stdout = io.StringIO()\nraise SystemExit(0)").passed);
    EXPECT_TRUE(run("import sys, io\nsys.stdout = io.StringIO()\nprint = None").passed) << "a replaced stdout is no failure";
}

TEST_F(Sandbox, EndlessProgramsAreKilled)
{
    const auto start = std::chrono::steady_clock::now();
    const ProgramRun loop = run("while True:\n    pass", 1);
    EXPECT_TRUE(loop.timedOut);
    EXPECT_FALSE(loop.passed);
    EXPECT_TRUE(run("import time\ntime.sleep(1000)", 1).timedOut);
    EXPECT_TRUE(run("import signal\nfor s in range(1, 32):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nwhile True:\n    pass", 1).timedOut);
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 60);
    EXPECT_FALSE(run("import sys\nsys.stdin.read()\ninput()").timedOut) << "standard input is empty";
}

TEST_F(Sandbox, NoNewProcesses)
{
    denied("__import__('os').fork()");
    denied("__import__('os').posix_spawn('/bin/true', ['true'], {})");
    denied("__import__('subprocess').run(['/bin/ls', '/'])");
    denied("__import__('multiprocessing').Process(target=print).start()");
    const ProgramRun bomb = run("import os\nn = 0\ntry:\n    while True:\n        os.fork()\n        n += 1\nexcept OSError:\n    print('forks', n)", 5);
    EXPECT_THAT(bomb.output, HasSubstr("forks 0"));
    EXPECT_TRUE(run("import threading\nt = threading.Thread(target=lambda: None)\nt.start()\nt.join()").passed) << "a thread is no process";
}

TEST_F(Sandbox, NothingOfTheMachineIsWritable)
{
    const auto mark = std::filesystem::temp_directory_path() / ("spectra-sandbox-" + std::to_string(::getpid()));
    for (const char *place : {"/program.py", "/x", "/usr/lib/x", "/bin/x", "/dev/x", "/etc/x", "/usr/bin/x", "/home/x", "/var/tmp/x"})
        denied("open('" + std::string(place) + "', 'w').write('x')");
    denied("__import__('os').chmod('/usr/lib', 0o777)");
    denied("__import__('os').remove('/usr/bin/python3')");
    denied("__import__('os').mkdir('/y')");
    run("open('" + mark.string() + "', 'w').write('x')");
    EXPECT_FALSE(std::filesystem::exists(mark)) << "its /tmp is its own";
    EXPECT_TRUE(run("open('/tmp/a', 'w').write('x' * 1000)\nassert len(open('/tmp/a').read()) == 1000").passed);
    EXPECT_TRUE(run("import os\nassert os.listdir('/tmp') == []").passed) << "every program has a fresh one";
}

TEST_F(Sandbox, FilesMemoryAndOutputAreLimited)
{
    const ProgramRun file = run("f = open('/tmp/a', 'wb')\nfor i in range(64):\n    f.write(b'x' * (1 << 20))\n    f.flush()\n");
    EXPECT_FALSE(file.passed);
    EXPECT_THAT(file.output, HasSubstr("OSError"));
    const ProgramRun many = run("for i in range(5000):\n    open('/tmp/f%d' % i, 'w').close()\n");
    EXPECT_FALSE(many.passed);
    const ProgramRun memory = run("x = bytearray(4 << 30)");
    EXPECT_FALSE(memory.passed);
    EXPECT_THAT(memory.output, HasSubstr("MemoryError"));
    EXPECT_FALSE(run("x = [0]\nwhile True:\n    x += x", 20).passed);
    const ProgramRun open = run("fs = []\nfor i in range(1000):\n    fs.append(open('/dev/null'))\n");
    EXPECT_THAT(open.output, HasSubstr("Too many open files"));
    const ProgramRun talk = run("for i in range(200000):\n    print('word', i)");
    EXPECT_TRUE(talk.passed);
    EXPECT_LE(talk.output.size(), 4096u);
    EXPECT_THAT(talk.output, HasSubstr("word 199999"));
    denied("exec('def f(n):\\n    return f(n + 1)\\nf(0)')");
    EXPECT_FALSE(run("import ctypes\nctypes.string_at(0)").passed) << "a crash is contained too";
}

TEST_F(Sandbox, NoNetwork)
{
    denied("__import__('socket').socket()");
    denied("__import__('socket').create_connection(('127.0.0.1', 80), 2)");
    denied("__import__('socket').create_connection(('1.1.1.1', 53), 2)");
    denied("__import__('socket').socketpair()");
    denied("__import__('urllib.request').request.urlopen('http://example.org', timeout=2)");
}

TEST_F(Sandbox, SecretsAreOutOfSight)
{
    ::setenv("SPECTRA_TEST_SECRET", "hidden-word", 1);
    const auto file = std::filesystem::temp_directory_path() / ("spectra-secret-" + std::to_string(::getpid()));
    std::ofstream(file) << "hidden-word";
    std::ifstream held(file); // an open descriptor of the parent
    const ProgramRun ran = run("import os, glob\n"
                               "print(dict(os.environ))\n"
                               "for p in ['" + file.string() + "', '/etc/passwd', '/etc/shadow', '/proc/self/environ', '/proc/1/environ', '/root', '/home', '" SPECTRA_SOURCE_DIR "']:\n"
                               "    print(p, os.path.exists(p))\n"
                               "for fd in range(3, 256):\n"
                               "    try:\n        print('open', fd, os.read(fd, 100))\n    except OSError as e:\n        pass\n"
                               "print('uid', os.getuid(), 'pid', os.getpid(), sorted(os.listdir('/')))\n");
    std::filesystem::remove(file);
    ::unsetenv("SPECTRA_TEST_SECRET");
    EXPECT_TRUE(ran.passed) << ran.output;
    EXPECT_THAT(ran.output, Not(HasSubstr("hidden-word")));
    EXPECT_THAT(ran.output, Not(HasSubstr("True")));
    EXPECT_THAT(ran.output, Not(HasSubstr("open ")));
    EXPECT_THAT(ran.output, HasSubstr("uid 65534 pid 1 "));
    denied("__import__('os').kill(" + std::to_string(::getpid()) + ", 0)");
}

TEST_F(Sandbox, NoWayBackUp)
{
    const std::string call = "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n";
    const auto refused = [&](const std::string &expression) {
        const ProgramRun ran = run(call + "print('result', " + expression + ")");
        EXPECT_THAT(ran.output, HasSubstr("result -1")) << expression << ": " << ran.output;
    };
    refused("c.unshare(0x10000000)");
    refused("c.mount(b'x', b'/tmp', b'tmpfs', 0, None)");
    refused("c.umount2(b'/usr/lib', 2)");
    refused("c.setuid(0)");
    refused("c.ptrace(0, 0, 0, 0)");
    refused("c.chroot(b'/tmp')");
    refused("c.syscall(435, None, 0)");
    refused("c.setns(0, 0)");
    // Memory that the limit of the address space does not see: segments that are left unmapped.
    refused("c.shmget(0, 1 << 20, 0o1600)");
    refused("c.msgget(0, 0o1600)");
    refused("c.semget(0, 1, 0o1600)");
    EXPECT_THAT(run("print([l for l in dir(__import__('resource')) if l == 'setrlimit'], end=' ')\nimport resource\n"
                    "try:\n    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n    print('raised')\nexcept ValueError:\n    print('kept')").output,
                HasSubstr("kept"));
}

TEST_F(Sandbox, AStopEndsTheProgramAndAllItStarted)
{
    std::stop_source source;
    std::jthread stopper([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        source.request_stop();
    });
    const auto start = std::chrono::steady_clock::now();
    SandboxLimits limits;
    limits.seconds = 100;
    const auto ran = runPython("import time\ntime.sleep(90)", limits, source.get_token());
    ASSERT_FALSE(ran.ok());
    EXPECT_EQ(ran.error().kind, ErrorKind::cancelled);
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 30);
    // No child is left: neither running nor waiting to be asked for.
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
}

TEST_F(Sandbox, AProgramEndsWithItsGuard)
{
    const auto text = [](pid_t process, const char *file) {
        std::ifstream stream("/proc/" + std::to_string(process) + "/" + file);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    const auto childOf = [](pid_t parent) {
        pid_t child = 0;
        std::error_code ignored;
        for (const auto &task : std::filesystem::directory_iterator("/proc/" + std::to_string(parent) + "/task", ignored))
            if (child == 0)
                std::ifstream(task.path() / "children") >> child;
        return child;
    };
    pid_t guard = 0, program = 0;
    std::jthread killer([&] {
        for (int i = 0; i < 2000 && (program == 0 || text(program, "cmdline").find("program.py") == std::string::npos); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
            guard = childOf(::getpid());
            program = guard > 0 ? childOf(guard) : 0;
        }
        if (program > 0)
            ::kill(guard, SIGKILL); // as the kernel does when memory is short
    });
    SandboxLimits limits;
    limits.seconds = 30;
    const auto ran = runPython("import time\ntime.sleep(25)", limits);
    killer.join();
    if (program == 0)
        GTEST_SKIP() << "this machine does not list the children of a process";
    EXPECT_FALSE(ran.ok());
    bool gone = false;
    for (int i = 0; i < 500 && !gone; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        const std::string stat = text(program, "stat"); // "12 (python3) S …"; nobody may have waited for it yet
        const std::size_t name = stat.rfind(") ");
        gone = name == std::string::npos || stat.compare(name + 2, 1, "Z") == 0;
    }
    EXPECT_TRUE(gone) << text(program, "stat");
}

TEST(SandboxRefusal, IsAnErrorThatNamesTheStepAndTheMend)
{
    // In a process whose user has no room for namespaces nothing is run at all.
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        // A user namespace in which no further one may be made.
        bool ready = ::unshare(CLONE_NEWUSER) == 0;
        std::ofstream limit("/proc/sys/user/max_user_namespaces");
        limit << 0 << std::flush;
        ready = ready && limit.good();
        const auto can = checkSandbox();
        const std::string text = !ready ? "unable" : can.ok() ? "ran" : can.error().what + "|" + can.error().mend;
        const ssize_t ignored = ::write(ends[1], text.data(), text.size());
        ::_exit(ignored < 0 ? 1 : 0);
    }
    ::close(ends[1]);
    std::string text;
    char buffer[1024];
    for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(n));
    ::close(ends[0]);
    ::waitpid(child, nullptr, 0);
    if (text == "unable")
        GTEST_SKIP() << "this machine gives no way to forbid namespaces for a moment";
    EXPECT_THAT(text, HasSubstr("programs cannot be contained here"));
    EXPECT_THAT(text, HasSubstr("user namespaces must be allowed"));
}

} // namespace
} // namespace spectra
