// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/viewfactory.h"

#include "views/detailsview.h"
#include "views/gramview.h"
#include "views/loadview.h"
#include "views/metricsview.h"
#include "views/spaceview.h"
#include "views/trajectoryview.h"

#include <QCoreApplication>

#include <array>
#include <vector>

namespace spectra {

namespace {

template <typename T> View *make(QWidget *parent)
{
    return new T(parent);
}

QString tr(const char *text)
{
    return QCoreApplication::translate("ViewFactory", text);
}

QJsonObject with(const char *key, const char *value)
{
    return {{QString::fromLatin1(key), QString::fromLatin1(value)}};
}

} // namespace

std::span<const ViewKind> viewKinds()
{
    static const std::vector<ViewKind> kinds = {
        {QStringLiteral("gram"), tr("Gram matrix"), tr("How alike the experts are: Gram matrices, overlap, co-activation"), make<GramView>},
        {QStringLiteral("load"), tr("Expert load"), tr("How assignments spread over experts, layers and domains"), make<LoadView>},
        {QStringLiteral("space"), tr("Expert space"), tr("A map of token states or expert vectors, t-SNE or PCA, running live"), make<SpaceView>},
        {QStringLiteral("trajectory"), tr("Token trajectory"), tr("Tokens by layers, coloured by their top expert"), make<TrajectoryView>},
        {QStringLiteral("metrics"), tr("Metrics"), tr("Every metric with interval, chance level and course over the layers"), make<MetricsView>},
        {QStringLiteral("details"), tr("Token and expert"), tr("The token under the mouse with its route, and the expert that took it"), make<DetailsView>},
    };
    return kinds;
}

const ViewKind *findView(const QString &id)
{
    for (const ViewKind &k : viewKinds())
        if (k.id == id)
            return &k;
    return nullptr;
}

View *createView(const QString &id, QWidget *parent)
{
    const ViewKind *kind = findView(id);
    return kind != nullptr ? kind->create(parent) : nullptr;
}

std::span<const FigureKind> figureKinds()
{
    static const std::vector<FigureKind> kinds = [] {
        std::vector<FigureKind> k = {
            {QStringLiteral("gram"), QStringLiteral("gram"), {}, tr("Gram matrix of the experts of one layer")},
            {QStringLiteral("load"), QStringLiteral("load"), {}, tr("Load per expert with the fair share")},
            {QStringLiteral("load-layers"), QStringLiteral("load"), with("mode", "layers"), tr("Load relative to fair share, layers by experts")},
            {QStringLiteral("space"), QStringLiteral("space"), {}, tr("Map of token states or expert vectors")},
            {QStringLiteral("trajectory"), QStringLiteral("trajectory"), {}, tr("Tokens by layers")},
            {QStringLiteral("flow"), {}, {}, tr("Flow of tokens across layers")},
            {QStringLiteral("specialization"), {}, {}, tr("Affinity of experts and domains")},
            {QStringLiteral("metrics"), QStringLiteral("metrics"), {}, tr("Table of metrics")},
            {QStringLiteral("expert"), QStringLiteral("details"), {}, tr("Card of a token or an expert")},
            {QStringLiteral("information"), {}, {}, tr("Information plane")},
            {QStringLiteral("geometry"), {}, {}, tr("Spectra and dendrogram")},
            {QStringLiteral("dynamics"), {}, {}, tr("Transitions and dwell times")},
            {QStringLiteral("training"), {}, {}, tr("Curves of a training run")},
            {QStringLiteral("compare"), {}, {}, tr("Checkpoints side by side")},
            {QStringLiteral("overlap"), QStringLiteral("gram"), with("object", "overlap"), tr("Overlap of the experts' token types")},
            {QStringLiteral("coactivation"), QStringLiteral("gram"), with("object", "coactivation"), tr("Which experts are chosen together")},
        };
        for (FigureKind &f : k)
            if (findView(f.viewId) == nullptr)
                f.viewId.clear();
        return k;
    }();
    return kinds;
}

const FigureKind *findFigure(const QString &kind)
{
    for (const FigureKind &k : figureKinds())
        if (k.kind == kind)
            return &k;
    return nullptr;
}

QStringList availableFigures()
{
    QStringList names;
    for (const FigureKind &k : figureKinds())
        if (!k.viewId.isEmpty())
            names << k.kind;
    return names;
}

} // namespace spectra
