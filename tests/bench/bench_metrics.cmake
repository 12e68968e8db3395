# SPDX-License-Identifier: GPL-3.0-or-later
spectra_benchmark(bench_metrics LIBS analysis SOURCES bench_metrics.cpp)
