/* v4_bf16.c - the kernels for AVX-512 F, DQ, BW, VL (x86-64-v4), float32 with products of bfloat16. */
#define FR_V4 1
#define FR_ISA v4
#define REAL_IS_FLOAT 1
#define FR_BF16_PRODUCTS 1
#include "isa/kernels.h"
