// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/startpage.h"

#include "app/workbench/shell/widgets.h"
#include "app/workbench/workbench.h"

#include <QFileInfo>
#include <QHBoxLayout>
#include <QIcon>
#include <QLabel>
#include <QPainter>
#include <QVBoxLayout>

namespace spectra {

namespace {

QPushButton *bigButton(const QString &text, const QString &tip, QWidget *parent)
{
    auto *button = new QPushButton(text, parent);
    button->setToolTip(tip);
    button->setAccessibleName(text);
    button->setAccessibleDescription(tip);
    button->setMinimumHeight(36);
    button->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
    return button;
}

QLabel *heading(const QString &text, QWidget *parent)
{
    auto *label = new QLabel(text, parent);
    QFont font = label->font();
    font.setWeight(QFont::DemiBold);
    label->setFont(font);
    return label;
}

} // namespace

StartPage::StartPage(Workbench &workbench, QWidget *parent)
    : QWidget(parent)
    , m_workbench(workbench)
    , m_drop(new QLabel(tr("Drop a trace (.h5), a model folder, a .gguf model, a file of prompts or a session anywhere"), this))
    , m_recent(new QListWidget(this))
{
    setObjectName(QStringLiteral("startPage"));
    setAccessibleName(tr("Start page"));
    auto *icon = new QLabel(this);
    icon->setPixmap(QIcon(QStringLiteral(":/icons/spectra-workbench.svg")).pixmap(48, 48));
    auto *name = new QLabel(tr("SPECTRA Workbench"), this);
    name->setFont(headingFont(name->font(), 1.8));
    auto *top = new QHBoxLayout;
    top->addWidget(icon);
    top->addSpacing(8);
    auto *titles = new QVBoxLayout;
    titles->setSpacing(0);
    titles->addWidget(name);
    titles->addWidget(quietLabel(tr("See how a mixture of experts routes its tokens"), this));
    top->addLayout(titles, 1);

    m_example = bigButton(tr("Open the &example"), {}, this);
    m_example->setObjectName(QStringLiteral("startExample"));
    m_example->setDefault(true);
    auto *prompt = bigButton(tr("&Run a prompt"), tr("Type a text and watch its tokens being routed"), this);
    auto *open = bigButton(tr("&Open…"), tr("Choose a trace, a model, prompts or a session"), this);
    open->setObjectName(QStringLiteral("startOpen"));
    connect(m_example, &QPushButton::clicked, &workbench, &Workbench::openExample);
    connect(prompt, &QPushButton::clicked, this, &StartPage::promptRequested);
    connect(open, &QPushButton::clicked, this, &StartPage::openRequested);
    auto *left = new QVBoxLayout;
    left->setSpacing(8);
    left->addWidget(heading(tr("Start"), this));
    left->addWidget(m_example);
    left->addWidget(prompt);
    left->addWidget(open);
    left->addStretch();

    m_recent->setObjectName(QStringLiteral("recentList"));
    m_recent->setAccessibleName(tr("Recent work"));
    m_recent->setMinimumHeight(180);
    m_recent->setTextElideMode(Qt::ElideMiddle);
    m_recent->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    const auto activate = [this](QListWidgetItem *item) {
        const QString path = item->data(Qt::UserRole).toString();
        if (!path.isEmpty())
            m_workbench.open({path});
    };
    connect(m_recent, &QListWidget::itemActivated, this, activate);
    connect(m_recent, &QListWidget::itemClicked, this, activate);
    auto *right = new QVBoxLayout;
    right->setSpacing(8);
    right->addWidget(heading(tr("Recent work"), this));
    right->addWidget(m_recent, 1);

    auto *columns = new QHBoxLayout;
    columns->setSpacing(32);
    columns->addLayout(left, 2);
    columns->addLayout(right, 3);

    auto *drop = static_cast<QLabel *>(m_drop);
    drop->setAlignment(Qt::AlignCenter);
    drop->setWordWrap(true);
    drop->setMinimumHeight(96);
    drop->setForegroundRole(QPalette::PlaceholderText);

    auto *inner = new QWidget(this);
    inner->setMaximumWidth(860);
    inner->setMinimumWidth(320);
    auto *column = new QVBoxLayout(inner);
    column->setSpacing(24);
    column->addLayout(top);
    column->addLayout(columns);
    column->addWidget(m_drop);
    auto *across = new QHBoxLayout;
    across->addStretch(1);
    across->addWidget(inner, 10);
    across->addStretch(1);
    auto *layout = new QVBoxLayout(this);
    layout->setContentsMargins(32, 24, 32, 24);
    layout->addStretch(1);
    layout->addLayout(across);
    layout->addStretch(2);
    connect(&workbench.recentFiles(), &RecentFiles::changed, this, &StartPage::refresh);
    refresh();
}

void StartPage::refresh()
{
    const bool ready = m_workbench.exampleIsReady();
    m_example->setEnabled(m_workbench.hasExample());
    const QString tip = m_workbench.exampleIsPair() ? tr("Two small models of the bundled study, SPECTRA and Switch top-2, on short texts of six domains")
                      : ready ? tr("Routing of SmolLM2-135M, turned into 8 experts of which 2 run, on short texts of six domains")
                      : tr("Runs SmolLM2-135M on the bundled texts and keeps the trace: this takes a few minutes once");
    m_example->setToolTip(tip);
    m_example->setAccessibleDescription(tip);
    m_example->setText(ready ? tr("Open the &example") : tr("Make the &example trace"));
    m_recent->clear();
    for (const QString &path : m_workbench.recentFiles().paths()) {
        const QFileInfo info(path);
        auto *item = new QListWidgetItem(QStringLiteral("%1\n%2").arg(info.fileName(), info.absolutePath()), m_recent);
        item->setData(Qt::UserRole, path);
        item->setToolTip(path);
    }
    if (m_recent->count() == 0) {
        auto *item = new QListWidgetItem(tr("What you open will be listed here."), m_recent);
        item->setFlags(Qt::NoItemFlags);
    }
}

void StartPage::showEvent(QShowEvent *event)
{
    QWidget::showEvent(event);
    refresh();
}

void StartPage::paintEvent(QPaintEvent *)
{
    QPainter painter(this);
    painter.setRenderHint(QPainter::Antialiasing);
    QPen pen(palette().color(QPalette::Mid), 1.5, Qt::DashLine);
    painter.setPen(pen);
    painter.setBrush(Qt::NoBrush);
    painter.drawRoundedRect(QRectF(m_drop->mapTo(this, QPoint(0, 0)), QSizeF(m_drop->size())).adjusted(1, 1, -1, -1), 8, 8);
}

} // namespace spectra
