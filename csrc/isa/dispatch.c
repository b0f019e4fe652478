/* dispatch.c - which instruction sets this processor runs. */
#include "fastrnn.h"

#ifdef FR_WITH_AMX
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define FR_DECLARE(isa) extern const fr_kernels fr_kernels_##isa##_f32, fr_kernels_##isa##_f64, fr_kernels_##isa##_bf16
#define FR_ALL(isa) {&fr_kernels_##isa##_f32, &fr_kernels_##isa##_f64, &fr_kernels_##isa##_bf16}
FR_DECLARE(scalar);

typedef struct {
    const char *name;
    const fr_kernels *kernels[3]; /* float32, float64, bfloat16 products */
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

#ifdef FR_WITH_AMX /* the compiler knows it */
extern const fr_kernels fr_kernels_amx_bf16;

/* AMX-TILE and AMX-BF16, AVX512_BF16, and a system that saves the tiles. */
static int has_amx(void)
{
    unsigned a, b, c, d, low, high;
    if (!has_v4() || !__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c >> 27 & 1) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
        !(d >> 22 & 1) || !(d >> 24 & 1) || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low >> 17 & 3) == 3;
}
#endif

static const choice choices[] = {
    {"scalar", FR_ALL(scalar), always}, {"sse2", FR_ALL(sse2), always}, {"v3", FR_ALL(v3), has_v3}, {"v4", FR_ALL(v4), has_v4},
#ifdef FR_WITH_AMX
    {"amx", {&fr_kernels_v4_f32, &fr_kernels_v4_f64, &fr_kernels_amx_bf16}, has_amx},
#endif
};
#elif defined(__aarch64__)
FR_DECLARE(neon);
static const choice choices[] = {{"scalar", FR_ALL(scalar), always}, {"neon", FR_ALL(neon), always}};
#else
static const choice choices[] = {{"scalar", FR_ALL(scalar), always}};
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
    return c ? c->name : NULL;
}

const fr_kernels *fr_kernels_of(int index, int table)
{
    const choice *c = find(index);
    return c ? c->kernels[table] : NULL;
}

int fr_ask_for_amx(void)
{
#if defined FR_WITH_AMX && defined __linux__ && defined SYS_arch_prctl
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
#else
    return 0;
#endif
}
