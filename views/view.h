// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "views/latestjob.h"
#include "views/session.h"
#include "views/theme.h"

#include <QJsonObject>
#include <QVariant>
#include <QWidget>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

class QHBoxLayout;
class QMenu;

namespace spectra {

/// The rows of data behind a picture, made cell by cell: one million rows cost nothing until written.
struct TableData {
    QString caption;
    QStringList header;
    qsizetype rows = 0;
    std::function<QVariant(qsizetype row, int column)> cell; ///< captures shared immutable data only

    /// RFC 4180 with '\n'; numbers in the C locale, shortest form that reads back equal. '\t' gives TSV.
    [[nodiscard]] QByteArray separated(char separator = ',') const;
    [[nodiscard]] QByteArray latex() const; ///< a booktabs tabular
};

/// A choice or a number that changes what a view shows. The control bar, the context menu, the saved state and
/// `figure --set key=value` all come from the same list.
struct ViewOption {
    struct Choice {
        QString value, label;
        bool enabled = true;
        QString why;              ///< tool tip of a disabled choice
    };
    QString key, label, tip;
    std::vector<Choice> choices;  ///< empty: a number in [minimum, maximum]
    double minimum = 0, maximum = 0;
    bool integer = true;
    bool inBar = true;            ///< shown in the control bar, else only in the context menu
    QString value;
};

enum class ViewState { empty, busy, ready, failed };

class ViewCanvas;

/// One picture (or table) of the current trace, linked through a Session.
///
/// A view never reads a file on the GUI thread: load() hands a job to a pool, and what it returns is applied on the GUI
/// thread if no newer job was started. With setSynchronous(true) the same job runs at once (figures without a window).
/// GUI thread only.
class View : public QWidget {
    Q_OBJECT
public:
    explicit View(const QString &id, const QString &title, QWidget *parent = nullptr);
    ~View() override;

    [[nodiscard]] QString viewId() const { return m_id; }   ///< "gram": object name of the dock, key of saved state
    [[nodiscard]] QString title() const { return m_title; } ///< "Gram matrix"
    [[nodiscard]] QString subtitle() const { return m_subtitle; } ///< what is shown now: "expression vectors · layer 2"

    void setSession(Session *session);
    [[nodiscard]] Session *session() const { return m_session; }
    virtual void setTheme(const Theme &theme);
    [[nodiscard]] const Theme &theme() const { return m_theme; }
    void setSynchronous(bool on) { m_synchronous = on; }

    [[nodiscard]] ViewState state() const { return m_state; }
    /// What to do (empty), what is being done (busy) or what went wrong (failed).
    [[nodiscard]] QString message() const { return m_message; }
    [[nodiscard]] const std::optional<Error> &error() const { return m_error; }
    /// True while a job of this view runs.
    [[nodiscard]] bool isWorking() const;

    /// Paints what the widget shows into `area`, with its own header line when `withHeader`. Any painter: screen, image,
    /// PDF, SVG. Units are those of theme.font's pixel size.
    void paintFigure(QPainter &painter, const QRectF &area, const Theme &theme, bool withHeader = true);
    /// The data shown.
    [[nodiscard]] virtual TableData tableData() const = 0;

    // Options
    [[nodiscard]] const std::vector<ViewOption> &options() const { return m_options; }
    [[nodiscard]] QString option(const QString &key) const;
    [[nodiscard]] double number(const QString &key) const;
    /// Errors (usage): unknown key, value out of range, choice that this trace cannot show (says why).
    Result<void> setOption(const QString &key, const QString &value);

    /// Options and camera. restoreState ignores what it does not know.
    [[nodiscard]] virtual QJsonObject saveState() const;
    virtual void restoreState(const QJsonObject &state);

    /// Entries for options, selection and export; the caller owns it. The shell may add its own.
    [[nodiscard]] virtual QMenu *createContextMenu(QWidget *parent);
    /// The widget that takes the mouse and the keyboard (tests send events there).
    [[nodiscard]] QWidget *canvas() const;

public Q_SLOTS:
    /// Reads everything anew.
    void reload();
    /// Stops the running job; what is there stays visible.
    virtual void cancel();

Q_SIGNALS:
    void subtitleChanged(const QString &subtitle);
    void stateChanged(spectra::ViewState state);
    void optionsChanged();
    /// For the task list: `total` 0 when unknown.
    void progress(const QString &stage, qint64 done, qint64 total, const QString &unit);
    void workingChanged(bool working);
    /// From the context menu; `format` is pdf, svg, png, csv or tex. The shell asks for a file name. Handled here are
    /// only the clipboard entries.
    void exportRequested(spectra::View *view, const QString &format);

protected:
    // What a view implements
    virtual void paintContent(QPainter &painter, const QRectF &area, const Theme &theme) = 0;
    /// The current trace, its data or an option changed: start what is needed with load(), or showEmpty().
    virtual void refresh() = 0;
    virtual void layerChanged() { refresh(); }
    virtual void domainsChanged() { refresh(); }
    virtual void rowsChanged(RowLayer) { repaintCanvas(); }
    virtual void expertsChanged() { repaintCanvas(); }
    virtual void focusChanged() { repaintCanvas(); }
    virtual void optionChanged(const QString &) { refresh(); }
    virtual void traceGrew() { refresh(); }
    virtual void sessionReset() {}
    // Mouse and keyboard of the canvas, in its logical pixels. Return true when used.
    virtual bool mousePressed(QMouseEvent *) { return false; }
    virtual bool mouseMoved(QMouseEvent *) { return false; }
    virtual bool mouseReleased(QMouseEvent *) { return false; }
    virtual bool mouseDoubleClicked(QMouseEvent *) { return false; }
    virtual bool wheelTurned(QWheelEvent *) { return false; }
    virtual bool keyPressed(QKeyEvent *) { return false; }
    virtual void mouseLeft() {}
    virtual QString toolTipAt(const QPointF &) const { return {}; }

    // What a view uses
    void addOption(ViewOption option);
    void setChoices(const QString &key, std::vector<ViewOption::Choice> choices); ///< keeps the value if it is still there
    void setOptionQuietly(const QString &key, const QString &value);
    void addToBar(QWidget *widget);
    void setBarVisible(bool on);
    void setContentWidget(QWidget *widget); ///< in place of the canvas (tables)
    void setSubtitle(const QString &text);
    void showEmpty(const QString &whatToDo);
    void showReady();
    void showFailed(const Error &error);
    void showBusy(const QString &what);
    void repaintCanvas();
    /// Runs `job` on the pool (or at once): the newest wins. It returns what to do on the GUI thread.
    void load(const QString &what, LatestJob::Function job);
    [[nodiscard]] bool isSynchronous() const { return m_synchronous; }
    [[nodiscard]] std::shared_ptr<OpenTrace> current() const;
    [[nodiscard]] QRectF canvasArea() const; ///< where paintContent paints on the screen
    [[nodiscard]] bool hasContent() const { return m_hasContent; }
    void showEvent(QShowEvent *event) override;
    bool eventFilter(QObject *watched, QEvent *event) override;

private:
    friend class ViewCanvas;
    void rebuildBar();
    void fitBar();
    void askNumber(const QString &key);
    void setState(ViewState state, const QString &message);
    void paintMessage(QPainter &painter, const QRectF &area, const Theme &theme) const;

    QString m_id, m_title, m_subtitle, m_message;
    Theme m_theme;
    Session *m_session = nullptr;
    ViewState m_state = ViewState::empty;
    std::optional<Error> m_error;
    std::vector<ViewOption> m_options;
    bool m_synchronous = false;
    bool m_hasContent = false;  ///< something was shown: it stays visible while newer data is read
    bool m_stale = false;       ///< something changed while hidden: read when shown
    bool m_barVisible = true;
    QWidget *m_bar = nullptr;
    QHBoxLayout *m_barLayout = nullptr;
    std::vector<QWidget *> m_barExtras, m_barOptions;
    ViewCanvas *m_canvas = nullptr;
    QWidget *m_content = nullptr;
    std::unique_ptr<LatestJob> m_job;
};

} // namespace spectra
