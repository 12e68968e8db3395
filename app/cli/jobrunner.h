// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/cli.h"
#include "engine/core/progress.h"
#include "engine/run/engine.h"

#include <memory>
#include <stop_token>

namespace spectra::cli {

/// Requests a stop on the first Ctrl+C (or SIGTERM) and ends the process on the second. One at a time per process.
class InterruptGuard {
public:
    InterruptGuard();
    ~InterruptGuard();
    InterruptGuard(const InterruptGuard &) = delete;
    InterruptGuard &operator=(const InterruptGuard &) = delete;
    [[nodiscard]] std::stop_token token() const;

private:
    struct Private;
    std::unique_ptr<Private> d;
};

/// Progress on standard error: a line that renews itself on a terminal, one line per 10 % otherwise; nothing with --quiet.
[[nodiscard]] ProgressFunction progressPrinter(const Common &common);

/// Runs one job to its end in an engine of its own, with progress and Ctrl+C.
[[nodiscard]] Result<Summary> runJob(const Common &common, Request request);

} // namespace spectra::cli
