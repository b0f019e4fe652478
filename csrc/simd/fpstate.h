/* fpstate.h: the caller's floating-point state, set aside while a kernel runs.
 *
 * Between fr_fp_enter and fr_fp_leave denormals are zero on the way in and out (an operation on one costs
 * about a hundred cycles otherwise), rounding is to nearest, and nothing traps. fr_fp_leave puts everything
 * back, the sticky exception flags included: what a kernel raises is not the caller's.
 *
 * The state belongs to the thread: a thread of a team enters and leaves by itself. The compiler does not
 * know that arithmetic depends on it: what runs in between must be loads, stores and arithmetic on what was
 * loaded, which stay behind the memory barrier of entering. On other processors the two do nothing.
 */
#ifndef FR_FPSTATE_H
#define FR_FPSTATE_H

#include <stdint.h>

typedef struct { uint64_t control, status; } fr_fpstate;

#if defined __SSE2__ || defined _M_X64
#include <xmmintrin.h>
#ifdef __GNUC__
#define FR_MEMORY_BARRIER __asm__ volatile("" : : : "memory")
#else
#define FR_MEMORY_BARRIER (void)0
#endif

/* MXCSR: all exceptions masked (bits 7-12), rounding to nearest (13-14: 0), flush to zero (15), denormals
 * are zero (6) */
static inline fr_fpstate fr_fp_enter(void)
{
    const fr_fpstate caller = {_mm_getcsr(), 0};
    _mm_setcsr(0x1F80 | 0x8000 | 0x0040);
    FR_MEMORY_BARRIER;
    return caller;
}

static inline void fr_fp_leave(fr_fpstate caller)
{
    FR_MEMORY_BARRIER;
    _mm_setcsr((unsigned)caller.control);
}

#elif defined __aarch64__ && defined __GNUC__

/* FPCR: flush to zero (bit 24), the rest 0: rounding to nearest, no traps. FPSR holds the sticky flags. */
static inline fr_fpstate fr_fp_enter(void)
{
    fr_fpstate caller;
    const uint64_t flush = UINT64_C(1) << 24;
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(caller.control), "=r"(caller.status) : : "memory");
    __asm__ volatile("msr fpcr, %0" : : "r"(flush) : "memory");
    return caller;
}

static inline void fr_fp_leave(fr_fpstate caller)
{
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(caller.control), "r"(caller.status) : "memory");
}

#else

static inline fr_fpstate fr_fp_enter(void)
{
    const fr_fpstate nothing = {0, 0};
    return nothing;
}

static inline void fr_fp_leave(fr_fpstate caller) { (void)caller; }

#endif
#endif
