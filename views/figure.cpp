// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/export.h"
#include "views/viewfactory.h"

#include "engine/core/files.h"

#include <QCoreApplication>
#include <QFileInfo>

#include <algorithm>

namespace spectra {

namespace {

std::string listed(const QStringList &names)
{
    return names.join(QStringLiteral(", ")).toStdString();
}

/// A view of `kind` with everything read, and the session that it follows.
struct Prepared {
    std::unique_ptr<Session> session;
    std::unique_ptr<View> view;
};

Result<Prepared> prepare(const QString &kind, const std::vector<std::shared_ptr<const TraceSource>> &traces, const FigureOptions &options)
{
    const FigureKind *figure = findFigure(kind);
    if (figure == nullptr) {
        QStringList known;
        for (const FigureKind &k : figureKinds())
            known << k.kind;
        return usageError("unknown figure kind", kind.toStdString(), "Kinds: " + listed(known));
    }
    if (figure->viewId.isEmpty())
        return usageError("this version has no view that draws this kind of figure", kind.toStdString(), "Available: " + listed(availableFigures()));
    if (traces.empty() || traces.front() == nullptr)
        return usageError("a figure needs a trace", kind.toStdString());
    if (QCoreApplication::instance() == nullptr)
        return bugError("figures need a QApplication");

    Prepared made{std::make_unique<Session>(), std::unique_ptr<View>(createView(figure->viewId))};
    made.session->setSynchronous(true);
    made.view->setSynchronous(true);
    for (std::size_t i = 0; i < traces.size(); ++i) {
        const QString file = QFileInfo(QString::fromStdString(traces[i]->info()->file)).completeBaseName();
        made.session->addTrace(traces[i], file.isEmpty() ? QStringLiteral("trace %1").arg(i + 1) : file);
    }
    const auto info = traces.front()->info();
    if (options.layer) {
        const auto &index = info->decoderIndex;
        const auto at = std::find(index.begin(), index.end(), *options.layer);
        if (at == index.end()) {
            QStringList known;
            for (const std::int32_t l : index)
                known << QString::number(l);
            return usageError("this trace has no such layer with experts", "--layer " + std::to_string(*options.layer),
                              index.empty() ? std::string("The trace has no layer with experts.") : "Layers: " + listed(known));
        }
        made.session->setLayer(static_cast<int>(at - index.begin()));
    }
    if (!options.domain.isEmpty()) {
        const auto at = std::find(info->domains.begin(), info->domains.end(), options.domain.toStdString());
        if (at == info->domains.end()) {
            QStringList known;
            for (const std::string &d : info->domains)
                known << QString::fromStdString(d);
            return usageError("this trace has no such domain", "--domain " + options.domain.toStdString(), "Domains: " + listed(known));
        }
        made.session->setShownDomains({static_cast<int>(at - info->domains.begin())});
    }
    // Options are set before the first read, so that nothing is computed twice; choices that depend on the trace are
    // checked again when it is known.
    for (auto it = figure->options.begin(); it != figure->options.end(); ++it)
        SPECTRA_CHECK(made.view->setOption(it.key(), it.value().toString()));
    for (const auto &[key, value] : options.settings)
        SPECTRA_CHECK(made.view->setOption(key, value));
    made.view->setSession(made.session.get());
    for (const auto &[key, value] : options.settings) {
        for (const ViewOption &o : made.view->options())
            for (const ViewOption::Choice &c : o.choices)
                if (o.key == key && c.value == value && !c.enabled)
                    return usageError("this trace cannot show it: " + c.why.toStdString(), "--set " + key.toStdString() + "=" + value.toStdString());
    }
    if (made.view->error())
        return *made.view->error();
    if (made.view->state() != ViewState::ready)
        return inputError(made.view->message().toStdString(), info->file);
    return made;
}

} // namespace

Result<void> renderFigure(const QString &kind, const std::vector<std::shared_ptr<const TraceSource>> &traces, const FigureOptions &options,
                          const QString &path)
{
    SPECTRA_CHECK(checkOutput(path.toStdString(), options.overwrite));
    auto made = prepare(kind, traces, options);
    if (!made)
        return made.error();
    Result<void> result = exportView(*made->view, path, options);
    made->view.reset(); // before its session
    return result;
}

Result<void> writeFigureData(const QString &kind, const std::vector<std::shared_ptr<const TraceSource>> &traces, const FigureOptions &options,
                             const QString &path)
{
    return renderFigure(kind, traces, options, path); // the ending decides: .csv, .tsv, .tex
}

} // namespace spectra
