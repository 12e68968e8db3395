// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/mathanswer.h"

#include "engine/core/files.h"
#include "engine/tasks/tasktext.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <span>

namespace spectra {
namespace {

bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool digit(char c)
{
    return c >= '0' && c <= '9';
}
/// A character of a word, as \w and \b see it (bytes of longer characters are letters mostly).
bool wordCharacter(char c)
{
    return letter(c) || digit(c) || c == '_' || (static_cast<unsigned char>(c) & 0x80u) != 0;
}

constexpr const char *kWords[] = {"square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "sue", "points", "feet", "minutes",
                                  "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students", "childrentickets", "multiples"};
/// In the order of the published list, words and marks mixed.
constexpr const char *kRemoved[] = {"square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue", "points", "feet",
                                    "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students", "childrentickets",
                                    "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}", "\\mathrm{th}",
                                    "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", "\"", "\\dots"};

/// Removes a word that stands alone and is no LaTeX command.
std::string withoutWord(const std::string &text, std::string_view word)
{
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        const bool here = std::string_view(text).substr(at).starts_with(word) && (at == 0 || (!wordCharacter(text[at - 1]) && text[at - 1] != '\\'))
            && (at + word.size() == text.size() || !wordCharacter(text[at + word.size()]));
        if (here)
            at += word.size();
        else
            out += text[at++];
    }
    return out;
}

/// Removes a word everywhere but inside the names of LaTeX commands.
std::string withoutGluedWord(const std::string &text, std::string_view word)
{
    std::string out, part;
    const auto flush = [&] {
        out += replaced(part, word, "");
        part.clear();
    };
    for (std::size_t at = 0; at < text.size();) {
        if (text[at] == '\\' && at + 1 < text.size() && letter(text[at + 1])) {
            flush();
            out += text[at++];
            while (at < text.size() && letter(text[at]))
                out += text[at++];
        } else {
            part += text[at++];
        }
    }
    flush();
    return out;
}

/// \name{inner} → inner; `greedy` takes the last closing brace of the line instead of the next. What is looked for ahead is kept, so that
/// a text of nothing but openings takes linear time.
std::string unwrapped(const std::string &text, const std::string &open, bool greedy)
{
    std::string out;
    bool looked = false;
    std::size_t line = 0, close = 0;
    for (std::size_t at = 0; at < text.size();) {
        if (std::string_view(text).substr(at).starts_with(open)) {
            const std::size_t from = at + open.size();
            if (!looked || line < from) {
                line = std::min(text.find('\n', from), text.size());
                if (greedy)
                    close = std::string_view(text).substr(0, line).rfind('}');
            }
            if (!greedy && (!looked || close < from))
                close = text.find('}', from);
            looked = true;
            if (close != std::string::npos && close >= from && close < line) {
                out.append(text, from, close - from);
                at = close + 1;
                continue;
            }
        }
        out += text[at++];
    }
    return out;
}

/// Bytes of the character at `at` (a byte that is not UTF-8 counts as one); 0: the text ends there.
std::size_t characterAt(std::string_view text, std::size_t at)
{
    return at < text.size() ? static_cast<std::size_t>(std::max(1, utf8Length(text, at))) : 0;
}

/// Braces around an argument that was written without: \frac12 → \frac{1}{2}, \sqrt2 → \sqrt{2}.
std::string braced(const std::string &text)
{
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        const std::string_view rest = std::string_view(text).substr(at);
        const std::size_t first = rest.starts_with("frac") ? characterAt(rest, 4) : 0, second = first > 0 ? characterAt(rest, 4 + first) : 0;
        if (second > 0 && rest[4] != '{' && rest[4 + first] != '\n') {
            out += "frac{" + std::string(rest.substr(4, first)) + "}{" + std::string(rest.substr(4 + first, second)) + "}";
            at += 4 + first + second;
        } else {
            out += text[at++];
        }
    }
    std::string roots;
    std::size_t close = 0;
    for (std::size_t at = 0; at < out.size();) {
        const std::string_view rest = std::string_view(out).substr(at);
        if (rest.starts_with("sqrt") && rest.size() >= 5) {
            if (rest[4] == '[') {
                if (close <= at)
                    close = out.find(']', at);
                if (close != std::string::npos && close + 1 < out.size() && wordCharacter(out[close + 1])) {
                    const std::size_t width = characterAt(out, close + 1);
                    roots += out.substr(at, close + 1 - at) + "{" + out.substr(close + 1, width) + "}";
                    at = close + 1 + width;
                    continue;
                }
            } else if (rest[4] != '{') {
                const std::size_t width = characterAt(rest, 4);
                roots += "sqrt{" + std::string(rest.substr(4, width)) + "}";
                at += 4 + width;
                continue;
            }
        }
        roots += out[at++];
    }
    return roots;
}

bool isThousands(std::string_view text)
{
    std::size_t i = !text.empty() && text[0] == '-' ? 1 : 0, run = 0;
    while (i < text.size() && digit(text[i])) {
        ++i;
        ++run;
    }
    if (run < 1 || run > 3 || i == text.size())
        return false;
    while (i < text.size()) {
        if (text.size() - i < 4 || text[i] != ',' || !digit(text[i + 1]) || !digit(text[i + 2]) || !digit(text[i + 3]))
            return false;
        i += 4;
    }
    return true;
}

std::optional<double> decimal(std::string_view text)
{
    std::size_t digits = 0, dots = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (digit(text[i]))
            ++digits;
        else if (text[i] == '.')
            ++dots;
        else if (!(i == 0 && (text[i] == '-' || text[i] == '+')))
            return std::nullopt;
    }
    if (digits == 0 || digits > 15 || dots > 1)
        return std::nullopt;
    return std::strtod(std::string(text).c_str(), nullptr);
}

struct Fraction {
    double above = 0, below = 1;
};
std::optional<Fraction> numberOf(std::string_view text)
{
    if (const auto plain = decimal(text))
        return Fraction{*plain, 1};
    double sign = 1;
    if (text.starts_with("-")) {
        sign = -1;
        text.remove_prefix(1);
    }
    std::string_view above, below;
    for (const char *name : {"\\frac{", "\\dfrac{", "\\tfrac{"})
        if (text.starts_with(name)) {
            const std::size_t begin = std::string_view(name).size(), middle = text.find("}{", begin);
            if (middle == std::string_view::npos || !text.ends_with("}"))
                return std::nullopt;
            above = text.substr(begin, middle - begin);
            below = text.substr(middle + 2, text.size() - middle - 3);
        }
    if (above.empty()) {
        const std::size_t slash = text.find('/');
        if (slash == std::string_view::npos)
            return std::nullopt;
        above = text.substr(0, slash);
        below = text.substr(slash + 1);
    }
    const auto a = decimal(above), b = decimal(below);
    if (!a || !b || *b == 0)
        return std::nullopt;
    return Fraction{sign * *a, *b};
}

} // namespace

std::optional<std::string> lastBoxed(std::string_view text)
{
    if (const std::size_t space = text.rfind("\\boxed "); space != std::string_view::npos) {
        const std::string_view rest = text.substr(space + 7);
        return std::string(rest.substr(0, rest.find('$')));
    }
    std::size_t start = text.rfind("\\boxed");
    if (start == std::string_view::npos)
        start = text.rfind("\\fbox");
    if (start == std::string_view::npos)
        return std::nullopt;
    const std::size_t open = text.find('{', start);
    if (open == std::string_view::npos)
        return std::nullopt;
    int depth = 0;
    for (std::size_t i = open; i < text.size(); ++i) {
        if (text[i] == '{')
            ++depth;
        if (text[i] == '}' && --depth == 0)
            return std::string(text.substr(open + 1, i - open - 1));
    }
    return std::nullopt;
}

std::optional<std::string> finalAnswer(std::string_view text)
{
    constexpr std::string_view begin = "Final Answer: The final answer is", close = " I hope it is correct";
    const std::string whole = std::string(text) + "I hope it is correct.";
    // The answer is on one line, then any character, the closing words, and any character. What is looked for ahead is kept: a text of
    // nothing but beginnings takes linear time.
    std::size_t end = 0, line = 0;
    for (std::size_t at = 0; (at = whole.find(begin, at)) != std::string::npos; ++at) {
        const std::size_t from = at + begin.size();
        if (end <= from)
            end = whole.find(close, from + 1);
        if (end == std::string::npos)
            return std::nullopt;
        if (line < from)
            line = whole.find('\n', from);
        if (line < end || end + close.size() >= whole.size() || whole[end + close.size()] == '\n')
            continue;
        return std::string(stripped(std::string_view(whole).substr(from, end - 1 - from)));
    }
    return std::nullopt;
}

std::string normalizedMathAnswer(std::string_view answer)
{
    std::string t(answer.substr(answer.rfind('=') + 1)); // npos + 1 is 0: the whole
    for (const char *word : kWords)
        t = withoutWord(t, word);
    for (const auto &[from, to] : {std::pair{"an ", ""}, {"a ", ""}, {".$", "$"}, {"\\$", ""}, {"\\ ", ""}, {" ", ""}, {"mbox", "text"}, {",\\text{and}", ","},
                                   {"\\text{and}", ","}, {"\\text{m}", "\\text{}"}})
        t = replaced(std::move(t), from, to);
    for (const char *removed : kRemoved)
        t = std::all_of(removed, removed + std::string_view(removed).size(), letter) ? withoutGluedWord(t, removed) : replaced(std::move(t), removed, "");
    // Mathematics inside dollars is the answer, what stands around it is not.
    if (const std::size_t open = t.find('$'); open != std::string::npos)
        if (const std::size_t close = t.find('$', open + 1); close != std::string::npos && t.find('\n') == std::string::npos)
            t = t.substr(open, close - open + 1);
    t = unwrapped(t, "\\text{", false);
    t = unwrapped(t, "\\textbf{", false);
    t = unwrapped(t, "\\overline{", false);
    t = unwrapped(t, "\\boxed{", true);
    t = replaced(braced(t), "$", "");
    if (isThousands(t))
        t = replaced(std::move(t), ",", "");
    return t;
}

bool sameMathAnswer(std::string_view a, std::string_view b)
{
    const std::string x = normalizedMathAnswer(a), y = normalizedMathAnswer(b);
    if (x == y)
        return !x.empty();
    const auto p = numberOf(x), q = numberOf(y);
    return p && q && p->above * q->below == q->above * p->below;
}

} // namespace spectra
