// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/family.h"

#include <algorithm>

namespace spectra {

const std::vector<Family> &families()
{
    static const std::vector<Family> table = {
        llamaFamily(),
        mixtralFamily(),
    };
    return table;
}

const Family *familyOfModelType(std::string_view modelType)
{
    for (const Family &family : families())
        if (std::find(family.modelTypes.begin(), family.modelTypes.end(), modelType) != family.modelTypes.end())
            return &family;
    return nullptr;
}

const Family *familyOfGguf(std::string_view architecture, bool experts)
{
    for (const Family &family : families())
        if (family.ggufArchitecture == architecture && family.ggufExperts == experts)
            return &family;
    return nullptr;
}

std::string familyNames()
{
    std::string names;
    for (const Family &family : families())
        names += (names.empty() ? "" : ", ") + family.info.name;
    return names;
}

const std::vector<ArchitectureInfo> &architectures()
{
    static const std::vector<ArchitectureInfo> list = [] {
        std::vector<ArchitectureInfo> out;
        for (const Family &family : families())
            out.push_back(family.info);
        return out;
    }();
    return list;
}

} // namespace spectra
