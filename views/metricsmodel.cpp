// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/metricsmodel.h"

#include "views/paintkit.h"

#include <cmath>

namespace spectra {

MetricsModel::MetricsModel(QObject *parent) : QAbstractTableModel(parent), m_report(std::make_shared<MetricReport>()) {}

void MetricsModel::setReport(std::shared_ptr<const MetricReport> report)
{
    beginResetModel();
    m_report = report ? std::move(report) : std::make_shared<MetricReport>();
    endResetModel();
}

void MetricsModel::setScope(std::optional<int> layer, std::optional<int> domain)
{
    if (layer == m_layer && domain == m_domain)
        return;
    m_layer = layer;
    m_domain = domain;
    if (rowCount() > 0)
        Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, columns_ - 1));
}

MetricPoint MetricsModel::point(int row) const
{
    const MetricResult &r = result(row);
    const auto domains = m_report->domains.size();
    if (m_domain) {
        const auto q = static_cast<std::size_t>(*m_domain);
        if (m_layer) {
            const std::size_t i = static_cast<std::size_t>(*m_layer) * domains + q;
            return i < r.byLayerDomain.size() ? r.byLayerDomain[i] : MetricPoint{};
        }
        return q < r.byDomain.size() ? r.byDomain[q] : MetricPoint{};
    }
    if (m_layer && !r.byLayer.empty())
        return static_cast<std::size_t>(*m_layer) < r.byLayer.size() ? r.byLayer[static_cast<std::size_t>(*m_layer)] : MetricPoint{};
    return r.overall; // also of metrics that span the layers
}

std::vector<double> MetricsModel::layers(int row) const
{
    const MetricResult &r = result(row);
    std::vector<double> values;
    const auto domains = m_report->domains.size();
    for (std::size_t l = 0; l < r.byLayer.size(); ++l) {
        const MetricPoint *p = &r.byLayer[l];
        if (m_domain) {
            const std::size_t i = l * domains + static_cast<std::size_t>(*m_domain);
            p = i < r.byLayerDomain.size() ? &r.byLayerDomain[i] : nullptr;
        }
        values.push_back(p != nullptr && p->value ? *p->value : NAN);
    }
    return values;
}

QString MetricsModel::label(const MetricResult &result)
{
    const MetricInfo *info = findMetric(result.key);
    QString name = QString::fromStdString(info != nullptr ? info->name : result.key);
    if (info != nullptr && !info->unit.empty() && !name.contains(QString::fromStdString(info->unit)))
        name += QStringLiteral(", ") + QString::fromStdString(info->unit);
    return name;
}

int MetricsModel::rowCount(const QModelIndex &parent) const
{
    return parent.isValid() ? 0 : static_cast<int>(m_report->metrics.size());
}

int MetricsModel::columnCount(const QModelIndex &parent) const
{
    return parent.isValid() ? 0 : columns_;
}

QVariant MetricsModel::data(const QModelIndex &index, int role) const
{
    if (!index.isValid() || index.row() >= rowCount())
        return {};
    const MetricResult &r = result(index.row());
    const MetricPoint p = point(index.row());
    switch (role) {
    case Qt::DisplayRole:
        switch (index.column()) {
        case nameColumn: return label(r);
        case valueColumn: return p.value ? formatNumber(*p.value, 3) : QStringLiteral("–");
        case intervalColumn:
            return p.low && p.high ? formatNumber(*p.low, 3) + QStringLiteral(" – ") + formatNumber(*p.high, 3) : QString();
        case chanceColumn: return p.chance ? formatNumber(*p.chance, 3) : QString();
        default: return {};
        }
    case Qt::ToolTipRole: {
        const MetricInfo *info = findMetric(r.key);
        QStringList lines{QString::fromStdString(r.key)};
        if (info != nullptr) {
            lines << QString::fromStdString(info->definition);
            if (info->better != MetricBetter::none)
                lines << tr("%1 is better").arg(QString::fromStdString(std::string(toString(info->better))));
            if (info->labelDependent)
                lines << tr("compares expert indices across layers");
            if (!info->source.empty())
                lines << tr("Source: %1").arg(QString::fromStdString(info->source));
        }
        if (!r.absent.empty())
            lines << tr("Absent: %1").arg(QString::fromStdString(r.absent));
        if (!r.interval.empty() && p.low)
            lines << tr("Interval: %1").arg(QString::fromStdString(r.interval));
        if (!r.note.empty())
            lines << QString::fromStdString(r.note);
        if (p.count > 0)
            lines << tr("rests on %1").arg(formatCount(p.count));
        return lines.join(QLatin1Char('\n'));
    }
    case Qt::TextAlignmentRole:
        return index.column() == nameColumn || index.column() == layersColumn ? QVariant(static_cast<int>(Qt::AlignLeft | Qt::AlignVCenter))
                                                                              : QVariant(static_cast<int>(Qt::AlignRight | Qt::AlignVCenter));
    case Qt::AccessibleTextRole:
        return index.column() == layersColumn ? tr("values of %1 layers").arg(layers(index.row()).size()) : data(index, Qt::DisplayRole);
    case sortRole:
        switch (index.column()) {
        case valueColumn: return p.value.value_or(NAN);
        case intervalColumn: return p.low && p.high ? *p.high - *p.low : NAN;
        case chanceColumn: return p.chance.value_or(NAN);
        default: return label(r);
        }
    case layersRole: {
        QVariantList list;
        for (const double v : layers(index.row()))
            list << v;
        return list;
    }
    case layerRole: return m_layer ? *m_layer : -1;
    case keyRole: return QString::fromStdString(r.key);
    case absentRole: return !r.absent.empty() || !p.value;
    default: return {};
    }
}

QVariant MetricsModel::headerData(int section, Qt::Orientation orientation, int role) const
{
    if (orientation != Qt::Horizontal)
        return {};
    if (role == Qt::TextAlignmentRole)
        return section == nameColumn || section == layersColumn ? static_cast<int>(Qt::AlignLeft | Qt::AlignVCenter) : static_cast<int>(Qt::AlignRight | Qt::AlignVCenter);
    if (role != Qt::DisplayRole && role != Qt::ToolTipRole)
        return {};
    const bool tip = role == Qt::ToolTipRole;
    switch (section) {
    case nameColumn: return tip ? tr("Name of the metric; its definition is in the tool tip of the row") : tr("metric");
    case valueColumn: return tip ? tr("Of the shown layer, or the mean over layers") : tr("value");
    case intervalColumn: return tip ? tr("95 % interval, sequences resampled") : tr("interval");
    case chanceColumn: return tip ? tr("The level without any structure") : tr("chance");
    case layersColumn: return tip ? tr("Value at each layer, first to last") : tr("   layers");
    default: return {};
    }
}

} // namespace spectra
