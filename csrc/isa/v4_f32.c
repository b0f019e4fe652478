/* v4_f32.c - the kernels for AVX-512 F, DQ, BW, VL (x86-64-v4), float32. */
#define FR_V4 1
#define FR_ISA v4
#define REAL_IS_FLOAT 1
#include "isa/kernels.h"
