/* sse2_f64.c - the kernels for SSE2 (every x86-64), float64. */
#define FR_SSE2 1
#define FR_ISA sse2
#define REAL_IS_FLOAT 0
#include "isa/kernels.h"
