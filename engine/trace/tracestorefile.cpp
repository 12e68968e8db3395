// SPDX-License-Identifier: GPL-3.0-or-later
// Making a trace file with all its objects, and continuing one.
#include "engine/trace/tracestore.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <limits>
#include <random>

namespace spectra {
namespace fs = std::filesystem;
using schema::Axis;
using schema::Dataset;

namespace {

std::string now()
{
    const std::time_t time = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm utc{};
    gmtime_r(&time, &utc);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return text;
}

/// A random UUID (RFC 9562, version 4).
std::string uuid()
{
    std::random_device device;
    std::uint64_t high = (std::uint64_t(device()) << 32) | device(), low = (std::uint64_t(device()) << 32) | device();
    high = (high & ~std::uint64_t(0xf000)) | 0x4000;
    low = (low & ~(std::uint64_t(3) << 62)) | (std::uint64_t(2) << 62);
    return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xffff, low >> 48,
                       low & 0xffffffffffffull);
}

} // namespace

h5::DatasetSpec TraceStore::datasetSpec(Dataset dataset) const
{
    const schema::Rule &rule = schema::rule(dataset);
    h5::DatasetSpec spec;
    spec.type = schema::fileType(rule.element, m_spec.f16);
    schema::Sizes start = schema::sizesOf(m_spec);
    spec.shape = schema::shape(rule, start);
    for (int i = 0; i < rule.rank(); ++i) {
        const Axis axis = rule.axes[static_cast<std::size_t>(i)];
        spec.maxShape.push_back(schema::isUnlimited(axis) ? h5::kUnlimited : start[axis]);
    }
    spec.chunk = schema::chunk(rule, start, spec.type);
    if (rule.store == schema::Store::wide && m_spec.compress > 0 && !m_spec.live)
        spec.deflate = m_spec.compress;
    if (rule.element == schema::Element::f16 || rule.element == schema::Element::f32 || rule.element == schema::Element::scalar)
        spec.fill = std::numeric_limits<double>::quiet_NaN();
    if (dataset == Dataset::experts)
        spec.fill = kNoExpert;
    return spec;
}

Result<void> TraceStore::createDataset(Dataset dataset)
{
    const schema::Rule &rule = schema::rule(dataset);
    const h5::DatasetSpec spec = datasetSpec(dataset);
    SPECTRA_TRY(h5::Handle handle, h5::createDataset(m_file.id(), rule.path, spec));
    for (int i = 0; i < rule.rank(); ++i)
        if (const auto scale = m_scales.find(rule.axes[static_cast<std::size_t>(i)]); scale != m_scales.end())
            SPECTRA_CHECK(h5::attachScale(handle.id(), scale->second.id(), i));
    if (*rule.units != '\0')
        SPECTRA_CHECK(h5::setAttribute(handle.id(), "units", rule.units));
    SPECTRA_CHECK(h5::setAttribute(handle.id(), "meaning", rule.meaning));
    if (dataset == Dataset::gruPcaBasis)
        SPECTRA_CHECK(h5::setAttribute(handle.id(), "fitted_on", std::int64_t(0)));
    m_data[static_cast<std::size_t>(dataset)] = std::move(handle);
    return {};
}

Result<void> TraceStore::createScales()
{
    std::array<bool, static_cast<std::size_t>(Axis::count_)> used{};
    for (const schema::Rule &rule : schema::rules())
        if (schema::exists(rule.dataset, m_spec))
            for (int i = 0; i < rule.rank(); ++i)
                used[static_cast<std::size_t>(rule.axes[static_cast<std::size_t>(i)])] = true;
    for (const Axis axis : {Axis::layer, Axis::token, Axis::expert, Axis::slot})
        used[static_cast<std::size_t>(axis)] = true;
    for (std::size_t i = 1; i < used.size(); ++i) {
        const auto axis = static_cast<Axis>(i);
        const std::int64_t size = m_sizes[axis];
        if (!used[i] || (size == 0 && !schema::isUnlimited(axis)))
            continue;
        h5::DatasetSpec spec;
        spec.type = axis == Axis::token ? h5::Type::i64 : h5::Type::i32;
        spec.shape = {size};
        spec.maxShape = {schema::isUnlimited(axis) ? h5::kUnlimited : size};
        if (schema::isUnlimited(axis))
            spec.chunk = {schema::kNarrowChunk};
        SPECTRA_TRY(h5::Handle scale, h5::createDataset(m_file.id(), schema::scaleName(axis), spec));
        const bool values = axis == Axis::layer || axis == Axis::token || axis == Axis::expert || axis == Axis::slot;
        SPECTRA_CHECK(h5::makeScale(scale.id(), schema::scaleName(axis), values));
        if (axis == Axis::layer) {
            SPECTRA_CHECK(h5::writeSlab(scale.id(), {0}, {size}, h5::Type::i32, m_spec.decoderIndex.data()));
            SPECTRA_CHECK(h5::setAttribute(scale.id(), "meaning", "decoder index of each traced MoE layer"));
        } else if (axis == Axis::expert || axis == Axis::slot) {
            std::vector<std::int32_t> numbers(static_cast<std::size_t>(size));
            for (std::size_t n = 0; n < numbers.size(); ++n)
                numbers[n] = static_cast<std::int32_t>(n);
            SPECTRA_CHECK(h5::writeSlab(scale.id(), {0}, {size}, h5::Type::i32, numbers.data()));
            SPECTRA_CHECK(h5::setAttribute(scale.id(), "meaning", axis == Axis::expert ? "expert in its layer" : "slot, by descending weight"));
        } else if (axis == Axis::token) {
            SPECTRA_CHECK(h5::setAttribute(scale.id(), "meaning", "running number of the token"));
        }
        m_scales.emplace(axis, std::move(scale));
    }
    return {};
}

Result<void> TraceStore::writeAttributes()
{
    SPECTRA_TRY(const h5::Handle root, h5::openGroup(m_file.id(), "/"));
    SPECTRA_CHECK(h5::setAttribute(root.id(), "format", std::string(schema::kFormat)));
    SPECTRA_CHECK(h5::setAttribute(root.id(), "format_version", std::string(schema::kVersion)));
    SPECTRA_CHECK(h5::setAttribute(root.id(), "created", now()));
    SPECTRA_CHECK(h5::setAttribute(root.id(), "generator", m_spec.generator));
    SPECTRA_CHECK(h5::setAttribute(root.id(), "complete", std::int32_t(0)));
    SPECTRA_CHECK(h5::setAttribute(root.id(), "uuid", uuid()));
    SPECTRA_CHECK(h5::setAttribute(root.id(), "capture", m_spec.capture.toString()));

    SPECTRA_TRY(m_modelGroup, h5::createGroup(m_file.id(), "model"));
    const h5::Id model = m_modelGroup.id();
    const ModelAttributes &a = m_spec.model;
    SPECTRA_CHECK(h5::setAttribute(model, "name", a.name));
    SPECTRA_CHECK(h5::setAttribute(model, "architecture", a.architecture));
    SPECTRA_CHECK(h5::setAttribute(model, "router", a.router));
    SPECTRA_CHECK(h5::setAttribute(model, "config", a.config));
    SPECTRA_CHECK(h5::setAttribute(model, "checkpoint_sha256", a.checkpointSha256));
    SPECTRA_CHECK(h5::setAttribute(model, "dtype", a.dtype));
    SPECTRA_CHECK(h5::setAttribute(model, "device", a.device));
    SPECTRA_CHECK(h5::setAttribute(model, "tokenizer_sha256", a.tokenizerSha256));
    SPECTRA_CHECK(h5::setAttribute(model, "n_layers", a.layers));
    SPECTRA_CHECK(h5::setAttribute(model, "n_experts", a.experts != 0 ? a.experts : std::int32_t(m_spec.experts)));
    SPECTRA_CHECK(h5::setAttribute(model, "top_k", a.topK != 0 ? a.topK : std::int32_t(m_spec.slots)));
    SPECTRA_CHECK(h5::setAttribute(model, "n_shared_experts", a.sharedExperts));
    SPECTRA_CHECK(h5::setAttribute(model, "router_dim", a.routerDim != 0 ? a.routerDim : std::int32_t(m_spec.routerDim)));
    SPECTRA_CHECK(h5::setAttribute(model, "hidden_size", a.hidden != 0 ? a.hidden : std::int32_t(m_spec.hidden)));
    SPECTRA_CHECK(h5::setAttribute(model, "score_function", a.scoreFunction));
    SPECTRA_CHECK(h5::setAttribute(model, "normalize_top_k", std::int32_t(a.normalizeTopK)));
    SPECTRA_CHECK(h5::setAttribute(model, "score_before_top_k", std::int32_t(a.scoreBeforeTopK)));
    SPECTRA_CHECK(h5::setAttribute(model, "causal", std::int32_t(a.causal)));
    SPECTRA_CHECK(h5::setAttribute(model, "routed_scaling_factor", a.routedScalingFactor));
    SPECTRA_CHECK(h5::setAttribute(model, "n_groups", a.groups));
    SPECTRA_CHECK(h5::setAttribute(model, "top_k_groups", a.topKGroups));
    if (a.capacityFactor)
        SPECTRA_CHECK(h5::setAttribute(model, "capacity_factor", *a.capacityFactor));
    if (!a.sinkhornScope.empty())
        SPECTRA_CHECK(h5::setAttribute(model, "sinkhorn_scope", a.sinkhornScope));
    if (a.sinkhornEpsilon)
        SPECTRA_CHECK(h5::setAttribute(model, "sinkhorn_epsilon", *a.sinkhornEpsilon));
    if (a.sinkhornIterations)
        SPECTRA_CHECK(h5::setAttribute(model, "sinkhorn_iterations", *a.sinkhornIterations));
    if (a.repulsionWeight)
        SPECTRA_CHECK(h5::setAttribute(model, "repulsion_weight", *a.repulsionWeight));
    if (!a.gruAxis.empty())
        SPECTRA_CHECK(h5::setAttribute(model, "gru_axis", a.gruAxis));
    SPECTRA_CHECK(h5::setAttribute(model, "training_step", a.trainingStep));
    SPECTRA_CHECK(h5::setAttribute(model, "seed", a.seed));
    if (!a.note.empty())
        SPECTRA_CHECK(h5::setAttribute(model, "note", a.note));

    SPECTRA_TRY(const h5::Handle environment, h5::createGroup(m_file.id(), "environment"));
    const h5::Id env = environment.id();
    const EnvironmentAttributes &e = m_spec.environment;
    SPECTRA_CHECK(h5::setAttribute(env, "version", e.version));
    SPECTRA_CHECK(h5::setAttribute(env, "git_commit", e.gitCommit));
    SPECTRA_CHECK(h5::setAttribute(env, "libtorch", e.libtorch));
    SPECTRA_CHECK(h5::setAttribute(env, "compiler", e.compiler));
    SPECTRA_CHECK(h5::setAttribute(env, "processor", e.processor));
    SPECTRA_CHECK(h5::setAttribute(env, "system", e.system));
    SPECTRA_CHECK(h5::setAttribute(env, "command_line", e.commandLine));
    SPECTRA_CHECK(h5::setAttribute(env, "threads", e.threads));
    return h5::setAttribute(env, "wall_seconds", e.wallSeconds);
}

Result<void> TraceStore::createResume()
{
    SPECTRA_TRY(const h5::Handle resume, h5::createGroup(m_file.id(), "resume"));
    const std::int64_t L = m_spec.layers(), E = m_spec.experts, D = m_spec.routerDim, H = m_spec.hidden;
    for (const char *slot : {"a", "b"}) {
        SPECTRA_TRY(const h5::Handle group, h5::createGroup(resume.id(), slot));
        for (const char *name : {"sequences", "tokens", "counted"})
            SPECTRA_CHECK(h5::setAttribute(group.id(), name, std::int64_t(0)));
        h5::DatasetSpec spec;
        spec.type = h5::Type::f64;
        if (!m_now.meanSums.empty()) {
            spec.shape = {2, L, E, D};
            SPECTRA_TRY(const h5::Handle means, h5::createDataset(group.id(), "means", spec));
        }
        if (has(Dataset::inputMean)) {
            spec.shape = {L, E, H};
            SPECTRA_TRY(const h5::Handle input, h5::createDataset(group.id(), "expert_input", spec));
            SPECTRA_TRY(const h5::Handle output, h5::createDataset(group.id(), "expert_output", spec));
            spec.type = h5::Type::i64;
            spec.shape = {L, E};
            SPECTRA_TRY(const h5::Handle count, h5::createDataset(group.id(), "expert_count", spec));
        }
    }
    return {};
}

/// Columns and sampled datasets get their buffers; called once all datasets are open.
void TraceStore::prepare()
{
    for (const schema::Rule &rule : schema::rules()) {
        h5::Handle &handle = m_data[static_cast<std::size_t>(rule.dataset)];
        const bool column = rule.store == schema::Store::narrow || rule.store == schema::Store::wide;
        if (!handle.valid() || !column || rule.element == schema::Element::text)
            continue;
        const h5::DatasetSpec spec = datasetSpec(rule.dataset);
        const bool wide = rule.store == schema::Store::wide;
        m_columns.emplace(rule.dataset, TokenColumn(rule.dataset, std::move(handle), spec, wide, spec.deflate));
        if (wide)
            m_block = std::max(m_block, m_columns.at(rule.dataset).block());
    }
    for (const auto &[values, token] : {std::pair{Dataset::hiddenValues, Dataset::hiddenToken},
                                        std::pair{Dataset::outputValues, Dataset::outputToken},
                                        std::pair{Dataset::denseValues, Dataset::denseToken}}) {
        if (!has(values))
            continue;
        const h5::DatasetSpec spec = datasetSpec(values);
        Sampled sampled;
        sampled.values = values;
        sampled.token = token;
        sampled.valuesId = data(values);
        sampled.tokenId = data(token);
        sampled.type = spec.type;
        sampled.inner.assign(spec.shape.begin() + 2, spec.shape.end());
        sampled.width = 1;
        for (const std::int64_t n : sampled.inner)
            sampled.width *= n;
        sampled.pieces.resize(static_cast<std::size_t>(spec.shape[0]));
        sampled.coverage.resize(static_cast<std::size_t>(spec.shape[0]));
        m_sampled.push_back(std::move(sampled));
    }
    m_layerCoverage.resize(static_cast<std::size_t>(m_spec.layers()));
    if (has(Dataset::gruPca)) {
        m_states.resize(static_cast<std::size_t>(m_spec.layers()));
        m_bases.resize(m_states.size());
    }
}

Result<void> TraceStore::createObjects()
{
    m_sizes = schema::sizesOf(m_spec);
    SPECTRA_CHECK(writeAttributes());
    SPECTRA_CHECK(createScales());
    SPECTRA_TRY(m_tokensGroup, h5::createGroup(m_file.id(), "tokens"));
    SPECTRA_CHECK(h5::setAttribute(m_tokensGroup.id(), "committed", std::int64_t(0)));
    for (const char *group : {"layers", "sequences", "routing", "expression", "routing/buffers", "gram", "sinkhorn", "state", "hidden",
                              "experts", "experts/outputs", "dense", "map"}) {
        const std::string prefix = "/" + std::string(group) + "/";
        const bool used = std::any_of(schema::rules().begin(), schema::rules().end(), [&](const schema::Rule &rule) {
            return std::string_view(rule.path).starts_with(prefix) && schema::exists(rule.dataset, m_spec);
        });
        if (used) {
            SPECTRA_TRY(const h5::Handle made, h5::createGroup(m_file.id(), group));
        }
    }
    for (const schema::Rule &rule : schema::rules())
        if (schema::exists(rule.dataset, m_spec))
            SPECTRA_CHECK(createDataset(rule.dataset));
    const std::int64_t zero = 0;
    SPECTRA_CHECK(h5::writeSlab(data(Dataset::sequenceOffset), {0}, {1}, h5::Type::i64, &zero));
    SPECTRA_CHECK(h5::writeSlab(data(Dataset::decoderIndex), {0}, {m_spec.layers()}, h5::Type::i32, m_spec.decoderIndex.data()));
    if (has(Dataset::batchOffset))
        SPECTRA_CHECK(h5::writeSlab(data(Dataset::batchOffset), {0}, {1}, h5::Type::i64, &zero));
    if (has(Dataset::denseIndex))
        SPECTRA_CHECK(h5::writeSlab(data(Dataset::denseIndex), {0}, {m_sizes[Axis::denseLayer]}, h5::Type::i32, m_spec.denseIndex.data()));
    if (has(Dataset::physicalToLogical))
        SPECTRA_CHECK(h5::writeSlab(data(Dataset::physicalToLogical), {0, 0}, {m_sizes[Axis::layer], m_sizes[Axis::physical]}, h5::Type::i32, m_spec.physicalToLogical.data()));
    if (has(Dataset::routingMeans) || has(Dataset::gramRouting) || has(Dataset::routingSequenceMeans))
        m_now.meanSums.assign(static_cast<std::size_t>(2) * static_cast<std::size_t>(m_spec.layers()) * static_cast<std::size_t>(m_spec.experts) * static_cast<std::size_t>(m_spec.routerDim), 0.0);
    return createResume();
}

Result<std::unique_ptr<TraceStore>> TraceStore::create(const fs::path &part, const TraceSpec &spec)
{
    std::unique_ptr<TraceStore> store(new TraceStore);
    store->m_path = part;
    store->m_spec = spec;
    fs::path fresh = part;
    fresh += ".new";
    const auto made = [&]() -> Result<void> {
        SPECTRA_TRY(store->m_file, h5::File::open(fresh, spec.live ? h5::File::Mode::createSwmr : h5::File::Mode::create));
        SPECTRA_CHECK(store->createObjects());
        SPECTRA_CHECK(store->m_file.flush());
        if (spec.live) { // sharing begins with a file that is opened again with nothing but its datasets
            SPECTRA_CHECK(store->close(false));
            SPECTRA_TRY(store->m_file, h5::File::open(fresh, h5::File::Mode::readWriteLatest));
            SPECTRA_CHECK(store->openObjects());
        } else {
            store->prepare();
        }
        std::error_code error;
        fs::rename(fresh, part, error);
        if (error)
            return workError("cannot be put in place: " + error.message(), part.string());
        if (spec.live)
            SPECTRA_CHECK(store->m_file.startSwmr());
        return {};
    }();
    if (!made) {
        store->abandon();
        std::error_code ignored;
        if (store->m_file.valid()) {
            (void)store->close(false).ok();
            fs::remove(fresh, ignored);
        }
        Error error = made.error();
        if (error.where.empty())
            error.where = part.string();
        return error;
    }
    return store;
}

Result<void> TraceStore::openObjects()
{
    for (const schema::Rule &rule : schema::rules())
        if (schema::exists(rule.dataset, m_spec)) {
            SPECTRA_TRY(m_data[static_cast<std::size_t>(rule.dataset)], h5::openDataset(m_file.id(), rule.path, 0));
        }
    for (std::size_t i = 1; i < static_cast<std::size_t>(Axis::count_); ++i)
        if (h5::isDataset(m_file.id(), schema::scaleName(static_cast<Axis>(i)))) {
            SPECTRA_TRY(h5::Handle scale, h5::openDataset(m_file.id(), schema::scaleName(static_cast<Axis>(i)), 0));
            m_scales.insert_or_assign(static_cast<Axis>(i), std::move(scale));
        }
    SPECTRA_TRY(m_tokensGroup, h5::openGroup(m_file.id(), "tokens"));
    SPECTRA_TRY(m_modelGroup, h5::openGroup(m_file.id(), "model"));
    m_sampled.clear();
    prepare();
    return {};
}

} // namespace spectra
