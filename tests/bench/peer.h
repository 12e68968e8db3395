// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

/// A process that answers "NAME\n" with "tokens-per-second\n".
class Peer {
public:
    explicit Peer(const std::string &command)
    {
        int to[2], from[2];
        if (pipe(to) != 0 || pipe(from) != 0)
            std::exit(1);
        m_process = fork();
        if (m_process == 0) {
            dup2(to[0], 0);
            dup2(from[1], 1);
            close(to[1]);
            close(from[0]);
            execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
            _exit(127);
        }
        close(to[0]);
        close(from[1]);
        m_to = fdopen(to[1], "w");
        m_from = fdopen(from[0], "r");
    }
    ~Peer()
    {
        std::fclose(m_to);
        std::fclose(m_from);
        waitpid(m_process, nullptr, 0);
    }
    Peer(const Peer &) = delete;
    Peer &operator=(const Peer &) = delete;
    double measure(const std::string &name)
    {
        std::fprintf(m_to, "%s\n", name.c_str());
        std::fflush(m_to);
        char line[256];
        return std::fgets(line, sizeof(line), m_from) ? std::atof(line) : 0;
    }

private:
    pid_t m_process = 0;
    FILE *m_to = nullptr, *m_from = nullptr;
};
