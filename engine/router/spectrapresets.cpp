// SPDX-License-Identifier: GPL-3.0-or-later
// The ablations of the SPECTRA router under names of their own, so that a study can list them beside other routers.
#include "engine/router/registration.h"
#include "engine/router/spectrarouter.h"

#include <algorithm>
#include <stdexcept>

namespace spectra {

std::vector<RouterRegistration> spectraPresetEntries();

namespace {

SpectraOptions optionsOf(const RouterPreset &preset)
{
    SpectraOptions options;
    for (const std::string &setting : preset.settings) {
        const auto equals = setting.find('=');
        const auto &table = spectraOptionTable();
        const auto field = std::find_if(table.begin(), table.end(), [&](const auto &f) { return f.name == setting.substr(0, equals); });
        if (field == table.end() || !setOption(options, *field, settingValue(setting.substr(equals + 1))))
            throw std::logic_error("preset " + preset.name + ": " + setting);
    }
    return options;
}

} // namespace

std::vector<RouterRegistration> spectraPresetEntries()
{
    std::vector<RouterRegistration> entries;
    for (const RouterPreset &preset : spectraAblations())
        if (!preset.router.empty())
            entries.push_back(registration<SpectraRouter>({preset.router, "SPECTRA, ablation " + preset.name + ": " + preset.meaning,
                                                           "SPECTRA paper drafts, ablation study", true, "as spectra", {}},
                                                          optionsOf(preset)));
    return entries;
}

} // namespace spectra
