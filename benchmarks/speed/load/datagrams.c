/* Datagrams and their echo: of each socket, `batch` in flight.
 *
 * A socket whose buffer is full loses what comes, as UDP does.  What is lost is counted, and others are sent for it: those
 * that a later answer has overtaken (loopback keeps the order of a socket's datagrams), or all, after a silence.
 */
#include "load.h"

/* | u32 sequence | u32 socket | pattern from there on | */
#define HEAD 8
#define SILENCE 0.1 /* seconds after which what is in flight is given up; a slow server may take some tens of ms */

void open_datagrams(struct connection *connection) {
    struct sockaddr_in address = server_address();
    if (settings.size < HEAD || settings.size > 65507) fail("a datagram has %d to 65507 bytes", HEAD);
    memset(connection, 0, sizeof *connection);
    connection->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connection->fd < 0) fail("socket: %s", strerror(errno));
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect: %s", strerror(errno));
    watch(connection, EPOLLIN, EPOLL_CTL_ADD);
}

static void write_datagram(char *datagram, const struct connection *connection, uint64_t sequence) {
    uint32_t head[2] = {(uint32_t)sequence, (uint32_t)(connection - connections)};
    memcpy(datagram, head, HEAD);
    memcpy(datagram + HEAD, pattern + (sequence + head[1] * 97) % BLOCK, settings.size - HEAD);
}

/* `position` is the first datagram that may still be answered, `sequence` the next to send. */
static uint64_t in_flight(const struct connection *connection) { return connection->sequence - connection->position; }

/* When a datagram was sent: by socket, and by its number modulo the batch. */
static double *sent_at(const struct connection *connection, uint64_t sequence) {
    static double *times;
    size_t batch = (size_t)settings.batch;
    if (times == NULL && (times = calloc(MAX_CONNECTIONS * batch, sizeof *times)) == NULL) fail("out of memory");
    return &times[(size_t)(connection - connections) * batch + sequence % batch];
}

static void send_datagrams(struct connection *connection) {
    char datagram[65536];
    while (in_flight(connection) < (uint64_t)settings.batch) {
        write_datagram(datagram, connection, connection->sequence);
        *sent_at(connection, connection->sequence) = connection->begun = now();
        if (send(connection->fd, datagram, settings.size, 0) != (ssize_t)settings.size) {
            /* Our own buffer is full: as if it were lost on the way. */
            if (errno != EAGAIN && errno != ENOBUFS) fail("send: %s", strerror(errno));
        }
        connection->sequence++;
    }
}

/* Takes all that has come; returns how many. */
static uint64_t take_datagrams(struct connection *connection, bool over) {
    char expected[65536];
    uint64_t count = 0;
    for (;;) {
        ssize_t size = recv(connection->fd, buffer, sizeof buffer, 0);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (size < 0) fail("recv: %s", strerror(errno));
        uint32_t number;
        memcpy(&number, buffer, sizeof number);
        uint64_t sequence = connection->position + (uint64_t)(int64_t)(int32_t)(number - (uint32_t)connection->position);
        write_datagram(expected, connection, sequence);
        if ((size_t)size != settings.size || memcmp(buffer, expected, settings.size) != 0 || sequence >= connection->sequence)
            fail("wrong bytes came back (datagram %llu)", (unsigned long long)connection->position);
        if (sequence < connection->position) continue; /* given up before */
        took(now() - *sent_at(connection, sequence));
        lost += sequence - connection->position;
        connection->position = sequence + 1;
        connection->begun = now();
        connection->in_time += !over;
        count++;
    }
    if (!over) send_datagrams(connection);
    return count;
}

uint64_t go_datagrams(double seconds) {
    struct epoll_event events[512];
    uint64_t total = 0;
    double start = now(), deadline = start + seconds, progress = start, looked = start;
    for (int i = 0; i < connection_count; i++) send_datagrams(&connections[i]);
    for (bool over = false, all_back = false; !all_back;) {
        int ready = epoll_wait(poller, events, 512, 0);
        double time = now();
        over = time >= deadline || total >= settings.limit;
        for (int i = 0; i < ready; i++) {
            total += take_datagrams(events[i].data.ptr, over);
            progress = time;
        }
        if (time - progress > PATIENCE) fail("no datagram comes back");
        if (!over && time - looked < SILENCE / 10) continue;
        looked = time;
        all_back = over;
        for (int i = 0; i < connection_count; i++) {
            struct connection *connection = &connections[i];
            if (in_flight(connection) > 0 && time - connection->begun > SILENCE) {
                lost += in_flight(connection);
                connection->position = connection->sequence;
                if (!over) send_datagrams(connection);
            }
            if (in_flight(connection) > 0) all_back = false;
        }
    }
    return total;
}
