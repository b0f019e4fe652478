/* selftest_math_f32.c - the float32 half of selftest_math.c. */
#define REAL_IS_FLOAT 1
#include "selftest_apply.h"
