// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/routingrecord.h"
#include "views/session.h"
#include "views/theme.h"

#include <QAbstractScrollArea>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace spectra {

/// One token as the text shows it.
struct ShownToken {
    QString text;
    std::int64_t row = -1;           ///< running number in the trace
    bool generated = false;
    std::vector<std::uint16_t> experts;  ///< [L] top expert of each layer, kNoExpert: unknown
    std::vector<float> weights;          ///< [L] its weight
};

/// Running text whose tokens are coloured by the top expert of the session's layer; brightness is its weight. Tokens are
/// appended as they come. Hover highlights the token in every view, a click focuses it, arrows walk through the text,
/// a drag selects a range (Shift, Ctrl, Ctrl+Shift as everywhere). GUI thread only.
class TokenTextView : public QAbstractScrollArea {
    Q_OBJECT
public:
    explicit TokenTextView(QWidget *parent = nullptr);
    ~TokenTextView() override;

    void setSession(Session *session);
    void setTheme(const Theme &theme);
    /// What is said while there is no token.
    void setPlaceholder(const QString &text);

    void clear();
    void setTokens(std::vector<ShownToken> tokens);
    void append(const std::vector<ShownToken> &tokens);
    /// From a running job: `tokens` of one sequence. Routing follows with setRouting().
    void append(const TokenRecord &tokens);
    /// One layer's routing of tokens [record.firstToken, +tokens) that are already shown; others are ignored.
    void setRouting(const RoutingRecord &record);
    [[nodiscard]] const std::vector<ShownToken> &tokens() const;
    /// The token at a place of the viewport, as an index into tokens(); -1: none.
    [[nodiscard]] int tokenAt(const QPoint &position) const;
    /// Where a token stands in the viewport (its first piece when it is broken over lines).
    [[nodiscard]] QRect tokenRect(int index) const;

Q_SIGNALS:
    void tokenClicked(qint64 row);
    void tokenHovered(qint64 row); ///< -1: none

protected:
    void paintEvent(QPaintEvent *event) override;
    void resizeEvent(QResizeEvent *event) override;
    void mouseMoveEvent(QMouseEvent *event) override;
    void mousePressEvent(QMouseEvent *event) override;
    void mouseReleaseEvent(QMouseEvent *event) override;
    void leaveEvent(QEvent *event) override;
    void keyPressEvent(QKeyEvent *event) override;
    void scrollContentsBy(int dx, int dy) override;
    bool viewportEvent(QEvent *event) override;

private:
    struct Private;
    std::unique_ptr<Private> d;
};

} // namespace spectra
