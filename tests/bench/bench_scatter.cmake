# SPDX-License-Identifier: GPL-3.0-or-later
spectra_benchmark(bench_scatter QT LIBS views SOURCES bench_scatter.cpp)
if(TARGET bench_scatter)
    target_compile_definitions(bench_scatter PRIVATE QT_NO_KEYWORDS)
endif()
