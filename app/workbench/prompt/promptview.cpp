// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/prompt/promptview.h"

#include "app/workbench/prompt/expertlegend.h"
#include "app/workbench/prompt/promptsettingspanel.h"
#include "app/workbench/prompt/sequencereader.h"
#include "app/workbench/shell/widgets.h"

#include <QFile>
#include <QFileDialog>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QJsonDocument>
#include <QJsonObject>
#include <QLocale>
#include <QMenu>
#include <QStandardItemModel>
#include <QVBoxLayout>

#include <algorithm>

namespace spectra {

namespace {

/// Whether a model folder already holds a mixture of experts, by its config.json.
bool folderHasExperts(const QString &folder)
{
    QFile file(folder + QStringLiteral("/config.json"));
    if (!file.open(QIODevice::ReadOnly))
        return false;
    const QJsonObject config = QJsonDocument::fromJson(file.read(1 << 20)).object();
    for (const char *key : {"num_local_experts", "num_experts", "n_routed_experts", "spectra"})
        if (config.contains(QLatin1String(key)))
            return true;
    return false;
}

QToolButton *textButton(const QString &text, const QString &tip, QWidget *parent)
{
    auto *button = new QToolButton(parent);
    button->setText(text);
    button->setToolTip(tip);
    button->setAccessibleName(tip);
    button->setFocusPolicy(Qt::StrongFocus);
    return button;
}

} // namespace

PromptView::PromptView(Workbench &workbench, QWidget *parent)
    : QWidget(parent)
    , m_workbench(workbench)
    , m_model(new QComboBox(this))
    , m_editor(new QPlainTextEdit(this))
    , m_fileRow(new QWidget(this))
    , m_fileLabel(new ElidedLabel(m_fileRow))
    , m_run(new QPushButton(tr("Run"), this))
    , m_samples(textButton(tr("Samples"), tr("Bundled texts by domain, or a file of prompts"), this))
    , m_settingsButton(textButton(tr("Settings"), tr("Experts, generation and what is captured"), this))
    , m_settings(new PromptSettingsPanel(this))
    , m_status(new ElidedLabel(this))
    , m_previous(textButton(QStringLiteral("‹"), tr("Previous sequence"), this))
    , m_next(textButton(QStringLiteral("›"), tr("Next sequence"), this))
    , m_sequenceLabel(new ElidedLabel(this))
    , m_tokens(new TokenTextView(this))
    , m_legend(new ExpertLegend(workbench.session(), this))
    , m_reader(std::make_unique<LatestJob>())
{
    setObjectName(QStringLiteral("promptView"));
    setAccessibleName(tr("Prompt"));
    m_model->setAccessibleName(tr("Model"));
    m_model->setToolTip(tr("Model that runs the prompt"));
    m_model->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    m_model->setMinimumContentsLength(8);
    buildModels();
    m_editor->setObjectName(QStringLiteral("promptEditor"));
    m_editor->setAccessibleName(tr("Prompt text"));
    m_editor->setPlaceholderText(tr("Type a prompt, or choose one under Samples"));
    m_editor->setTabChangesFocus(true);
    m_editor->setMinimumHeight(64);
    m_editor->setMaximumHeight(140);
    m_run->setObjectName(QStringLiteral("promptRun"));
    m_run->setToolTip(tr("Run the prompt (Ctrl+Return)"));
    m_run->setAccessibleName(tr("Run the prompt"));
    m_run->setMinimumWidth(48);
    for (QToolButton *button : {m_samples, m_settingsButton})
        button->setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
    m_samples->setPopupMode(QToolButton::InstantPopup);
    fillSamples();
    m_status->setQuiet(true);
    m_sequenceLabel->setQuiet(true);
    for (QToolButton *button : {m_previous, m_next}) {
        button->setAutoRaise(true);
        button->setFixedWidth(22);
    }
    m_tokens->setObjectName(QStringLiteral("promptTokens"));
    m_tokens->setAccessibleName(tr("Tokens, coloured by top expert"));
    m_tokens->setPlaceholder(tr("Run a prompt or open a trace: its tokens appear here, coloured by their top expert."));
    m_tokens->setSession(&workbench.session());

    auto *clearFile = textButton(QStringLiteral("×"), tr("Use the text of the editor instead"), m_fileRow);
    clearFile->setAutoRaise(true);
    auto *fileLayout = new QHBoxLayout(m_fileRow);
    fileLayout->setContentsMargins(0, 0, 0, 0);
    fileLayout->addWidget(m_fileLabel, 1);
    fileLayout->addWidget(clearFile);
    m_fileRow->setVisible(false);

    auto *buttons = new QHBoxLayout;
    buttons->setSpacing(4);
    buttons->addWidget(m_run);
    buttons->addWidget(m_samples);
    buttons->addWidget(m_settingsButton);
    buttons->addStretch(1);
    auto *sequence = new QHBoxLayout;
    sequence->setSpacing(0);
    sequence->addWidget(m_sequenceLabel, 1);
    sequence->addWidget(m_previous);
    sequence->addWidget(m_next);
    auto *layout = new QVBoxLayout(this);
    layout->setContentsMargins(8, 6, 8, 6);
    layout->setSpacing(5);
    layout->addWidget(m_model);
    layout->addWidget(m_editor);
    layout->addWidget(m_fileRow);
    layout->addLayout(buttons);
    layout->addWidget(m_status);
    layout->addLayout(sequence);
    layout->addWidget(m_tokens, 1);
    layout->addWidget(m_legend);
    setMinimumWidth(200);

    connect(m_run, &QPushButton::clicked, this, [this] { m_workbench.runner().isRunning() ? stop() : run(); });
    connect(m_settingsButton, &QToolButton::clicked, this, [this] { m_settings->popUpBelow(m_settingsButton); });
    connect(m_settings, &PromptSettingsPanel::changed, this, &PromptView::changed);
    connect(m_settings, &PromptSettingsPanel::changed, this, &PromptView::updateSubtitle);
    connect(m_editor, &QPlainTextEdit::textChanged, this, &PromptView::changed);
    connect(clearFile, &QToolButton::clicked, this, &PromptView::clearPrompts);
    connect(m_previous, &QToolButton::clicked, this, [this] { stepSequence(-1); });
    connect(m_next, &QToolButton::clicked, this, [this] { stepSequence(1); });

    PromptRunner &runner = workbench.runner();
    connect(&runner, &PromptRunner::started, this, [this] {
        m_tokens->clear();
        m_shownSequence = -1;
        m_shownTrace = 0;
        m_runTokens = 0;
        m_sinceTokens.invalidate();
        m_status->setText(tr("waiting for the engine"));
        m_sequenceLabel->setText({});
    });
    connect(&runner, &PromptRunner::stageChanged, this, [this](const QString &stage) {
        if (m_runTokens == 0)
            m_status->setText(stage);
    });
    connect(&runner, &PromptRunner::tokensCame, this, [this](const auto &tokens) { tokensCame(*tokens); });
    connect(&runner, &PromptRunner::runningChanged, this, &PromptView::runningChanged);
    connect(&runner, &PromptRunner::done, this, [this](const Summary &summary) {
        m_status->setText(tr("%1 tokens · %2 tokens/s").arg(QLocale(QLocale::English).toString(qlonglong(summary.tokens)), rateText(summary.tokensPerSecond)));
    });
    connect(&runner, &PromptRunner::failed, this, [this](const Error &error) {
        m_status->setText(error.kind == ErrorKind::cancelled ? tr("stopped") : QString::fromStdString(error.what));
    });

    Session &session = workbench.session();
    connect(&session, &Session::currentChanged, this, [this] {
        m_shownSequence = -1;
        followFocus();
        updateSubtitle();
    });
    connect(&session, &Session::focusChanged, this, &PromptView::followFocus);
    connect(&session, &Session::sequencesRead, this, [this](quint64) { followFocus(); });
    updateSubtitle();
    followFocus();
}

PromptView::~PromptView()
{
    m_reader.reset(); // waits for a read under way
}

void PromptView::setTheme(const Theme &theme)
{
    m_tokens->setTheme(theme);
    m_legend->setTheme(theme);
    m_editor->setFont(theme.mono);
}

void PromptView::buildModels()
{
    for (const BundledModel &model : m_workbench.engine().bundledModels()) {
        const QString name = QString::fromStdString(model.name);
        m_model->addItem(QString::fromStdString(model.title.empty() ? model.name : model.title), name);
        m_model->setItemData(m_model->count() - 1,
                             model.present ? QString::fromStdString(model.source + ", " + model.licence) : tr("Fetched on first use"), Qt::ToolTipRole);
    }
    if (m_model->count() == 0)
        m_model->addItem(PromptSettings().model, PromptSettings().model);
    m_model->insertSeparator(m_model->count());
    m_model->addItem(tr("Model folder…"), QStringLiteral("?folder"));
    m_model->addItem(tr("GGUF file…"), QStringLiteral("?file"));
    connect(m_model, &QComboBox::activated, this, [this](int index) {
        const QString chosen = m_model->itemData(index).toString();
        if (chosen == QLatin1String("?folder"))
            chooseModelFolder();
        else if (chosen == QLatin1String("?file"))
            chooseModelFile();
        updateSubtitle();
        Q_EMIT changed();
    });
}

void PromptView::chooseModelFolder()
{
    m_model->setCurrentIndex(0);
    auto *dialog = new QFileDialog(this, tr("Choose a model folder"));
    dialog->setFileMode(QFileDialog::Directory);
    dialog->setOption(QFileDialog::ShowDirsOnly);
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    connect(dialog, &QFileDialog::fileSelected, this, [this](const QString &path) { m_workbench.open({path}); });
    dialog->open();
}

void PromptView::chooseModelFile()
{
    m_model->setCurrentIndex(0);
    auto *dialog = new QFileDialog(this, tr("Choose a GGUF model"), {}, tr("Models (*.gguf)"));
    dialog->setFileMode(QFileDialog::ExistingFile);
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    connect(dialog, &QFileDialog::fileSelected, this, [this](const QString &path) { m_workbench.open({path}); });
    dialog->open();
}

void PromptView::setModel(const QString &model)
{
    int index = m_model->findData(model);
    if (index < 0) {
        index = m_model->count() - 3; // before the separator
        m_model->insertItem(index, QFileInfo(model).fileName(), model);
        m_model->setItemData(index, model, Qt::ToolTipRole);
        if (QFileInfo(model).isDir() && folderHasExperts(model)) {
            PromptSettings own = settings();
            own.upcycle = false; // it has its router already
            m_settings->show(own);
        }
    }
    m_model->setCurrentIndex(index);
    updateSubtitle();
    Q_EMIT changed();
}

void PromptView::fillSamples()
{
    auto *menu = new QMenu(m_samples);
    for (const PromptSet &set : m_workbench.promptSets()) {
        const QString title = set.title.isEmpty() ? set.name : set.title;
        QAction *action = menu->addAction(set.texts > 0 ? tr("%1 (%n text(s))", nullptr, set.texts).arg(title) : title, this,
                                          [this, file = set.file] { m_workbench.openPrompts(file); });
        action->setToolTip(tr("Run all texts of this domain"));
    }
    if (!m_workbench.promptSets().empty())
        menu->addSeparator();
    menu->addAction(tr("File of prompts…"), this, [this] {
        auto *dialog = new QFileDialog(this, tr("Choose a file of prompts"), {}, tr("Prompts (*.jsonl *.txt *.md);;All files (*)"));
        dialog->setFileMode(QFileDialog::ExistingFile);
        dialog->setAttribute(Qt::WA_DeleteOnClose);
        connect(dialog, &QFileDialog::fileSelected, this, [this](const QString &path) { m_workbench.open({path}); });
        dialog->open();
    });
    menu->setToolTipsVisible(true);
    m_samples->setMenu(menu);
}

void PromptView::setPrompts(const QString &path, std::shared_ptr<const std::vector<Prompt>> prompts)
{
    m_prompts = std::move(prompts);
    m_promptsPath = path;
    m_promptsTitle = QFileInfo(path).fileName();
    m_fileLabel->setText(tr("%1: %n text(s)", nullptr, static_cast<int>(m_prompts->size())).arg(m_promptsTitle));
    m_fileRow->setVisible(true);
    m_editor->setEnabled(false);
    if (!m_prompts->empty()) {
        // The first text shows what will be run.
        const QSignalBlocker quiet(m_editor);
        m_editor->setPlainText(QString::fromStdString(m_prompts->front().text).left(4000));
    }
    Q_EMIT changed();
}

void PromptView::clearPrompts()
{
    m_prompts.reset();
    m_promptsPath.clear();
    m_fileRow->setVisible(false);
    m_editor->setEnabled(true);
    m_editor->setFocus();
    Q_EMIT changed();
}

void PromptView::setText(const QString &text)
{
    clearPrompts();
    m_editor->setPlainText(text);
}

void PromptView::focusEditor()
{
    m_editor->isEnabled() ? m_editor->setFocus() : m_run->setFocus();
}

void PromptView::run()
{
    PromptRunner &runner = m_workbench.runner();
    if (runner.isRunning())
        return;
    const auto started = m_prompts ? runner.runPrompts(*m_prompts, settings(), m_promptsTitle) : runner.runText(m_editor->toPlainText(), settings());
    if (!started) {
        m_status->setText(QString::fromStdString(started.error().what));
        m_workbench.notify(started.error());
    }
}

void PromptView::stop()
{
    m_status->setText(tr("stopping"));
    m_workbench.runner().stop();
}

void PromptView::runningChanged(bool running)
{
    m_run->setText(running ? tr("Stop") : tr("Run"));
    m_run->setToolTip(running ? tr("Stop the run; what is there stays (Ctrl+Return)") : tr("Run the prompt (Ctrl+Return)"));
    m_run->setAccessibleName(running ? tr("Stop the run") : tr("Run the prompt"));
    m_model->setEnabled(!running);
    if (!running) {
        m_shownSequence = -1; // the trace knows the weights too: read it again
        followFocus();
    }
}

void PromptView::tokensCame(const std::vector<TokenEvent> &events)
{
    std::vector<ShownToken> shown;
    std::int32_t sequence = m_shownSequence;
    for (const TokenEvent &event : events) {
        if (event.sequence != sequence) {
            // A set of prompts: the text of the sequence that runs now.
            m_tokens->clear();
            shown.clear();
            sequence = event.sequence;
        }
        shown.push_back({QString::fromStdString(event.text), event.token, event.generated, event.topExperts, {}});
    }
    m_tokens->append(shown);
    if (sequence != m_shownSequence) {
        m_shownSequence = sequence;
        m_shownTrace = m_workbench.runner().trace();
        m_sequenceLabel->setText(tr("sequence %1").arg(sequence));
    }
    if (!m_sinceTokens.isValid())
        m_sinceTokens.start();
    else if (const double seconds = static_cast<double>(m_sinceTokens.elapsed()) / 1000; seconds > 0.5)
        m_status->setText(tr("%1 tokens · %2 tokens/s")
                              .arg(QLocale(QLocale::English).toString(m_runTokens), rateText(static_cast<double>(m_runTokens) / seconds)));
    m_runTokens += static_cast<qint64>(events.size());
}

void PromptView::followFocus()
{
    const auto trace = m_workbench.session().current();
    const bool streaming = m_workbench.runner().isRunning() && trace && trace->id == m_workbench.runner().trace();
    if (streaming)
        return;
    if (!trace) {
        m_reader->cancel();
        m_tokens->clear();
        m_sequenceLabel->setText({});
        m_shownTrace = 0;
        m_previous->setEnabled(false);
        m_next->setEnabled(false);
        return;
    }
    if (!trace->sequences || trace->sequences->empty())
        return;
    std::int32_t sequence = trace->id == m_shownTrace && m_shownSequence >= 0 ? m_shownSequence : 0;
    if (const auto focus = m_workbench.session().focusedToken()) {
        const auto &all = *trace->sequences;
        const auto after = std::ranges::upper_bound(all, *focus, {}, &SequenceInfo::offset);
        if (after != all.begin())
            sequence = static_cast<std::int32_t>(after - all.begin()) - 1;
    }
    if (trace->id != m_shownTrace || sequence != m_shownSequence)
        showSequence(sequence);
}

void PromptView::showSequence(std::int32_t sequence)
{
    const auto trace = m_workbench.session().current();
    if (!trace)
        return;
    m_shownTrace = trace->id;
    m_shownSequence = sequence;
    const auto count = static_cast<std::int32_t>(trace->sequences ? trace->sequences->size() : 0);
    m_previous->setEnabled(sequence > 0);
    m_next->setEnabled(sequence + 1 < count);
    m_reader->start([this, source = trace->source, sequence, count](JobContext &context) -> Result<LatestJob::Apply> {
        SPECTRA_TRY(auto read, readSequenceText(*source, sequence, maxShownTokens, context.stop()));
        auto text = std::make_shared<SequenceText>(std::move(read));
        return LatestJob::Apply([this, text, count] {
            m_tokens->setTokens(std::move(text->tokens));
            QStringList parts{tr("sequence %1 of %2").arg(text->sequence + 1).arg(count)};
            if (!text->info.domain.empty())
                parts << QString::fromStdString(text->info.domain);
            if (text->cut)
                parts << tr("first %1 tokens").arg(QLocale(QLocale::English).toString(qlonglong(maxShownTokens)));
            m_sequenceLabel->setText(parts.join(QStringLiteral(" · ")));
        });
    });
}

void PromptView::stepSequence(int by)
{
    const auto trace = m_workbench.session().current();
    const std::int32_t next = m_shownSequence + by;
    if (!trace || !trace->sequences || next < 0 || next >= static_cast<std::int32_t>(trace->sequences->size()))
        return;
    m_workbench.session().focusToken((*trace->sequences)[static_cast<std::size_t>(next)].offset);
}

void PromptView::updateSubtitle()
{
    const PromptSettings s = settings();
    QString subtitle = m_model->currentText();
    if (s.upcycle)
        subtitle += tr(" · %1×%2").arg(s.experts).arg(s.topK);
    Q_EMIT subtitleChanged(subtitle);
}

PromptSettings PromptView::settings() const
{
    PromptSettings settings;
    m_settings->read(settings);
    settings.model = m_model->currentData().toString();
    return settings;
}

void PromptView::setSettings(const PromptSettings &settings)
{
    setModel(settings.model);
    m_settings->show(settings);
    updateSubtitle();
}

void PromptView::save(SessionDocument &document) const
{
    document.prompt = settings();
    document.promptFile = m_promptsPath;
    if (!m_prompts)
        document.promptText = m_editor->toPlainText().left(1 << 20);
}

void PromptView::restore(const SessionDocument &document)
{
    setSettings(document.prompt);
    setText(document.promptText);
    if (!document.promptFile.isEmpty())
        m_workbench.open({document.promptFile});
}

} // namespace spectra
