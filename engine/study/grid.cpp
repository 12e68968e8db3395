// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/grid.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

namespace spectra::study {
namespace {

constexpr std::size_t kMostCells = 10000;

/// "router" and "router.type" come first: they replace what other keys then change.
void apply(Json &config, const Json &set)
{
    for (const char *first : {"router", "router.type"})
        if (set.contains(first))
            assign(config, first, set[first]);
    for (const auto &[path, value] : set.items())
        if (path != "router" && path != "router.type")
            assign(config, path, value);
}

/// True when one path is the other or lies inside it.
bool overlap(const std::string &a, const std::string &b)
{
    const std::string &shorter = a.size() < b.size() ? a : b, &longer = a.size() < b.size() ? b : a;
    return longer.starts_with(shorter) && (longer.size() == shorter.size() || longer[shorter.size()] == '.');
}

Result<void> checkAxesApart(const StudySpec &spec)
{
    for (std::size_t i = 0; i < spec.axes.size(); ++i)
        for (std::size_t j = i + 1; j < spec.axes.size(); ++j)
            for (const AxisValue &a : spec.axes[i].values)
                for (const auto &[pathA, valueA] : a.set.items())
                    for (const AxisValue &b : spec.axes[j].values)
                        for (const auto &[pathB, valueB] : b.set.items())
                            if (overlap(pathA, pathB))
                                return usageError(fmt::format("axes \"{}\" and \"{}\" both set {}", spec.axes[i].name, spec.axes[j].name, pathA), spec.name);
    return {};
}

} // namespace

std::string configSha256(const Json &config)
{
    nlohmann::json sorted = nlohmann::json::parse(config.dump());
    if (sorted.is_object())
        sorted.erase("name");
    const std::string text = sorted.dump();
    Sha256 sum;
    sum.add(std::as_bytes(std::span(text.data(), text.size())));
    return sum.hex();
}

std::string slug(const std::string &label)
{
    std::string out;
    if (label.size() > 1 && label.front() == '-')
        out = "no-";
    bool gap = false;
    for (const char raw : label) {
        const auto c = static_cast<unsigned char>(raw);
        if (std::isalnum(c) != 0 || c == '.') {
            if (gap && !out.empty() && out.back() != '-')
                out += '-';
            out += static_cast<char>(std::tolower(c));
            gap = false;
        } else {
            gap = true;
        }
    }
    while (!out.empty() && (out.back() == '.' || out.back() == '-'))
        out.pop_back();
    return out.empty() || out.front() == '.' ? "x" + out : out.substr(0, 48);
}

std::string Cell::label(const StudySpec &spec, const std::vector<std::string> &axes) const
{
    std::string name;
    for (std::size_t a = 0; a < spec.axes.size(); ++a) {
        const Axis &axis = spec.axes[a];
        if (std::find(axes.begin(), axes.end(), axis.name) == axes.end())
            continue;
        const AxisValue &value = axis.values[point[a]];
        // A bare number does not say what it is of.
        const bool bare = value.number && !spec.factorial && axes.size() > 1;
        name += (name.empty() ? "" : ", ") + (bare ? axis.title + "=" : std::string()) + value.label;
    }
    return name;
}

Result<std::vector<Generator>> parseGenerators(const FactorialSpec &design)
{
    std::vector<Generator> all;
    const auto find = [&](const std::string &name) -> Result<std::size_t> {
        const auto at = std::find(design.factors.begin(), design.factors.end(), name);
        if (at == design.factors.end())
            return usageError(fmt::format("there is no factor \"{}\"", printableUtf8(name)), "factorial: generators", R"(write "E = A B C")");
        return static_cast<std::size_t>(at - design.factors.begin());
    };
    std::set<std::size_t> made;
    for (const std::string &text : design.generators) {
        const std::size_t equals = text.find('=');
        if (equals == std::string::npos)
            return usageError(fmt::format("\"{}\" is not a generator", printableUtf8(text)), "factorial: generators", R"(write "E = A B C")");
        Generator g;
        std::istringstream left(text.substr(0, equals)), right(text.substr(equals + 1));
        std::string word;
        left >> word;
        SPECTRA_TRY(g.factor, find(word));
        while (right >> word) {
            SPECTRA_TRY(const std::size_t factor, find(word));
            g.product.push_back(factor);
        }
        if (g.product.empty() || std::find(g.product.begin(), g.product.end(), g.factor) != g.product.end() || !made.insert(g.factor).second)
            return usageError(fmt::format("\"{}\" is not a generator", printableUtf8(text)), "factorial: generators", R"(write "E = A B C")");
        all.push_back(std::move(g));
    }
    for (const Generator &g : all)
        for (const std::size_t p : g.product)
            if (made.contains(p))
                return usageError("a generated factor stands on the right of a generator", "factorial: generators", "use the free factors there");
    return all;
}

Result<std::vector<Cell>> makeCells(const StudySpec &spec)
{
    SPECTRA_CHECK(checkAxesApart(spec));
    std::vector<Generator> generators;
    std::size_t firstFactor = 0;
    if (spec.factorial) {
        SPECTRA_TRY(generators, parseGenerators(*spec.factorial));
        firstFactor = spec.axes.size() - spec.factorial->factors.size();
    }
    std::size_t points = 1;
    for (const Axis &axis : spec.axes)
        if ((points *= axis.values.size()) > kMostCells * 16)
            return usageError("has too many combinations", spec.name, fmt::format("a sweep takes {} runs", kMostCells));
    std::vector<Cell> cells;
    std::set<std::string> ids;
    for (std::size_t code = 0; code < points; ++code) {
        std::vector<std::size_t> point(spec.axes.size());
        std::size_t rest = code;
        for (std::size_t a = spec.axes.size(); a-- > 0;) { // the last axis runs fastest
            point[a] = rest % spec.axes[a].values.size();
            rest /= spec.axes[a].values.size();
        }
        const auto inFraction = [&](const Generator &g) {
            std::size_t off = point[firstFactor + g.factor]; // signs: value 0 is on, 1 is off
            for (const std::size_t p : g.product)
                off += point[firstFactor + p];
            return off % 2 == 0;
        };
        if (!std::all_of(generators.begin(), generators.end(), inFraction))
            continue;
        Json config = spec.base;
        std::string name;
        for (std::size_t a = 0; a < point.size(); ++a) {
            const AxisValue &value = spec.axes[a].values[point[a]];
            const bool bare = value.number && !spec.factorial;
            name += (name.empty() ? "" : "_") + (bare ? slug(spec.axes[a].name) + "-" : std::string()) + slug(value.label);
        }
        // A replaced router comes before options that another axis gives it.
        for (const bool routers : {true, false})
            for (std::size_t a = 0; a < point.size(); ++a) {
                const Json &set = spec.axes[a].values[point[a]].set;
                if ((set.contains("router") || set.contains("router.type")) == routers)
                    apply(config, set);
            }
        if (!spec.targetLosses.empty())
            assign(config, "training.target_losses", spec.targetLosses);
        name = name.substr(0, 120);
        std::string unique = name;
        for (int n = 2; !ids.insert(unique).second; ++n)
            unique = fmt::format("{}-{}", name, n);
        for (const std::uint64_t seed : spec.seeds) {
            Cell cell;
            cell.id = fmt::format("{}_s{}", unique, seed);
            cell.point = point;
            cell.seed = seed;
            cell.config = config;
            cell.config["name"] = spec.name + "/" + cell.id;
            assign(cell.config, "training.seed", seed);
            assign(cell.config, "training.data_seed", seed);
            cell.text = cell.config.dump(2) + "\n";
            cell.sha256 = configSha256(cell.config);
            cells.push_back(std::move(cell));
            if (cells.size() > kMostCells)
                return usageError("has too many runs", spec.name, fmt::format("a sweep takes {}", kMostCells));
        }
    }
    return cells;
}

} // namespace spectra::study
