/* pool.c - a team of threads that runs one function together.
 *
 * A call publishes a ticket; workers that see it in time join the team, then the team closes and runs. A worker that does not get
 * a core in time is not waited for: results do not depend on the size of the team, so the caller goes on with fewer. The caller says
 * how long to wait: waking a worker takes 50 to 100 us, little for a long call, more than all of a short one. Whoever waits spins for
 * about a microsecond, then yields its core at every look, for some tenths of a millisecond, then naps; and a worker without a call
 * sleeps after a while. Short calls use only workers that are awake; where one follows another closely, the first ones wake them.
 *
 * The system often wakes a worker on the core where its caller runs, and leaves both there for milliseconds, though another is idle.
 * So a worker that starts on an earlier member's core moves to a free one.
 *
 * Where other processes want its cores, a team that meets often would lose a time slice of milliseconds at each barrier. So a team
 * in which somebody was late ends at its next barrier, where all data are complete, and member 0 goes on alone. And the pool
 * remembers, per kind and size of call, whether teams were faster than one thread would have been: if not, calls run on one thread
 * for a while, with rare probes.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <sched.h>
#include <signal.h>
#include <time.h>

/* The ticket: call number << 16 | RUN | OPEN | members that have joined. */
enum { MEMBERS = 0x3fff, OPEN = 0x4000, RUN = 0x8000 };

static const long long AWAKE_NS = 200000;      /* how long a worker stays awake after a call */
static const long long SHORT_NS = 100000;      /* patience of a call that does not wait for a worker to wake */
static const long long WAKE_NS = 150000;       /* the least patience of one that does */
static const long long CLOSE_NS = 100000;      /* from one call to another that is likely to be followed by more */
enum { SPINS = 64 };                           /* about a microsecond of pauses */
enum { YIELDS = 500 };                         /* a fifth of a millisecond or so, if nobody else wants the core */
enum { MAX_MISSED = 4 };                      /* halvings of the patience */

static const long long LATE_NS = 500000;       /* a member is late that keeps member 0 waiting for longer than this, or a part of a long call,
                                                  and for half of the call so far: other machines on the host take such slices, and the
                                                  shares of a long call differ by as much */
enum { PAUSE = 8, LONGEST_PAUSE = 512 };       /* no team of a kind for so many calls after the first that did not pay, twice as many after
                                                  each probe that did not either; half as many after each that did */
static const long long PAUSE_NS = 500000000;   /* but no longer than that */
enum { WORST = 3 };                            /* a call that took longer counts as so many times one thread's: a single slice that was lost is no trend */

static inline void pause_core(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* For what may come at any moment. */
static inline void wait_a_little(int *looks)
{
    if (++*looks < SPINS)
        pause_core();
    else
        sched_yield();
}

/* For another member: after that many yields it has been descheduled, and many that yield would keep it, and others, from running. */
static inline void wait_for_member(int *looks)
{
    static const struct timespec nap = {0, 20000};
    if (*looks < SPINS + YIELDS)
        wait_a_little(looks);
    else
        nanosleep(&nap, NULL);
}

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Member 0 waits for the end of this round, and finds out whether somebody is late. */
static void wait_for_round(fr_team *team, unsigned round)
{
    long long start = 0;
    for (int looks = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round;) {
        wait_for_member(&looks);
        if (!start && looks >= SPINS) /* looking at the clock takes longer than most waits */
            start = now_ns();
    }
    if (!start)
        return;
    const long long now = now_ns(), waited = now - start;
    team->waited_ns += waited;
    team->late |= waited > team->late_ns && 2 * team->waited_ns > now - team->begun_ns;
}

int fr_barrier(fr_team *team, int member)
{
    if (team->n == 1) {
        atomic_store_explicit(&team->claimed, 0, memory_order_relaxed);
        return 1;
    }
    const unsigned round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (member == 0 && team->late) /* the others see it, because they see that member 0 has come */
        atomic_store_explicit(&team->last_round, round + 1, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->n - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->claimed, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
    } else if (member == 0) {
        wait_for_round(team, round);
    } else {
        for (int looks = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round;)
            wait_for_member(&looks);
    }
    return atomic_load_explicit(&team->last_round, memory_order_relaxed) != round + 1;
}

void fr_report_work(fr_team *team, int member, long long work)
{
    atomic_fetch_add_explicit(&team->work, work, memory_order_relaxed);
    if (member == 0)
        team->own_work = work;
}

int fr_row_block_take(fr_row_block *blocks, int n, int end)
{
    for (;;) {
        int best = -1, least = end;
        for (int i = 0; i < n; i++) {
            int chunks = atomic_load_explicit(&blocks[i].chunks, memory_order_relaxed);
            if (chunks < least && !atomic_load_explicit(&blocks[i].taken, memory_order_relaxed))
                least = chunks, best = i;
        }
        if (best < 0)
            return -1;
        int free = 0;
        if (!atomic_compare_exchange_strong_explicit(&blocks[best].taken, &free, 1, memory_order_acquire, memory_order_relaxed))
            continue;
        if (atomic_load_explicit(&blocks[best].chunks, memory_order_relaxed) < end)
            return best;
        atomic_store_explicit(&blocks[best].taken, 0, memory_order_relaxed);
    }
}

void fr_row_block_done(fr_row_block *block)
{
    atomic_fetch_add_explicit(&block->chunks, 1, memory_order_relaxed);
    atomic_store_explicit(&block->taken, 0, memory_order_release);
}

/* Where this member runs: for those after it. */
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

/* Returns whether it was the alarm that woke the worker: then a call is likely to come. */
static int sleep_until_called(fr_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1);
    while (!(atomic_load(&pool->ticket) & OPEN) && !atomic_load(&pool->alarm))
        pthread_cond_wait(&pool->wake, &pool->mutex);
    if (atomic_fetch_sub(&pool->sleeping, 1) == 1)
        atomic_store(&pool->alarm, 0);
    pthread_mutex_unlock(&pool->mutex);
    return !(atomic_load(&pool->ticket) & OPEN);
}

static void wake_workers(fr_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker(void *argument)
{
    fr_pool *pool = argument;
    long long idle_since = now_ns();
    for (int looks = 0;; wait_a_little(&looks)) {
        int member = join(pool);
        if (!member) {
            if (looks > SPINS && now_ns() - idle_since > AWAKE_NS) {
                if (sleep_until_called(pool))
                    idle_since = now_ns();
            }
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
    if (atomic_load(&pool->sleeping) > 0)
        wake_workers(pool);
    int available = threads < pool->workers + 1 ? threads : pool->workers + 1;
    long long start = now_ns();
    for (int looks = 0; (int)(atomic_load(&pool->ticket) & MEMBERS) < available && now_ns() - start < patience_ns >> pool->missed;)
        wait_a_little(&looks);
    int joined = atomic_fetch_and(&pool->ticket, ~(unsigned)OPEN) & MEMBERS;
    pool->missed = joined >= available ? 0 : pool->missed < MAX_MISSED ? pool->missed + 1 : MAX_MISSED;
    return joined;
}

static void run_alone(fr_work *work, const void *task)
{
    fr_team team = {.n = 1};
    work(task, 0, &team);
}

/* The experience with calls of this kind and about this size. */
static fr_experience *experience_of(fr_pool *pool, int kind, long long patience_ns)
{
    int class = 0;
    for (; patience_ns > 1 && class < FR_WORK_CLASSES - 1; patience_ns >>= 1)
        class++;
    return &pool->experience[kind][class];
}

int fr_may_pay(fr_experience *e, long long now)
{
    if (e->skip == 0 || now >= e->until_ns)
        return 1;
    e->skip--;
    return 0;
}

void fr_learn(fr_experience *e, long long took, long long alone, long long now)
{
    const int probe = e->pause != 0; /* what was before the pause is long ago */
    if (took > WORST * alone)
        took = WORST * alone;
    e->team_ns = took + (probe ? 0 : e->team_ns - e->team_ns / 8);
    e->alone_ns = alone + (probe ? 0 : e->alone_ns - e->alone_ns / 8);
    e->skip = 0;
    if (e->team_ns <= e->alone_ns - e->alone_ns / 16) {
        e->pause /= 2;
        return;
    }
    e->pause = e->pause ? e->pause * 2 : PAUSE;
    if (e->pause > LONGEST_PAUSE)
        e->pause = LONGEST_PAUSE;
    e->skip = e->pause;
    e->until_ns = now + PAUSE_NS;
}

/* Did two members start on one core, because there is no other that they may use? Then each can only take its time from the other. */
static int share_a_core(fr_pool *pool)
{
#ifdef __linux__
    for (int i = 1; i < pool->team.n; i++)
        for (int j = 0; j < i; j++)
            if (atomic_load(&pool->core[i]) == atomic_load(&pool->core[j]))
                return 1;
#else
    (void)pool;
#endif
    return 0;
}

/* A team took so long, for `busy_ns` of which member 0 was at work: alone it would have done the others' part, too. */
static void remember(fr_pool *pool, fr_experience *e, long long start, long long busy_ns)
{
    const fr_team *team = &pool->team;
    const long long now = now_ns(), work = atomic_load(&team->work);
    const double share = team->own_work > 0 ? (double)team->own_work / (double)work : 1;
    const long long alone = (long long)((double)busy_ns / share);
    fr_learn(e, share_a_core(pool) ? WORST * alone : now - start, alone, now);
}

static void begin_team(fr_pool *pool, int members, long long patience_ns)
{
    fr_team *team = &pool->team;
    team->n = members;
    atomic_store(&team->arrived, 0);
    atomic_store(&team->round, 0);
    atomic_store(&team->last_round, 0);
    atomic_store(&team->claimed, 0);
    atomic_store(&team->work, 0);
    team->late = 0;
    team->late_ns = pool->late_ns ? pool->late_ns : patience_ns / 16 > LATE_NS ? patience_ns / 16 : LATE_NS;
    team->waited_ns = team->own_work = 0;
    team->begun_ns = now_ns();
}

/* The call by a team, of as many members as come. */
static void run_team(fr_pool *pool, int threads, long long patience_ns, fr_experience *e)
{
    const long long start = now_ns();
    const int slept = atomic_load(&pool->sleeping) > 0;
    const int joined = gather_team(pool, threads, slept && patience_ns < WAKE_NS && !pool->always ? WAKE_NS : patience_ns);
    fr_team *team = &pool->team;
    begin_team(pool, joined < threads ? joined : threads, patience_ns);
    atomic_fetch_or(&pool->ticket, RUN);
    pool->work(pool->task, 0, team);
    const long long busy_ns = now_ns() - team->begun_ns - team->waited_ns;
    for (int looks = 0; atomic_load(&pool->done) < joined - 1;)
        wait_for_member(&looks);
    remember(pool, e, start, busy_ns);
}

/* A call on one thread. */
static void run_single(fr_pool *pool, fr_work *work, const void *task)
{
    run_alone(work, task);
    atomic_store_explicit(&pool->last_ns, now_ns(), memory_order_relaxed);
}

/* Take the pool for a call: where a team may pay, and nobody else has it. Otherwise the call has run, on one thread. */
static int take_pool(fr_pool *pool, int threads, fr_experience *e, fr_work *work, const void *task)
{
    int free = 0;
    if (threads <= 1) {
        run_alone(work, task);
        return 0;
    }
    if (atomic_compare_exchange_strong(&pool->busy, &free, 1)) {
        if (!e->skip || pool->always || fr_may_pay(e, now_ns()))
            return 1;
        atomic_store(&pool->busy, 0);
    }
    run_single(pool, work, task);
    return 0;
}

/* A short call while workers sleep goes ahead without them. Where it follows another closely, more are likely to come: for those it
 * wakes the workers, which stay awake for longer than it takes. */
static int goes_ahead(fr_pool *pool, long long patience_ns)
{
    if (pool->always || patience_ns >= SHORT_NS || atomic_load(&pool->sleeping) == 0)
        return 0;
    const int close = now_ns() - atomic_load_explicit(&pool->last_ns, memory_order_relaxed) < CLOSE_NS;
    if (close && !atomic_exchange(&pool->alarm, 1))
        wake_workers(pool);
    return 1;
}

void fr_pool_run(fr_pool *pool, int threads, int kind, long long patience_ns, fr_work *work, const void *task)
{
    fr_experience *e = experience_of(pool, kind, patience_ns);
    if (!take_pool(pool, threads, e, work, task))
        return;
    if (goes_ahead(pool, patience_ns)) {
        atomic_store(&pool->busy, 0);
        run_single(pool, work, task);
        return;
    }
    if (threads > FR_MAX_THREADS)
        threads = FR_MAX_THREADS;
    if (pool->workers < threads - 1)
        start_workers(pool, threads - 1);
    pool->work = work;
    pool->task = task;
    atomic_store(&pool->done, 0);
    run_team(pool, threads, patience_ns, e);
    atomic_store_explicit(&pool->last_ns, now_ns(), memory_order_relaxed);
    atomic_store(&pool->busy, 0);
}

/* Borrowed threads are waited for until they end, however late: lost slices are rare and long, while what a team wins is little each
 * time. So one that took long is followed by a pause in proportion, and all of them together by at most so much of the time. */
enum { PAUSE_PER_LOSS = 16 };

static void pause_after_loss(fr_experience *e, long long took, long long alone)
{
    if (took <= 2 * alone)
        return;
    e->pause = e->skip = LONGEST_PAUSE << 10; /* as many as come until then */
    e->until_ns = now_ns() + PAUSE_PER_LOSS * took;
}

typedef struct {
    fr_pool *pool;
    const fr_lender *lender;
    long long busy_ns; /* of member 0 */
} borrowed;

/* What each of the borrowed threads runs. They may be fewer than asked for: then member 0 does everything. */
static void as_member(void *data)
{
    borrowed *b = data;
    fr_pool *pool = b->pool;
    fr_team *team = &pool->team;
    const int member = b->lender->number();
    if (b->lender->count() != team->n) {
        if (member == 0)
            run_alone(pool->work, pool->task);
        return;
    }
    say_where(pool, member);
    const long long start = now_ns();
    pool->work(pool->task, member, team);
    if (member == 0)
        b->busy_ns = now_ns() - start - team->waited_ns;
}

void fr_pool_run_borrowed(fr_pool *pool, const fr_lender *lender, int threads, int kind, long long patience_ns, fr_work *work, const void *task)
{
    fr_experience *e = experience_of(pool, kind, patience_ns);
    if (!take_pool(pool, threads, e, work, task))
        return;
    if (threads > FR_MAX_THREADS)
        threads = FR_MAX_THREADS;
    borrowed b = {pool, lender, 0};
    const long long start = now_ns();
    pool->work = work;
    pool->task = task;
    begin_team(pool, threads, patience_ns);
    lender->parallel(as_member, &b, (unsigned)threads, 0);
    const long long took = now_ns() - start;
    remember(pool, e, start, b.busy_ns);
    pause_after_loss(e, took, threads * b.busy_ns);
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
    long long done = 0;
    for (int i; (i = atomic_fetch_add(q->taken, 1)) < q->n; done++)
        run_alone(q->work, q->tasks[i]);
    fr_report_work(team, member, done);
}

void fr_pool_run_each(fr_pool *pool, int threads, int kind, long long patience_ns, fr_work *work, const void *const *tasks, int n)
{
    atomic_int taken = 0;
    queue q = {.work = work, .tasks = tasks, .n = n, .taken = &taken};
    fr_pool_run(pool, threads < n ? threads : n, kind, patience_ns, work_off, &q);
}

void fr_pool_after_fork(fr_pool *pool)
{
    atomic_store(&pool->busy, 0);
    atomic_store(&pool->sleeping, 0);
    atomic_store(&pool->alarm, 0);
    atomic_store(&pool->ticket, 0);
    pool->workers = 0;
    pool->ready = 0;
    pool->missed = 0;
}
