/* guard.h - guards for state that several threads share, with the GIL or without it. */
#ifndef FR_GUARD_H
#define FR_GUARD_H
#include <sched.h>
#include <stdatomic.h>

/* All zeros is free. */
typedef struct {
    atomic_int taken;
} fr_guard;

/* Take it: 1, or 0 where somebody has it. */
static inline int fr_guard_take(fr_guard *guard)
{
    return !atomic_exchange_explicit(&guard->taken, 1, memory_order_acquire);
}

/* Take it, waiting for whoever has it: for what is done in nanoseconds. */
static inline void fr_guard_wait(fr_guard *guard)
{
    while (!fr_guard_take(guard))
        sched_yield();
}

static inline void fr_guard_leave(fr_guard *guard)
{
    atomic_store_explicit(&guard->taken, 0, memory_order_release);
}

static inline int fr_guard_taken(fr_guard *guard)
{
    return atomic_load_explicit(&guard->taken, memory_order_relaxed);
}

/* A number that any thread may read while another writes it. */
typedef struct {
    atomic_int value;
} fr_shared;

static inline int fr_shared_get(fr_shared *shared)
{
    return atomic_load_explicit(&shared->value, memory_order_relaxed);
}

static inline void fr_shared_set(fr_shared *shared, int value)
{
    atomic_store_explicit(&shared->value, value, memory_order_relaxed);
}

#endif
