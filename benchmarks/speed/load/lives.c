/* Short lives: connections that say one thing.  We begin them (mode accept), or a client does (mode client). */
#include "load.h"

/* Each life has a socket of its own. */
void open_nothing(struct connection *connection) { memset(connection, 0, sizeof *connection); }

enum { CONNECTING, SHAKING_HANDS, ASKING, ENDING, OVER };

/* -- accept --------------------------------------------------------------------------------------- */

/* A life ends with our FIN, so its port rests for a minute; 250 addresses of loopback have seven million. */
static void next_source(int fd) {
    static uint32_t turn;
    int on = 1;
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000101 + turn++ % 250)};
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0) fail("bind: %s", strerror(errno));
}

static void begin_life(struct connection *connection) {
    struct sockaddr_in address = server_address();
    int on = 1;
    connection->begun = now();
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connection->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    next_source(connection->fd);
    connection->step = CONNECTING;
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    watch(connection, EPOLLOUT, EPOLL_CTL_ADD);
}

static void ask(struct connection *connection) {
    uint64_t index = (uint64_t)(connection - connections);
    connection->out = pattern + (connection->sequence++ + index * 97) % BLOCK;
    connection->sent = connection->answered = 0;
    connection->step = ASKING;
    watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    ssize_t count = give(connection, connection->out, settings.size);
    if (count != (ssize_t)settings.size) fail("cannot send a message at once; size=%zu", settings.size);
}

/* Whatever there is to do now; the connection is OVER once the server has ended it too. */
static void live_on(struct connection *connection) {
    if (connection->step == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) fail("connect: %s", strerror(error));
        if (!settings.tls) return ask(connection);
        start_tls(connection);
        connection->step = SHAKING_HANDS;
        watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    }
    if (connection->step == SHAKING_HANDS) {
        if (!shake_hands(connection)) return;
        return ask(connection);
    }
    for (;;) {
        ssize_t count = take(connection, buffer, sizeof buffer);
        if (count < 0 && errno == EAGAIN) return;
        if (count < 0) fail("recv: %s", strerror(errno));
        if (count == 0 && connection->step == ASKING) fail("the server closed a connection before it had answered");
        if (count == 0) break;
        if (connection->step == ENDING || (size_t)count > settings.size - connection->answered)
            fail("more came back than was sent");
        if (memcmp(buffer, connection->out + connection->answered, (size_t)count) != 0) fail("wrong bytes came back");
        connection->answered += (size_t)count;
        if (connection->answered < settings.size) continue;
        connection->step = ENDING;
        finish(connection);
    }
    drop(connection);
    connection->step = OVER;
}

uint64_t go_accept(double seconds) {
    struct epoll_event events[512];
    uint64_t total = 0;
    double start = now(), deadline = start + seconds, progress = start;
    int in_flight = connection_count;
    for (int i = 0; i < connection_count; i++) begin_life(&connections[i]);
    while (in_flight > 0) {
        int ready = epoll_wait(poller, events, 512, 0);
        double time = now();
        bool over = time >= deadline || total >= settings.limit;
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            progress = time;
            live_on(connection);
            if (connection->step != OVER) continue;
            took(now() - connection->begun);
            total++;
            connection->in_time += !over;
            if (over) in_flight--;
            else begin_life(connection);
        }
        if (time - progress > PATIENCE) fail("%d connections wait for an answer or an end", in_flight);
    }
    return total;
}

/* -- client: it asks with the first 64 bytes of the pattern, and is answered with the next ---------------- */

#define ASKED 64

static struct connection listener;
static struct connection *spare[MAX_CONNECTIONS]; /* those without a client */
static int spare_count;

void listen_for_clients(void) {
    struct sockaddr_in address = server_address();
    socklen_t length = sizeof address;
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener.fd < 0 || bind(listener.fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener.fd, 4096) < 0 || getsockname(listener.fd, (struct sockaddr *)&address, &length) < 0)
        fail("listen: %s", strerror(errno));
    watch(&listener, EPOLLIN, EPOLL_CTL_ADD);
    for (int i = MAX_CONNECTIONS - 1; i >= 0; i--) spare[spare_count++] = &connections[i];
    printf("listening %d\n", ntohs(address.sin_port));
}

static void welcome(void) {
    int fd;
    while ((fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (spare_count == 0) fail("too many clients");
        struct connection *connection = spare[--spare_count];
        connection->fd = fd;
        connection->answered = 0;
        connection->step = ASKING;
        watch(connection, EPOLLIN, EPOLL_CTL_ADD);
    }
    if (errno != EAGAIN && errno != EINTR) fail("accept: %s", strerror(errno));
}

/* Returns true once the client has ended what we had answered. */
static bool serve_client(struct connection *connection) {
    ssize_t count = take(connection, buffer, sizeof buffer);
    if (count < 0 && errno == EAGAIN) return false;
    if (count < 0) fail("recv: %s", strerror(errno));
    if (count == 0) {
        if (connection->step != ENDING) fail("a client ended before it was answered");
        drop(connection);
        spare[spare_count++] = connection;
        return true;
    }
    if (connection->step != ASKING || connection->answered + (size_t)count > ASKED) fail("a client said too much");
    if (memcmp(buffer, pattern + connection->answered, (size_t)count) != 0) fail("wrong bytes came from a client");
    connection->answered += (size_t)count;
    if (connection->answered < ASKED) return false;
    connection->step = ENDING;
    if (give(connection, pattern + ASKED, ASKED) != ASKED) fail("send: %s", strerror(errno));
    return false;
}

/* After its time it answers no more, so the client sleeps until the next go; a client that waits, waits in the kernel. */
uint64_t go_client(double seconds) {
    struct epoll_event events[64];
    uint64_t total = 0;
    double start = now(), deadline = start + seconds, time = start, progress = start;
    while (time < deadline && total < settings.limit) {
        int ready = epoll_wait(poller, events, 64, 0);
        time = now();
        for (int i = 0; i < ready; i++) {
            progress = time;
            if (events[i].data.ptr == &listener) welcome();
            else total += serve_client(events[i].data.ptr);
        }
        if (time - progress > PATIENCE) fail("no client comes");
    }
    return total;
}
