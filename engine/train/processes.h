// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/router/collective.h"

#include <memory>

namespace spectra {

/// The processes that mpirun or srun started together, through MPI. Engine thread only.
class ProcessGroup : public Collective {
public:
    /// Leaves in order. A process that ends without it takes the others down with it.
    virtual void finish() = 0;
    /// Ends every process of the run with this exit code, since the others would wait for ever. Does not return.
    [[noreturn]] virtual void abort(int code) = 0;
};

/// True when a launcher's environment says that this is one of several processes.
[[nodiscard]] bool startedInParallel();
/// Joins them; nullptr when there is one process only. Errors (work): built without MPI, library missing or of another version,
/// MPI's own.
[[nodiscard]] Result<std::shared_ptr<ProcessGroup>> joinProcesses();

} // namespace spectra
