/* vmath.h - exp, tanh and sigmoid of whole arrays. */

#ifndef FR_ELEMENTWISE_VMATH_H
#define FR_ELEMENTWISE_VMATH_H
#include "fastrnn.h"
#include "simd/fpstate.h"
#include "simd/vmath.h"

static void vmath(int function, ptrdiff_t n, const void *x, void *y)
{
    fr_fpstate state = fr_fp_enter();
    const REAL *from = x;
    REAL *to = y;
    for (ptrdiff_t i = 0; i < n; i += W) {
        ptrdiff_t lanes = fr_min(W, n - i);
        vec v = v_load_n(from + i, lanes);
        v_store_n(to + i, function == 0 ? v_exp(v) : function == 1 ? v_tanh(v) : v_sigmoid(v), lanes);
    }
    fr_fp_leave(state);
}

#endif
