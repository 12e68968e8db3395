/* SPDX-License-Identifier: GPL-3.0-or-later */
#pragma once

/* The C interface of libspectra_cuda.so: the calls of engine/rule on one GPU. All pointers are host memory. Every function returns 0,
 * or another number with a message in `error` (`errorSize` bytes, NUL-terminated). Not thread-safe per device. */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPECTRA_CUDA_ABI 2

typedef struct SpectraCudaSinkhorn {
    double epsilon, tolerance;
    int32_t iterations, maxIterations;
    int32_t inputIsCost, clampLogits;
    /* out */
    double violation;
    int32_t iterationsDone, converged;
} SpectraCudaSinkhorn;

typedef int (*SpectraCudaAbi)(void);
typedef int (*SpectraCudaDevices)(int *count, char *error, size_t errorSize);
/* scores [n,experts] row-major -> plan [n,experts], potential [experts]. */
typedef int (*SpectraCudaSinkhornFn)(const float *scores, int64_t n, int64_t experts, SpectraCudaSinkhorn *options, float *plan, double *potential,
                                     char *error, size_t errorSize);
/* The k largest of each row, ties to the lower index; load [experts] counts how often each was taken. */
typedef int (*SpectraCudaTopKFn)(const float *q, int64_t n, int64_t experts, int64_t k, int renormalise, int64_t *chosen, float *weights, int64_t *load,
                                 char *error, size_t errorSize);
/* Quota assignment with capacities [experts] slots, as rule::assignQuota(): counted [n] or NULL (all count) -> chosen [n,k] (-1 = none),
 * weights [n,k], dropped [n], fell: how many counted rows have another set than their own top-k. */
typedef int (*SpectraCudaQuotaFn)(const float *q, int64_t n, int64_t experts, int64_t k, const int64_t *capacities, const uint8_t *counted, int64_t *chosen, float *weights,
                                  uint8_t *dropped, int64_t *fell, char *error, size_t errorSize);

#ifdef __cplusplus
}
#endif
