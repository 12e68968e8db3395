// SPDX-License-Identifier: GPL-3.0-or-later
// The window's dealings with files: dialogs (never modal to the program), drops, export.
#include "app/workbench/commands/commandpalette.h"
#include "app/workbench/document/filekind.h"
#include "app/workbench/figure/figureworkspace.h"
#include "app/workbench/mainwindow.h"
#include "app/workbench/shell/bannerarea.h"
#include "engine/core/version.h"
#include "views/export.h"

#include <QDragEnterEvent>
#include <QFileDialog>
#include <QFileInfo>
#include <QInputDialog>
#include <QMessageBox>
#include <QMimeData>

namespace spectra {

namespace {

QStringList localPaths(const QMimeData *mime)
{
    QStringList paths;
    for (const QUrl &url : mime->urls())
        if (url.isLocalFile())
            paths << url.toLocalFile();
    return paths;
}

} // namespace

void MainWindow::chooseFiles()
{
    auto *dialog = new QFileDialog(this, tr("Open"), {}, openFilter());
    dialog->setObjectName(QStringLiteral("openDialog"));
    dialog->setFileMode(QFileDialog::ExistingFiles);
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    connect(dialog, &QFileDialog::filesSelected, &m_workbench, &Workbench::open);
    dialog->open();
}

void MainWindow::chooseSessionFile()
{
    auto *dialog = new QFileDialog(this, tr("Save session"), m_workbench.sessionPath(), tr("Sessions (*.spectra-session)"));
    dialog->setObjectName(QStringLiteral("saveDialog"));
    dialog->setAcceptMode(QFileDialog::AcceptSave);
    dialog->setDefaultSuffix(QStringLiteral("spectra-session"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    connect(dialog, &QFileDialog::fileSelected, &m_workbench, &Workbench::saveSession);
    dialog->open();
}

void MainWindow::chooseTraceFile()
{
    const auto trace = m_workbench.session().current();
    if (!trace)
        return;
    QString name = trace->name;
    name.replace(QLatin1Char('/'), QLatin1Char('-'));
    auto *dialog = new QFileDialog(this, tr("Save trace"), name + QStringLiteral(".h5"), tr("Traces (*.h5)"));
    dialog->setObjectName(QStringLiteral("saveTraceDialog"));
    dialog->setAcceptMode(QFileDialog::AcceptSave);
    dialog->setDefaultSuffix(QStringLiteral("h5"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    connect(dialog, &QFileDialog::fileSelected, &m_workbench, [this, id = trace->id](const QString &path) {
        m_workbench.saveTrace(id, path, QFileInfo::exists(path)); // the dialog has asked about what it showed
    });
    dialog->open();
}

void MainWindow::chooseExport(View *view, const QString &format)
{
    const bool page = !view && m_workspace == Workspace::figure;
    if (!view && !page)
        return;
    const bool table = format == QLatin1String("csv") || format == QLatin1String("tex") || format == QLatin1String("tsv");
    const QString name = page ? QStringLiteral("figure") : view->viewId();
    QStringList filters = table ? QStringList{tr("CSV (*.csv)"), tr("LaTeX table (*.tex)"), tr("Tab-separated (*.tsv)")}
                               : QStringList{tr("PDF (*.pdf)"), tr("SVG (*.svg)"), tr("PNG (*.png)")};
    auto *dialog = new QFileDialog(this, table ? tr("Export data") : tr("Export figure"), name + QLatin1Char('.') + format, filters.join(QStringLiteral(";;")));
    dialog->setObjectName(QStringLiteral("exportDialog"));
    dialog->setAcceptMode(QFileDialog::AcceptSave);
    dialog->setDefaultSuffix(format);
    for (const QString &filter : filters)
        if (filter.contains(QStringLiteral("*.") + format))
            dialog->selectNameFilter(filter);
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    connect(dialog, &QFileDialog::fileSelected, this, [this, guard = QPointer<View>(view), page](const QString &path) {
        if (page)
            exportTo(nullptr, path);
        else if (guard)
            exportTo(guard, path);
    });
    dialog->open();
}

void MainWindow::exportTo(View *view, const QString &path)
{
    Result<void> written;
    if (view) {
        FigureOptions options;
        options.overwrite = true; // the dialog has asked
        written = exportView(*view, path, options);
    } else {
        written = exportPage(path, m_figure->spec(), m_figure->panels());
    }
    if (written)
        m_banners->show({Notice::Kind::information, tr("Exported"), path, {}});
    else
        m_workbench.notify(written.error());
}

void MainWindow::askGroupName()
{
    auto *dialog = new QInputDialog(this);
    dialog->setObjectName(QStringLiteral("groupDialog"));
    dialog->setWindowTitle(tr("Save selection as group"));
    dialog->setLabelText(tr("Name of the group"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    connect(dialog, &QInputDialog::textValueSelected, this, [this](const QString &name) { m_workbench.session().saveGroup(name); });
    dialog->open();
}

void MainWindow::showPalette()
{
    m_palette->popUp();
}

void MainWindow::showShortcuts()
{
    (new ShortcutSheet(m_registry, this))->show();
}

void MainWindow::showAbout()
{
    auto *box = new QMessageBox(this);
    box->setObjectName(QStringLiteral("aboutBox"));
    box->setAttribute(Qt::WA_DeleteOnClose);
    box->setWindowTitle(tr("About SPECTRA Workbench"));
    box->setIconPixmap(windowIcon().pixmap(64, 64));
    box->setTextFormat(Qt::RichText);
    box->setText(tr("<b>SPECTRA Workbench %1</b><br>Visual analytics of mixture-of-experts routing").arg(QStringLiteral(SPECTRA_VERSION)));
    box->setInformativeText(tr("Source: commit %1, Qt %2.<br>Free software under the GNU General Public License, version 3 or later, "
                               "without warranty. It uses Qt, LibTorch, HDF5, Eigen, PCRE2 and ICU.")
                                .arg(QString::fromLatin1(programCommit()), QString::fromLatin1(qVersion())));
    box->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
    box->open();
}

void MainWindow::dragEnterEvent(QDragEnterEvent *event)
{
    if (event->mimeData()->hasUrls() || event->mimeData()->hasText())
        event->acceptProposedAction();
}

void MainWindow::dragMoveEvent(QDragMoveEvent *event)
{
    event->acceptProposedAction();
}

void MainWindow::dropEvent(QDropEvent *event)
{
    const QStringList paths = localPaths(event->mimeData());
    event->acceptProposedAction();
    if (paths.isEmpty()) {
        m_workbench.notify(inputError("what was dropped is not a file on this machine",
                                      event->mimeData()->text().left(120).toStdString(), "Save it as a file first, then drop that."));
        return;
    }
    m_workbench.open(paths);
}

} // namespace spectra
