/* v3_bf16.c - the kernels for AVX2 and FMA (x86-64-v3), float32 with products of bfloat16. */
#define FR_V3 1
#define FR_ISA v3
#define REAL_IS_FLOAT 1
#define FR_BF16_PRODUCTS 1
#include "isa/kernels.h"
