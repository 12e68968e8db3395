spectra_benchmark(bench_router LIBS router rule core TORCH SOURCES bench_router.cpp)
