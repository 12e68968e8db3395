// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/outputs.h"

#include "engine/core/files.h"
#include "engine/study/tabletext.h"

#include <fmt/format.h>

namespace spectra::study {
namespace fs = std::filesystem;
namespace {

Result<void> write(const fs::path &file, const std::string &text)
{
    SPECTRA_TRY(auto out, AtomicFile::create(file, true));
    out.stream() << text;
    return out.commit();
}

std::string dump(const Json &json)
{
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

} // namespace

std::string outputName(std::size_t index, const std::string &title)
{
    return fmt::format("{:02}-{}", index + 1, slug(title));
}

Result<StudyOutputs> makeOutputs(const Study &study, const std::vector<Claim> &claims)
{
    StudyOutputs out;
    for (const TableSpec &spec : study.spec.tables) {
        SPECTRA_TRY(auto table, makeTable(study, spec));
        out.tables.push_back(std::move(table));
    }
    SPECTRA_TRY(out.effects, factorialEffects(study));
    out.associations = associations(study);
    for (const FigureSpec &spec : study.spec.source.contains("figures") ? study.spec.figures : defaultFigures(study.spec))
        out.figures.push_back(makeFigure(study, spec));
    for (const ScalingSpec &spec : study.spec.scaling)
        out.figures.push_back(scalingFigure(study, spec));
    if (!claims.empty())
        out.claims = claimsBoard(study, claims);
    return out;
}

Result<void> writeOutputs(const Study &study, const StudyOutputs &outputs, const fs::path &folder)
{
    std::error_code error;
    for (const char *part : {"tables", "figures"})
        if (fs::create_directories(folder / part, error); error)
            return workError("cannot be written: " + error.message(), (folder / part).string());
    std::string csv, tex;
    Json all{{"study", study.spec.name}, {"title", study.spec.title}, {"tables", Json::array()}};
    for (std::size_t i = 0; i < outputs.tables.size(); ++i) {
        const StudyTable &table = outputs.tables[i];
        const fs::path stem = folder / "tables" / outputName(i, table.title);
        const Json json = tableJson(table);
        SPECTRA_CHECK(write(stem.string() + ".csv", tableCsv(table)));
        SPECTRA_CHECK(write(stem.string() + ".tex", tableLatex(table)));
        SPECTRA_CHECK(write(stem.string() + ".json", dump(json)));
        SPECTRA_CHECK(write(stem.string() + ".html", tableHtml(table)));
        csv += tableCsv(table, i == 0);
        tex += tableLatex(table) + "\n";
        all["tables"].push_back(json);
    }
    if (!outputs.effects.empty()) {
        const fs::path stem = folder / "tables" / "effects";
        SPECTRA_CHECK(write(stem.string() + ".csv", effectsCsv(outputs.effects)));
        SPECTRA_CHECK(write(stem.string() + ".tex", effectsLatex(outputs.effects)));
        SPECTRA_CHECK(write(stem.string() + ".json", dump(effectsJson(outputs.effects))));
        SPECTRA_CHECK(write(stem.string() + ".html", effectsHtml(outputs.effects)));
        all["effects"] = effectsJson(outputs.effects);
        tex += effectsLatex(outputs.effects);
    }
    if (!outputs.associations.empty()) {
        const fs::path stem = folder / "tables" / "associations";
        const Json json = associationsJson(outputs.associations);
        SPECTRA_CHECK(write(stem.string() + ".csv", associationsCsv(outputs.associations)));
        SPECTRA_CHECK(write(stem.string() + ".json", dump(json)));
        SPECTRA_CHECK(write(stem.string() + ".html", associationsHtml(outputs.associations)));
        all["associations"] = json;
    }
    if (!study.spec.scaling.empty()) {
        Json laws = Json::array();
        for (const ScalingSpec &spec : study.spec.scaling)
            laws.push_back(scalingJson(study, spec));
        SPECTRA_CHECK(write(folder / "tables" / "scaling.json", dump(laws)));
        all["scaling"] = laws;
    }
    if (!outputs.claims.empty()) {
        const fs::path stem = folder / "tables" / "claims";
        SPECTRA_CHECK(write(stem.string() + ".csv", claimsCsv(outputs.claims)));
        SPECTRA_CHECK(write(stem.string() + ".json", dump(claimsJson(outputs.claims))));
        SPECTRA_CHECK(write(stem.string() + ".html", claimsHtml(outputs.claims)));
    }
    for (std::size_t i = 0; i < outputs.figures.size(); ++i)
        SPECTRA_CHECK(write(folder / "figures" / (outputName(i, outputs.figures[i].title) + ".csv"), figureCsv(outputs.figures[i])));
    // The contract's three files: every table of the study.
    SPECTRA_CHECK(write(folder / "table.csv", csv));
    SPECTRA_CHECK(write(folder / "table.tex", tex));
    return write(folder / "table.json", dump(all));
}

} // namespace spectra::study
