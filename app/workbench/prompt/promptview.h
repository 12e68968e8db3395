// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/document/sessiondocument.h"
#include "app/workbench/workbench.h"
#include "views/latestjob.h"
#include "views/tokentextview.h"

#include <QComboBox>
#include <QLabel>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QToolButton>
#include <QWidget>

#include <memory>

namespace spectra {

class ElidedLabel;
class ExpertLegend;
class PromptSettingsPanel;

/// The Prompt view: a text, a sample set or a file of prompts is run; its tokens stream in, coloured by their top expert
/// in the layer shown. Without a run it shows the sequence of the current trace that holds the focused token.
class PromptView : public QWidget {
    Q_OBJECT
public:
    explicit PromptView(Workbench &workbench, QWidget *parent = nullptr);
    ~PromptView() override;

    void setTheme(const Theme &theme);
    void run();
    void stop();
    void focusEditor();
    void setModel(const QString &model);
    void setText(const QString &text);
    void setPrompts(const QString &path, std::shared_ptr<const std::vector<Prompt>> prompts);

    [[nodiscard]] PromptSettings settings() const;
    void setSettings(const PromptSettings &settings);
    void save(SessionDocument &document) const;
    void restore(const SessionDocument &document);

    [[nodiscard]] QPlainTextEdit *editor() const { return m_editor; }
    [[nodiscard]] QPushButton *runButton() const { return m_run; }
    [[nodiscard]] TokenTextView *tokenText() const { return m_tokens; }
    [[nodiscard]] bool isWorking() const { return m_reader->isRunning(); }

    /// Longer sequences are shown from their beginning.
    static constexpr std::int64_t maxShownTokens = 20'000;

Q_SIGNALS:
    void subtitleChanged(const QString &subtitle);
    void changed();

private:
    void buildModels();
    void chooseModelFolder();
    void chooseModelFile();
    void fillSamples();
    void tokensCame(const std::vector<TokenEvent> &events);
    void followFocus();
    void showSequence(std::int32_t sequence);
    void stepSequence(int by);
    void runningChanged(bool running);
    void updateSubtitle();
    void clearPrompts();

    Workbench &m_workbench;
    QComboBox *m_model;
    QPlainTextEdit *m_editor;
    QWidget *m_fileRow;
    ElidedLabel *m_fileLabel;
    QPushButton *m_run;
    QToolButton *m_samples, *m_settingsButton;
    PromptSettingsPanel *m_settings;
    ElidedLabel *m_status;
    QToolButton *m_previous, *m_next;
    ElidedLabel *m_sequenceLabel;
    TokenTextView *m_tokens;
    ExpertLegend *m_legend;
    std::unique_ptr<LatestJob> m_reader;

    std::shared_ptr<const std::vector<Prompt>> m_prompts; ///< of a file or a set, in place of the editor's text
    QString m_promptsPath, m_promptsTitle;
    quint64 m_shownTrace = 0;
    std::int32_t m_shownSequence = -1;
    qint64 m_runTokens = 0;
    QElapsedTimer m_sinceTokens;
};

} // namespace spectra
