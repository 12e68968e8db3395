// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

namespace spectra {

class MainWindow;

// Each adds its commands to the window's registry, in the order of the menus. Adding a command is one class and one line.
void addFileCommands(MainWindow &window);
void addEditCommands(MainWindow &window);
void addViewCommands(MainWindow &window);
void addRunCommands(MainWindow &window);
void addHelpCommands(MainWindow &window);
/// One per dock; after the docks exist.
void addDockCommands(MainWindow &window);

} // namespace spectra
