// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/tensorbinder.h"

#include "engine/core/files.h"

#include <fmt/format.h>

namespace spectra {
namespace {

bool floating(DType type)
{
    switch (type) {
    case DType::i8:
    case DType::i16:
    case DType::i32:
    case DType::i64:
    case DType::u8:
    case DType::u16:
    case DType::u32:
    case DType::u64:
    case DType::boolean: return false;
    default: return true;
    }
}

TensorView wholeView(const StoredTensor &source)
{
    TensorView view;
    view.file = source.file;
    view.offset = source.offset;
    view.dtype = source.dtype;
    view.rows = source.shape.empty() ? 1 : source.shape.front();
    for (std::size_t i = 1; i < source.shape.size(); ++i)
        view.columns *= source.shape[i];
    return view;
}

std::string withNumber(const std::string &pattern, std::int64_t number)
{
    std::string out = pattern;
    out.replace(out.find("{}"), 2, std::to_string(number));
    return out;
}

} // namespace

TensorBinder::TensorBinder(const std::vector<StoredTensor> &stored, const std::vector<DataFile> &files, bool gguf, bool permutedQueryKey)
    : m_files(files), m_gguf(gguf), m_permuted(gguf && permutedQueryKey)
{
    for (const StoredTensor &tensor : stored)
        m_stored.emplace(tensor.name, &tensor);
}

void TensorBinder::fail(std::string what, const std::string &name, std::string mend)
{
    if (m_result.ok())
        m_result = inputError(std::move(what), "tensor " + printableUtf8(name), std::move(mend));
}

const StoredTensor *TensorBinder::stored(std::string_view name) const
{
    const auto it = m_stored.find(name);
    return it == m_stored.end() ? nullptr : it->second;
}

const StoredTensor *TensorBinder::findFolder(const std::string &name, const std::vector<std::string> &otherNames) const
{
    const auto look = [&](const std::string &candidate) {
        const StoredTensor *found = stored(candidate);
        // Folders saved from the decoder without its head lack the prefix.
        if (found == nullptr && candidate.starts_with("model."))
            found = stored(std::string_view(candidate).substr(6));
        return found;
    };
    const StoredTensor *found = look(name);
    for (std::size_t i = 0; found == nullptr && i < otherNames.size(); ++i)
        found = look(otherNames[i]);
    return found;
}

bool TensorBinder::usable(const StoredTensor &source)
{
    if (!source.unreadable.empty())
        fail("is stored as " + source.unreadable + ", which is not supported", source.name, "convert the model to F32, F16 or BF16");
    else if (!floating(source.dtype))
        fail(fmt::format("is stored as {}; a weight must be of a floating-point or quantised type", dtypeName(source.dtype)), source.name);
    return m_result.ok();
}

void TensorBinder::add(const std::string &name, const StoredTensor &source, std::vector<std::int64_t> shape, TensorView view)
{
    if (!m_touched[&source]) {
        m_touched[&source] = true;
        ++m_used;
    }
    TensorInfo info;
    info.name = name;
    info.sourceName = source.name;
    info.dtype = source.dtype;
    info.shape = std::move(shape);
    const BlockSize block = blockSize(source.dtype);
    info.bytes = static_cast<std::uint64_t>(info.elements() / block.elements * block.bytes);
    info.file = m_files[static_cast<std::size_t>(source.file)].name;
    m_infos.push_back(std::move(info));
    m_views.push_back(view);
}

void TensorBinder::bind(const std::string &name, const StoredTensor *source, const std::string &searched,
                        std::vector<std::int64_t> shape, std::int64_t heads)
{
    if (!m_result.ok())
        return;
    if (source == nullptr)
        return fail("is missing", searched, "the file does not hold the whole model, or its configuration is not this model's");
    if (!usable(*source))
        return;
    if (source->shape != shape)
        return fail(fmt::format("has shape {}; the configuration asks for {}", shapeText(source->shape), shapeText(shape)), source->name);
    TensorView view = wholeView(*source);
    if (m_permuted && heads > 0) {
        view.order = TensorView::Order::queryKey;
        view.headRows = shape[0] / heads;
    }
    add(name, *source, std::move(shape), view);
}

void TensorBinder::tensor(const std::string &name, const std::string &ggufName, std::vector<std::int64_t> shape,
                          const std::vector<std::string> &otherNames)
{
    const StoredTensor *source = m_gguf ? stored(ggufName) : findFolder(name, otherNames);
    bind(name, source, m_gguf ? ggufName : otherNames.empty() ? name : otherNames.front(), std::move(shape), 0);
}

void TensorBinder::queryKey(const std::string &name, const std::string &ggufName, std::vector<std::int64_t> shape, std::int64_t heads)
{
    bind(name, m_gguf ? stored(ggufName) : findFolder(name, {}), m_gguf ? ggufName : name, std::move(shape), heads);
}

void TensorBinder::slices(const std::string &prefix, const char *suffix, const StoredTensor &source, std::int64_t count, std::int64_t rows,
                          std::int64_t columns, std::int64_t storedRows, std::int64_t firstRow, bool transposed)
{
    const BlockSize block = blockSize(source.dtype);
    if (!usable(source))
        return;
    for (std::int64_t e = 0; e < count; ++e) {
        TensorView view;
        view.file = source.file;
        view.dtype = source.dtype;
        view.rows = rows;
        view.columns = columns;
        std::int64_t firstElement = e * storedRows * columns;
        if (transposed) {
            view.order = TensorView::Order::transposed;
            view.stride = storedRows;
            view.firstColumn = firstRow;
        } else {
            firstElement += firstRow * columns;
        }
        view.offset = source.offset + static_cast<std::uint64_t>(firstElement / block.elements * block.bytes);
        add(prefix + std::to_string(e) + suffix, source, {rows, columns}, view);
    }
}

void TensorBinder::experts(std::int64_t layer, const ExpertNames &names, std::int64_t count, std::int64_t inner, std::int64_t hidden)
{
    if (!m_result.ok())
        return;
    // A small file can name very many one-element experts; a description of each takes a hundred times its bytes.
    if (static_cast<std::int64_t>(m_infos.size()) + 3 * count > kMaxTensors)
        return fail(fmt::format("the model has more than {} tensors", kMaxTensors), fmt::format("model.layers.{}.mlp.experts", layer));
    using Shape = std::vector<std::int64_t>;
    const std::string prefix = fmt::format("model.layers.{}.mlp.experts.", layer);
    constexpr std::array<const char *, 3> suffixes = {".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"};
    const Shape wide = {inner, hidden}, narrow = {hidden, inner};
    const auto misshaped = [&](const StoredTensor &t, const std::string &expected) {
        fail(fmt::format("has shape {}; the configuration asks for {}", shapeText(t.shape), expected), t.name);
    };
    if (m_gguf) {
        constexpr std::array<const char *, 3> parts = {"ffn_gate", "ffn_up", "ffn_down"};
        const StoredTensor *both = stored(names.gguf + "ffn_gate_up_exps.weight");
        if (both != nullptr) {
            if (both->shape != Shape{count, 2 * inner, hidden})
                return misshaped(*both, shapeText(Shape{count, 2 * inner, hidden}));
            slices(prefix, suffixes[0], *both, count, inner, hidden, 2 * inner, 0, false);
            slices(prefix, suffixes[1], *both, count, inner, hidden, 2 * inner, inner, false);
        }
        for (std::size_t p = both != nullptr ? 2 : 0; p < 3; ++p) {
            const Shape &shape = p == 2 ? narrow : wide;
            const std::string name = names.gguf + parts[p] + "_exps.weight";
            if (const StoredTensor *all = stored(name); all != nullptr) {
                if (all->shape != Shape{count, shape[0], shape[1]})
                    return misshaped(*all, shapeText(Shape{count, shape[0], shape[1]}));
                slices(prefix, suffixes[p], *all, count, shape[0], shape[1], shape[0], 0, false);
            } else if (const std::string one = names.gguf + parts[p] + ".{}.weight"; stored(withNumber(one, 0)) != nullptr) {
                for (std::int64_t e = 0; e < count; ++e) // files from before the 3-D form
                    bind(prefix + std::to_string(e) + suffixes[p], stored(withNumber(one, e)), withNumber(one, e), shape, 0);
            } else {
                return bind(name, nullptr, name, shape, 0);
            }
        }
        return;
    }
    for (const std::string &name : names.fusedGateUp) {
        const StoredTensor *gateUp = findFolder(name, {});
        if (gateUp == nullptr)
            continue;
        const StoredTensor *down = nullptr;
        for (std::size_t i = 0; down == nullptr && i < names.fusedDown.size(); ++i)
            down = findFolder(names.fusedDown[i], {});
        if (down == nullptr)
            return fail("is missing", names.fusedDown.front());
        // By shape; where 2I = H both fit and the families here store [E, 2I, H].
        const bool plain = gateUp->shape == Shape{count, 2 * inner, hidden};
        const bool turned = gateUp->shape == Shape{count, hidden, 2 * inner} && !plain;
        if (!plain && !turned)
            return misshaped(*gateUp, fmt::format("{} or {}", shapeText(Shape{count, 2 * inner, hidden}), shapeText(Shape{count, hidden, 2 * inner})));
        const Shape downShape = plain ? Shape{count, hidden, inner} : Shape{count, inner, hidden};
        if (down->shape != downShape)
            return misshaped(*down, shapeText(downShape));
        slices(prefix, suffixes[0], *gateUp, count, inner, hidden, 2 * inner, 0, turned);
        slices(prefix, suffixes[1], *gateUp, count, inner, hidden, 2 * inner, inner, turned);
        slices(prefix, suffixes[2], *down, count, hidden, inner, hidden, 0, turned);
        return;
    }
    const std::array<std::string, 3> *chosen = &names.perExpert.front();
    for (const auto &pattern : names.perExpert)
        if (findFolder(withNumber(pattern[0], 0), {}) != nullptr)
            chosen = &pattern;
    for (std::size_t p = 0; p < 3; ++p)
        for (std::int64_t e = 0; e < count && m_result.ok(); ++e) {
            const std::string name = withNumber((*chosen)[p], e);
            bind(prefix + std::to_string(e) + suffixes[p], findFolder(name, {}), name, p == 2 ? narrow : wide, 0);
        }
}

void TensorBinder::passThrough(std::string_view prefix)
{
    for (auto it = m_stored.lower_bound(prefix); it != m_stored.end() && it->first.starts_with(prefix) && m_result.ok(); ++it)
        if (usable(*it->second))
            add(it->second->name, *it->second, it->second->shape, wholeView(*it->second));
}

} // namespace spectra
