// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace spectra {

/// Named arrays in one HDF5 file that appears whole or not at all: outputs of commands other than `trace` ("/ids",
/// "/router/3/logits"). Groups on the way are made. Not synchronised.
class ArrayFile {
public:
    /// Errors (work): exists and !overwrite, not writable.
    [[nodiscard]] static Result<std::unique_ptr<ArrayFile>> create(const std::filesystem::path &place, bool overwrite);
    ~ArrayFile();

    [[nodiscard]] Result<void> write(const std::string &name, const std::vector<std::int64_t> &shape, std::span<const float> values);
    [[nodiscard]] Result<void> write(const std::string &name, const std::vector<std::int64_t> &shape, std::span<const double> values);
    [[nodiscard]] Result<void> write(const std::string &name, const std::vector<std::int64_t> &shape, std::span<const std::int32_t> values);
    [[nodiscard]] Result<void> write(const std::string &name, const std::vector<std::int64_t> &shape, std::span<const std::int64_t> values);
    [[nodiscard]] Result<void> write(const std::string &name, const std::vector<std::int64_t> &shape, std::span<const std::uint16_t> values);
    [[nodiscard]] Result<void> write(const std::string &name, const std::vector<std::string> &values);
    /// Appends rows to a float32 array [rows, inner…] that grows: large outputs need not be in memory at once.
    [[nodiscard]] Result<void> append(const std::string &name, const std::vector<std::int64_t> &inner, std::span<const float> values);
    /// A UTF-8 or numeric attribute of an array, a group, or (name "/") of the file.
    [[nodiscard]] Result<void> attribute(const std::string &name, const std::string &key, const std::string &value);
    [[nodiscard]] Result<void> attribute(const std::string &name, const std::string &key, double value);
    [[nodiscard]] Result<void> commit();

private:
    class Impl;
    explicit ArrayFile(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> m_impl;
};

/// One dataset of an HDF5 file, for `spectra inspect`.
struct DatasetSummary {
    std::string path, type;           ///< "/routing/experts", "uint16"
    std::vector<std::int64_t> shape;
    std::int64_t bytes = 0;           ///< stored
};
/// Every dataset of an HDF5 file. Errors (input): missing, not HDF5, damaged. Probe a foreign file first.
[[nodiscard]] Result<std::vector<DatasetSummary>> listDatasets(const std::filesystem::path &path);
/// True when the file begins with the HDF5 signature.
[[nodiscard]] bool isHdf5(const std::filesystem::path &path);

} // namespace spectra
