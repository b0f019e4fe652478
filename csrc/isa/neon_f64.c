/* neon_f64.c - the kernels for NEON (every aarch64), float64. */
#define FR_NEON 1
#define FR_ISA neon
#define REAL_IS_FLOAT 0
#include "isa/kernels.h"
