// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/tracefile.h"

#include "engine/core/files.h"
#include "engine/core/routingrecord.h"
#include "engine/trace/chunkcodec.h"
#include "engine/trace/half.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace spectra {
namespace fs = std::filesystem;
using schema::Axis;
using schema::Dataset;

namespace {

constexpr std::int64_t kMostChunkBytes = std::int64_t(64) << 20;
constexpr std::int64_t kBlockBytes = std::int64_t(1) << 20;

std::string shapeText(const std::vector<std::int64_t> &shape)
{
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i)
        text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

bool isFloat(schema::Element e) { return e == schema::Element::f16 || e == schema::Element::f32 || e == schema::Element::scalar; }
bool isFloat(h5::Type t) { return t == h5::Type::f16 || t == h5::Type::f32 || t == h5::Type::f64; }
bool isInteger(h5::Type t) { return t == h5::Type::u8 || t == h5::Type::u16 || t == h5::Type::i32 || t == h5::Type::i64; }

/// a·b, or false when it is larger than `most`.
bool multiply(std::int64_t &product, std::int64_t factor, std::int64_t most)
{
    return factor >= 0 && !__builtin_mul_overflow(product, factor, &product) && product <= most;
}

} // namespace

TraceFile::~TraceFile() { ChunkCache::shared().forget(m_reader); }

Error TraceFile::at(Error error, Dataset d) const
{
    const std::string place = schema::rule(d).path;
    if (error.where.find(place) == std::string::npos)
        error.in(place);
    return error.in(m_name);
}

Result<std::shared_ptr<TraceFile>> TraceFile::open(const fs::path &path)
{
    std::shared_ptr<TraceFile> file(new TraceFile);
    file->m_name = path.string();
    file->m_reader = ChunkCache::nextReader();
    auto opened = h5::File::open(path, h5::File::Mode::read);
    if (!opened) {
        // A live run shares its file, and a killed one leaves it so.
        if (auto shared = h5::File::open(path, h5::File::Mode::readSwmr); shared)
            opened = std::move(shared);
        else
            return opened.error();
    }
    file->m_file = std::move(*opened);
    if (auto loaded = file->load(); !loaded) {
        Error error = loaded.error();
        if (error.where.find(file->m_name) == std::string::npos)
            error.in(file->m_name);
        return error;
    }
    return file;
}

Result<void> TraceFile::load()
{
    const h5::Id id = m_file.id();
    m_fileBytes = m_file.size();
    SPECTRA_TRY(const h5::Handle root, h5::openGroup(id, "/"));
    if (h5::textAttribute(root.id(), "format").value_or("") != schema::kFormat)
        return inputError("is HDF5, but not a trace (attribute format)", m_name, "`spectra inspect` lists what it holds");
    const std::string version = h5::textAttribute(root.id(), "format_version").value_or("");
    if (!version.starts_with("1."))
        return inputError("has format version '" + version + "', supported is 1.x", m_name);
    m_complete = h5::integerAttribute(root.id(), "complete").value_or(0) == 1;

    m_sizes.of.fill(-1);
    for (const Dataset d : {Dataset::decoderIndex, Dataset::tokenId, Dataset::sequenceOffset})
        SPECTRA_CHECK(openView(d));
    for (const Dataset d : {Dataset::decoderIndex, Dataset::tokenId, Dataset::sequenceOffset})
        if (!view(d).present())
            return inputError("the dataset is missing", schema::rule(d).path, "a trace needs it");
    m_sizes[Axis::layer] = view(Dataset::decoderIndex).info.shape.at(0);
    const std::int64_t rows = view(Dataset::tokenId).info.shape.at(0);
    m_tokens = rows;
    if (h5::isGroup(id, "tokens")) {
        SPECTRA_TRY(const h5::Handle group, h5::openGroup(id, "tokens"));
        if (const auto committed = h5::integerAttribute(group.id(), "committed")) {
            if (*committed < 0 || *committed > rows)
                return inputError("committed is " + std::to_string(*committed) + ", but there are " + std::to_string(rows) + " tokens", "/tokens");
            m_tokens = *committed;
        }
    }
    if (m_sizes[Axis::layer] > 4096)
        return inputError("has " + std::to_string(m_sizes[Axis::layer]) + " layers, more than any model", "/layers/decoder_index");
    // Deflate packs at most 1032:1, so a small file cannot hold many tokens: nothing below allocates for what is not there.
    if (m_tokens > 2'000'000'000 || m_tokens / 1032 > m_fileBytes)
        return inputError("claims " + std::to_string(m_tokens) + " tokens, more than a file of its size holds", "/tokens/id");
    const std::int64_t edges = view(Dataset::sequenceOffset).info.shape.at(0);
    if (edges < 1 || edges - 1 > std::max<std::int64_t>(m_tokens, m_complete ? 0 : 1 << 20))
        return inputError("has " + std::to_string(edges) + " entries for " + std::to_string(m_tokens) + " tokens", "/sequences/offset");
    m_sequences = edges - 1;

    if (h5::isGroup(id, "model")) {
        SPECTRA_TRY(const h5::Handle model, h5::openGroup(id, "model"));
        const std::int64_t experts = h5::integerAttribute(model.id(), "n_experts").value_or(0);
        if (experts > 0 && experts <= kNoExpert)
            m_sizes[Axis::expert] = experts;
    }
    if (m_sizes[Axis::expert] < 0 && h5::isDataset(id, "expert")) {
        SPECTRA_TRY(const h5::Handle scale, h5::openDataset(id, "expert"));
        SPECTRA_TRY(const std::vector<std::int64_t> shape, h5::shapeOf(scale.id()));
        if (shape.size() == 1 && shape[0] > 0 && shape[0] <= kNoExpert)
            m_sizes[Axis::expert] = shape[0];
    }
    for (const schema::Rule &rule : schema::rules()) {
        if (!view(rule.dataset).present())
            SPECTRA_CHECK(openView(rule.dataset));
        if (view(rule.dataset).present())
            SPECTRA_CHECK(checkView(m_views[static_cast<std::size_t>(rule.dataset)]));
        else if (schema::isRequired(rule.dataset, static_cast<int>(m_sizes[Axis::layer])))
            return inputError("the dataset is missing", rule.path, "a trace needs it");
    }
    if (m_sizes[Axis::layer] > 0 && m_sizes[Axis::expert] < 1)
        return inputError("the number of experts is not said", "/model@n_experts");
    return {};
}

Result<void> TraceFile::openView(Dataset d)
{
    const schema::Rule &rule = schema::rule(d);
    if (!h5::isDataset(m_file.id(), rule.path))
        return {};
    View &view = m_views[static_cast<std::size_t>(d)];
    SPECTRA_TRY(h5::Handle handle, h5::openDataset(m_file.id(), rule.path));
    SPECTRA_TRY(view.info, h5::describe(handle.id()));
    view.id = d;
    const auto bad = [&](const std::string &what) { return inputError(what, rule.path); };
    if (static_cast<int>(view.info.shape.size()) != rule.rank())
        return bad("has shape " + shapeText(view.info.shape) + ", expected " + std::to_string(rule.rank()) + " axes");
    const h5::Type wanted = schema::fileType(rule.element, true);
    const bool fits = rule.element == schema::Element::text ? view.info.type == h5::Type::text
        : isFloat(rule.element)                             ? isFloat(view.info.type)
                                                            : isInteger(view.info.type);
    if (!fits)
        return bad(std::string("holds ") + h5::nameOf(view.info.type) + ", expected " + h5::nameOf(wanted));
    if (view.info.external)
        return bad("keeps its values in other files, which is not read");
    if (view.info.missingFilter != 0)
        return inputError("is packed with HDF5 filter " + std::to_string(view.info.missingFilter) + ", which is not installed", rule.path,
                          "install the filter's plugin, or rewrite the file with gzip");
    for (const std::string &source : h5::virtualSources(handle.id()))
        if (source != "." && !isPlainFileName(source))
            return bad("refers to '" + source + "', which is not a plain file name");
    std::int64_t bytes = std::max<std::int64_t>(1, view.info.elementBytes);
    for (const std::int64_t c : view.info.chunk)
        if (!multiply(bytes, c, kMostChunkBytes))
            return bad("has chunks of more than 64 MiB");
    view.handle = std::move(handle);
    return {};
}

/// Holds a dataset's shape against what is known of the trace, and learns what is not known yet.
Result<void> TraceFile::checkView(View &view)
{
    const schema::Rule &rule = schema::rule(view.id);
    const auto bad = [&](std::size_t axis, const std::string &expected) {
        return inputError("has shape " + shapeText(view.info.shape) + ", expected " + expected + " on the axis " + schema::scaleName(rule.axes[axis]), rule.path);
    };
    int along = -1;
    for (std::size_t i = 0; i < view.info.shape.size(); ++i) {
        const Axis axis = rule.axes[i];
        const std::int64_t n = view.info.shape[i];
        if (schema::isUnlimited(axis))
            along = static_cast<int>(i);
        switch (axis) {
        case Axis::token:
            if (n < m_tokens)
                return bad(i, "at least " + std::to_string(m_tokens));
            view.rows = m_tokens;
            break;
        case Axis::sequence:
            if (n != m_sequences && !(n > m_sequences && !m_complete))
                return bad(i, std::to_string(m_sequences));
            view.rows = m_sequences;
            break;
        case Axis::state: {
            const std::int64_t E = m_sizes[Axis::expert], D = m_sizes[Axis::dimension];
            if (n < 1 || n > (std::int64_t(1) << 26) || (m_sizes[axis] >= 0 && m_sizes[axis] != n) || (E > 0 && D > 0 && n != E * D))
                return bad(i, E > 0 && D > 0 ? std::to_string(E * D) : "another size");
            m_sizes[axis] = n;
            break;
        }
        default:
            if (m_sizes[axis] >= 0 && m_sizes[axis] != n)
                return bad(i, std::to_string(m_sizes[axis]));
            m_sizes[axis] = n;
            if (schema::isUnlimited(axis))
                view.rows = n;
            else if (n > (1 << 20) || (n < 1 && axis != Axis::layer && axis != Axis::denseLayer && axis != Axis::physical))
                return bad(i, "a plausible size");
        }
    }
    view.layered = rule.axes[0] == Axis::layer || rule.axes[0] == Axis::denseLayer;
    view.memory = rule.element == schema::Element::text ? h5::Type::text
        : isFloat(rule.element)                         ? (view.info.type == h5::Type::f16 && view.info.exactType ? h5::Type::f16 : h5::Type::f32)
                                                        : schema::fileType(rule.element, true);
    if (along < 0)
        return {};
    const auto grows = static_cast<std::size_t>(along);
    view.inner.assign(view.info.shape.begin() + along + 1, view.info.shape.end());
    for (const std::int64_t n : view.inner)
        if (!multiply(view.width, n, std::int64_t(1) << 26))
            return inputError("has rows of more than 64 million values", rule.path);
    const std::int64_t rowBytes = std::max<std::int64_t>(1, view.width * static_cast<std::int64_t>(h5::sizeOf(view.memory)));
    const std::int64_t fit = std::clamp<std::int64_t>(kBlockBytes / rowBytes, 1, schema::kNarrowChunk);
    const bool chunked = view.info.layout == h5::DatasetInfo::Layout::chunked;
    view.block = chunked ? std::clamp<std::int64_t>(view.info.chunk[grows], 1, std::max<std::int64_t>(fit, kMostChunkBytes / rowBytes)) : fit;
    view.raw = chunked && view.info.exactType && view.info.ownFilters && view.info.type == view.memory && view.memory != h5::Type::text
        && (!view.layered || view.info.chunk[0] == 1) && view.block == view.info.chunk[grows];
    return {};
}

std::vector<std::int32_t> TraceFile::integers(Dataset d) const
{
    const View &v = view(d);
    std::vector<std::int32_t> values;
    if (v.present() && v.info.shape.size() == 1 && v.info.shape[0] <= (1 << 20)) {
        values.resize(static_cast<std::size_t>(v.info.shape[0]));
        if (!h5::readSlab(v.handle.id(), {0}, v.info.shape, h5::Type::i32, values.data()))
            values.clear();
    }
    return values;
}

/// Chunks of one block as they are stored, inflated and put together.
Result<void> TraceFile::loadRaw(const View &view, int layer, std::int64_t first, Chunk &chunk) const
{
    const std::size_t element = h5::sizeOf(view.memory);
    const std::size_t head = view.layered ? 2 : 1;
    const auto &shape = view.info.chunk;
    // Inner axes as two, as the writer cuts them: [outer, inner].
    const std::int64_t n1 = view.inner.empty() ? 1 : view.inner.back(), c1 = view.inner.empty() ? 1 : shape.back();
    const std::int64_t n0 = view.inner.size() > 1 ? view.inner[0] : 1, c0 = view.inner.size() > 1 ? shape[head] : 1;
    std::vector<std::byte> fill(element, std::byte{0});
    if (isFloat(view.memory) || view.id == Dataset::experts)
        std::fill(fill.begin(), fill.end(), std::byte{0xff}); // NaN, 65535
    const auto pieceBytes = static_cast<std::size_t>(view.block * c0 * c1) * element;
    std::vector<std::byte> stored, unpacked, plain;
    for (std::int64_t i0 = 0; i0 < n0; i0 += c0) {
        for (std::int64_t i1 = 0; i1 < n1; i1 += c1) {
            std::vector<std::int64_t> at;
            if (view.layered)
                at.push_back(layer);
            at.push_back(first);
            if (view.inner.size() > 1)
                at.push_back(i0);
            if (!view.inner.empty())
                at.push_back(i1);
            std::uint32_t skipped = 0;
            SPECTRA_CHECK(h5::readChunk(view.handle.id(), at, pieceBytes + pieceBytes / 512 + 64, stored, skipped));
            const unsigned shuffleBit = 1u, deflateBit = view.info.shuffle ? 2u : 1u;
            const bool deflated = view.info.deflate && (skipped & deflateBit) == 0;
            const bool shuffled = view.info.shuffle && (skipped & shuffleBit) == 0;
            if (stored.empty()) {
                plain.resize(pieceBytes);
                for (std::size_t b = 0; b < pieceBytes; b += element)
                    std::memcpy(plain.data() + b, fill.data(), element);
            } else {
                if (deflated) {
                    unpacked.resize(pieceBytes);
                    if (!inflateBytes(stored, unpacked))
                        return inputError("a chunk is damaged (row " + std::to_string(first) + ", layer " + std::to_string(layer) + ")");
                } else {
                    unpacked.swap(stored);
                    if (unpacked.size() != pieceBytes)
                        return inputError("a chunk has another size than its rows (row " + std::to_string(first) + ")");
                }
                if (shuffled) {
                    plain.resize(pieceBytes);
                    unshuffleBytes(unpacked, element, plain.data());
                } else {
                    plain.swap(unpacked);
                }
            }
            if (c0 >= n0 && c1 >= n1 && c0 * c1 == view.width) {
                const std::size_t bytes = static_cast<std::size_t>(chunk.rows * view.width) * element;
                std::memcpy(chunk.bytes.data(), plain.data(), bytes);
                continue;
            }
            const std::int64_t w0 = std::min(c0, n0 - i0), w1 = std::min(c1, n1 - i1);
            for (std::int64_t t = 0; t < chunk.rows; ++t)
                for (std::int64_t j = 0; j < w0; ++j)
                    std::memcpy(chunk.bytes.data() + static_cast<std::size_t>(t * view.width + (i0 + j) * n1 + i1) * element,
                                plain.data() + static_cast<std::size_t>((t * c0 + j) * c1) * element, static_cast<std::size_t>(w1) * element);
        }
    }
    return {};
}

Result<std::shared_ptr<const Chunk>> TraceFile::chunk(const View &view, int layer, std::int64_t index) const
{
    const ChunkCache::Key key{m_reader, static_cast<std::int32_t>(view.id), layer, index};
    if (auto found = ChunkCache::shared().find(key))
        return found;
    auto chunk = std::make_shared<Chunk>();
    const std::int64_t first = index * view.block;
    chunk->rows = std::min(view.block, view.rows - first);
    if (chunk->rows <= 0)
        return usageError("rows outside the trace", schema::rule(view.id).path);
    try {
        if (view.memory == h5::Type::text) {
            auto text = h5::readText(view.handle.id(), first, chunk->rows);
            if (!text)
                return at(text.error(), view.id);
            chunk->text = std::move(*text);
        } else {
            chunk->bytes.resize(static_cast<std::size_t>(chunk->rows * view.width) * h5::sizeOf(view.memory));
            Result<void> loaded;
            if (view.raw) {
                loaded = loadRaw(view, layer, first, *chunk);
            } else {
                std::vector<std::int64_t> offset, count;
                if (view.layered) {
                    offset.push_back(layer);
                    count.push_back(1);
                }
                offset.push_back(first);
                count.push_back(chunk->rows);
                for (const std::int64_t n : view.inner) {
                    offset.push_back(0);
                    count.push_back(n);
                }
                loaded = h5::readSlab(view.handle.id(), offset, count, view.memory, chunk->bytes.data());
            }
            if (!loaded)
                return at(loaded.error(), view.id);
        }
    } catch (const std::bad_alloc &) {
        return workError("not enough memory for a block", m_name + ": " + schema::rule(view.id).path);
    }
    std::shared_ptr<const Chunk> done = std::move(chunk);
    ChunkCache::shared().insert(key, done);
    return done;
}

Result<void> TraceFile::rows(const View &view, int layer, std::int64_t first, std::int64_t last, void *to, std::stop_token stop) const
{
    auto *out = static_cast<std::byte *>(to);
    for (std::int64_t at = first; at < last;) {
        if (stop.stop_requested())
            return cancelledError();
        SPECTRA_TRY(const std::shared_ptr<const Chunk> c, chunk(view, layer, at / view.block));
        const std::int64_t from = at % view.block, n = std::min(last - at, c->rows - from);
        if (n <= 0)
            return bugError("a chunk is shorter than its rows", schema::rule(view.id).path);
        const std::size_t element = h5::sizeOf(view.memory);
        const auto elements = static_cast<std::size_t>(n * view.width);
        const std::byte *const source = c->bytes.data() + static_cast<std::size_t>(from * view.width) * element;
        if (view.memory == h5::Type::f16) {
            fromHalf({reinterpret_cast<const std::uint16_t *>(source), elements}, reinterpret_cast<float *>(out));
            out += elements * sizeof(float);
        } else {
            std::memcpy(out, source, elements * element);
            out += elements * element;
        }
        at += n;
    }
    return {};
}

Result<std::vector<std::string>> TraceFile::texts(const View &view, std::int64_t first, std::int64_t last, std::stop_token stop) const
{
    std::vector<std::string> out;
    out.reserve(static_cast<std::size_t>(std::max<std::int64_t>(0, last - first)));
    for (std::int64_t at = first; at < last;) {
        if (stop.stop_requested())
            return cancelledError();
        SPECTRA_TRY(const std::shared_ptr<const Chunk> c, chunk(view, 0, at / view.block));
        const std::int64_t from = at % view.block, n = std::min(last - at, c->rows - from);
        if (n <= 0 || static_cast<std::int64_t>(c->text.size()) < from + n)
            return bugError("a chunk is shorter than its rows", schema::rule(view.id).path);
        out.insert(out.end(), c->text.begin() + from, c->text.begin() + from + n);
        at += n;
    }
    return out;
}

} // namespace spectra
