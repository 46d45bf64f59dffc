/* Datagrams and their echo: of each socket, `batch` in flight. */
#include "load.h"

/* | u32 sequence | u32 socket | pattern from there on |; loopback keeps the order of one socket's datagrams. */
#define HEAD 8

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

/* When each datagram in flight was sent: by socket, and by its number modulo the batch. */
static double *sent_at;

static void send_datagram(struct connection *connection) {
    char datagram[65536];
    write_datagram(datagram, connection, connection->sequence);
    sent_at[(connection - connections) * settings.batch + (int)(connection->sequence % (uint64_t)settings.batch)] = now();
    connection->sequence++;
    if (send(connection->fd, datagram, settings.size, 0) != (ssize_t)settings.size) fail("send: %s", strerror(errno));
}

/* Takes all that has come; returns how many.  Any that is lost, doubled or out of order is a failure. */
static int take_datagrams(struct connection *connection, bool over) {
    char expected[65536];
    int count = 0;
    for (;;) {
        ssize_t size = recv(connection->fd, buffer, sizeof buffer, 0);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) return count;
        if (size < 0) fail("recv: %s", strerror(errno));
        write_datagram(expected, connection, connection->position);
        if ((size_t)size != settings.size || memcmp(buffer, expected, settings.size) != 0)
            fail("wrong bytes came back (datagram %llu)", (unsigned long long)connection->position);
        took(now() - sent_at[(connection - connections) * settings.batch + (int)(connection->position % (uint64_t)settings.batch)]);
        connection->position++;
        connection->in_time += !over;
        count++;
        if (!over) send_datagram(connection);
    }
}

uint64_t go_datagrams(double seconds) {
    struct epoll_event events[512];
    uint64_t total = 0;
    double start = now(), deadline = start + seconds, progress = start;
    int in_flight = connection_count * settings.batch;
    if (sent_at == NULL) sent_at = calloc((size_t)MAX_CONNECTIONS * (size_t)settings.batch, sizeof *sent_at);
    if (sent_at == NULL) fail("out of memory");
    for (int i = 0; i < connection_count; i++)
        for (int j = 0; j < settings.batch; j++) send_datagram(&connections[i]);
    while (in_flight > 0) {
        int ready = epoll_wait(poller, events, 512, 0);
        double time = now();
        bool over = time >= deadline || total >= settings.limit;
        for (int i = 0; i < ready; i++) {
            int count = take_datagrams(events[i].data.ptr, over);
            progress = time;
            total += (uint64_t)count;
            if (over) in_flight -= count;
        }
        if (time - progress > PATIENCE) fail("%d datagrams wait for their answer, or were lost", in_flight);
    }
    return total;
}
