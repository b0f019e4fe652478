/* amx_bf16.c - the kernels for AMX tiles and bfloat16 products (AMX-TILE, AMX-BF16), with all else in AVX-512. */
#define FR_V4 1
#define FR_AMX 1
#define FR_ISA amx
#define REAL_IS_FLOAT 1
#define FR_BF16_PRODUCTS 1
#include "isa/kernels.h"
