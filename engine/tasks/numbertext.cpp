// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/numbertext.h"

#include "engine/tasks/tasktext.h"

namespace spectra {
namespace {

bool digit(char c)
{
    return c >= '0' && c <= '9';
}
bool numberMark(char c)
{
    return digit(c) || c == '$' || c == '.' || c == ',';
}

} // namespace

std::optional<std::string> strictNumber(std::string_view text)
{
    for (std::size_t at = 0; (at = text.find("#### ", at)) != std::string_view::npos; ++at) {
        std::size_t i = at + 5;
        const std::size_t begin = i;
        if (i < text.size() && text[i] == '-')
            ++i;
        const std::size_t digits = i;
        while (i < text.size() && (digit(text[i]) || text[i] == '.' || text[i] == ','))
            ++i;
        if (i > digits)
            return std::string(text.substr(begin, i - begin));
    }
    return std::nullopt;
}

std::optional<std::string> flexibleNumber(std::string_view text)
{
    std::optional<std::string> last;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t first = text[i] == '-' ? i + 1 : i;
        std::size_t end = first;
        while (end < text.size() && numberMark(text[end]))
            ++end;
        if (end - first >= 2) {
            last = std::string(text.substr(i, end - i));
            i = end;
            continue;
        }
        end = first;
        while (end < text.size() && digit(text[end]))
            ++end;
        if (end > first) {
            last = std::string(text.substr(i, end - i));
            i = end;
            continue;
        }
        ++i;
    }
    return last;
}

std::string comparableNumber(std::string_view text)
{
    std::string t = replaced(replaced(std::string(text), ",", ""), "$", "");
    if (const std::size_t mark = t.rfind("#### "); mark != std::string::npos)
        t.erase(0, mark + 5);
    // "\.$" also meets a full stop before a last line feed.
    if (t.ends_with(".\n"))
        t.erase(t.size() - 2, 1);
    else if (t.ends_with('.'))
        t.pop_back();
    return lowerCase(t);
}

} // namespace spectra
