// SPDX-License-Identifier: GPL-3.0-or-later
#include "checkpointfuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    spectra::fuzz::use(spectra::openGguf("model.gguf", {spectra::fuzz::file(data, size)}));
    return 0;
}
