// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/app/cli/program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <sched.h>
#include <sys/mount.h>

namespace spectra::test {
namespace fs = std::filesystem;

TemporaryFolder *Program::s_folder = nullptr;
bool Program::s_ready = false;

namespace {

void writeOnce(const char *path, const std::string &text)
{
    const int file = ::open(path, O_WRONLY);
    (void)!::write(file, text.data(), text.size());
    ::close(file);
}

/// In a child: an empty file system over `folder`, seen by this process and its children alone.
bool mountSmall(const fs::path &folder, std::uint64_t bytes)
{
    const uid_t user = ::geteuid();
    const gid_t group = ::getegid();
    if (::unshare(CLONE_NEWNS | (user == 0 ? 0 : CLONE_NEWUSER)) != 0)
        return false;
    if (user != 0) {
        writeOnce("/proc/self/setgroups", "deny");
        writeOnce("/proc/self/uid_map", "0 " + std::to_string(user) + " 1");
        writeOnce("/proc/self/gid_map", "0 " + std::to_string(group) + " 1");
    }
    return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0
        && ::mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0;
}

/// The program in `folder`'s small file system; its exit code, and what it left there.
[[noreturn]] void runInSmall(const fs::path &folder, const fs::path &left, const std::function<void()> &program)
{
    const pid_t child = ::fork();
    if (child == 0)
        program();
    int status = 0;
    ::waitpid(child, &status, 0);
    {
        std::ofstream names(left);
        for (const auto &entry : fs::recursive_directory_iterator(folder))
            names << entry.path().lexically_relative(folder).string() << '\n';
    }
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 126);
}

} // namespace

Ran runProgram(const std::vector<std::string> &arguments, const fs::path &folder, const RunOptions &options)
{
    const TemporaryFolder streams("streams");
    const fs::path in = streams.write("in", options.input), out = options.outputPath.empty() ? streams / "out" : fs::path(options.outputPath), err = streams / "err";
    const std::string program = std::string(SPECTRA_BUILD_DIR) + "/bin/spectra";
    std::vector<char *> argv{const_cast<char *>(program.c_str())};
    for (const std::string &a : arguments)
        argv.push_back(const_cast<char *>(a.c_str()));
    argv.push_back(nullptr);
    const auto begin = std::chrono::steady_clock::now();
    const pid_t child = ::fork();
    if (child == 0) {
        const int input = ::open(in.c_str(), O_RDONLY);
        const int output = ::open(out.c_str(), O_WRONLY | O_CREAT | (options.outputPath.empty() ? O_TRUNC : 0), 0644);
        const int error = ::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
        ::dup2(input, STDIN_FILENO);
        ::dup2(output, STDOUT_FILENO);
        ::dup2(error, STDERR_FILENO);
        if (::chdir(folder.c_str()) != 0)
            ::_exit(126);
        if (options.fileLimit > 0) {
            const rlimit limit{options.fileLimit, options.fileLimit};
            (void)::setrlimit(RLIMIT_FSIZE, &limit);
            ::signal(SIGXFSZ, SIG_IGN); // writing past the limit is an error then, as on a full disk
        }
        const auto start = [&] {
            ::execv(program.c_str(), argv.data());
            ::_exit(127);
        };
        if (!options.smallFolder.empty()) {
            if (!mountSmall(options.smallFolder, options.smallBytes))
                ::_exit(kNoNamespace);
            runInSmall(options.smallFolder, streams / "left", start);
        }
        start();
    }
    if (options.whileRunning)
        options.whileRunning(child);
    int status = 0;
    ::waitpid(child, &status, 0);
    Ran ran;
    ran.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    if (options.outputPath.empty())
        ran.out = readText(out);
    ran.err = readText(err);
    if (fs::exists(streams / "left"))
        ran.left = readText(streams / "left");
    return ran;
}

void writeArray(const fs::path &file, std::int64_t rows, std::int64_t columns, const std::vector<float> &values)
{
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", " + std::to_string(columns) + "), }";
    while ((10 + header.size() + 1) % 64 != 0)
        header += ' ';
    header += '\n';
    std::ofstream stream(file, std::ios::binary);
    stream << std::string("\x93NUMPY\x01\x00", 8) << static_cast<char>(header.size() & 0xFF) << static_cast<char>(header.size() >> 8) << header;
    stream.write(reinterpret_cast<const char *>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
}

void Program::SetUpTestSuite()
{
    s_folder = new TemporaryFolder("cli");
    (void)tinyModel("llama-gqa", at("dense"));
    s_folder->write("law.txt", "the river bends twice before the mill. Then the other winter came in there, and 3.14 of them were there.\n");
    s_folder->write("code.txt", "x=1; y=2; for i in there: print(i); the end of the thing is there; in the end\n");
    std::string lines;
    for (int i = 0; i < 6; ++i)
        lines += "{\"text\": \"the other river number " + std::to_string(i) + " is in the north\", \"domain\": \"prose\"}\n";
    s_folder->write("prose.jsonl", lines);
    const Ran made = run({"upcycle", "dense", "-o", "moe", "--experts", "4", "--set", "router_dim=8", "--noise", "0.3", "--quiet"});
    const Ran traced = run({"trace", "moe", "-p", "law=law.txt", "-p", "code=code.txt", "-p", "prose.jsonl", "-o", "t.h5", "--capture", "full", "--dtype", "f32", "--seq-len", "48", "--quiet"});
    s_ready = made.code == 0 && traced.code == 0;
    EXPECT_TRUE(s_ready) << made.err << traced.err;
}

void Program::TearDownTestSuite()
{
    delete s_folder;
    s_folder = nullptr;
}

nlohmann::json Program::json(std::vector<std::string> arguments)
{
    arguments.push_back("--json");
    const Ran ran = run(arguments);
    EXPECT_EQ(ran.code, 0) << arguments[0] << ": " << ran.err;
    EXPECT_TRUE(ran.out.ends_with("\n")) << arguments[0];
    const auto document = nlohmann::json::parse(ran.out, nullptr, false);
    EXPECT_TRUE(document.is_object()) << arguments[0] << ": " << ran.out.substr(0, 200);
    return document.is_object() ? document : nlohmann::json::object();
}

Ran Program::expect(int code, const std::vector<std::string> &arguments, const RunOptions &options)
{
    const Ran ran = run(arguments, options);
    std::string line;
    for (const std::string &a : arguments)
        line += a.substr(0, 80) + " ";
    EXPECT_EQ(ran.code, code) << line << "\n" << ran.err;
    if (code != 0) {
        EXPECT_TRUE(ran.err.starts_with("error: ") || ran.err.find("\nerror: ") != std::string::npos) << line << "\n" << ran.err;
    }
    return ran;
}

std::vector<std::string> Program::named(const std::string &stem)
{
    std::vector<std::string> list;
    for (const std::string &name : s_folder->entries())
        if (name.starts_with(stem) || name.starts_with("." + stem))
            list.push_back(name);
    return list;
}

} // namespace spectra::test
