/* The clock, the pattern, the counts, and how we fail. */
#include "load.h"

#include <stdarg.h>
#include <time.h>

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Byte i of the pattern; the peers make the same.  Any two windows of it differ unless they are BLOCK bytes apart. */
void make_pattern(void) {
    pattern = malloc(BLOCK + MAX_SIZE);
    if (pattern == NULL) fail("out of memory");
    for (size_t i = 0; i < BLOCK + MAX_SIZE; i++) {
        size_t at = i % BLOCK;
        pattern[i] = (char)((at * 31 + at / 256) & 0xff);
    }
}

struct sockaddr_in server_address(void) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)settings.port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

void watch(struct connection *connection, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

/* -- latencies: a count for each bucket, 32 buckets for each doubling, so a bucket is 2 to 3 % wide ------------- */

#define SUB_BUCKETS 32
#define DOUBLINGS 40 /* of a nanosecond: up to 18 minutes */

static uint64_t buckets[DOUBLINGS * SUB_BUCKETS];

void took(double seconds) {
    uint64_t nanoseconds = seconds > 0 ? (uint64_t)(seconds * 1e9) : 0;
    if (nanoseconds < SUB_BUCKETS) nanoseconds = SUB_BUCKETS;
    int doubling = 63 - __builtin_clzll(nanoseconds);
    uint64_t part = (nanoseconds >> (doubling - 5)) - SUB_BUCKETS; /* the five bits below the first */
    if (doubling >= DOUBLINGS) fail("an answer took %.0f seconds", seconds);
    buckets[doubling * SUB_BUCKETS + (int)part]++;
}

static double middle_of(int bucket) {
    return (SUB_BUCKETS + bucket % SUB_BUCKETS + 0.5) * (double)(1ULL << (bucket / SUB_BUCKETS)) / SUB_BUCKETS * 1e-9;
}

static double quantile(uint64_t all, double share) {
    uint64_t seen = 0;
    for (int bucket = 0; bucket < DOUBLINGS * SUB_BUCKETS; bucket++) {
        seen += buckets[bucket];
        if (seen > 0 && (double)seen >= share * (double)all) return middle_of(bucket);
    }
    return 0;
}

void forget(void) {
    memset(buckets, 0, sizeof buckets);
    lost = 0;
    for (int i = 0; i < connection_count; i++) connections[i].in_time = 0;
}

void report(void) {
    uint64_t all = 0;
    int starved = 0;
    for (int bucket = 0; bucket < DOUBLINGS * SUB_BUCKETS; bucket++) all += buckets[bucket];
    for (int i = 0; i < connection_count; i++) starved += connections[i].in_time == 0;
    printf("report %.9f %.9f %llu %d %llu\n", quantile(all, 0.5), quantile(all, 0.99), (unsigned long long)all, starved,
           (unsigned long long)lost);
}
