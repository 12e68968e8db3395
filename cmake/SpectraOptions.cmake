# SPDX-License-Identifier: GPL-3.0-or-later
# Options, build types and the tools that make builds quick.

option(SPECTRA_TESTS "Build the tests" ON)
option(SPECTRA_BENCHMARKS "Build the benchmarks (never run by CTest)" OFF)
option(SPECTRA_FUZZ "Build the libFuzzer programs (needs clang++)" OFF)
set(SPECTRA_SANITIZE "" CACHE STRING "Sanitizers, as given to -fsanitize=")
set(SPECTRA_CUDA "AUTO" CACHE STRING "CUDA kernels: AUTO (when nvcc is there), ON, OFF")
set_property(CACHE SPECTRA_CUDA PROPERTY STRINGS AUTO ON OFF)
set(SPECTRA_TORCH_DIR "" CACHE PATH "A LibTorch of your own (the folder with lib/ and include/)")

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
# Assertions stay on; optimised enough that the parity tests on a real model take seconds.
set(CMAKE_CXX_FLAGS_DEV "-O1 -g1")
set(CMAKE_C_FLAGS_DEV "-O1 -g1")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")

if(SPECTRA_SANITIZE)
    add_compile_options(-fsanitize=${SPECTRA_SANITIZE} -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${SPECTRA_SANITIZE})
    if(SPECTRA_SANITIZE MATCHES undefined)
        add_compile_options(-fno-sanitize-recover=undefined -fno-sanitize=vptr)
    endif()
endif()

find_program(SPECTRA_CCACHE ccache)
if(SPECTRA_CCACHE)
    # Precompiled headers need the two sloppiness settings, or nothing that uses them is ever found in the cache.
    set(spectra_ccache ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
        CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=true ${SPECTRA_CCACHE})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${spectra_ccache})
    set(CMAKE_C_COMPILER_LAUNCHER ${spectra_ccache})
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${spectra_ccache})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
    endif()
endif()
find_program(SPECTRA_MOLD mold)
if(SPECTRA_MOLD)
    add_link_options(-fuse-ld=mold)
endif()

find_program(GIT_EXECUTABLE git)
set(SPECTRA_GIT_COMMIT "unknown")
if(GIT_EXECUTABLE)
    execute_process(COMMAND ${GIT_EXECUTABLE} rev-parse --short=12 HEAD WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
        OUTPUT_VARIABLE spectra_commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE spectra_git)
    if(spectra_git EQUAL 0 AND spectra_commit)
        set(SPECTRA_GIT_COMMIT "${spectra_commit}")
    endif()
endif()
