/* The load generator: one thread, one epoll, spinning, so that its own wake-ups are not in the figures.
 *
 * load MODE NAME=NUMBER...
 *
 *   MODE   echo, lines: sends a message on each connection, checks that the same bytes come back, sends the next;
 *          datagrams: the same by UDP, with `batch` datagrams of each socket in flight;
 *          send: reads what the server sends, and checks it; receive: sends, and checks what the server tells it has seen;
 *          accept: connects, has a message echoed, ends, waits for the server's end, and begins again;
 *          client: listens, checks what a client asks, answers, waits for its end;
 *          idle: holds connections.
 *   port   on 127.0.0.1, and nowhere else; for the mode client 0, and it prints `listening PORT` first.
 *   core   the core to run on; -1 (default) for any.
 *   size   bytes of a message or of a line with its end (64; for lines 0, which is 11 to 39 bytes).
 *   batch  lines in a message, datagrams in flight (1).
 *   tls    1: TLS, whatever the certificate (0).
 *   limit  work after which a go ends before its time.
 *
 * It is told what to do on stdin and answers on stdout, a line each:
 *
 *   open COUNT  -> open TOTAL                        so many more connections
 *   begin       -> begun                             forgets what was counted for `report`
 *   go SECONDS  -> done WORK SECONDS                 works, until every answer is there
 *   report      -> report P50 P99 ANSWERS STARVED LOST   seconds; connections that no answer reached in time; datagrams
 *   (end)       closes the connections and exits with status 0
 *
 * A wrong byte, a lost connection, or ten seconds without a byte: a line on stderr and exit status 1.
 */
#include "load.h"

#include <sched.h>
#include <signal.h>

struct settings settings = {.core = -1, .batch = 1, .size = 64, .limit = UINT64_MAX};
int poller, connection_count;
struct connection *connections;
uint64_t lost;
char *pattern;
char buffer[READ_SIZE];

static void open_stream(struct connection *connection) { open_tcp(connection, EPOLLIN); }

static const struct mode {
    const char *name;
    void (*open)(struct connection *);
    uint64_t (*go)(double);
} modes[] = {
    {"echo", open_stream, go_echo},
    {"lines", open_stream, go_lines},
    {"datagrams", open_datagrams, go_datagrams},
    {"send", open_stream, go_send},
    {"receive", open_receive, go_receive},
    {"accept", open_nothing, go_accept},
    {"client", open_nothing, go_client},
    {"idle", open_stream, NULL},
};

static void set(const char *argument) {
    static const struct {
        const char *name;
        uint64_t least, most;
    } names[] = {{"port", 0, 65535}, {"core", 0, CPU_SETSIZE - 1}, {"size", 0, MAX_SIZE},
                 {"batch", 1, 100000}, {"tls", 0, 1}, {"limit", 1, UINT64_MAX}};
    if (strcmp(argument, "core=-1") == 0) return;
    const char *number = strchr(argument, '=');
    if (number == NULL) fail("NAME=NUMBER, not %s", argument);
    char *end;
    errno = 0;
    uint64_t value = strtoull(number + 1, &end, 10);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strncmp(argument, names[i].name, (size_t)(number - argument)) != 0 || names[i].name[number - argument]) continue;
        if (number[1] < '0' || number[1] > '9' || *end || errno || value < names[i].least || value > names[i].most)
            fail("out of range: %s", argument);
        switch (i) {
        case 0: settings.port = (int)value; break;
        case 1: settings.core = (int)value; break;
        case 2: settings.size = (size_t)value; break;
        case 3: settings.batch = (int)value; break;
        case 4: settings.tls = value != 0; break;
        case 5: settings.limit = value; break;
        }
        return;
    }
    fail("no setting %s", argument);
}

static void pin(void) {
    if (settings.core < 0) return;
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET((size_t)settings.core, &cores);
    if (sched_setaffinity(0, sizeof cores, &cores) < 0) fail("core %d: %s", settings.core, strerror(errno));
}

int main(int argc, char **argv) {
    const struct mode *mode = NULL;
    for (size_t i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++)
        if (strcmp(argv[1], modes[i].name) == 0) mode = &modes[i];
    if (mode == NULL) fail("usage: load MODE NAME=NUMBER...");
    if (mode->go == go_lines) settings.size = 0;
    for (int i = 2; i < argc; i++) set(argv[i]);
    if (mode->go != go_lines && settings.size == 0) fail("size=0 is for lines");
    pin();
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_pattern();
    if (mode->go == go_lines) make_line_batches();
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(MAX_CONNECTIONS, sizeof *connections);
    if (poller < 0 || connections == NULL) fail("out of memory or descriptors");
    if (mode->go == go_client) listen_for_clients();

    char command[128];
    while (fgets(command, sizeof command, stdin) != NULL) {
        int count;
        double seconds;
        if (sscanf(command, "open %d", &count) == 1) {
            if (count <= 0 || connection_count + count > MAX_CONNECTIONS) fail("cannot open %d connections", count);
            for (int i = 0; i < count; i++, connection_count++) mode->open(&connections[connection_count]);
            printf("open %d\n", connection_count);
        } else if (sscanf(command, "go %lf", &seconds) == 1) {
            if (mode->go == NULL || connection_count == 0 || !(seconds > 0 && seconds <= 3600)) fail("cannot go: %s", command);
            double start = now();
            uint64_t work = mode->go(seconds);
            printf("done %llu %.9f\n", (unsigned long long)work, now() - start);
        } else if (strcmp(command, "begin\n") == 0) {
            forget();
            printf("begun\n");
        } else if (strcmp(command, "report\n") == 0) {
            report();
        } else {
            fail("no such command: %s", command);
        }
    }
    for (int i = 0; i < connection_count; i++) say_goodbye(&connections[i]);
    return 0;
}
