// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace spectra {

/// What went wrong, in the one sense that decides exit code and banner.
enum class ErrorKind {
    usage,     ///< the caller asked for something that does not exist or is out of range (exit 2)
    input,     ///< something from outside is missing, malformed, unsupported, empty or too large (exit 3)
    work,      ///< the work itself failed: output not writable, disk full, out of memory (exit 1)
    cancelled, ///< stopped on request (exit 130)
    bug,       ///< our own mistake (exit 1)
};

/// An error for a person: WHAT is wrong, WHERE (file, byte, key, layer), and how to MEND it (may be empty).
/// Callers add context to `where`, never to `what`.
struct Error {
    ErrorKind kind = ErrorKind::bug;
    std::string what;
    std::string where;
    std::string mend;

    /// Puts an outer place in front of the inner one: "file.gguf: tensor 3".
    Error &in(const std::string &outer)
    {
        where = where.empty() ? outer : outer + ": " + where;
        return *this;
    }
};

[[nodiscard]] inline Error usageError(std::string what, std::string where = {}, std::string mend = {})
{
    return {ErrorKind::usage, std::move(what), std::move(where), std::move(mend)};
}
[[nodiscard]] inline Error inputError(std::string what, std::string where = {}, std::string mend = {})
{
    return {ErrorKind::input, std::move(what), std::move(where), std::move(mend)};
}
[[nodiscard]] inline Error workError(std::string what, std::string where = {}, std::string mend = {})
{
    return {ErrorKind::work, std::move(what), std::move(where), std::move(mend)};
}
[[nodiscard]] inline Error cancelledError(std::string what = "stopped on request")
{
    return {ErrorKind::cancelled, std::move(what), {}, {}};
}
[[nodiscard]] inline Error bugError(std::string what, std::string where = {})
{
    return {ErrorKind::bug, std::move(what), std::move(where), {}};
}

/// The process exit code of an error kind, as the command line's contract fixes it.
[[nodiscard]] constexpr int exitCode(ErrorKind kind)
{
    switch (kind) {
    case ErrorKind::usage: return 2;
    case ErrorKind::input: return 3;
    case ErrorKind::cancelled: return 130;
    case ErrorKind::work:
    case ErrorKind::bug: break;
    }
    return 1;
}

/// A value or an Error. Module borders return it; exceptions do not cross them.
template <typename T> class [[nodiscard]] Result {
public:
    Result(T value) : m_state(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : m_state(std::in_place_index<1>, std::move(error)) {}
    template <typename U>
        requires(std::is_convertible_v<U &&, T> && !std::is_same_v<std::remove_cvref_t<U>, T>
                 && !std::is_same_v<std::remove_cvref_t<U>, Error> && !std::is_same_v<std::remove_cvref_t<U>, Result>)
    Result(U &&value) : m_state(std::in_place_index<0>, T(std::forward<U>(value)))
    {
    }

    [[nodiscard]] bool ok() const { return m_state.index() == 0; }
    explicit operator bool() const { return ok(); }

    [[nodiscard]] T &value() &
    {
        assert(ok());
        return *std::get_if<0>(&m_state);
    }
    [[nodiscard]] const T &value() const &
    {
        assert(ok());
        return *std::get_if<0>(&m_state);
    }
    [[nodiscard]] T &&value() &&
    {
        assert(ok());
        return std::move(*std::get_if<0>(&m_state));
    }
    [[nodiscard]] Error &error()
    {
        assert(!ok());
        return *std::get_if<1>(&m_state);
    }
    [[nodiscard]] const Error &error() const
    {
        assert(!ok());
        return *std::get_if<1>(&m_state);
    }
    T &operator*() & { return value(); }
    const T &operator*() const & { return value(); }
    T &&operator*() && { return std::move(*this).value(); }
    T *operator->() { return &value(); }
    const T *operator->() const { return &value(); }

private:
    std::variant<T, Error> m_state;
};

template <> class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : m_error(std::move(error)), m_failed(true) {}

    [[nodiscard]] bool ok() const { return !m_failed; }
    explicit operator bool() const { return ok(); }
    [[nodiscard]] Error &error()
    {
        assert(m_failed);
        return m_error;
    }
    [[nodiscard]] const Error &error() const
    {
        assert(m_failed);
        return m_error;
    }

private:
    Error m_error;
    bool m_failed = false;
};

} // namespace spectra

#define SPECTRA_CONCAT_INNER(a, b) a##b
#define SPECTRA_CONCAT(a, b) SPECTRA_CONCAT_INNER(a, b)
/// `SPECTRA_TRY(auto x, expression);` returns the expression's Error from the enclosing function, or binds its value.
#define SPECTRA_TRY(declaration, ...)                                                                                  \
    auto SPECTRA_CONCAT(spectraTry_, __LINE__) = (__VA_ARGS__);                                                        \
    if (!SPECTRA_CONCAT(spectraTry_, __LINE__).ok())                                                                   \
        return std::move(SPECTRA_CONCAT(spectraTry_, __LINE__).error());                                               \
    declaration = std::move(SPECTRA_CONCAT(spectraTry_, __LINE__)).value()
/// The same for Result<void>.
#define SPECTRA_CHECK(...)                                                                                             \
    do {                                                                                                               \
        if (auto spectraCheck = (__VA_ARGS__); !spectraCheck.ok())                                                     \
            return std::move(spectraCheck.error());                                                                    \
    } while (false)
