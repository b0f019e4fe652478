/* amx_in_c.c - the kernels of csrc/isa/amx_bf16.c with AMX's three instructions in C, for the self-test on processors without AMX. The
 * vectors around them are those of the instruction set that is named by the compiler's options: FR_V4, FR_V3, FR_NEON or FR_SCALAR. */
#define FR_AMX 1
#define FR_AMX_IN_C 1
#define FR_ISA amx_in_c
#define REAL_IS_FLOAT 1
#define FR_BF16_PRODUCTS 1
#include "isa/kernels.h"
