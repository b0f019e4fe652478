/* v3_f64.c - the kernels for AVX2 and FMA (x86-64-v3), float64. */
#define FR_V3 1
#define FR_ISA v3
#define REAL_IS_FLOAT 0
#include "isa/kernels.h"
