/* Bytes in and out of a connection, with TLS or without.  Without OpenSSL's headers (WITH_TLS) there is no TLS. */
#include "load.h"

#include <fcntl.h>

#ifdef WITH_TLS

#include <openssl/err.h>
#include <openssl/ssl.h>

void start_tls(struct connection *connection) {
    static SSL_CTX *context;
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
        if (context == NULL) fail("no TLS context");
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        /* Whoever the server is: its bytes are checked, its name is not what is measured. */
        SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        /* Several records with one recv, so that we stay ahead of the server. */
        SSL_CTX_set_read_ahead(context, 1);
        SSL_CTX_set_default_read_buffer_len(context, BLOCK);
    }
    if (fcntl(connection->fd, F_SETFL, O_NONBLOCK) < 0) fail("fcntl: %s", strerror(errno));
    SSL *tls = SSL_new(context);
    if (tls == NULL || SSL_set_fd(tls, connection->fd) != 1) fail("no TLS object");
    SSL_set_connect_state(tls);
    connection->tls = tls;
}

/* The count as of send and recv: 0 is an end, with close_notify or without; -1 with errno. */
static ssize_t outcome(struct connection *connection, int count) {
    if (count > 0) return count;
    int error = SSL_get_error(connection->tls, count);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    if (error == SSL_ERROR_SSL) {
        unsigned long code = ERR_get_error();
        if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return 0;
        fail("TLS: %s", ERR_error_string(code, NULL));
    }
    return -1;
}

int shake_hands(struct connection *connection) {
    int done = SSL_do_handshake(connection->tls);
    if (done == 1) return 1;
    if (outcome(connection, done) == 0) fail("the server ended the handshake");
    if (errno != EAGAIN) fail("handshake: %s", strerror(errno));
    return 0;
}

static ssize_t give_tls(struct connection *connection, const char *data, size_t size) {
    ERR_clear_error();
    return outcome(connection, SSL_write(connection->tls, data, (int)size));
}

static ssize_t take_tls(struct connection *connection, char *data, size_t size) {
    ERR_clear_error();
    return outcome(connection, SSL_read(connection->tls, data, (int)size));
}

static void finish_tls(struct connection *connection) { SSL_shutdown(connection->tls); }

static void drop_tls(struct connection *connection) { SSL_free(connection->tls); }

bool more_is_decrypted(const struct connection *connection) {
    return connection->tls != NULL && SSL_has_pending(connection->tls);
}

#else

void start_tls(struct connection *connection) {
    (void)connection;
    fail("built without OpenSSL");
}

int shake_hands(struct connection *connection) {
    (void)connection;
    return 0;
}

#define give_tls(connection, data, size) ((ssize_t)-1)
#define take_tls(connection, data, size) ((ssize_t)-1)
#define finish_tls(connection)
#define drop_tls(connection)

bool more_is_decrypted(const struct connection *connection) {
    (void)connection;
    return false;
}

#endif

static ssize_t plain(ssize_t count) {
    if (count < 0 && errno == EINTR) errno = EAGAIN;
    return count;
}

ssize_t give(struct connection *connection, const char *data, size_t size) {
    if (connection->tls != NULL) return give_tls(connection, data, size);
    return plain(send(connection->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL));
}

ssize_t take(struct connection *connection, char *data, size_t size) {
    if (connection->tls != NULL) return take_tls(connection, data, size);
    return plain(recv(connection->fd, data, size, MSG_DONTWAIT));
}

void say_goodbye(struct connection *connection) {
    if (connection->tls != NULL) {
        finish_tls(connection);
    }
}

void finish(struct connection *connection) {
    say_goodbye(connection);
    if (shutdown(connection->fd, SHUT_WR) < 0) fail("shutdown: %s", strerror(errno));
}

void drop(struct connection *connection) {
    if (connection->tls != NULL) {
        drop_tls(connection);
    }
    close(connection->fd);
    connection->tls = NULL;
}
