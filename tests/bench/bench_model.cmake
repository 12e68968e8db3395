spectra_benchmark(bench_model LIBS train model checkpoint router core TORCH SOURCES bench_model.cpp)
