// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/storage.h"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// How an internal tensor is read out of a stored one: `rows` rows of `columns` elements.
struct TensorView {
    enum class Order : std::uint8_t {
        stored,        ///< rows follow each other
        queryKey,      ///< rows of each head are interleaved: internal row (h, s, j) is stored row (h, j, s)
        transposed,    ///< stored is [columns, stride]; internal (r, c) is stored (c, firstColumn + r)
    };
    int file = 0;
    std::uint64_t offset = 0;
    DType dtype = DType::f32;
    std::int64_t rows = 1, columns = 1;
    Order order = Order::stored;
    std::int64_t headRows = 0;           ///< queryKey: rows per head
    std::int64_t stride = 0, firstColumn = 0; ///< transposed
};

/// Where the experts of one layer may be found. `{}` stands for the expert's number.
struct ExpertNames {
    std::vector<std::array<std::string, 3>> perExpert; ///< gate, up, down of one expert
    std::vector<std::string> fusedGateUp, fusedDown;   ///< [E, 2I, H] and [E, H, I], or both transposed
    std::string gguf;                                  ///< "blk.3."
};

/// Maps stored tensors to internal names, checking presence, shape and type. The first thing wrong is kept.
class TensorBinder {
public:
    TensorBinder(const std::vector<StoredTensor> &stored, const std::vector<DataFile> &files, bool gguf, bool permutedQueryKey);

    /// A tensor of the internal name `name`. In a GGUF file it is called `ggufName`, in a folder `name` or one of `otherNames`.
    void tensor(const std::string &name, const std::string &ggufName, std::vector<std::int64_t> shape,
                const std::vector<std::string> &otherNames = {});
    /// The same for Q and K, whose rows a GGUF converter may have reordered.
    void queryKey(const std::string &name, const std::string &ggufName, std::vector<std::int64_t> shape, std::int64_t heads);
    /// gate, up and down of `count` experts of width `inner`: one by one, fused, or 3-D, whichever the files hold.
    void experts(std::int64_t layer, const ExpertNames &names, std::int64_t count, std::int64_t inner, std::int64_t hidden);
    /// Every stored tensor whose name begins with `prefix`, as it is (floating-point types only).
    void passThrough(std::string_view prefix);

    [[nodiscard]] const StoredTensor *stored(std::string_view name) const;
    void fail(std::string what, const std::string &name, std::string mend = {});
    [[nodiscard]] Result<void> result() const { return m_result; }

    [[nodiscard]] std::vector<TensorInfo> takeInfos() { return std::move(m_infos); }
    [[nodiscard]] std::vector<TensorView> takeViews() { return std::move(m_views); }
    [[nodiscard]] std::size_t unusedTensors() const { return m_stored.size() - m_used; }

private:
    [[nodiscard]] const StoredTensor *findFolder(const std::string &name, const std::vector<std::string> &otherNames) const;
    void add(const std::string &name, const StoredTensor &source, std::vector<std::int64_t> shape, TensorView view);
    [[nodiscard]] bool usable(const StoredTensor &source);
    void bind(const std::string &name, const StoredTensor *source, const std::string &searched, std::vector<std::int64_t> shape,
              std::int64_t heads);
    void slices(const std::string &prefix, const char *suffix, const StoredTensor &source, std::int64_t count, std::int64_t rows,
                std::int64_t columns, std::int64_t storedRows, std::int64_t firstRow, bool transposed);

    const std::vector<DataFile> &m_files;
    std::map<std::string_view, const StoredTensor *> m_stored;
    std::map<const StoredTensor *, bool> m_touched;
    std::size_t m_used = 0;
    bool m_gguf, m_permuted;
    Result<void> m_result;
    std::vector<TensorInfo> m_infos;
    std::vector<TensorView> m_views;
};

} // namespace spectra
