// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/shell/notice.h"

#include <QFrame>
#include <QVBoxLayout>

namespace spectra {

/// One notice: what, where and how to mend it as text that can be selected and copied, its buttons, and close.
class Banner : public QFrame {
    Q_OBJECT
public:
    Banner(Notice notice, QWidget *parent);
    [[nodiscard]] const Notice &notice() const { return m_notice; }
    [[nodiscard]] QString plainText() const;

Q_SIGNALS:
    void closed();

protected:
    void paintEvent(QPaintEvent *event) override;

private:
    Notice m_notice;
};

/// The notices that have not been closed, newest last; at most four, the same one only once.
class BannerArea : public QWidget {
    Q_OBJECT
public:
    explicit BannerArea(QWidget *parent = nullptr);
    void show(Notice notice);
    void clear();
    [[nodiscard]] std::vector<Banner *> banners() const;

    static constexpr int maxBanners = 4;

Q_SIGNALS:
    void emptyChanged(bool empty);

private:
    void take(Banner *banner);
    QVBoxLayout *m_layout;
};

} // namespace spectra
