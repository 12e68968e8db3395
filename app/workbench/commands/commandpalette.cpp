// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/commands/commandpalette.h"

#include "app/workbench/commands/commandregistry.h"
#include "app/workbench/shell/fuzzymatch.h"

#include <QAbstractTextDocumentLayout>
#include <QDialogButtonBox>
#include <QHeaderView>
#include <QKeyEvent>
#include <QLabel>
#include <QPainter>
#include <QStyledItemDelegate>
#include <QTableWidget>
#include <QVBoxLayout>

#include <algorithm>

namespace spectra {

namespace {

enum PaletteRole { IdRole = Qt::UserRole + 1, KeysRole, CategoryRole, PositionsRole };

/// Category, name with the matched letters in bold, and the shortcut at the right.
class PaletteDelegate : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;

    QSize sizeHint(const QStyleOptionViewItem &option, const QModelIndex &) const override
    {
        return {320, option.fontMetrics.height() + 10};
    }

    void paint(QPainter *painter, const QStyleOptionViewItem &given, const QModelIndex &index) const override
    {
        QStyleOptionViewItem option = given;
        initStyleOption(&option, index);
        option.text.clear();
        option.widget->style()->drawControl(QStyle::CE_ItemViewItem, &option, painter, option.widget);
        const bool enabled = index.flags() & Qt::ItemIsEnabled;
        const auto group = enabled ? QPalette::Active : QPalette::Disabled;
        const bool selected = option.state & QStyle::State_Selected;
        const QColor ink = option.palette.color(group, selected ? QPalette::HighlightedText : QPalette::Text);
        QColor quiet = ink;
        quiet.setAlphaF(0.65f);
        const QRect box = option.rect.adjusted(10, 0, -10, 0);
        painter->save();
        painter->setPen(quiet);
        const QString keys = index.data(KeysRole).toString();
        painter->drawText(box, Qt::AlignRight | Qt::AlignVCenter, keys);
        const QString category = index.data(CategoryRole).toString() + QStringLiteral("  ");
        painter->drawText(box, Qt::AlignLeft | Qt::AlignVCenter, category);
        int x = box.left() + option.fontMetrics.horizontalAdvance(category);
        const QString text = index.data(Qt::DisplayRole).toString();
        const QVariantList positions = index.data(PositionsRole).toList();
        QFont bold = option.font;
        bold.setBold(true);
        painter->setPen(ink);
        const int right = box.right() - option.fontMetrics.horizontalAdvance(keys) - 12;
        for (int i = 0; i < text.size(); ++i) {
            painter->setFont(positions.contains(i) ? bold : option.font);
            const int width = painter->fontMetrics().horizontalAdvance(text[i]);
            if (x + width > right)
                break;
            painter->drawText(QRect(x, box.top(), width + 2, box.height()), Qt::AlignVCenter, text.mid(i, 1));
            x += width;
        }
        painter->restore();
    }
};

} // namespace

CommandPalette::CommandPalette(CommandRegistry &registry, QWidget *parent)
    : QDialog(parent, Qt::Popup)
    , m_registry(registry)
    , m_edit(new QLineEdit(this))
    , m_list(new QListView(this))
    , m_model(new QStandardItemModel(this))
{
    setObjectName(QStringLiteral("commandPalette"));
    setWindowTitle(tr("Commands"));
    setAccessibleName(tr("Command palette"));
    m_edit->setPlaceholderText(tr("Type a few letters of a command"));
    m_edit->setAccessibleName(tr("Command search"));
    m_edit->setClearButtonEnabled(true);
    m_list->setAccessibleName(tr("Commands that match"));
    m_list->setModel(m_model);
    m_list->setItemDelegate(new PaletteDelegate(m_list));
    m_list->setUniformItemSizes(true);
    m_list->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_list->setFocusPolicy(Qt::NoFocus);
    m_list->setFrameShape(QFrame::NoFrame);
    auto *layout = new QVBoxLayout(this);
    layout->setContentsMargins(8, 8, 8, 8);
    layout->addWidget(m_edit);
    layout->addWidget(m_list);
    m_edit->installEventFilter(this);
    connect(m_edit, &QLineEdit::textChanged, this, &CommandPalette::fill);
    connect(m_list, &QListView::clicked, this, &CommandPalette::accepted);
}

void CommandPalette::popUp()
{
    m_registry.updateEnableStates();
    m_edit->clear();
    fill({});
    QWidget *over = parentWidget();
    resize(std::min(560, over->width() - 40), std::min(420, over->height() - 120));
    move(over->mapToGlobal(QPoint((over->width() - width()) / 2, 64)));
    show();
    m_edit->setFocus();
}

void CommandPalette::fill(const QString &pattern)
{
    struct Hit {
        const Command *command;
        FuzzyMatch match;
        bool enabled;
    };
    std::vector<Hit> hits;
    for (const auto &command : m_registry.all()) {
        FuzzyMatch match = fuzzyMatch(pattern, command->title());
        if (match.score < 0) {
            // "file open" finds by category too; then no letter is marked.
            match = fuzzyMatch(pattern, command->category() + QLatin1Char(' ') + command->title());
            match.positions.clear();
        }
        if (match.score >= 0)
            hits.push_back({command.get(), std::move(match), command->action()->isEnabled()});
    }
    std::ranges::stable_sort(hits, [](const Hit &a, const Hit &b) {
        return a.enabled != b.enabled ? a.enabled : a.match.score > b.match.score;
    });
    m_model->clear();
    for (const Hit &hit : hits) {
        auto *item = new QStandardItem(hit.command->title());
        item->setData(hit.command->id(), IdRole);
        item->setData(hit.command->action()->shortcut().toString(QKeySequence::NativeText), KeysRole);
        item->setData(hit.command->category(), CategoryRole);
        item->setData(QVariantList(hit.match.positions.begin(), hit.match.positions.end()), PositionsRole);
        item->setToolTip(hit.command->action()->statusTip());
        item->setEnabled(hit.enabled);
        m_model->appendRow(item);
    }
    m_list->setCurrentIndex(m_model->index(0, 0));
}

void CommandPalette::accepted(const QModelIndex &index)
{
    if (!index.isValid() || !(index.flags() & Qt::ItemIsEnabled))
        return;
    const QString id = index.data(IdRole).toString();
    hide();
    if (QAction *action = m_registry.action(id))
        action->trigger();
}

bool CommandPalette::eventFilter(QObject *watched, QEvent *event)
{
    if (watched == m_edit && event->type() == QEvent::KeyPress) {
        auto *key = static_cast<QKeyEvent *>(event);
        const int row = m_list->currentIndex().row(), rows = m_model->rowCount();
        switch (key->key()) {
        case Qt::Key_Down: m_list->setCurrentIndex(m_model->index(std::min(row + 1, rows - 1), 0)); return true;
        case Qt::Key_Up: m_list->setCurrentIndex(m_model->index(std::max(row - 1, 0), 0)); return true;
        case Qt::Key_PageDown: m_list->setCurrentIndex(m_model->index(std::min(row + 10, rows - 1), 0)); return true;
        case Qt::Key_PageUp: m_list->setCurrentIndex(m_model->index(std::max(row - 10, 0), 0)); return true;
        case Qt::Key_Return:
        case Qt::Key_Enter: accepted(m_list->currentIndex()); return true;
        default: break;
        }
    }
    return QDialog::eventFilter(watched, event);
}

ShortcutSheet::ShortcutSheet(const CommandRegistry &registry, QWidget *parent) : QDialog(parent)
{
    setObjectName(QStringLiteral("shortcutSheet"));
    setWindowTitle(tr("Shortcuts"));
    setAttribute(Qt::WA_DeleteOnClose);
    struct Row {
        QString category, title, keys, tip;
    };
    std::vector<Row> rows;
    for (const auto &command : registry.all())
        if (const QKeySequence keys = command->action()->shortcut(); !keys.isEmpty())
            rows.push_back({command->category(), command->title(), keys.toString(QKeySequence::NativeText),
                            command->action()->statusTip()});
    // What the pictures take themselves, while one of them has the keyboard.
    const QString picture = tr("In a picture");
    for (const auto &[keys, what] : std::initializer_list<std::pair<const char *, QString>>{
             {"R, L, P, B", tr("Select by rectangle, lasso, polygon, brush")},
             {"Shift", tr("Add to the selection")},
             {"Ctrl", tr("Remove from the selection")},
             {"Ctrl+Shift", tr("Keep only what is in both")},
             {"Arrow keys", tr("Walk from token to token or cell to cell")}})
        rows.push_back({picture, what, QLatin1String(keys), {}});
    auto *table = new QTableWidget(static_cast<int>(rows.size()), 3, this);
    table->setAccessibleName(tr("Shortcuts"));
    table->setHorizontalHeaderLabels({tr("Where"), tr("What"), tr("Keys")});
    table->verticalHeader()->hide();
    table->setEditTriggers(QAbstractItemView::NoEditTriggers);
    table->setSelectionBehavior(QAbstractItemView::SelectRows);
    table->setShowGrid(false);
    table->setAlternatingRowColors(true);
    for (int i = 0; i < static_cast<int>(rows.size()); ++i) {
        const Row &row = rows[static_cast<std::size_t>(i)];
        const bool first = i == 0 || rows[static_cast<std::size_t>(i - 1)].category != row.category;
        table->setItem(i, 0, new QTableWidgetItem(first ? row.category : QString()));
        auto *title = new QTableWidgetItem(row.title);
        title->setToolTip(row.tip);
        table->setItem(i, 1, title);
        table->setItem(i, 2, new QTableWidgetItem(row.keys));
    }
    table->resizeColumnsToContents();
    table->horizontalHeader()->setSectionResizeMode(1, QHeaderView::Stretch);
    auto *buttons = new QDialogButtonBox(QDialogButtonBox::Close, this);
    connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
    auto *layout = new QVBoxLayout(this);
    layout->addWidget(table);
    layout->addWidget(buttons);
    resize(640, 560);
}

} // namespace spectra
