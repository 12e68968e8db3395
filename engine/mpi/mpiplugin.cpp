// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/mpi/spectrampi.h"

#include <mpi.h>

#include <algorithm>
#include <cstddef>

namespace {

/// MPI counts in int: long buffers go in pieces.
constexpr std::int64_t kPiece = std::int64_t(1) << 28;

} // namespace

extern "C" {

__attribute__((visibility("default"))) int spectra_mpi_abi()
{
    return SPECTRA_MPI_ABI;
}

__attribute__((visibility("default"))) int spectra_mpi_init(std::int32_t *rank, std::int32_t *size)
{
    int done = 0;
    MPI_Initialized(&done);
    if (!done) {
        // The engine thread alone calls MPI, but it is not the thread that main() runs in.
        int provided = 0;
        if (const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided); code != MPI_SUCCESS)
            return code;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int r = 0, s = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &r);
    MPI_Comm_size(MPI_COMM_WORLD, &s);
    *rank = r;
    *size = s;
    return 0;
}

__attribute__((visibility("default"))) int spectra_mpi_sum(void *data, std::int64_t count, std::int32_t type)
{
    const MPI_Datatype mpiType = type == SPECTRA_MPI_F32 ? MPI_FLOAT : type == SPECTRA_MPI_F64 ? MPI_DOUBLE : MPI_INT64_T;
    const std::int64_t width = type == SPECTRA_MPI_F32 ? 4 : 8;
    for (std::int64_t at = 0; at < count; at += kPiece) {
        const int n = static_cast<int>(std::min(kPiece, count - at));
        if (const int code = MPI_Allreduce(MPI_IN_PLACE, static_cast<std::byte *>(data) + at * width, n, mpiType, MPI_SUM, MPI_COMM_WORLD); code != MPI_SUCCESS)
            return code;
    }
    return 0;
}

__attribute__((visibility("default"))) int spectra_mpi_broadcast(void *data, std::int64_t bytes)
{
    for (std::int64_t at = 0; at < bytes; at += kPiece) {
        const int n = static_cast<int>(std::min(kPiece, bytes - at));
        if (const int code = MPI_Bcast(static_cast<std::byte *>(data) + at, n, MPI_BYTE, 0, MPI_COMM_WORLD); code != MPI_SUCCESS)
            return code;
    }
    return 0;
}

__attribute__((visibility("default"))) int spectra_mpi_finish()
{
    int over = 0;
    MPI_Finalized(&over);
    return over ? 0 : MPI_Finalize();
}

__attribute__((visibility("default"))) void spectra_mpi_abort(int code)
{
    MPI_Abort(MPI_COMM_WORLD, code);
}
}
