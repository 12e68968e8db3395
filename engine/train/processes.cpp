// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/processes.h"

#include "engine/mpi/spectrampi.h"

#include <fmt/format.h>

#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace spectra {
namespace {

struct Library {
    SpectraMpiInit init = nullptr;
    SpectraMpiSum sum = nullptr;
    SpectraMpiBroadcast broadcast = nullptr;
    SpectraMpiFinish finish = nullptr;
    SpectraMpiAbort abort = nullptr;
};

class MpiProcesses : public ProcessGroup {
public:
    MpiProcesses(Library library, int rank, int size) : m_library(library), m_rank(rank), m_size(size) {}

    [[nodiscard]] int rank() const override { return m_rank; }
    [[nodiscard]] int size() const override { return m_size; }
    void sumInPlace(torch::Tensor &t) override
    {
        const auto type = t.scalar_type();
        if (!t.is_contiguous() || (type != torch::kFloat32 && type != torch::kFloat64 && type != torch::kInt64))
            throw std::logic_error("a tensor that processes cannot sum");
        check(m_library.sum(t.data_ptr(), t.numel(), type == torch::kFloat32 ? SPECTRA_MPI_F32 : type == torch::kFloat64 ? SPECTRA_MPI_F64 : SPECTRA_MPI_I64));
    }
    void broadcast(torch::Tensor &t) override
    {
        if (!t.is_contiguous())
            throw std::logic_error("a tensor that processes cannot send");
        check(m_library.broadcast(t.data_ptr(), static_cast<std::int64_t>(t.nbytes())));
    }
    void finish() override { check(m_library.finish()); }
    [[noreturn]] void abort(int code) override
    {
        m_library.abort(code);
        std::_Exit(code);
    }

private:
    static void check(int code)
    {
        if (code != 0)
            throw std::runtime_error(fmt::format("MPI failed with code {}: another process may have ended", code));
    }
    Library m_library;
    int m_rank, m_size;
};

int sizeInEnvironment()
{
    for (const char *name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE"})
        if (const char *value = std::getenv(name))
            return std::atoi(value);
    // srun says how many tasks a step has; a plain shell inside an allocation has no step of its own.
    if (const char *tasks = std::getenv("SLURM_STEP_NUM_TASKS"); tasks && std::getenv("SLURM_PROCID"))
        return std::atoi(tasks);
    return 1;
}

} // namespace

bool startedInParallel()
{
    return sizeInEnvironment() > 1;
}

Result<std::shared_ptr<ProcessGroup>> joinProcesses()
{
    if (!startedInParallel())
        return std::shared_ptr<ProcessGroup>();
#ifdef SPECTRA_WITH_MPI
    namespace fs = std::filesystem;
    std::error_code ignored;
    const fs::path self = fs::read_symlink("/proc/self/exe", ignored).parent_path();
    std::string why = "not found";
    void *handle = nullptr;
    const std::vector<fs::path> candidates = {self / "../lib/spectra/libspectra_mpi.so", self / "../lib/libspectra_mpi.so", self / "libspectra_mpi.so"};
    for (const fs::path &file : candidates) {
        if (!fs::exists(file, ignored))
            continue;
        // Open MPI's own plug-ins look for its symbols in the whole program.
        handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
        if (handle)
            break;
        const char *message = ::dlerror();
        why = message ? message : "cannot be opened";
    }
    if (!handle)
        return workError("the MPI library of this program cannot be loaded: " + why, candidates.front().string(), "install Open MPI, or run one process");
    Library library;
    const auto abi = reinterpret_cast<SpectraMpiAbi>(::dlsym(handle, "spectra_mpi_abi"));
    library.init = reinterpret_cast<SpectraMpiInit>(::dlsym(handle, "spectra_mpi_init"));
    library.sum = reinterpret_cast<SpectraMpiSum>(::dlsym(handle, "spectra_mpi_sum"));
    library.broadcast = reinterpret_cast<SpectraMpiBroadcast>(::dlsym(handle, "spectra_mpi_broadcast"));
    library.finish = reinterpret_cast<SpectraMpiFinish>(::dlsym(handle, "spectra_mpi_finish"));
    library.abort = reinterpret_cast<SpectraMpiAbort>(::dlsym(handle, "spectra_mpi_abort"));
    if (!abi || abi() != SPECTRA_MPI_ABI || !library.init || !library.sum || !library.broadcast || !library.finish || !library.abort)
        return workError("the MPI library of this program is of another version", candidates.front().string(), "install program and library together");
    std::int32_t rank = 0, size = 1;
    if (const int code = library.init(&rank, &size); code != 0)
        return workError(fmt::format("MPI cannot be started (code {})", code), "mpirun");
    if (size < 2)
        return std::shared_ptr<ProcessGroup>();
    return std::shared_ptr<ProcessGroup>(std::make_shared<MpiProcesses>(library, rank, size));
#else
    return workError("this build has no MPI", "mpirun", "build with Open MPI installed, or run one process");
#endif
}

} // namespace spectra
