/* isa_scalar.c - the kernels for plain C, any compiler and processor. */
#define FR_SCALAR 1
#define FR_ISA scalar
#include "isa.tmpl.h"
