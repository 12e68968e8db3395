spectra_benchmark(bench_tracing LIBS run train model checkpoint router core TORCH SOURCES bench_tracing.cpp)
