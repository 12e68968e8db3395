// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/metric.h"
#include "analysis/metrics/metricresult.h"

#include <QAbstractTableModel>

#include <memory>
#include <optional>
#include <vector>

namespace spectra {

/// The metrics of a trace as rows. Absent ones are there too, with the reason as a tool tip.
class MetricsModel : public QAbstractTableModel {
    Q_OBJECT
public:
    enum Column { nameColumn, valueColumn, intervalColumn, chanceColumn, layersColumn, columns_ };
    enum Role { sortRole = Qt::UserRole + 1, layersRole, layerRole, keyRole, absentRole };

    explicit MetricsModel(QObject *parent = nullptr);
    void setReport(std::shared_ptr<const MetricReport> report);
    /// One layer (ordinal), or none: the mean over layers. A domain narrows both.
    void setScope(std::optional<int> layer, std::optional<int> domain);
    [[nodiscard]] const MetricResult &result(int row) const { return m_report->metrics[static_cast<std::size_t>(row)]; }
    /// The figure that the scope shows.
    [[nodiscard]] MetricPoint point(int row) const;
    [[nodiscard]] std::vector<double> layers(int row) const; ///< NaN where absent

    [[nodiscard]] int rowCount(const QModelIndex &parent = {}) const override;
    [[nodiscard]] int columnCount(const QModelIndex &parent = {}) const override;
    [[nodiscard]] QVariant data(const QModelIndex &index, int role = Qt::DisplayRole) const override;
    [[nodiscard]] QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;
    [[nodiscard]] static QString label(const MetricResult &result); ///< "Load CV", unit included

private:
    std::shared_ptr<const MetricReport> m_report;
    std::optional<int> m_layer, m_domain;
};

} // namespace spectra
