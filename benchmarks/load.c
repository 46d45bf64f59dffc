/* The load generator: one thread, one epoll, spinning, so that its own wake-ups are not in the figures.
 *
 * load MODE PORT CORE BATCH LIMIT
 *
 *   MODE   echo, lines: sends a message on each connection, checks that the same bytes come back, sends the next;
 *          send: reads what the server sends, and checks it; receive: sends, and checks the count that comes back;
 *          idle: holds connections.
 *   PORT   on 127.0.0.1, and nowhere else.
 *   CORE   the core to run on; -1 for any.
 *   BATCH  lines in a message of the mode lines.
 *   LIMIT  work after which a go ends before its time (messages, lines or bytes).
 *
 * It is told what to do on stdin and answers on stdout, a line each:
 *
 *   open COUNT   -> open TOTAL                        connects COUNT more
 *   go SECONDS   -> done WORK SECONDS                 works, until every answer is there
 *   (end)        closes the connections and exits with status 0
 *
 * A wrong byte, a lost connection, or ten seconds without a byte: a line on stderr and exit status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ECHO_SIZE 64
#define LINE_VARIANTS 16
#define LINE_SIZE 64        /* room for one line; they are 11 to 39 bytes long */
#define BLOCK (64 * 1024)   /* the server's pattern repeats after so many bytes */
#define READ_SIZE (256 * 1024)
#define MAX_CONNECTIONS 60000
#define PATIENCE 10.0

enum mode { ECHO, LINES, SEND, RECEIVE, IDLE };

struct connection {
    int fd;
    uint64_t sequence; /* messages begun */
    uint64_t position; /* bytes, modes send and receive */
    const char *out;   /* the message in flight */
    size_t size, sent, answered;
    bool in_flight;
    char message[ECHO_SIZE];
};

static enum mode mode;
static int port, batch, poller, connection_count, unsent;
static uint64_t limit;
static struct connection *connections;
static char *line_batches[LINE_VARIANTS];
static size_t line_batch_sizes[LINE_VARIANTS];
static char pattern[BLOCK + READ_SIZE];
static char buffer[READ_SIZE];

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Byte i of the pattern; servers.py makes the same. */
static void make_pattern(void) {
    for (size_t i = 0; i < sizeof pattern; i++) {
        size_t at = i % BLOCK;
        pattern[i] = (char)((at * 31 + at / 256) & 0xff);
    }
}

static void make_line_batches(void) {
    for (int variant = 0; variant < LINE_VARIANTS; variant++) {
        char *text = malloc((size_t)batch * LINE_SIZE);
        if (text == NULL) fail("out of memory");
        size_t size = 0;
        for (int line = 0; line < batch; line++) {
            size += (size_t)sprintf(text + size, "%02d %06d ", variant, line);
            int filler = (line * 7 + variant * 3) % 29;
            for (int i = 0; i < filler; i++) text[size++] = (char)('a' + (line + variant + i) % 26);
            text[size++] = '\n';
        }
        line_batches[variant] = text;
        line_batch_sizes[variant] = size;
    }
}

static void connect_one(struct connection *connection) {
    memset(connection, 0, sizeof *connection);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) fail("socket: %s", strerror(errno));
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = mode == RECEIVE ? EPOLLOUT : EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

/* -- echo and lines ------------------------------------------------------------------------- */

static void send_rest(struct connection *connection) {
    bool was_unsent = connection->sent > 0 && connection->sent < connection->size;
    ssize_t count = send(connection->fd, connection->out + connection->sent, connection->size - connection->sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR) fail("send: %s", strerror(errno));
        count = 0;
        if (connection->sent == 0) fail("no room for a message though none is in flight");
    }
    connection->sent += (size_t)count;
    bool is_unsent = connection->sent < connection->size;
    unsent += (int)is_unsent - (int)was_unsent;
}

static void send_message(struct connection *connection) {
    uint64_t index = (uint64_t)(connection - connections);
    if (mode == ECHO) {
        uint64_t stamp[2] = {index, connection->sequence};
        memcpy(connection->message, stamp, sizeof stamp);
        memcpy(connection->message + sizeof stamp, pattern + (connection->sequence + index * 97) % BLOCK,
               ECHO_SIZE - sizeof stamp);
        connection->out = connection->message;
        connection->size = ECHO_SIZE;
    } else {
        int variant = (int)((index + connection->sequence) % LINE_VARIANTS);
        connection->out = line_batches[variant];
        connection->size = line_batch_sizes[variant];
    }
    connection->sequence++;
    connection->sent = connection->answered = 0;
    connection->in_flight = true;
    send_rest(connection);
}

/* Returns true once the whole message has come back. */
static bool take_answer(struct connection *connection) {
    ssize_t count = recv(connection->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (count < 0) {
        if (errno == EAGAIN || errno == EINTR) return false;
        fail("recv: %s", strerror(errno));
    }
    if (count == 0) fail("the server closed a connection");
    if (!connection->in_flight || (size_t)count > connection->sent - connection->answered)
        fail("more came back than was sent");
    if (memcmp(buffer, connection->out + connection->answered, (size_t)count) != 0)
        fail("wrong bytes came back (message %llu)", (unsigned long long)connection->sequence);
    connection->answered += (size_t)count;
    if (connection->answered < connection->size) return false;
    connection->in_flight = false;
    return true;
}

static uint64_t exchange(double seconds) {
    struct epoll_event events[512];
    uint64_t total = 0, unit = mode == LINES ? (uint64_t)batch : 1;
    double start = now(), deadline = start + seconds, time = start, progress = start;
    int in_flight = connection_count;
    for (int i = 0; i < connection_count; i++) send_message(&connections[i]);
    while (in_flight > 0) {
        int ready = epoll_wait(poller, events, 512, 0);
        if (ready < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
        time = now();
        bool over = time >= deadline || total >= limit;
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            progress = time;
            if (!take_answer(connection)) continue;
            total += unit;
            if (over) in_flight--;
            else send_message(connection);
        }
        if (unsent > 0)
            for (int i = 0; i < connection_count; i++)
                if (connections[i].in_flight && connections[i].sent < connections[i].size) send_rest(&connections[i]);
        if (time - progress > PATIENCE) fail("%d connections wait for an answer", in_flight);
    }
    return total;
}

/* -- send and receive ----------------------------------------------------------------------- */

static uint64_t take_stream(double seconds) {
    struct epoll_event events[64];
    uint64_t total = 0;
    double start = now(), deadline = start + seconds, time = start, progress = start;
    while (time < deadline && total < limit) {
        int ready = epoll_wait(poller, events, 64, 0);
        time = now();
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            ssize_t count = recv(connection->fd, buffer, sizeof buffer, MSG_DONTWAIT);
            if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (count < 0) fail("recv: %s", strerror(errno));
            if (count == 0) fail("the server closed a connection");
            if (memcmp(buffer, pattern + connection->position % BLOCK, (size_t)count) != 0)
                fail("wrong bytes near byte %llu", (unsigned long long)connection->position);
            connection->position += (uint64_t)count;
            total += (uint64_t)count;
            progress = time;
        }
        if (time - progress > PATIENCE) fail("the server sends nothing");
    }
    return total;
}

static uint64_t give_stream(double seconds) {
    struct epoll_event events[64];
    uint64_t total = 0;
    double start = now(), deadline = start + seconds, time = start, progress = start;
    for (int i = 0; i < connection_count; i++) connect_one(&connections[i]);
    while (time < deadline && total < limit) {
        int ready = epoll_wait(poller, events, 64, 0);
        time = now();
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            ssize_t count = send(connection->fd, pattern + connection->position % BLOCK, BLOCK, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (count < 0) fail("send: %s", strerror(errno));
            connection->position += (uint64_t)count;
            total += (uint64_t)count;
            progress = time;
        }
        if (time - progress > PATIENCE) fail("the server receives nothing");
    }
    /* The end of the stream asks how much the server saw: eight bytes, big-endian. */
    for (int i = 0; i < connection_count; i++)
        if (shutdown(connections[i].fd, SHUT_WR) < 0) fail("shutdown: %s", strerror(errno));
    for (int i = 0; i < connection_count; i++) {
        uint64_t seen;
        struct timeval patience = {.tv_sec = (time_t)PATIENCE};
        setsockopt(connections[i].fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (recv(connections[i].fd, &seen, sizeof seen, MSG_WAITALL) != sizeof seen) fail("no count came back");
        seen = be64toh(seen);
        if (seen != connections[i].position)
            fail("sent %llu bytes, the server saw %llu", (unsigned long long)connections[i].position,
                 (unsigned long long)seen);
    }
    for (int i = 0; i < connection_count; i++) close(connections[i].fd);
    return total;
}

/* ------------------------------------------------------------------------------------------- */

static void go(double seconds) {
    double start = now();
    uint64_t work = 0;
    if (mode == ECHO || mode == LINES) work = exchange(seconds);
    else if (mode == SEND) work = take_stream(seconds);
    else if (mode == RECEIVE) work = give_stream(seconds);
    else fail("nothing to do in this mode");
    printf("done %llu %.9f\n", (unsigned long long)work, now() - start);
}

int main(int argc, char **argv) {
    static const char *const names[] = {"echo", "lines", "send", "receive", "idle"};
    if (argc != 6) fail("usage: load MODE PORT CORE BATCH LIMIT");
    int found = -1;
    for (int i = 0; i < 5; i++)
        if (strcmp(argv[1], names[i]) == 0) found = i;
    if (found < 0) fail("no mode %s", argv[1]);
    mode = (enum mode)found;
    port = atoi(argv[2]);
    int core = atoi(argv[3]);
    batch = atoi(argv[4]);
    limit = strtoull(argv[5], NULL, 10);
    if (port <= 0 || port > 65535 || batch <= 0 || batch > 100000 || limit == 0) fail("a number is out of range");
    if (core >= 0) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET((size_t)core, &cores);
        if (sched_setaffinity(0, sizeof cores, &cores) < 0) fail("core %d: %s", core, strerror(errno));
    }
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_pattern();
    make_line_batches();
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(MAX_CONNECTIONS, sizeof *connections);
    if (poller < 0 || connections == NULL) fail("out of memory or descriptors");

    char command[128];
    while (fgets(command, sizeof command, stdin) != NULL) {
        int count;
        double seconds;
        if (sscanf(command, "open %d", &count) == 1) {
            if (count <= 0 || connection_count + count > MAX_CONNECTIONS) fail("cannot open %d connections", count);
            for (int i = 0; i < count; i++, connection_count++)
                if (mode != RECEIVE) connect_one(&connections[connection_count]);
            printf("open %d\n", connection_count);
        } else if (sscanf(command, "go %lf", &seconds) == 1) {
            if (connection_count == 0 || !(seconds > 0 && seconds <= 3600)) fail("cannot go: %s", command);
            go(seconds);
        } else {
            fail("no such command: %s", command);
        }
    }
    return 0;
}
