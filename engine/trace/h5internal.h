// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/trace/h5.h"

#include <string>
#include <vector>

namespace spectra::h5 {

/// Turns off HDF5's printing of errors, which is per thread.
void quiet();
/// The Error of a failed HDF5 call: a full disk is work whatever was asked; `what`, then HDF5's own innermost message.
[[nodiscard]] Error failure(ErrorKind kind, const std::string &what, const std::string &where = {});
/// Path of an object, for messages.
[[nodiscard]] std::string pathOf(Id object);
/// HDF5 type in files (little-endian) and its kind; the caller closes it.
[[nodiscard]] Handle fileType(Type type);
[[nodiscard]] Type classify(Id type, bool *exact = nullptr, bool *variableText = nullptr);

} // namespace spectra::h5
