// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/opening.h"

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

namespace spectra::fuzz {

inline DataFile file(const std::uint8_t *data, std::size_t size)
{
    return {"input", std::as_bytes(std::span(data, size)), nullptr, false};
}

/// An opened checkpoint keeps its promises: every tensor can be read whole and by rows, and its sizes are consistent.
inline void use(const Result<std::shared_ptr<const Checkpoint>> &opened)
{
    if (!opened.ok()) {
        if (opened.error().kind != ErrorKind::input || opened.error().what.empty())
            std::abort();
        return;
    }
    const Checkpoint &c = **opened;
    std::vector<float> values;
    for (const TensorInfo &t : c.tensors()) {
        if (c.find(t.name) != &t)
            std::abort();
        const auto n = static_cast<std::size_t>(t.elements());
        if (n > (std::size_t(1) << 22))
            continue;
        values.resize(n);
        if (!c.readF32(t, values).ok())
            std::abort();
        if (t.shape.size() == 2 && t.shape[0] > 1) {
            values.resize(static_cast<std::size_t>(t.shape[1]));
            if (!c.readF32(t, values, t.shape[0] - 1, 1).ok())
                std::abort();
        }
        (void)c.raw(t);
    }
    (void)c.vocabulary();
    (void)c.metadata();
    (void)estimateMemory(c.config(), c.config().context);
    (void)folderConfigJson(c.config(), c.configJson());
}

} // namespace spectra::fuzz
