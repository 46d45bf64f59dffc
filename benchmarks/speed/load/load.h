/* What the parts of the load generator share.  main.c says how it is used. */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK (64 * 1024)         /* the pattern repeats after so many bytes */
#define READ_SIZE (256 * 1024)
#define MAX_SIZE (16 * 1024 * 1024)
#define MAX_CONNECTIONS 60000
#define PATIENCE 10.0             /* seconds without any progress, after which we fail */

struct connection {
    int fd;
    void *tls;         /* NULL without TLS */
    uint64_t sequence; /* messages begun */
    uint64_t position; /* bytes, modes send and receive */
    const char *out;   /* the message in flight */
    size_t size, sent, answered;
    bool in_flight;
    double begun;      /* when the message in flight was begun */
    uint64_t in_time;  /* answers before the end of a go, since `begin` */
    int step;          /* modes accept and client: how far this one is */
};

/* What main.c was told. */
struct settings {
    int port, core, batch;
    size_t size;       /* bytes of a message or a line; 0: lines of 11 to 39 bytes */
    bool tls;
    uint64_t limit;    /* work after which a go ends before its time */
};

extern struct settings settings;
extern int poller, connection_count;
extern struct connection *connections;
extern uint64_t lost;             /* datagrams, since `begin` */
extern char *pattern;             /* BLOCK + MAX_SIZE bytes */
extern char buffer[READ_SIZE];

/* tools.c */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
double now(void);
void make_pattern(void);
struct sockaddr_in server_address(void);
void watch(struct connection *connection, uint32_t events, int operation);
void took(double seconds);        /* one more answer, for the latencies */
void forget(void);                /* all latencies and all that was answered in time */
void report(void);

/* link.c: bytes in and out, with TLS or without; -1 with errno EAGAIN where they would wait */
ssize_t give(struct connection *connection, const char *data, size_t size);
ssize_t take(struct connection *connection, char *data, size_t size);
void start_tls(struct connection *connection);       /* a context and an object; no byte goes out yet */
int shake_hands(struct connection *connection);      /* 1 done, 0 would wait; fails otherwise */
void say_goodbye(struct connection *connection);     /* close_notify, where there is TLS */
void finish(struct connection *connection);          /* the same, and FIN: no more bytes from us */
void drop(struct connection *connection);            /* close, and free what start_tls made */
bool more_is_decrypted(const struct connection *connection);

/* the modes: open prepares one connection, go works for so many seconds and returns the work done */
void open_tcp(struct connection *connection, uint32_t events);
void make_line_batches(void);
void open_exchange(struct connection *connection);
uint64_t go_echo(double seconds);
uint64_t go_lines(double seconds);
void open_datagrams(struct connection *connection);
uint64_t go_datagrams(double seconds);
uint64_t go_send(double seconds);
void open_receive(struct connection *connection);
uint64_t go_receive(double seconds);
void open_nothing(struct connection *connection);
uint64_t go_accept(double seconds);
void listen_for_clients(void);
uint64_t go_client(double seconds);

#endif
