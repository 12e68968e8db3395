// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/ratemeter.h"

#include <QCoreApplication>
#include <QLocale>

#include <cmath>

namespace spectra {

namespace {

QString tr(const char *text)
{
    return QCoreApplication::translate("RateMeter", text);
}

} // namespace

void RateMeter::add(double seconds, std::int64_t done)
{
    if (!m_samples.empty() && (done < m_samples.back().done || seconds < m_samples.back().seconds))
        m_samples.clear();
    m_samples.push_back({seconds, done});
    // The sample at the window's border stays, so that slow steps still give a rate.
    while (m_samples.size() > 2 && m_samples[1].seconds < seconds - windowSeconds)
        m_samples.pop_front();
}

std::optional<double> RateMeter::rate(double seconds) const
{
    if (m_samples.size() < 2 || seconds - m_samples.back().seconds > windowSeconds)
        return std::nullopt;
    const double span = m_samples.back().seconds - m_samples.front().seconds;
    const auto steps = static_cast<double>(m_samples.back().done - m_samples.front().done);
    if (span < 1 || steps <= 0)
        return std::nullopt;
    return steps / span;
}

std::optional<double> RateMeter::remaining(double seconds, std::int64_t total) const
{
    const auto r = rate(seconds);
    if (!r || total <= 0 || total < m_samples.back().done)
        return std::nullopt;
    const double left = static_cast<double>(total - m_samples.back().done) / *r - (seconds - m_samples.back().seconds);
    return std::max(0.0, left);
}

QString durationText(double seconds)
{
    if (seconds < 10)
        return tr("%1 s").arg(seconds, 0, 'f', 1);
    if (seconds < 59.5)
        return tr("%1 s").arg(std::lround(seconds));
    const long whole = std::lround(seconds);
    if (whole < 3600)
        return tr("%1 min %2 s").arg(whole / 60).arg(whole % 60);
    return tr("%1 h %2 min").arg(whole / 3600).arg(whole % 3600 / 60);
}

QString rateText(double rate)
{
    const QLocale locale(QLocale::English);
    const int decimals = rate >= 100 ? 0 : rate >= 10 ? 1 : 2;
    return locale.toString(rate, 'f', decimals);
}

QString bytesText(double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int unit = 0;
    while (bytes >= 999.5 && unit < 4) {
        bytes /= 1000;
        ++unit;
    }
    return QStringLiteral("%1 %2").arg(bytes, 0, 'f', unit >= 3 && bytes < 100 ? 1 : 0).arg(QLatin1String(units[unit]));
}

} // namespace spectra
