// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/view.h"

#include <memory>

class QLineEdit;
class QSortFilterProxyModel;
class QTableView;

namespace spectra {

class MetricsModel;
struct MetricReport;

/// Every metric of the trace: value, interval, chance level and its course over the layers; sorted, filtered, copied.
class MetricsView : public View {
    Q_OBJECT
public:
    explicit MetricsView(QWidget *parent = nullptr);
    ~MetricsView() override;
    [[nodiscard]] TableData tableData() const override;
    [[nodiscard]] QTableView *table() const { return m_table; }
    void setTheme(const Theme &theme) override;
    [[nodiscard]] QMenu *createContextMenu(QWidget *parent) override;

public Q_SLOTS:
    void copyAsText();
    void copyAsLatex();

protected:
    void paintContent(QPainter &painter, const QRectF &area, const Theme &theme) override;
    void refresh() override;
    void layerChanged() override { rescope(); }
    void domainsChanged() override { rescope(); }
    void rowsChanged(RowLayer layer) override;
    void expertsChanged() override {}
    void focusChanged() override {}
    void sessionReset() override;
    void optionChanged(const QString &key) override;
    void resizeEvent(QResizeEvent *event) override;
    bool eventFilter(QObject *watched, QEvent *event) override;

private:
    void rescope();
    void take(std::shared_ptr<const MetricReport> report, bool intervals);

    MetricsModel *m_model;
    QSortFilterProxyModel *m_proxy;
    QTableView *m_table;
    QLineEdit *m_filter;
    bool m_intervals = false;
};

} // namespace spectra
