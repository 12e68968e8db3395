// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <QByteArray>
#include <QJsonObject>
#include <QJsonValue>
#include <QString>

#include <vector>

namespace spectra {

/// A JSON value from outside with its place in the file. Every reader checks type and range and names the place; at() of
/// something that is no object gives an absent value, so a chain of reads needs one check at its end.
class CheckedJson {
public:
    /// Errors (input): larger than maxBytes, nested deeper than maxDepth, malformed, not an object.
    [[nodiscard]] static Result<CheckedJson> parse(const QByteArray &json, qint64 maxBytes, int maxDepth, const QString &where);

    [[nodiscard]] CheckedJson at(const char *key) const;
    [[nodiscard]] bool present() const { return !m_value.isUndefined(); }

    [[nodiscard]] Result<QString> string(qsizetype maxLength) const;
    [[nodiscard]] Result<QString> stringOr(qsizetype maxLength, const QString &absent) const;
    [[nodiscard]] Result<qint64> integer(qint64 low, qint64 high) const;
    [[nodiscard]] Result<qint64> integerOr(qint64 low, qint64 high, qint64 absent) const;
    [[nodiscard]] Result<double> numberOr(double low, double high, double absent) const;
    [[nodiscard]] Result<bool> booleanOr(bool absent) const;
    [[nodiscard]] Result<std::vector<CheckedJson>> array(qsizetype maxItems) const;
    [[nodiscard]] Result<QJsonObject> object() const;

    /// "expected EXPECTED" at this place.
    [[nodiscard]] Error wrong(const std::string &expected) const;

private:
    CheckedJson(QJsonValue value, QString place) : m_value(std::move(value)), m_place(std::move(place)) {}
    QJsonValue m_value;
    QString m_place;
};

} // namespace spectra
