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
    atomic_uint round;   /* barriers passed, and whether the team is broken */
    atomic_int claimed;  /* pieces of work that were handed out since the last fr_barrier */
    long long meet_ns;   /* how long member 0 waits in fr_meet */
} fr_team;

/* Wait for all members. */
void fr_barrier(fr_team *team);

/* The next piece of work, 0, 1, 2, ... since the last fr_barrier: who lost its core for a while takes fewer. */
static inline int fr_claim(fr_team *team)
{
    return atomic_fetch_add_explicit(&team->claimed, 1, memory_order_relaxed);
}

/* A lot: rows that go through the chunks of a sequence together, one chunk after the other, each by whoever takes it. */
typedef struct {
    atomic_int chunks; /* done */
    atomic_int taken;
    char line[56];     /* a cache line each */
} fr_lot;

/* Take that lot of n which is furthest behind `end` chunks, of those that nobody has; -1: there is none, and none will come that
 * its holder cannot go on with. fr_lot_done puts it back, one chunk further. */
int fr_lot_take(fr_lot *lots, int n, int end);
void fr_lot_done(fr_lot *lot);

/* As fr_barrier, but member 0 does not wait long: where another has lost its core, it breaks the team. Returns 1 if all have come, and 0
 * to everybody if the team is broken: then member 0 goes on alone, and the others leave. */
int fr_meet(fr_team *team, int member);

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
    atomic_int core[FR_MAX_THREADS]; /* where each member was when it joined */
    fr_work *work;
    const void *task;
    fr_team team;
    int doubts;          /* calls in a row for which somebody did not come */
    long long meet_ns;   /* of its teams; 0 is the usual */
    long long pause_ns, paused_until_ns; /* after a broken team, no tight ones for a while */
} fr_pool;

/* Run work(task, member, team) on up to `threads` threads, the caller's among them, and return when all have finished.
 * The team may be smaller than asked: a pool in use, or workers that do not get a core, leave the work to the others.
 * tight: the members wait for each other all the time (fr_meet), which only pays where each has a core of its own.
 * patience_ns: how long workers are waited for; a part of the time that the work takes alone. */
void fr_pool_run(fr_pool *pool, int threads, int tight, long long patience_ns, fr_work *work, const void *task);

/* Run work on each of these n tasks, whole tasks side by side on up to `threads` threads: each in a team of one. */
void fr_pool_run_each(fr_pool *pool, int threads, long long patience_ns, fr_work *work, const void *const *tasks, int n);

/* In a forked child, before its first call: the parent's threads are not here. */
void fr_pool_after_fork(fr_pool *pool);

#endif
