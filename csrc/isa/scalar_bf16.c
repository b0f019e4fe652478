/* scalar_bf16.c - the kernels for plain C, any compiler and processor, float32 with products of bfloat16. */
#define FR_SCALAR 1
#define FR_ISA scalar
#define REAL_IS_FLOAT 1
#define FR_BF16_PRODUCTS 1
#include "isa/kernels.h"
