// SPDX-License-Identifier: GPL-3.0-or-later
// What the runs of a study will take, as their own dry runs say it.
#include "engine/core/files.h"
#include "engine/study/process.h"
#include "engine/study/runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>

namespace spectra::study {
namespace fs = std::filesystem;

Result<std::vector<Estimate>> estimateSweep(const std::vector<Cell> &cells, const fs::path &scratch, const SweepOptions &options, const ProgressFunction &progress,
                                            std::stop_token stop)
{
    std::vector<Estimate> all;
    std::map<std::vector<std::size_t>, std::size_t> known;
    for (std::size_t i = 0; i < cells.size(); ++i) {
        const auto [at, fresh] = known.emplace(cells[i].point, all.size());
        if (fresh) {
            Estimate estimate;
            estimate.cell = i;
            all.push_back(std::move(estimate));
        }
        ++all[at->second].runs;
    }
    for (std::size_t e = 0; e < all.size(); ++e) {
        Estimate &estimate = all[e];
        if (stop.stop_requested())
            return cancelledError();
        if (progress)
            progress({"estimating", static_cast<std::int64_t>(e), static_cast<std::int64_t>(all.size()), "configurations"});
        const Cell &cell = cells[estimate.cell];
        const fs::path config = scratch / (cell.id + ".json"), output = scratch / (cell.id + ".out"), errors = scratch / (cell.id + ".err");
        {
            SPECTRA_TRY(auto file, AtomicFile::create(config, true));
            file.stream() << cell.text;
            SPECTRA_CHECK(file.commit());
        }
        ProcessOptions process;
        process.program = options.program;
        process.arguments = options.arguments;
        for (const std::string &word : {config.string(), std::string("--dry-run"), std::string("--json"), std::string("--quiet"), std::string("--threads"), std::to_string(options.threads)})
            process.arguments.push_back(word);
        process.output = output;
        process.errors = errors;
        SPECTRA_TRY(auto child, ChildProcess::start(process));
        std::mutex mutex;
        std::condition_variable_any wake;
        std::optional<ChildProcess::Exit> exit;
        while (!(exit = child.poll())) {
            std::unique_lock guard(mutex);
            wake.wait_for(guard, stop, std::chrono::duration<double>(options.pollSeconds), [] { return false; });
            if (stop.stop_requested())
                return cancelledError(); // the child goes with its object
        }
        if (exit->code != 0) {
            Error error = exit->code == 2 ? usageError(lastError(errors), cell.id) : exit->code == 3 ? inputError(lastError(errors), cell.id) : workError(lastError(errors), cell.id);
            estimate.refused = std::move(error);
            continue;
        }
        if (const auto json = readJson(output); json) {
            estimate.memoryBytes = numberAt(*json, "memory.total");
            estimate.diskBytes = numberAt(*json, "disk.needed");
            estimate.seconds = numberAt(*json, "seconds");
            if (const Json *missing = valueAt(*json, "missing"); missing != nullptr && missing->is_array() && !missing->empty())
                estimate.note = fmt::format("{} file{} of it not here", missing->size(), missing->size() == 1 ? "" : "s");
        }
    }
    return all;
}

Result<void> checkEstimates(const std::vector<Cell> &cells, const std::vector<Estimate> &estimates, int jobs, std::uint64_t memory, std::uint64_t disk)
{
    std::vector<double> needs;
    double diskNeeded = 0;
    for (const Estimate &e : estimates) {
        if (e.refused)
            return *e.refused;
        for (std::size_t r = 0; r < e.runs && needs.size() < cells.size(); ++r)
            needs.push_back(e.memoryBytes.value_or(0));
        diskNeeded += e.diskBytes.value_or(0) * static_cast<double>(e.runs);
    }
    std::sort(needs.rbegin(), needs.rend());
    double memoryNeeded = 0;
    for (std::size_t i = 0; i < std::min(needs.size(), static_cast<std::size_t>(std::max(jobs, 1))); ++i)
        memoryNeeded += needs[i];
    constexpr double gib = 1024.0 * 1024 * 1024;
    if (memoryNeeded > static_cast<double>(memory))
        return inputError(fmt::format("{} at a time need {:.1f} GiB of memory, {:.1f} GiB are free", std::min<std::size_t>(needs.size(), static_cast<std::size_t>(std::max(jobs, 1))),
                                      memoryNeeded / gib, static_cast<double>(memory) / gib),
                          "memory", "use fewer --jobs or smaller models");
    if (diskNeeded > static_cast<double>(disk))
        return inputError(fmt::format("the runs need {:.1f} GiB of disk, {:.1f} GiB are free", diskNeeded / gib, static_cast<double>(disk) / gib), "disk",
                          "choose another folder, keep fewer checkpoints or traces");
    return {};
}

} // namespace spectra::study
