/* v4_f64.c - the kernels for AVX-512 F, DQ, BW, VL (x86-64-v4), float64. */
#define FR_V4 1
#define FR_ISA v4
#define REAL_IS_FLOAT 0
#include "isa/kernels.h"
