/* pool.h - a team of threads that runs one function together. */
#ifndef FR_POOL_H
#define FR_POOL_H
#include <pthread.h>
#include <stdatomic.h>

enum { FR_MAX_THREADS = 256 };

/* What the members of a team share while they run: their number, and a barrier. */
typedef struct fr_team {
    int n;
    atomic_int arrived;
    atomic_uint round;
} fr_team;

void fr_barrier(fr_team *team);

/* The function that a team runs: every member calls it with its own number, 0 <= member < team->n. */
typedef void fr_work(const void *task, int member, fr_team *team);

/* Threads that sleep between calls. The memory is the caller's; all zeros is a pool that has started nothing. */
typedef struct fr_pool {
    atomic_int busy;     /* one call at a time: a second caller works alone */
    int workers;         /* threads started */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int ready;           /* mutex and condition are initialised */
    atomic_int sleeping; /* workers in the condition */
    atomic_uint ticket;  /* (call number << 16) | state: see pool.c */
    atomic_int done;     /* workers that have finished the call */
    fr_work *work;
    const void *task;
    fr_team team;
} fr_pool;

/* Run work(task, member, team) on up to `threads` threads, the caller's among them, and return when all have finished.
 * The team may be smaller than asked: a pool in use, or workers that do not get a core, leave the work to the others. */
void fr_pool_run(fr_pool *pool, int threads, fr_work *work, const void *task);

/* In a forked child, before its first call: the parent's threads are not here. */
void fr_pool_after_fork(fr_pool *pool);

#endif
