/* selftest_pool.c - the pool by its interface: a team ends where somebody was late, with all data complete; teams that do not pay are
 * not formed for a while; and teams of borrowed threads.
 *
 *     cc -pthread -Icsrc tests/c/selftest_pool.c pool.o -o selftest_pool
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "team/pool.h"

static void sleep_us(int us)
{
    const struct timespec t = {0, 1000L * us};
    nanosleep(&t, NULL);
}

static int failed = 0;

static void check_that(int right, const char *what)
{
    if (!right) printf("FAIL %s\n", what);
    failed += !right;
}

static fr_pool pool;

/* ---- a member that is late ------------------------------------------------------------------------------- */

enum { BARRIERS = 4 };
typedef struct {
    int written[2][BARRIERS]; /* plain memory: a barrier makes it visible */
    int passed[2];            /* barriers after which the team went on */
    int members, complete;
} record;

/* Member 1 sleeps before its second barrier: the team ends at the third. */
static void late(const void *task, int member, fr_team *team)
{
    record *r = (record *)task;
    if (member == 0) r->members = team->n;
    for (int i = 0; i < BARRIERS && team->n == 2; i++) {
        if (member == 1 && i == 1) sleep_us(5000);
        r->written[member][i] = 1;
        const int on = fr_barrier(team, member);
        if (member == 0) r->complete += r->written[1][i];
        if (!on) break;
        r->passed[member]++;
    }
    fr_report_work(team, member, 1);
}

static void check_lateness(void)
{
    int ended = 0;
    for (int i = 0; i < 1000 && !ended; i++) { /* on a busy machine no worker may come, or member 0 may not see that another is late */
        record r = {.members = 0};
        pool.always = 1;
        pool.late_ns = 500000;
        fr_pool_run(&pool, 2, 0, 1000000000, late, &r);
        if (r.members != 2) continue;
        const int expected = r.passed[0] < BARRIERS ? r.passed[0] + 1 : BARRIERS;
        check_that(r.passed[0] == r.passed[1], "the members do not agree on when the team ends");
        check_that(r.complete == expected, "the team went on, or ended, with data missing");
        ended = r.passed[0] <= 2;
    }
    check_that(ended, "no team ended at the barrier after that for which somebody was late");
}

/* ---- what teams brought lately --------------------------------------------------------------------------- */

/* Calls of one millisecond on one thread, of which a team takes `took` times as long: how many of n are teams? */
static int teams_of(fr_experience *e, long long *now, int n, double took)
{
    const long long alone = 1000000;
    int teams = 0;
    for (int i = 0; i < n; i++) {
        const int team = fr_may_pay(e, *now);
        const long long ns = team ? (long long)(took * (double)alone) : alone;
        *now += ns;
        teams += team;
        if (team) fr_learn(e, ns, alone, *now);
    }
    return teams;
}

static void check_experience(void)
{
    fr_experience e = {0};
    long long now = 1;
    check_that(teams_of(&e, &now, 1000, 0.6) == 1000, "teams that pay are not always formed");
    check_that(teams_of(&e, &now, 1, 10) == 1 && teams_of(&e, &now, 10, 0.6) == 10, "a single slow call stops teams");
    check_that(teams_of(&e, &now, 1000, 10) < 30, "teams that do not pay are formed again and again");
    check_that(teams_of(&e, &now, 1000, 10) <= 3, "probes do not become rare");
    check_that(teams_of(&e, &now, 1000, 0.6) > 450, "teams that pay again are not found");
    check_that(teams_of(&e, &now, 1000, 1.0) < 30, "teams that bring nothing are formed");
}

static int teams;

static void slow_with_others(const void *task, int member, fr_team *team)
{
    (void)task;
    if (member == 0) teams += team->n > 1;
    else sleep_us(1000);
    fr_report_work(team, member, 1);
}

static void check_pool(void)
{
    pool.always = 1;
    for (int i = 0; i < 100000 && teams < 5; i++)
        fr_pool_run(&pool, 2, 1, 10000000, slow_with_others, NULL);
    check_that(teams == 5, "a pool that always forms teams does not");
    pool.always = 0;
    for (int i = 0; i < 200; i++)
        fr_pool_run(&pool, 2, 1, 10000000, slow_with_others, NULL);
    check_that(teams < 25, "the pool does not remember that teams do not pay");
}

/* ---- borrowed threads ------------------------------------------------------------------------------------ */

/* What libgomp does, with a thread that is new each time; `lent` is how many there are. */
static _Thread_local int number;
static int lent = 2;
static void (*body)(void *);

static int number_here(void) { return number; }
static int count_here(void) { return lent; }

static void *second(void *data)
{
    number = 1;
    body(data);
    return NULL;
}

static void parallel(void (*of)(void *), void *data, unsigned threads, unsigned flags)
{
    pthread_t other;
    (void)flags;
    body = of;
    const int two = threads == 2 && lent == 2 && pthread_create(&other, NULL, second, data) == 0;
    of(data);
    if (two) pthread_join(other, NULL);
}

typedef struct { int seen[2], members; } visit;

static void see(const void *task, int member, fr_team *team)
{
    visit *v = (visit *)task;
    v->seen[member]++;
    if (fr_barrier(team, member) && member == 0) v->members = team->n;
    fr_report_work(team, member, 1);
}

static void check_borrowed(void)
{
    static fr_pool none;
    const fr_lender lender = {parallel, number_here, count_here};
    visit v = {{0}, 0};
    none.always = 1;
    fr_pool_run_borrowed(&none, &lender, 2, 0, 1000000, see, &v);
    check_that(v.seen[0] == 1 && v.seen[1] == 1 && v.members == 2, "borrowed threads do not form a team");
    lent = 1;
    fr_pool_run_borrowed(&none, &lender, 2, 0, 1000000, see, &v);
    check_that(v.seen[0] == 2 && v.seen[1] == 1 && v.members == 1, "a call does not run alone where fewer threads are lent");
    lent = 2;
    none.always = 0;
    for (int i = 0; i < 100; i++) /* a new thread takes much longer than what there is to do */
        fr_pool_run_borrowed(&none, &lender, 2, 0, 1000000, see, &v);
    check_that(v.seen[0] == 102 && v.seen[1] < 30, "the pool does not remember that borrowed threads do not pay");
}

int main(void)
{
    check_lateness();
    check_experience();
    check_pool();
    check_borrowed();
    return failed != 0;
}
