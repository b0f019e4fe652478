/* pool.c - a team of threads that runs one function together.
 *
 * A call publishes a ticket; workers that see it in time join the team, then the team closes and runs. A worker that does not get
 * a core in time is not waited for: results do not depend on the size of the team, so the caller goes on with fewer. In time is the
 * caller's to say, since waking a worker takes 50 to 100 us, a bargain for some calls and more than all of others. Whoever waits
 * spins for about a microsecond, then yields its core at every look, and a worker without a call sleeps after a while.
 *
 * The system often wakes a worker on the core where its caller runs, and leaves both there for milliseconds, though another is idle.
 * So a worker that finds itself on the core of a member before it moves over.
 *
 * A tight team, which meets every few microseconds, would crawl as soon as other processes want its cores: each yield gives away a
 * slice of milliseconds. So its member 0 breaks it when somebody does not come, and for a while there is no other.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <sched.h>
#include <signal.h>
#include <time.h>

/* The ticket: call number << 16 | RUN | OPEN | members that have joined. */
enum { MEMBERS = 0x3fff, OPEN = 0x4000, RUN = 0x8000 };

static const long long AWAKE_NS = 200000;      /* how long a worker stays awake after a call */
static const long long SPIN_NS = 1000;
enum { SPINS = 64 };                           /* about a microsecond of pauses */
enum { MOST_DOUBTS = 4 };                      /* halvings of the patience */

static const long long MEET_NS = 500000;       /* how long member 0 of a tight team waits: other machines on the host take such slices */
static const long long PAUSE_NS = 2000000;     /* no tight team for so long after one that broke, twice as long after each that follows, */
static const long long LONGEST_PAUSE_NS = 1000000000; /* at most so long, and half as long after each that held */
enum { BROKEN = 1u << 31 };                     /* in a team's round */

static inline void pause_core(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static inline void wait_a_little(int *looks)
{
    if (++*looks < SPINS)
        pause_core();
    else
        sched_yield();
}

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

void fr_barrier(fr_team *team)
{
    if (team->n == 1) {
        atomic_store_explicit(&team->claimed, 0, memory_order_relaxed);
        return;
    }
    unsigned round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->n - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->claimed, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
        return;
    }
    for (int looks = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round;)
        wait_a_little(&looks);
}

int fr_meet(fr_team *team, int member)
{
    if (team->n == 1)
        return 1;
    unsigned round = atomic_load_explicit(&team->round, memory_order_relaxed), expected = round;
    if (round & BROKEN)
        return 0;
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->n - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        return atomic_compare_exchange_strong(&team->round, &expected, round + 1);
    }
    long long start = 0;
    for (int looks = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round;) {
        wait_a_little(&looks);
        if (member || (looks < SPINS && team->meet_ns > SPIN_NS)) /* looking at the clock takes longer than most waits */
            continue;
        if (!start)
            start = now_ns();
        else if (now_ns() - start > team->meet_ns)
            atomic_compare_exchange_strong(&team->round, &expected, round | BROKEN);
    }
    return !(atomic_load_explicit(&team->round, memory_order_acquire) & BROKEN);
}

int fr_lot_take(fr_lot *lots, int n, int end)
{
    for (;;) {
        int best = -1, least = end;
        for (int i = 0; i < n; i++) {
            int chunks = atomic_load_explicit(&lots[i].chunks, memory_order_relaxed);
            if (chunks < least && !atomic_load_explicit(&lots[i].taken, memory_order_relaxed))
                least = chunks, best = i;
        }
        if (best < 0)
            return -1;
        int free = 0;
        if (!atomic_compare_exchange_strong_explicit(&lots[best].taken, &free, 1, memory_order_acquire, memory_order_relaxed))
            continue;
        if (atomic_load_explicit(&lots[best].chunks, memory_order_relaxed) < end)
            return best;
        atomic_store_explicit(&lots[best].taken, 0, memory_order_relaxed);
    }
}

void fr_lot_done(fr_lot *lot)
{
    atomic_fetch_add_explicit(&lot->chunks, 1, memory_order_relaxed);
    atomic_store_explicit(&lot->taken, 0, memory_order_release);
}

/* Where this member runs: for those behind it. */
static void say_where(fr_pool *pool, int member)
{
#ifdef __linux__
    atomic_store(&pool->core[member], sched_getcpu());
#else
    (void)pool, (void)member;
#endif
}

/* Away from the cores of the members before this one, if there is another that it may use. It may go back there afterwards. */
static void step_aside(fr_pool *pool, int member)
{
    say_where(pool, member);
#ifdef __linux__
    const int core = atomic_load(&pool->core[member]);
    cpu_set_t allowed, free;
    int beside = 0;
    for (int i = 0; i < member; i++)
        beside |= atomic_load(&pool->core[i]) == core;
    if (!beside || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    free = allowed;
    for (int i = 0; i < member; i++) {
        const int taken = atomic_load(&pool->core[i]);
        if (taken >= 0 && taken < CPU_SETSIZE)
            CPU_CLR(taken, &free);
    }
    if (CPU_COUNT(&free) == 0 || sched_setaffinity(0, sizeof free, &free) != 0)
        return;
    say_where(pool, member);
    sched_setaffinity(0, sizeof allowed, &allowed);
#endif
}

/* Join the call that is open now; the member's number, or 0 where there is no place. */
static int join(fr_pool *pool)
{
    unsigned ticket = atomic_load(&pool->ticket);
    while (ticket & OPEN) {
        if (atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1))
            return ticket & MEMBERS;
    }
    return 0;
}

static void sleep_until_called(fr_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1);
    while (!(atomic_load(&pool->ticket) & OPEN))
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker(void *argument)
{
    fr_pool *pool = argument;
    long long idle_since = now_ns();
    for (int looks = 0;; wait_a_little(&looks)) {
        int member = join(pool);
        if (!member) {
            if (looks > SPINS && now_ns() - idle_since > AWAKE_NS)
                sleep_until_called(pool);
            continue;
        }
        step_aside(pool, member);
        for (looks = 0; !(atomic_load(&pool->ticket) & RUN);)
            wait_a_little(&looks);
        if (member < pool->team.n) /* one too many may have joined */
            pool->work(pool->task, member, &pool->team);
        atomic_fetch_add(&pool->done, 1);
        /* The ticket stays in RUN until all are done, and then the next call reopens it. */
        idle_since = now_ns();
        looks = 0;
    }
    return NULL;
}

static void start_workers(fr_pool *pool, int wanted)
{
    if (!pool->ready) {
        pthread_mutex_init(&pool->mutex, NULL);
        pthread_cond_init(&pool->wake, NULL);
        pool->ready = 1;
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigset_t all, old; /* signals are for the threads that were there before us */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_t thread;
    while (pool->workers < wanted && pthread_create(&thread, &attributes, worker, pool) == 0)
        pool->workers++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
}

/* Publish the call, wait for members, close the team. Returns the number that joined, the caller included. After a call for which
 * somebody did not come, the next waits half as long. */
static int gather_team(fr_pool *pool, int threads, long long patience_ns)
{
    unsigned call = (atomic_load(&pool->ticket) >> 16) + 1;
    say_where(pool, 0);
    atomic_store(&pool->ticket, call << 16 | OPEN | 1);
    if (atomic_load(&pool->sleeping) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
    int available = threads < pool->workers + 1 ? threads : pool->workers + 1;
    long long start = now_ns();
    for (int looks = 0; (int)(atomic_load(&pool->ticket) & MEMBERS) < available && now_ns() - start < patience_ns >> pool->doubts;)
        wait_a_little(&looks);
    int joined = atomic_fetch_and(&pool->ticket, ~(unsigned)OPEN) & MEMBERS;
    pool->doubts = joined >= available ? 0 : pool->doubts < MOST_DOUBTS ? pool->doubts + 1 : MOST_DOUBTS;
    return joined;
}

static void run_alone(fr_work *work, const void *task)
{
    fr_team team = {.n = 1};
    work(task, 0, &team);
}

/* Did the tight team hold? If not, the next one has to wait. */
static void remember(fr_pool *pool)
{
    if (atomic_load(&pool->team.round) & BROKEN) {
        pool->pause_ns = pool->pause_ns ? pool->pause_ns * 2 : PAUSE_NS;
        if (pool->pause_ns > LONGEST_PAUSE_NS)
            pool->pause_ns = LONGEST_PAUSE_NS;
        pool->paused_until_ns = now_ns() + pool->pause_ns;
    } else {
        pool->pause_ns /= 2;
    }
}

void fr_pool_run(fr_pool *pool, int threads, int tight, long long patience_ns, fr_work *work, const void *task)
{
    int free = 0;
    if (threads <= 1 || !atomic_compare_exchange_strong(&pool->busy, &free, 1)) {
        run_alone(work, task);
        return;
    }
    if (tight && pool->paused_until_ns && now_ns() < pool->paused_until_ns) {
        atomic_store(&pool->busy, 0);
        run_alone(work, task);
        return;
    }
    if (threads > FR_MAX_THREADS)
        threads = FR_MAX_THREADS;
    if (pool->workers < threads - 1)
        start_workers(pool, threads - 1);
    pool->work = work;
    pool->task = task;
    atomic_store(&pool->done, 0);
    int joined = gather_team(pool, threads, patience_ns);
    pool->team.n = joined < threads ? joined : threads;
    atomic_store(&pool->team.arrived, 0);
    atomic_store(&pool->team.round, 0);
    atomic_store(&pool->team.claimed, 0);
    pool->team.meet_ns = pool->meet_ns ? pool->meet_ns : MEET_NS;
    atomic_fetch_or(&pool->ticket, RUN);
    work(task, 0, &pool->team);
    for (int looks = 0; atomic_load(&pool->done) < joined - 1;)
        wait_a_little(&looks);
    if (tight && joined > 1)
        remember(pool);
    atomic_store(&pool->busy, 0);
}

/* Tasks for whoever is free. A member that comes late, or never, is no matter. */
typedef struct {
    fr_work *work;
    const void *const *tasks;
    int n;
    atomic_int *taken;
} queue;

static void work_off(const void *task, int member, fr_team *team)
{
    const queue *q = task;
    (void)member, (void)team;
    for (int i; (i = atomic_fetch_add(q->taken, 1)) < q->n;)
        run_alone(q->work, q->tasks[i]);
}

void fr_pool_run_each(fr_pool *pool, int threads, long long patience_ns, fr_work *work, const void *const *tasks, int n)
{
    atomic_int taken = 0;
    queue q = {.work = work, .tasks = tasks, .n = n, .taken = &taken};
    fr_pool_run(pool, threads < n ? threads : n, 0, patience_ns, work_off, &q);
}

void fr_pool_after_fork(fr_pool *pool)
{
    atomic_store(&pool->busy, 0);
    atomic_store(&pool->sleeping, 0);
    atomic_store(&pool->ticket, 0);
    pool->workers = 0;
    pool->ready = 0;
    pool->pause_ns = pool->paused_until_ns = 0;
    pool->doubts = 0;
}
