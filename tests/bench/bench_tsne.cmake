# SPDX-License-Identifier: GPL-3.0-or-later
spectra_benchmark(bench_tsne LIBS analysis SOURCES bench_tsne.cpp)
