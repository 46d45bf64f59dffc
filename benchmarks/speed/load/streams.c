/* Long streams, the one way and the other, and their bytes. */
#include "load.h"

#include <endian.h>

uint64_t go_send(double seconds) {
    struct epoll_event events[64];
    uint64_t total = 0;
    double start = now(), deadline = start + seconds, time = start, progress = start;
    while (time < deadline && total < settings.limit) {
        int ready = epoll_wait(poller, events, 64, 0);
        time = now();
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            do {
                ssize_t count = take(connection, buffer, sizeof buffer);
                if (count < 0 && errno == EAGAIN) break;
                if (count < 0) fail("recv: %s", strerror(errno));
                if (count == 0) fail("the server closed a connection");
                if (memcmp(buffer, pattern + connection->position % BLOCK, (size_t)count) != 0)
                    fail("wrong bytes came near byte %llu", (unsigned long long)connection->position);
                connection->position += (uint64_t)count;
                connection->in_time++;
                total += (uint64_t)count;
                progress = time;
            } while (more_is_decrypted(connection));
        }
        if (time - progress > PATIENCE) fail("the server sends nothing");
    }
    return total;
}

/* The server tells how many bytes it has seen, big-endian, whenever that passes another MiB. */
#define TOLD (1024 * 1024)

void open_receive(struct connection *connection) { open_tcp(connection, EPOLLIN | EPOLLOUT); }

/* Takes what the server told; `answered` is the bytes of a count that is not whole yet, `in_time` how often it told. */
static bool take_counts(struct connection *connection, uint64_t *last) {
    static uint8_t rest[MAX_CONNECTIONS][8];
    uint8_t *count = rest[connection - connections];
    bool some = false;
    for (;;) {
        ssize_t size = take(connection, (char *)count + connection->answered, 8 - connection->answered);
        if (size < 0 && errno == EAGAIN) return some;
        if (size < 0) fail("recv: %s", strerror(errno));
        if (size == 0) fail("the server closed a connection");
        some = true;
        connection->answered += (size_t)size;
        if (connection->answered < 8) continue;
        uint64_t seen;
        memcpy(&seen, count, sizeof seen);
        seen = be64toh(seen);
        if (seen <= *last || seen > connection->position)
            fail("wrong bytes came back: a count of %llu after %llu, and %llu were sent", (unsigned long long)seen,
                 (unsigned long long)*last, (unsigned long long)connection->position);
        *last = seen;
        connection->in_time++;
        connection->answered = 0;
    }
}

/* How much to send now: after the time no more than up to a whole MiB, which the server then tells. */
static size_t next_size(const struct connection *connection, bool over) {
    if (!over || connection->position == 0) return BLOCK;
    size_t left = (TOLD - connection->position % TOLD) % TOLD;
    return left < BLOCK ? left : BLOCK;
}

uint64_t go_receive(double seconds) {
    static uint64_t seen[MAX_CONNECTIONS];
    struct epoll_event events[64];
    uint64_t total = 0;
    double start = now(), deadline = start + seconds, progress = start;
    int under_way = connection_count;
    for (int i = 0; i < connection_count; i++) watch(&connections[i], EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    while (under_way > 0) {
        int ready = epoll_wait(poller, events, 64, 0);
        double time = now();
        bool over = time >= deadline || total >= settings.limit;
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            uint64_t *last = &seen[connection - connections];
            if (events[i].events & ~(uint32_t)EPOLLOUT && take_counts(connection, last)) progress = time;
            size_t size = next_size(connection, over);
            if (size > 0) {
                if (!(events[i].events & EPOLLOUT)) continue;
                ssize_t count = give(connection, pattern + connection->position % BLOCK, size);
                if (count < 0 && errno == EAGAIN) continue;
                if (count < 0) fail("send: %s", strerror(errno));
                connection->position += (uint64_t)count;
                total += (uint64_t)count;
                progress = time;
            } else {
                if (events[i].events & EPOLLOUT) watch(connection, EPOLLIN, EPOLL_CTL_MOD);
                if (*last == connection->position && connection->position > 0) {
                    watch(connection, 0, EPOLL_CTL_MOD);
                    under_way--;
                }
            }
        }
        if (time - progress > PATIENCE) fail("the server receives nothing, or does not tell");
    }
    return total;
}
