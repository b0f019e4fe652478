/* selftest_apply.h - exp, tanh and sigmoid of an array, for the dtype that REAL_IS_FLOAT names. */
#include "simd/vmath.h"

#if REAL_IS_FLOAT
#define APPLY apply_f32
#else
#define APPLY apply_f64
#endif

void APPLY(int f, const REAL *x, REAL *y, int n);
void APPLY(int f, const REAL *x, REAL *y, int n)
{
    for (int i = 0; i < n; i += W) {
        const vec v = v_load(x + i);
        v_store(y + i, f == 0 ? v_exp(v) : f == 1 ? v_tanh(v) : v_sigmoid(v));
    }
}
