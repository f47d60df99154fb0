/* A C program with pthreads, as it would be written for any Linux: the tests compile it, with the C
 * library in it and beside it. It prints what it finds, the same at every run. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 2000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static sem_t semaphore;
static volatile int stop;
static long counter, destroyed, initialised;
static _Thread_local long local;

static void check(int result, const char *what)
{
    if (result != 0) {
        printf("%s gave %d\n", what, result);
        exit(1);
    }
}

static void initialise(void) { initialised++; }
static void destroy(void *value) { __atomic_add_fetch(&destroyed, (long)value, __ATOMIC_SEQ_CST); }

static void *count(void *argument)
{
    long own = (long)argument;
    pthread_once(&once, initialise);
    pthread_setspecific(key, argument);
    local = own;
    pthread_barrier_wait(&barrier);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
        if (round % 100 == 0)
            sched_yield();
    }
    sem_post(&semaphore);
    return (void *)(local == own ? own * own : -1);
}

static void *wait_turn(void *argument)
{
    pthread_mutex_lock(&lock);
    while (counter != (long)argument)
        pthread_cond_wait(&changed, &lock);
    counter++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *spin(void *argument)
{
    while (!stop)
        ;
    return argument;
}

static void *hold(void *mutex)
{
    pthread_mutex_lock(mutex);
    return NULL;
}

static void *leave(void *argument)
{
    struct timespec moment = {0, 20000000};
    nanosleep(&moment, NULL);
    printf("the last thread ends the program\n");
    fflush(stdout);
    pthread_exit(argument);
}

int main(void)
{
    pthread_t threads[THREADS];
    void *value;
    long sum = 0;

    check(pthread_barrier_init(&barrier, NULL, THREADS), "pthread_barrier_init");
    check(pthread_key_create(&key, destroy), "pthread_key_create");
    check(sem_init(&semaphore, 0, 0), "sem_init");
    for (long i = 0; i < THREADS; i++)
        check(pthread_create(&threads[i], NULL, count, (void *)(i + 1)), "pthread_create");
    for (int i = 0; i < THREADS; i++)
        check(sem_wait(&semaphore), "sem_wait");
    for (int i = 0; i < THREADS; i++) {
        check(pthread_join(threads[i], &value), "pthread_join");
        sum += (long)value;
    }
    printf("counter %ld, sum %ld, destroyed %ld, initialised %ld\n", counter, sum, destroyed,
           initialised);

    counter = 0;
    for (long i = THREADS - 1; i >= 0; i--)
        check(pthread_create(&threads[i], NULL, wait_turn, (void *)i), "pthread_create");
    for (int i = 0; i < THREADS; i++)
        check(pthread_join(threads[i], NULL), "pthread_join");
    printf("turns %ld\n", counter);

    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_nsec += 20000000;
    deadline.tv_sec += deadline.tv_nsec / 1000000000;
    deadline.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lock);
    int result = pthread_cond_timedwait(&changed, &lock, &deadline);
    printf("timed out %d, ", result == ETIMEDOUT);
    pthread_mutex_unlock(&lock);
    result = sem_timedwait(&semaphore, &deadline);
    printf("%d\n", result == -1 && errno == ETIMEDOUT);

    check(pthread_create(&threads[0], NULL, spin, &counter), "pthread_create");
    check(pthread_create(&threads[1], NULL, spin, NULL), "pthread_create");
    usleep(20000);
    printf("named %d, alive %d\n", pthread_setname_np(pthread_self(), "main thread"),
           pthread_kill(threads[0], 0));
    stop = 1;
    check(pthread_join(threads[0], &value), "pthread_join");
    check(pthread_join(threads[1], NULL), "pthread_join");
    printf("spun %d\n", value == &counter);

    pthread_mutex_t robust;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    check(pthread_mutex_init(&robust, &attributes), "pthread_mutex_init");
    check(pthread_create(&threads[0], NULL, hold, &robust), "pthread_create");
    check(pthread_join(threads[0], NULL), "pthread_join");
    printf("owner died %d\n", pthread_mutex_lock(&robust) == EOWNERDEAD);

    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    check(pthread_create(&threads[0], &detached, leave, NULL), "pthread_create");
    fflush(stdout);
    pthread_exit(NULL);
}
