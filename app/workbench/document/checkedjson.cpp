// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/document/checkedjson.h"

#include "engine/core/jsontext.h"

#include <QJsonArray>
#include <QJsonDocument>

#include <cmath>

namespace spectra {

Result<CheckedJson> CheckedJson::parse(const QByteArray &json, qint64 maxBytes, int maxDepth, const QString &where)
{
    if (json.size() > maxBytes)
        return inputError("the file is larger than " + std::to_string(maxBytes >> 20) + " MiB", where.toStdString(),
                          "A session holds names and choices only: this is another kind of file.");
    SPECTRA_CHECK(checkJsonText({json.constData(), static_cast<std::size_t>(json.size())}, where.toStdString(), maxDepth));
    QJsonParseError error;
    const QJsonDocument document = QJsonDocument::fromJson(json, &error);
    if (error.error != QJsonParseError::NoError)
        return inputError("the file is not valid JSON: " + error.errorString().toStdString(),
                          where.toStdString() + ": byte " + std::to_string(error.offset), "Restore it from a backup.");
    if (!document.isObject())
        return inputError("the file is not a JSON object", where.toStdString(), "Choose a file saved by this program.");
    return CheckedJson(document.object(), where);
}

CheckedJson CheckedJson::at(const char *key) const
{
    const QLatin1String name(key);
    return {m_value.isObject() ? m_value.toObject().value(name) : QJsonValue(QJsonValue::Undefined),
            m_place + QStringLiteral(": ") + name};
}

Result<QString> CheckedJson::string(qsizetype maxLength) const
{
    if (!m_value.isString())
        return wrong("text");
    const QString text = m_value.toString();
    if (text.size() > maxLength)
        return wrong("text of at most " + std::to_string(maxLength) + " characters");
    return text;
}

Result<QString> CheckedJson::stringOr(qsizetype maxLength, const QString &absent) const
{
    return present() ? string(maxLength) : Result<QString>(absent);
}

Result<qint64> CheckedJson::integer(qint64 low, qint64 high) const
{
    const double value = m_value.toDouble(std::nan(""));
    if (!m_value.isDouble() || !(value >= -9.0e15 && value <= 9.0e15) || std::floor(value) != value)
        return wrong("a whole number");
    const auto whole = static_cast<qint64>(value);
    if (whole < low || whole > high)
        return wrong("a number from " + std::to_string(low) + " to " + std::to_string(high));
    return whole;
}

Result<qint64> CheckedJson::integerOr(qint64 low, qint64 high, qint64 absent) const
{
    return present() ? integer(low, high) : Result<qint64>(absent);
}

Result<double> CheckedJson::numberOr(double low, double high, double absent) const
{
    if (!present())
        return absent;
    const double value = m_value.toDouble(std::nan(""));
    if (!m_value.isDouble() || !(value >= low && value <= high))
        return wrong("a number from " + std::to_string(low) + " to " + std::to_string(high));
    return value;
}

Result<bool> CheckedJson::booleanOr(bool absent) const
{
    if (!present())
        return absent;
    if (!m_value.isBool())
        return wrong("true or false");
    return m_value.toBool();
}

Result<std::vector<CheckedJson>> CheckedJson::array(qsizetype maxItems) const
{
    if (!m_value.isArray())
        return wrong("a list");
    const QJsonArray items = m_value.toArray();
    if (items.size() > maxItems)
        return wrong("a list of at most " + std::to_string(maxItems) + " items");
    std::vector<CheckedJson> values;
    values.reserve(static_cast<std::size_t>(items.size()));
    for (qsizetype i = 0; i < items.size(); ++i)
        values.push_back(CheckedJson(items.at(i), m_place + QStringLiteral(" [%1]").arg(i)));
    return values;
}

Result<QJsonObject> CheckedJson::object() const
{
    if (!m_value.isObject())
        return wrong("an object");
    return m_value.toObject();
}

Error CheckedJson::wrong(const std::string &expected) const
{
    return inputError("expected " + expected, m_place.toStdString(), "Restore the file from a backup, or delete this entry.");
}

} // namespace spectra
