// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/optionset.h"
#include "engine/router/router.h"

#include <nlohmann/json.hpp>

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace spectra {

/// What the registry holds of a router: its description, and how it is made from options.
struct RouterRegistration {
    RouterInfo info;
    /// With `lookup` its tensors come from a checkpoint, else they are fresh. `json` may hold any options, checked here.
    std::function<Result<std::unique_ptr<Router>>(const nlohmann::json &json, const RouterShape &shape, const TensorLookup *lookup, std::uint64_t seed)> make;
    /// Checked options with the defaults filled in, "type" first.
    std::function<Result<std::string>(const nlohmann::json &json)> normalise;
};

/// Registers class R under info.name. R has: `using Options`, a plain struct (perhaps with `Result<void> isValid() const`);
/// `static const std::vector<OptionField<Options>> &table()`; perhaps `Result<void> fits() const` for a
/// shape that it cannot serve; a constructor (std::string name, Options, RouterShape), or without the name;
/// `void initialise(std::uint64_t seed)`; `Result<void> load(const TensorLookup &)`. `defaults`: those of this name, so that a
/// published setting is the same class under another name.
template <typename R> RouterRegistration registration(RouterInfo info, typename R::Options defaults = {})
{
    using Options = typename R::Options;
    const auto read = [defaults](const nlohmann::json &json) -> Result<Options> {
        SPECTRA_TRY(auto options, readOptions(json, R::table(), defaults));
        if constexpr (requires { options.isValid(); })
            SPECTRA_CHECK(options.isValid());
        return options;
    };
    info.options = listOptions(R::table(), defaults);
    info.family = info.name;
    if constexpr (requires { R::kFamily; })
        info.family = R::kFamily;
    RouterRegistration entry;
    entry.make = [read, name = info.name](const nlohmann::json &json, const RouterShape &shape, const TensorLookup *lookup,
                                          std::uint64_t seed) -> Result<std::unique_ptr<Router>> {
        SPECTRA_TRY(auto options, read(json));
        std::unique_ptr<R> router;
        if constexpr (std::is_constructible_v<R, std::string, Options, RouterShape>)
            router = std::make_unique<R>(name, std::move(options), shape);
        else
            router = std::make_unique<R>(std::move(options), shape);
        if constexpr (requires { router->fits(); })
            SPECTRA_CHECK(router->fits());
        if (lookup)
            SPECTRA_CHECK(router->load(*lookup));
        else
            router->initialise(seed);
        return std::unique_ptr<Router>(std::move(router));
    };
    entry.normalise = [read, name = info.name](const nlohmann::json &json) -> Result<std::string> {
        SPECTRA_TRY(const auto options, read(json));
        return writeOptions(name, options, R::table());
    };
    entry.info = std::move(info);
    return entry;
}

} // namespace spectra
