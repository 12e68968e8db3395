// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QDockWidget>
#include <QLabel>
#include <QWidget>

namespace spectra {

/// One line that leaves out its last parts (between " · ") where there is no room; the tool tip has all of it.
class ElidedLabel : public QWidget {
    Q_OBJECT
public:
    explicit ElidedLabel(QWidget *parent = nullptr);
    void setText(const QString &text);
    [[nodiscard]] QString text() const { return m_text; }
    void setQuiet(bool quiet);
    QSize sizeHint() const override;
    QSize minimumSizeHint() const override;

protected:
    void paintEvent(QPaintEvent *event) override;

private:
    QString m_text;
    bool m_quiet = false;
};

/// Title bar of a dock: name, what is shown now, float and close.
class DockTitle : public QWidget {
    Q_OBJECT
public:
    explicit DockTitle(QDockWidget *dock);
    void setSubtitle(const QString &subtitle) { m_subtitle->setText(subtitle); }

protected:
    void paintEvent(QPaintEvent *event) override;

private:
    ElidedLabel *m_subtitle;
};

/// A heading's font: the given one, larger and half bold, whatever unit its size has.
[[nodiscard]] QFont headingFont(QFont font, double scale);

/// Secondary text in the palette's placeholder colour, wrapped.
[[nodiscard]] QLabel *quietLabel(const QString &text, QWidget *parent);

} // namespace spectra
