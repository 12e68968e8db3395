// SPDX-License-Identifier: GPL-3.0-or-later
// Session files are hostile input: parsing must end in a document or an Error, and what was read is written and read
// back as the same document.
#include "app/workbench/document/sessiondocument.h"

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    using namespace spectra;
    const QByteArray json(reinterpret_cast<const char *>(data), static_cast<qsizetype>(size));
    const auto read = SessionDocument::fromJson(json, QStringLiteral("/nowhere"), QStringLiteral("fuzz.spectra-session"));
    if (!read.ok())
        return 0;
    const QByteArray written = read->toJson(QStringLiteral("/nowhere"));
    const auto again = SessionDocument::fromJson(written, QStringLiteral("/nowhere"), QStringLiteral("again"));
    if (!again.ok() || again->toJson(QStringLiteral("/nowhere")) != written)
        std::abort();
    return 0;
}
