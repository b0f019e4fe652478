/* neon_bf16.c - the kernels for NEON (every aarch64), float32 with products of bfloat16. */
#define FR_NEON 1
#define FR_ISA neon
#define REAL_IS_FLOAT 1
#define FR_BF16_PRODUCTS 1
#include "isa/kernels.h"
