// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/loadedmodel.h"

#include "engine/core/files.h"
#include "engine/router/router.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <dlfcn.h>
#include <system_error>
#include <vector>

namespace spectra {
namespace {

/// Size and time of a model's files: one that was written again is another model.
std::string filesOf(const std::filesystem::path &path)
{
    std::vector<std::string> files;
    std::error_code error;
    const auto add = [&](const std::filesystem::path &file) {
        const auto size = std::filesystem::file_size(file, error);
        const auto time = std::filesystem::last_write_time(file, error);
        files.push_back(fmt::format("{} {} {}", file.string(), size, time.time_since_epoch().count()));
    };
    if (std::filesystem::is_directory(path, error))
        for (const auto &entry : std::filesystem::directory_iterator(path, error)) {
            if (entry.is_regular_file(error))
                add(entry.path());
        }
    else
        add(path);
    std::sort(files.begin(), files.end());
    return fmt::format("{}", fmt::join(files, "\n"));
}

std::string keyOf(const ModelSpec &spec, const std::filesystem::path &path)
{
    nlohmann::json key{filesOf(path), spec.set, spec.compute, spec.device, spec.seed};
    if (spec.upcycle) {
        const UpcycleSettings &u = *spec.upcycle;
        key.push_back({u.experts, u.topK, u.granularity, u.shared, u.router, u.set, u.noise, u.layers, u.scaling});
    }
    return key.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

} // namespace

Result<std::string> routerJsonFor(const std::string &router, const std::vector<std::string> &settings)
{
    SPECTRA_TRY(std::string json, defaultRouterOptions(router));
    const auto &registry = routerRegistry();
    if (std::any_of(registry.begin(), registry.end(), [&](const RouterInfo &info) { return info.name == router && info.family == "spectra"; })) {
        // An upcycled model's router is fresh: the smaller of the two sizes of the method's drafts keeps it cheap.
        SPECTRA_TRY(json, applyRouterSettings(json, {"router_dim=32"}, false));
    }
    return applyRouterSettings(json, settings, false);
}

Result<UpcycleOptions> upcycleOptions(const UpcycleSettings &settings, const ModelConfig &source, std::uint64_t seed)
{
    UpcycleOptions options;
    options.experts = settings.experts;
    int usual = source.moe() ? 0 : std::min(2, settings.experts);
    for (const RouterInfo &info : routerRegistry())
        if (info.name == settings.router && info.topK > 0)
            usual = info.topK;
    options.topK = settings.topK > 0 ? settings.topK : usual;
    options.granularity = settings.granularity;
    options.shared = settings.shared;
    options.noise = settings.noise;
    options.seed = seed;
    SPECTRA_TRY(options.routerJson, routerJsonFor(settings.router, settings.set));
    SPECTRA_TRY(options.layers, LayerChoice::parse(settings.layers));
    options.scaling = settings.scaling == "nvidia" ? UpcycleOptions::Scaling::nvidia : UpcycleOptions::Scaling::exact;
    options.dtype = settings.dtype == "bf16" ? DType::bf16 : settings.dtype == "f16" ? DType::f16 : DType::f32;
    return options;
}

Result<torch::Device> resolveDevice(const std::string &name)
{
    if (name == "cpu")
        return torch::Device(torch::kCPU);
    std::error_code ignored;
    const bool driver = std::filesystem::exists("/dev/nvidiactl", ignored);
    if (name == "auto" && !driver)
        return torch::Device(torch::kCPU);
    // The CUDA half of LibTorch registers itself when it is loaded; it is half a gigabyte, so only on demand.
    const bool loaded = driver && ::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr;
    if (loaded && torch::cuda::is_available())
        return torch::Device(torch::kCUDA, 0);
    if (name == "auto")
        return torch::Device(torch::kCPU);
    return usageError(driver ? "LibTorch finds no usable CUDA device" : "this machine has no CUDA device", "--device cuda",
                      "use --device cpu");
}

Compute resolveCompute(const std::string &name)
{
    return name == "bf16" ? Compute::bf16 : name == "auto" ? Compute::automatic : Compute::f32;
}

Result<std::shared_ptr<const Tokenizer>> tokenizerOf(const Checkpoint &checkpoint)
{
    if (const auto file = checkpoint.tokenizerFile())
        return Tokenizer::fromJsonFile(*file);
    if (const auto vocabulary = checkpoint.vocabulary())
        return Tokenizer::fromGguf(*vocabulary, checkpoint.path().string());
    return inputError("has no tokenizer.json", checkpoint.path().string(), "put the model's tokenizer.json into the folder");
}

std::string routerNote(const ModelConfig &config)
{
    if (!config.moe() || config.routerTrained)
        return {};
    return config.routerCalibrated ? "fresh router: balanced by calibration, not trained"
                                   : "fresh router: random, not calibrated and not trained";
}

Result<std::shared_ptr<LoadedModel>> ModelStore::get(const ModelSpec &spec, const ProgressFunction &progress, std::stop_token stop)
{
    SPECTRA_TRY(const std::filesystem::path path, Engine::resolveModel(spec.model, stop));
    const std::string key = keyOf(spec, path);
    for (auto it = m_models.begin(); it != m_models.end(); ++it)
        if ((*it)->key == key) {
            m_models.splice(m_models.begin(), m_models, it);
            m_models.front()->loadSeconds = 0;
            return m_models.front();
        }
    const auto start = std::chrono::steady_clock::now();
    auto loaded = std::make_shared<LoadedModel>();
    loaded->path = path;
    SPECTRA_TRY(loaded->checkpoint, Checkpoint::open(loaded->path));
    SPECTRA_TRY(loaded->tokenizer, tokenizerOf(*loaded->checkpoint));
    if (loaded->tokenizer->size() > loaded->checkpoint->config().vocabulary)
        return inputError(fmt::format("the tokenizer has {} tokens, the model {}", loaded->tokenizer->size(),
                                      loaded->checkpoint->config().vocabulary),
                          loaded->path.string(), "tokenizer and weights do not belong together");
    LoadOptions options;
    SPECTRA_TRY(options.device, resolveDevice(spec.device));
    options.compute = resolveCompute(spec.compute);
    options.seed = spec.seed;
    if (spec.upcycle) {
        SPECTRA_TRY(const auto upcycleWith, upcycleOptions(*spec.upcycle, loaded->checkpoint->config(), spec.seed));
        SPECTRA_TRY(loaded->checkpoint, upcycled(loaded->checkpoint, upcycleWith));
    } else if (!spec.set.empty()) {
        if (!loaded->checkpoint->config().moe())
            return usageError("the model is dense and has no router", "--set", "choose one with --router");
        SPECTRA_TRY(options.routerJson, applyRouterSettings(loaded->checkpoint->config().routerJson, spec.set, true));
    }
    // Make room before anything is allocated: the held models may be all that stands in the way.
    const MemoryEstimate need = estimateMemory(loaded->checkpoint->config(), options.compute);
    while (!m_models.empty() && need.weights + need.weights / 4 > availableMemory())
        m_models.pop_back();
    SPECTRA_TRY(loaded->model, Model::load(loaded->checkpoint, options, progress, stop));
    loaded->key = key;
    loaded->handle = m_next++;
    loaded->note = routerNote(loaded->model->config());
    loaded->loadSeconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    m_models.push_front(loaded);
    return loaded;
}

bool ModelStore::drop(ModelHandle handle)
{
    for (auto it = m_models.begin(); it != m_models.end(); ++it)
        if ((*it)->handle == handle) {
            m_models.erase(it);
            return true;
        }
    return false;
}

void ModelStore::clear()
{
    m_models.clear();
}

} // namespace spectra
