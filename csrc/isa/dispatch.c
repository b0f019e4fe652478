/* dispatch.c - which instruction sets this processor runs. */
#include "fastrnn.h"

#define FR_DECLARE(isa) extern const fr_kernels fr_kernels_##isa##_f32, fr_kernels_##isa##_f64
#define FR_BOTH(isa) {&fr_kernels_##isa##_f32, &fr_kernels_##isa##_f64}
FR_DECLARE(scalar);

typedef struct {
    const fr_kernels *kernels[2]; /* float32, float64 */
    int (*available)(void);
} choice;

static int always(void)
{
    return 1;
}

#if defined(__x86_64__)
FR_DECLARE(sse2);
FR_DECLARE(v3);
FR_DECLARE(v4);

/* The compiler's run time asks CPUID, and XGETBV for what the system saves. */
static int has_v3(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static int has_v4(void)
{
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
static const choice choices[] = {
    {FR_BOTH(scalar), always}, {FR_BOTH(sse2), always}, {FR_BOTH(v3), has_v3}, {FR_BOTH(v4), has_v4}};
#elif defined(__aarch64__)
FR_DECLARE(neon);
static const choice choices[] = {{FR_BOTH(scalar), always}, {FR_BOTH(neon), always}};
#else
static const choice choices[] = {{FR_BOTH(scalar), always}};
#endif

static const choice *find(int index)
{
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (choices[i].available() && index-- == 0)
            return &choices[i];
    return NULL;
}

const char *fr_isa_name(int index)
{
    const choice *c = find(index);
    return c ? c->kernels[0]->isa : NULL;
}

const fr_kernels *fr_kernels_of(int index, int table)
{
    const choice *c = find(index);
    return c ? c->kernels[table == FR_BF16 ? FR_F32 : table] : NULL;
}
