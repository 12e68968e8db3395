// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/document/filekind.h"

#include <QCoreApplication>
#include <QDir>
#include <QFile>
#include <QFileInfo>

namespace spectra {

namespace {

constexpr qint64 headBytes = 4096;

QString tr(const char *text)
{
    return QCoreApplication::translate("FileKind", text);
}

Error refuse(const QString &what, const QString &path, const QString &mend)
{
    return inputError(what.toStdString(), path.toStdString(), mend.toStdString());
}

Result<FileKind> folderKind(const QString &path)
{
    const QDir folder(path);
    if (folder.exists(QStringLiteral("config.json")))
        return FileKind::modelFolder;
    const bool weights = !folder.entryList({QStringLiteral("*.safetensors"), QStringLiteral("*.bin")}, QDir::Files).isEmpty();
    if (weights)
        return refuse(tr("this model folder has no config.json"), path,
                      tr("Use the folder as downloaded, with config.json, tokenizer.json and the safetensors files."));
    return refuse(tr("this folder holds no model"), path,
                  tr("A model folder has a config.json. Traces, prompts and .gguf models are opened as files."));
}

} // namespace

Result<FileKind> fileKind(const QString &path)
{
    const QFileInfo info(path);
    if (path.isEmpty() || !info.exists())
        return refuse(tr("there is no such file"), path, tr("It may have been moved or renamed: choose it again with Open."));
    if (info.isDir())
        return folderKind(path);
    if (!info.isFile())
        return refuse(tr("this is not a regular file"), path, tr("Copy its content to a file first."));
    QFile file(path);
    if (!file.open(QIODevice::ReadOnly))
        return refuse(tr("the file cannot be read"), path, file.errorString());
    const QByteArray head = file.read(headBytes);
    if (head.isEmpty())
        return refuse(tr("the file is empty"), path, tr("Choose a file with content."));

    const QString name = info.fileName().toLower();
    const bool hdf5 = head.startsWith("\x89HDF\r\n\x1a\n");
    if (hdf5)
        return FileKind::trace;
    if (name.endsWith(QLatin1String(".h5")) || name.endsWith(QLatin1String(".hdf5")) || name.endsWith(QLatin1String(".part")))
        return refuse(tr("this is not an HDF5 file, or its beginning is damaged"), path,
                      tr("A trace is written by 'spectra trace' or by Run in the Prompt view."));
    if (head.startsWith("GGUF"))
        return FileKind::gguf;
    if (name.endsWith(QLatin1String(".gguf")))
        return refuse(tr("this is not a GGUF file: the first four bytes differ"), path,
                      tr("The download may be incomplete or a web page: fetch it again."));
    if (name.endsWith(QLatin1String(".spectra-session")))
        return FileKind::session;
    if (name.endsWith(QLatin1String(".safetensors")))
        return refuse(tr("a weights file alone is not a model"), path,
                      tr("Open the folder that holds it together with config.json and tokenizer.json."));
    if (name.endsWith(QLatin1String(".bin")) || name.endsWith(QLatin1String(".pt")) || name.endsWith(QLatin1String(".pth"))
        || name.endsWith(QLatin1String(".pkl")))
        return refuse(tr("pickled weights are never loaded: opening them can run any program"), path,
                      tr("Convert the model to safetensors and open its folder."));
    if (!head.contains('\0'))
        return FileKind::prompts;
    return refuse(tr("this is no file that the workbench opens"), path,
                  tr("It opens traces (.h5), model folders, .gguf models, prompts (.jsonl, .txt) and sessions (.spectra-session)."));
}

QString openFilter()
{
    return tr("All that the workbench opens (*.h5 *.hdf5 *.part *.gguf *.jsonl *.txt *.md *.spectra-session);;"
              "Traces (*.h5 *.hdf5 *.part);;Models (*.gguf);;Prompts (*.jsonl *.txt *.md);;Sessions (*.spectra-session);;All files (*)");
}

} // namespace spectra
