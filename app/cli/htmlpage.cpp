// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/htmlpage.h"

#include <fmt/format.h>

#include <fstream>
#include <string_view>

namespace spectra::cli {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --ink: #1b2430; --quiet: #5c6b7e; --line: #d9dfe7; --paper: #ffffff; --card: #f7f9fb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --quiet: #9aa7b8; --line: #333c48; --paper: #14181d; --card: #1b2027; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 74rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
p.note { color: var(--quiet); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(30rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; padding: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
figure img { width: 100%; height: auto; } figcaption { color: var(--quiet); font-size: .9rem; }
td small { color: var(--quiet); } tr.summary td { border-top: 1px solid var(--line); font-style: italic; }
.wide { overflow-x: auto; } details.comparability { margin: .6rem 0 1.6rem; color: var(--quiet); } summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: var(--quiet); } dd { margin: 0; }
)";

} // namespace

std::string html(const std::string &text)
{
    std::string escaped;
    for (char c : text) {
        switch (c) {
        case '&': escaped += "&amp;"; break;
        case '<': escaped += "&lt;"; break;
        case '>': escaped += "&gt;"; break;
        case '"': escaped += "&quot;"; break;
        default: escaped += c;
        }
    }
    return escaped;
}

std::string htmlPage(const std::string &title, const std::string &note, const std::string &body)
{
    return fmt::format("<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n"
                       "<title>{0}</title>\n<style>{1}</style>\n<h1>{0}</h1>\n<p class=note>{2}</p>\n{3}</html>\n",
                       html(title), kStyle, html(note), body);
}

Result<void> writeText(const std::filesystem::path &place, const std::string &text)
{
    std::ofstream stream(place, std::ios::binary);
    stream << text;
    stream.flush();
    if (!stream)
        return workError("cannot be written (is the disk full?)", place.string());
    return {};
}

} // namespace spectra::cli
