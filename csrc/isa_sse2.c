/* isa_sse2.c - the kernels for the baseline of x86-64. */
#define FR_SSE2 1
#define FR_ISA sse2
#include "isa.tmpl.h"
