spectra_benchmark(bench_train LIBS train model checkpoint router core TORCH SOURCES bench_train.cpp)
