# SPDX-License-Identifier: GPL-3.0-or-later
# LibTorch as the PyPI wheel lays it out, without the wheel's own CMake files: those demand nvcc even for host code.
#
# Looks in SPECTRA_TORCH_DIR, or in the cache that packaging/setup fills. Gives TorchWheel::torch.

set(torch_version 2.15.0)
if(DEFINED ENV{XDG_CACHE_HOME} AND NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
    set(spectra_cache "$ENV{XDG_CACHE_HOME}/spectra")
else()
    set(spectra_cache "$ENV{HOME}/.cache/spectra")
endif()
if(SPECTRA_TORCH_DIR)
    set(TorchWheel_ROOT_DIR "${SPECTRA_TORCH_DIR}")
else()
    set(TorchWheel_ROOT_DIR "${spectra_cache}/libtorch-${torch_version}/torch")
endif()

find_library(TorchWheel_CPU_LIBRARY torch_cpu PATHS "${TorchWheel_ROOT_DIR}/lib" NO_DEFAULT_PATH NO_CACHE)
find_library(TorchWheel_C10_LIBRARY c10 PATHS "${TorchWheel_ROOT_DIR}/lib" NO_DEFAULT_PATH NO_CACHE)
find_path(TorchWheel_INCLUDE_DIR torch/csrc/api/include/torch/torch.h PATHS "${TorchWheel_ROOT_DIR}/include" NO_DEFAULT_PATH NO_CACHE)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TorchWheel
    REQUIRED_VARS TorchWheel_CPU_LIBRARY TorchWheel_C10_LIBRARY TorchWheel_INCLUDE_DIR
    FAIL_MESSAGE "LibTorch ${torch_version} was not found in ${TorchWheel_ROOT_DIR}. Run packaging/setup, which fetches it, or set SPECTRA_TORCH_DIR to a LibTorch of your own")

if(TorchWheel_FOUND AND NOT TARGET TorchWheel::torch)
    set(TorchWheel_LIBRARY_DIR "${TorchWheel_ROOT_DIR}/lib")
    add_library(TorchWheel::c10 SHARED IMPORTED)
    set_target_properties(TorchWheel::c10 PROPERTIES IMPORTED_LOCATION "${TorchWheel_C10_LIBRARY}")
    add_library(TorchWheel::torch SHARED IMPORTED)
    set_target_properties(TorchWheel::torch PROPERTIES IMPORTED_LOCATION "${TorchWheel_CPU_LIBRARY}")
    target_include_directories(TorchWheel::torch SYSTEM INTERFACE
        "${TorchWheel_INCLUDE_DIR}" "${TorchWheel_INCLUDE_DIR}/torch/csrc/api/include")
    target_link_libraries(TorchWheel::torch INTERFACE TorchWheel::c10)
    # The libraries' own dependencies (libcudart, libcupti) lie beside them and are found by their RPATH, which the linker does not follow.
    target_link_options(TorchWheel::torch INTERFACE -Wl,--allow-shlib-undefined)
    list(APPEND CMAKE_BUILD_RPATH "${TorchWheel_LIBRARY_DIR}")
endif()
