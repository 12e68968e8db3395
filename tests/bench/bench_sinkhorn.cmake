spectra_benchmark(bench_sinkhorn LIBS rule core SOURCES bench_sinkhorn.cpp)
