// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/document/sessiondocument.h"

#include "app/workbench/document/checkedjson.h"

#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QJsonArray>
#include <QJsonDocument>
#include <QSaveFile>

namespace spectra {

namespace {

constexpr int maxTraces = 64, maxText = 4 << 20, maxPath = 4096, maxBlob = 1 << 20;

Result<QByteArray> blobFromJson(const CheckedJson &value)
{
    SPECTRA_TRY(const QString text, value.string(maxBlob));
    const auto decoded = QByteArray::fromBase64Encoding(text.toLatin1(), QByteArray::AbortOnBase64DecodingErrors);
    if (decoded.decodingStatus != QByteArray::Base64DecodingStatus::Ok)
        return value.wrong("base64");
    return decoded.decoded;
}

QJsonObject traceToJson(const SessionDocument::TraceEntry &trace, const QString &folder)
{
    QJsonObject object{{QStringLiteral("path"), trace.path}, {QStringLiteral("name"), trace.name}, {QStringLiteral("uuid"), trace.uuid}};
    if (!folder.isEmpty())
        object[QStringLiteral("relative")] = QDir(folder).relativeFilePath(trace.path);
    return object;
}

Result<SessionDocument::TraceEntry> traceFromJson(const CheckedJson &value, const QString &folder)
{
    SessionDocument::TraceEntry trace;
    SPECTRA_TRY(trace.path, value.at("path").string(maxPath));
    if (trace.path.isEmpty() || trace.path.contains(QChar(0)))
        return value.at("path").wrong("a path");
    SPECTRA_TRY(trace.name, value.at("name").stringOr(256, {}));
    SPECTRA_TRY(trace.uuid, value.at("uuid").stringOr(128, {}));
    SPECTRA_TRY(const QString relative, value.at("relative").stringOr(maxPath, {}));
    if (!relative.isEmpty() && !relative.contains(QChar(0)) && !folder.isEmpty()) {
        const QString beside = QDir::cleanPath(QDir(folder).absoluteFilePath(relative));
        if (QFileInfo::exists(beside))
            trace.path = beside;
    }
    trace.path = QDir::cleanPath(QDir(folder).absoluteFilePath(trace.path)); // one spelling: what is written is read back the same
    return trace;
}

QJsonObject promptToJson(const SessionDocument &document)
{
    const PromptSettings &p = document.prompt;
    return {{QStringLiteral("text"), document.promptText},
            {QStringLiteral("file"), document.promptFile},
            {QStringLiteral("model"), p.model},
            {QStringLiteral("upcycle"), p.upcycle},
            {QStringLiteral("experts"), p.experts},
            {QStringLiteral("top_k"), p.topK},
            {QStringLiteral("router_dim"), p.routerDim},
            {QStringLiteral("max_new_tokens"), p.maxNewTokens},
            {QStringLiteral("temperature"), p.temperature},
            {QStringLiteral("top_p"), p.topP},
            {QStringLiteral("sample_top_k"), p.sampleTopK},
            {QStringLiteral("capture"), p.capture}};
}

Result<void> promptFromJson(const CheckedJson &value, SessionDocument &document)
{
    PromptSettings &p = document.prompt;
    const PromptSettings usual;
    SPECTRA_TRY(document.promptText, value.at("text").stringOr(maxText, {}));
    SPECTRA_TRY(document.promptFile, value.at("file").stringOr(maxPath, {}));
    SPECTRA_TRY(p.model, value.at("model").stringOr(maxPath, usual.model));
    SPECTRA_TRY(p.upcycle, value.at("upcycle").booleanOr(usual.upcycle));
    const auto number = [&](const char *key, qint64 low, qint64 high, int &target) -> Result<void> {
        SPECTRA_TRY(const qint64 read, value.at(key).integerOr(low, high, target));
        target = static_cast<int>(read);
        return {};
    };
    SPECTRA_CHECK(number("experts", 2, 1024, p.experts));
    SPECTRA_CHECK(number("top_k", 1, 64, p.topK));
    SPECTRA_CHECK(number("router_dim", 1, 1024, p.routerDim));
    SPECTRA_CHECK(number("max_new_tokens", 0, 100'000, p.maxNewTokens));
    SPECTRA_CHECK(number("sample_top_k", 0, 1'000'000, p.sampleTopK));
    SPECTRA_TRY(p.temperature, value.at("temperature").numberOr(0, 100, usual.temperature));
    SPECTRA_TRY(p.topP, value.at("top_p").numberOr(0, 1, usual.topP));
    SPECTRA_TRY(p.capture, value.at("capture").stringOr(512, usual.capture));
    return {};
}

} // namespace

QByteArray SessionDocument::toJson(const QString &folder) const
{
    QJsonArray traceArray;
    for (const TraceEntry &trace : traces)
        traceArray.append(traceToJson(trace, folder));
    const QJsonObject root{
        {QStringLiteral("format"), QStringLiteral("spectra-session")},
        {QStringLiteral("version"), version},
        {QStringLiteral("traces"), traceArray},
        {QStringLiteral("linked"), linked},
        {QStringLiteral("workspace"), workspace},
        {QStringLiteral("layout"), QJsonObject{{QStringLiteral("version"), layoutVersion},
                                               {QStringLiteral("geometry"), QString::fromLatin1(geometry.toBase64())},
                                               {QStringLiteral("state"), QString::fromLatin1(layout.toBase64())}}},
        {QStringLiteral("views"), views},
        {QStringLiteral("figure"), figure},
        {QStringLiteral("prompt"), promptToJson(*this)},
    };
    return QJsonDocument(root).toJson(QJsonDocument::Compact);
}

Result<SessionDocument> SessionDocument::fromJson(const QByteArray &json, const QString &folder, const QString &where)
{
    SPECTRA_TRY(const CheckedJson root, CheckedJson::parse(json, maxBytes, maxDepth, where));
    SPECTRA_TRY(const QString format, root.at("format").string(64));
    if (format != QLatin1String("spectra-session"))
        return root.at("format").wrong("\"spectra-session\"");
    SPECTRA_TRY(const qint64 fileVersion, root.at("version").integer(1, 1'000'000));
    if (fileVersion > version)
        return inputError("the session was saved by a newer version of this program", where.toStdString(),
                          "Open it with that version, or update this one.");
    SessionDocument document;
    SPECTRA_TRY(const auto traceItems, root.at("traces").array(maxTraces));
    for (const CheckedJson &item : traceItems) {
        SPECTRA_TRY(auto trace, traceFromJson(item, folder));
        document.traces.push_back(std::move(trace));
    }
    if (root.at("linked").present()) {
        SPECTRA_TRY(document.linked, root.at("linked").object());
    }
    SPECTRA_TRY(document.workspace, root.at("workspace").stringOr(64, document.workspace));
    if (const CheckedJson layoutObject = root.at("layout"); layoutObject.present()) {
        SPECTRA_TRY(const qint64 layoutVersion, layoutObject.at("version").integerOr(0, 1'000'000, 0));
        document.layoutVersion = static_cast<int>(layoutVersion);
        if (layoutObject.at("geometry").present()) {
            SPECTRA_TRY(document.geometry, blobFromJson(layoutObject.at("geometry")));
        }
        if (layoutObject.at("state").present()) {
            SPECTRA_TRY(document.layout, blobFromJson(layoutObject.at("state")));
        }
    }
    if (root.at("views").present()) {
        SPECTRA_TRY(document.views, root.at("views").object());
    }
    if (root.at("figure").present()) {
        SPECTRA_TRY(document.figure, root.at("figure").object());
    }
    if (root.at("prompt").present())
        SPECTRA_CHECK(promptFromJson(root.at("prompt"), document));
    return document;
}

Result<SessionDocument> SessionDocument::read(const QString &path)
{
    QFile file(path);
    if (!file.open(QIODevice::ReadOnly))
        return inputError("the session cannot be read", path.toStdString(), file.errorString().toStdString());
    const QByteArray json = file.read(maxBytes + 1);
    return fromJson(json, QFileInfo(path).absolutePath(), path);
}

Result<void> SessionDocument::write(const QString &path) const
{
    QSaveFile file(path);
    const QByteArray json = toJson(QFileInfo(path).absolutePath());
    if (!file.open(QIODevice::WriteOnly) || file.write(json) != json.size() || !file.commit())
        return workError("the session could not be saved", path.toStdString(), file.errorString().toStdString());
    return {};
}

} // namespace spectra
