// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/view.h"

#include <charconv>
#include <cmath>

namespace spectra {

namespace {

/// The shortest text that reads back as the same number; nothing for what is no number.
QByteArray plain(const QVariant &value)
{
    char buffer[64];
    if (value.typeId() == QMetaType::Double || value.typeId() == QMetaType::Float) {
        const double v = value.toDouble();
        if (!std::isfinite(v))
            return {};
        const auto end = value.typeId() == QMetaType::Float ? std::to_chars(buffer, buffer + sizeof buffer, value.toFloat()).ptr
                                                            : std::to_chars(buffer, buffer + sizeof buffer, v).ptr;
        return QByteArray(buffer, static_cast<qsizetype>(end - buffer));
    }
    return value.toString().toUtf8();
}

QByteArray quoted(QByteArray text, char separator)
{
    if (separator == '\t') { // TSV knows no quotes
        text.replace('\t', ' ').replace('\n', ' ').replace('\r', ' ');
        return text;
    }
    if (text.contains(separator) || text.contains('"') || text.contains('\n') || text.contains('\r'))
        return '"' + text.replace("\"", "\"\"") + '"';
    return text;
}

QByteArray texEscaped(const QByteArray &text)
{
    QByteArray out;
    for (const char c : text) {
        switch (c) {
        case '&': case '%': case '$': case '#': case '_': case '{': case '}': out += '\\'; out += c; break;
        case '~': out += "\\textasciitilde{}"; break;
        case '^': out += "\\textasciicircum{}"; break;
        case '\\': out += "\\textbackslash{}"; break;
        case '\n': case '\r': out += ' '; break;
        default: out += c;
        }
    }
    return out;
}

} // namespace

QByteArray TableData::separated(char separator) const
{
    QByteArray out;
    for (qsizetype c = 0; c < header.size(); ++c) {
        if (c > 0)
            out += separator;
        out += quoted(header[c].toUtf8(), separator);
    }
    out += '\n';
    for (qsizetype r = 0; r < rows; ++r) {
        for (int c = 0; c < static_cast<int>(header.size()); ++c) {
            if (c > 0)
                out += separator;
            out += quoted(plain(cell(r, c)), separator);
        }
        out += '\n';
    }
    return out;
}

QByteArray TableData::latex() const
{
    QByteArray out = "% " + caption.toUtf8().replace('\n', ' ') + "\n\\begin{tabular}{";
    for (int c = 0; c < static_cast<int>(header.size()); ++c) {
        const bool number = rows > 0 && (cell(0, c).typeId() == QMetaType::Double || cell(0, c).typeId() == QMetaType::Int);
        out += number ? 'r' : 'l';
    }
    out += "}\n\\toprule\n";
    for (qsizetype c = 0; c < header.size(); ++c)
        out += (c > 0 ? " & " : "") + texEscaped(header[c].toUtf8());
    out += " \\\\\n\\midrule\n";
    for (qsizetype r = 0; r < rows; ++r) {
        for (int c = 0; c < static_cast<int>(header.size()); ++c) {
            const QVariant v = cell(r, c);
            out += c > 0 ? " & " : "";
            if (v.typeId() == QMetaType::Double)
                out += std::isfinite(v.toDouble()) ? QByteArray::number(v.toDouble(), 'g', 4) : QByteArray("--");
            else
                out += texEscaped(plain(v));
        }
        out += " \\\\\n";
    }
    return out + "\\bottomrule\n\\end{tabular}\n";
}

} // namespace spectra
