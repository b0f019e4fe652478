/* pool.h - a team of threads that runs one function together. */
#ifndef FR_POOL_H
#define FR_POOL_H
#include <pthread.h>
#include <stdatomic.h>

enum { FR_MAX_THREADS = 256 };

/* What the members of a team share while they run. */
typedef struct fr_team {
    int n;
    atomic_int arrived;
    atomic_uint round;      /* barriers passed */
    atomic_uint last_round; /* the barrier after which member 0 goes on alone; 0: none */
    atomic_int claimed;     /* pieces of work that were handed out since the last barrier */
    atomic_llong work;      /* multiply-adds, or another measure, that all members have done */
    /* of member 0 alone */
    int late;               /* a wait was longer than late_ns, when all waits were more than half of the time since begun_ns */
    long long late_ns, begun_ns;
    long long waited_ns;    /* in barriers, beyond a few microseconds each */
    long long own_work;     /* its part of `work` */
} fr_team;

/* Wait for all members. Returns 1; or 0, if somebody was late at an earlier barrier, and the team ends with this one: everybody has
 * come, member 0 goes on alone, and the others leave. */
int fr_barrier(fr_team *team, int member);

/* The next piece of work, 0, 1, 2, ... since the last barrier: a member that was descheduled for a while takes fewer. */
static inline int fr_claim(fr_team *team)
{
    return atomic_fetch_add_explicit(&team->claimed, 1, memory_order_relaxed);
}

/* What a member says at its end of how much it has done, in any unit: by that the pool learns what the team brought. */
void fr_report_work(fr_team *team, int member, long long work);

/* A row block: rows that go through the chunks of a sequence together, one chunk after the other, each by whoever takes it. */
typedef struct {
    atomic_int chunks; /* done */
    atomic_int taken;
    char line[56];     /* a cache line each */
} fr_row_block;

/* Claim, of the n blocks that nobody holds and that have done fewer than `end` chunks, the one with the fewest; -1: there is none, and
 * blocks that are held are finished by their holders. fr_row_block_done gives it back, one chunk further. */
int fr_row_block_take(fr_row_block *blocks, int n, int end);
void fr_row_block_done(fr_row_block *block);

/* The function that a team runs: every member calls it with its own number, 0 <= member < team->n. */
typedef void fr_work(const void *task, int member, fr_team *team);

/* What teams brought lately for calls of one kind and size: sums in which each call weighs 7/8 of the next. */
typedef struct {
    long long team_ns;  /* how long they took */
    long long alone_ns; /* how long member 0 would have taken alone, by the time that its own part took */
    int pause;          /* how many calls run alone after one that did not pay; 0: teams have paid */
    int skip;           /* calls of the pause that are still to come */
    long long until_ns; /* the pause ends at this time at the latest */
} fr_experience;

/* A team took so long for a call that would have taken one thread alone_ns. */
void fr_learn(fr_experience *e, long long took_ns, long long alone_ns, long long now_ns);

/* Is a team worth a try now? If not, that was one of the calls that run alone. */
int fr_may_pay(fr_experience *e, long long now_ns);

enum { FR_KINDS = 5, FR_WORK_CLASSES = 32 };

/* Threads that sleep between calls. The memory is the caller's; all zeros is a pool that has started nothing. */
typedef struct fr_pool {
    atomic_int busy;     /* one call at a time: a second caller works alone */
    int workers;         /* threads started */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int ready;           /* mutex and condition are initialised */
    atomic_int sleeping; /* workers in the condition */
    atomic_int alarm;    /* they are to wake, though no call waits for them */
    atomic_llong last_ns; /* when the last call ended that asked for a team */
    atomic_uint ticket;  /* (call number << 16) | state: see pool.c */
    atomic_int done;     /* workers that have finished the call */
    atomic_int core[FR_MAX_THREADS]; /* where each member was when it joined */
    fr_work *work;
    const void *task;
    fr_team team;
    int missed;          /* calls in a row for which somebody did not come */
    long long late_ns;   /* of its teams; 0 is the usual */
    int always;          /* form teams whatever they bring: for tests */
    fr_experience experience[FR_KINDS][FR_WORK_CLASSES];
} fr_pool;

/* Run work(task, member, team) on up to `threads` threads, the caller's among them, and return when all have finished.
 * The team may be smaller than asked: a pool in use, or workers that do not get a core, leave the work to the others; where teams have
 * lately taken longer than one thread would have, the caller works alone for a while; and a call that is over before a sleeping worker
 * is awake does not wait for it.
 * kind: of the call, 0 to FR_KINDS - 1; experience is kept for each kind, by patience.
 * patience_ns: how long workers are waited for; a part of the time that the work takes alone. */
void fr_pool_run(fr_pool *pool, int threads, int kind, long long patience_ns, fr_work *work, const void *task);

/* Run work on each of these n tasks, whole tasks side by side on up to `threads` threads: each in a team of one. */
void fr_pool_run_each(fr_pool *pool, int threads, int kind, long long patience_ns, fr_work *work, const void *const *tasks, int n);

/* Another library's threads: libgomp's GOMP_parallel, omp_get_thread_num and omp_get_num_threads, or what has their form. */
typedef struct {
    void (*parallel)(void (*body)(void *), void *data, unsigned threads, unsigned flags);
    int (*number)(void);
    int (*count)(void);
} fr_lender;

/* As fr_pool_run, on the caller's and on borrowed threads; the pool has none of its own, and keeps the experience. For callers between
 * whose calls that library's threads are at work, and spin after it: workers of ours would have to take their cores from them. */
void fr_pool_run_borrowed(fr_pool *pool, const fr_lender *lender, int threads, int kind, long long patience_ns, fr_work *work, const void *task);

/* In a forked child, before its first call: the parent's threads are not here. */
void fr_pool_after_fork(fr_pool *pool);

#endif
