// SPDX-License-Identifier: GPL-3.0-or-later
// trace_writer_program FILE SEED TOKENS [resume|limit BYTES]: writes a synthetic trace in small pieces until it is done or
// killed. Exit 0 done, 1 an error (printed as WHAT), 2 usage.
#include "tests/support/synthetictrace.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <sys/resource.h>
#include <thread>

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    spectra::SyntheticOptions options;
    options.seed = std::strtoull(argv[2], nullptr, 10);
    options.tokens = std::atol(argv[3]);
    options.flushSeconds = 0.02; // a hundred times as many commits as in a real run
    const std::string mode = argc > 4 ? argv[4] : "";
    if (mode == "limit" && argc > 5) {
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{static_cast<rlim_t>(std::atol(argv[5])), static_cast<rlim_t>(std::atol(argv[5]))};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    const spectra::SyntheticRun run(options);
    std::unique_ptr<spectra::TraceWriter> writer;
    std::vector<spectra::LayerTables> sums;
    std::int64_t from = 0;
    const auto failed = [](const spectra::Error &error) {
        std::printf("%s: %s: %s\n", error.kind == spectra::ErrorKind::work ? "work" : "other", error.what.c_str(), error.where.c_str());
        return 1;
    };
    if (mode == "resume") {
        auto resumed = spectra::TraceWriter::resume(argv[1], run.spec());
        if (!resumed)
            return failed(resumed.error());
        writer = std::move(resumed->writer);
        from = resumed->sequencesDone;
        sums = std::move(resumed->sums);
    } else {
        auto created = spectra::TraceWriter::create(argv[1], run.spec(), false);
        if (!created)
            return failed(created.error());
        writer = std::move(*created);
    }
    for (std::int64_t s = from; s < run.sequences(); ++s)
        if (auto fed = run.feed(*writer, s, sums); !fed)
            return failed(fed.error());
    if (auto finished = writer->finish(run.tables(sums), 1.5); !finished)
        return failed(finished.error());
    return 0;
}
