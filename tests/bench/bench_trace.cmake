# SPDX-License-Identifier: GPL-3.0-or-later
spectra_benchmark(bench_trace LIBS test_support trace SOURCES bench_trace.cpp)
if(TARGET bench_trace)
    add_dependencies(bench_trace spectra-probe) # opening a file from outside starts it
endif()
