/* sse2_bf16.c - the kernels for SSE2 (every x86-64), float32 with products of bfloat16. */
#define FR_SSE2 1
#define FR_ISA sse2
#define REAL_IS_FLOAT 1
#define FR_BF16_PRODUCTS 1
#include "isa/kernels.h"
