/* Messages and their echo: on each connection one in flight; of lines, a batch. */
#include "load.h"

#define LINE_VARIANTS 16
#define LINE_ROOM 64 /* for one line of 11 to 39 bytes */

static char *line_batches[LINE_VARIANTS];
static size_t line_batch_sizes[LINE_VARIANTS];
static int unsent; /* connections whose message has not gone out whole */

/* "VV NNNNNN filler\n"; a line too short for that is its tail, so it still differs from its neighbours. */
void make_line_batches(void) {
    size_t room = settings.size > LINE_ROOM ? settings.size : LINE_ROOM;
    if (settings.size == 1) fail("a line of one byte says nothing: size=2 at least");
    if ((size_t)settings.batch * room > MAX_SIZE) fail("a batch is at most %d bytes", MAX_SIZE);
    for (int variant = 0; variant < LINE_VARIANTS; variant++) {
        char *text = malloc((size_t)settings.batch * room + LINE_ROOM);
        if (text == NULL) fail("out of memory");
        size_t size = 0;
        for (int line = 0; line < settings.batch; line++) {
            char head[32];
            size_t head_size = (size_t)snprintf(head, sizeof head, "%02d %06d ", variant, line);
            size_t length = settings.size ? settings.size - 1 : head_size + (size_t)((line * 7 + variant * 3) % 29);
            size_t skipped = head_size > length ? head_size - length : 0;
            memcpy(text + size, head + skipped, head_size - skipped);
            for (size_t i = head_size - skipped; i < length; i++)
                text[size + i] = (char)('a' + ((size_t)(line + variant) + i) % 26);
            size += length;
            text[size++] = '\n';
        }
        line_batches[variant] = text;
        line_batch_sizes[variant] = size;
    }
}

void open_tcp(struct connection *connection, uint32_t events) {
    struct sockaddr_in address = server_address();
    int on = 1;
    memset(connection, 0, sizeof *connection);
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) fail("socket: %s", strerror(errno));
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(connection, events, EPOLL_CTL_ADD);
    if (settings.tls) {
        start_tls(connection);
        double start = now();
        while (!shake_hands(connection))
            if (now() - start > PATIENCE) fail("no TLS handshake");
    }
}

static void send_rest(struct connection *connection) {
    bool was_unsent = connection->sent > 0 && connection->sent < connection->size;
    ssize_t count = give(connection, connection->out + connection->sent, connection->size - connection->sent);
    if (count < 0) {
        if (errno != EAGAIN) fail("send: %s", strerror(errno));
        count = 0;
        if (connection->sent == 0) fail("no room for a message though none is in flight");
    }
    connection->sent += (size_t)count;
    bool is_unsent = connection->sent < connection->size;
    unsent += (int)is_unsent - (int)was_unsent;
}

static void send_message(struct connection *connection, bool lines) {
    uint64_t index = (uint64_t)(connection - connections);
    if (lines) {
        size_t variant = (index + connection->sequence) % LINE_VARIANTS;
        connection->out = line_batches[variant];
        connection->size = line_batch_sizes[variant];
    } else {
        /* Each begins elsewhere in the pattern, so an answer to another message or connection is noticed. */
        connection->out = pattern + (connection->sequence + index * 97) % BLOCK;
        connection->size = settings.size;
    }
    connection->sequence++;
    connection->sent = connection->answered = 0;
    connection->in_flight = true;
    connection->begun = now();
    send_rest(connection);
}

/* Returns true once the whole message has come back. */
static bool take_answer(struct connection *connection) {
    do {
        ssize_t count = take(connection, buffer, sizeof buffer);
        if (count < 0) {
            if (errno == EAGAIN) return false;
            fail("recv: %s", strerror(errno));
        }
        if (count == 0) fail("the server closed a connection");
        if (!connection->in_flight || (size_t)count > connection->sent - connection->answered)
            fail("more came back than was sent");
        if (memcmp(buffer, connection->out + connection->answered, (size_t)count) != 0)
            fail("wrong bytes came back (message %llu)", (unsigned long long)connection->sequence);
        connection->answered += (size_t)count;
    } while (more_is_decrypted(connection));
    if (connection->answered < connection->size) return false;
    connection->in_flight = false;
    return true;
}

static uint64_t exchange(double seconds, bool lines) {
    struct epoll_event events[512];
    uint64_t total = 0, unit = lines ? (uint64_t)settings.batch : 1;
    double start = now(), deadline = start + seconds, time = start, progress = start;
    int in_flight = connection_count;
    for (int i = 0; i < connection_count; i++) send_message(&connections[i], lines);
    while (in_flight > 0) {
        int ready = epoll_wait(poller, events, 512, 0);
        if (ready < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
        time = now();
        bool over = time >= deadline || total >= settings.limit;
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            progress = time;
            if (!take_answer(connection)) continue;
            took(now() - connection->begun);
            total += unit;
            connection->in_time += !over;
            if (over) in_flight--;
            else send_message(connection, lines);
        }
        if (unsent > 0)
            for (int i = 0; i < connection_count; i++)
                if (connections[i].in_flight && connections[i].sent < connections[i].size) send_rest(&connections[i]);
        if (time - progress > PATIENCE) fail("%d connections wait for an answer", in_flight);
    }
    return total;
}

uint64_t go_echo(double seconds) { return exchange(seconds, false); }

uint64_t go_lines(double seconds) { return exchange(seconds, true); }
