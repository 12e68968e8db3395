# SPDX-License-Identifier: GPL-3.0-or-later
# Warnings are errors in our own code; headers of libraries are included as system headers.

add_library(spectra_warnings INTERFACE)
target_compile_options(spectra_warnings INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wnon-virtual-dtor;-Woverloaded-virtual;-Wcast-qual;-Wformat=2;-Wundef;-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ 12 reports false positives of these inside the standard library at -O2 and above.
    target_compile_options(spectra_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized;-Wno-restrict;-Wno-array-bounds>)
endif()
