/* SPDX-License-Identifier: GPL-3.0-or-later */
#pragma once

#include <cstdint>

/* C functions of libspectra_mpi.so. All return 0 or an MPI error code. */

inline constexpr int SPECTRA_MPI_ABI = 1;

extern "C" {
enum SpectraMpiType : std::int32_t { SPECTRA_MPI_F32 = 0, SPECTRA_MPI_F64 = 1, SPECTRA_MPI_I64 = 2 };
using SpectraMpiAbi = int (*)();
/* Joins the processes; rank and size of this one. */
using SpectraMpiInit = int (*)(std::int32_t *rank, std::int32_t *size);
/* data[0, count) becomes the sum over all processes. */
using SpectraMpiSum = int (*)(void *data, std::int64_t count, std::int32_t type);
/* data[0, bytes) of process 0 goes to all. */
using SpectraMpiBroadcast = int (*)(void *data, std::int64_t bytes);
/* Leaves in order. */
using SpectraMpiFinish = int (*)();
/* Ends every process at once. */
using SpectraMpiAbort = void (*)(int code);
}
