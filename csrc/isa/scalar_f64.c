/* scalar_f64.c - the kernels for plain C, any compiler and processor, float64. */
#define FR_SCALAR 1
#define FR_ISA scalar
#define REAL_IS_FLOAT 0
#include "isa/kernels.h"
