/* isa.tmpl.h - all kernels for one instruction set: included by the isa_*.c, each of which names its own and is compiled with its
 * own flags. */
#include "fastrnn.h"
#include "fpstate.h"
#include "template.h"

#define REAL_IS_FLOAT 1
#define NAME(x) x##_f32
#include "kernels.tmpl.h"
#undef NAME
#undef REAL_IS_FLOAT

#define REAL_IS_FLOAT 0
#define NAME(x) x##_f64
#include "kernels.tmpl.h"
#undef NAME
#undef REAL_IS_FLOAT

#define FR_STRING_(x) #x
#define FR_STRING(x) FR_STRING_(x)
#define FR_TABLE(real)                                                                                                            \
    {                                                                                                                             \
        FR_STRING(FR_ISA), lanes_##real, forward_sizes_##real, backward_sizes_##real, forward_##real, backward_##real,            \
            input_matrix_##real, vmath_##real, update_##real                                                                      \
    }

extern const fr_kernels FR_PASTE(fr_kernels_, FR_ISA)[2];
const fr_kernels FR_PASTE(fr_kernels_, FR_ISA)[2] = {FR_TABLE(f32), FR_TABLE(f64)};
