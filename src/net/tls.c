// SPDX-License-Identifier: Apache-2.0
/* tls: TLS 1.3 between the socket and the codec, by OpenSSL over memory: libuv stays the only I/O. */
#include "net/internal.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

enum {
    LOOK_MS = 2000, /* between two looks at the files */
    SUBJECT_MAX = 512,
};

/* What a file was when it was read: a change of any of it is a new file. */
struct stamp {
    int64_t changed_ns, size;
    uint64_t inode;
};
struct tls {
    struct net *net;
    const char *cert, *key, *ca; /* ca NULL: clients show nothing */
    struct stamp seen[3];
    int64_t look_ms;
    pthread_t thread;
    bool runs, stop;
    pthread_mutex_t lock; /* of context and stop */
    pthread_cond_t changed;
    SSL_CTX *context;
};

struct tls_conn {
    SSL *ssl;
    BIO *in, *out; /* of ciphertext; ssl's */
    bool ready;    /* the handshake is done */
    bool seen;     /* its first byte was looked at */
    char *subject;
    uv_buf_t v[TLS_BUFS]; /* plain bytes that are still to be sent */
    unsigned at, n;
};

/* ---- certificates ---- */

static err why(const char *file)
{
    unsigned long code = ERR_get_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    FAIL(INVALID, "%s: %s", file, text ? text : "it cannot be used");
}

static int choose(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
                  unsigned in_n, void *arg)
{
    (void)ssl, (void)arg;
    static const unsigned char ours[] = "\x02h2\x08http/1.1";
    unsigned char *got;
    int how = SSL_select_next_proto(&got, out_n, ours, sizeof ours - 1, in, in_n);
    *out = got;
    return how == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static err context_fill(const struct tls *t, SSL_CTX *ctx)
{
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_ENABLE_PARTIAL_WRITE);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_alpn_select_cb(ctx, choose, NULL);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"dhow", 4);
    if (SSL_CTX_use_certificate_chain_file(ctx, t->cert) != 1)
        return why(t->cert);
    if (SSL_CTX_use_PrivateKey_file(ctx, t->key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1)
        return why(t->key);
    if (!t->ca)
        return NULL;
    if (SSL_CTX_load_verify_locations(ctx, t->ca, NULL) != 1)
        return why(t->ca);
    SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(t->ca));
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return NULL;
}

static err context_new(const struct tls *t, SSL_CTX **out)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx)
        FAIL(INTERNAL, "OpenSSL does not start");
    err e = context_fill(t, ctx);
    if (e) {
        SSL_CTX_free(ctx);
        return e;
    }
    *out = ctx;
    return NULL;
}

static struct stamp stamp_of(const char *file)
{
    struct stat s;
    if (!file || stat(file, &s))
        return (struct stamp){ 0 };
    return (struct stamp){ s.st_mtim.tv_sec * 1000000000ll + s.st_mtim.tv_nsec, s.st_size, s.st_ino };
}

/* True if a file is another than when it was looked at last. */
static bool files_look(struct tls *t)
{
    const char *files[] = { t->cert, t->key, t->ca };
    bool other = false;
    for (size_t i = 0; i < 3; i++) {
        struct stamp s = stamp_of(files[i]);
        other |= memcmp(&s, &t->seen[i], sizeof s) != 0;
        t->seen[i] = s;
    }
    return other;
}

/* New connections take the new pair; those that are open keep theirs, and so does everybody if it is a bad one. */
static void reload(struct tls *t)
{
    SSL_CTX *fresh, *old;
    err e = context_new(t, &fresh);
    if (e) {
        if (t->net->config.report)
            t->net->config.report("tls.reload_failed", e);
        return;
    }
    pthread_mutex_lock(&t->lock);
    old = t->context;
    t->context = fresh;
    pthread_mutex_unlock(&t->lock);
    SSL_CTX_free(old);
}

static void *tls_main(void *arg)
{
    struct tls *t = arg;
    pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        int64_t ns = until.tv_nsec + t->look_ms * 1000000;
        until.tv_sec += ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        pthread_cond_timedwait(&t->changed, &t->lock, &until);
        pthread_mutex_unlock(&t->lock);
        if (files_look(t))
            reload(t);
        err_reset();
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

err tls_new(struct net *net, struct tls **out)
{
    const struct net_config *c = &net->config;
    struct tls *t = NEW(net->a, struct tls);
    t->net = net;
    t->look_ms = c->tls_look_ms > 0 ? c->tls_look_ms : LOOK_MS;
    if (!c->tls_cert.n || !c->tls_key.n)
        FAIL(INVALID, "TLS needs a certificate and its key");
    t->cert = str_z(net->a, c->tls_cert);
    t->key = str_z(net->a, c->tls_key);
    t->ca = c->tls_client_ca.n ? str_z(net->a, c->tls_client_ca) : NULL;
    (void)files_look(t);
    TRY(context_new(t, &t->context));
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    *out = t;
    TRY(thread_start("tls", tls_main, t, &t->thread));
    t->runs = true;
    return NULL;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
    if (t->runs)
        pthread_join(t->thread, NULL);
    SSL_CTX_free(t->context);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
}

/* ---- one connection ---- */

struct tls_conn *tls_conn_new(struct tls *t)
{
    struct tls_conn *s = calloc(1, sizeof *s);
    if (!s)
        abort(); /* as arenas do */
    pthread_mutex_lock(&t->lock);
    s->ssl = SSL_new(t->context);
    pthread_mutex_unlock(&t->lock);
    s->in = BIO_new(BIO_s_mem());
    s->out = BIO_new(BIO_s_mem());
    if (!s->ssl || !s->in || !s->out)
        abort();
    SSL_set_bio(s->ssl, s->in, s->out);
    SSL_set_accept_state(s->ssl);
    return s;
}

void tls_conn_free(struct tls_conn *s)
{
    if (!s)
        return;
    SSL_free(s->ssl);
    free(s->subject);
    free(s);
}

struct str tls_subject(const struct tls_conn *s)
{
    return s ? str_of(s->subject) : S("");
}

static void subject_take(struct tls_conn *s)
{
    X509 *cert = SSL_get0_peer_certificate(s->ssl);
    BIO *text = cert ? BIO_new(BIO_s_mem()) : NULL;
    if (!text)
        return;
    X509_NAME_print_ex(text, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
    char *p;
    long n = BIO_get_mem_data(text, &p);
    s->subject = n > 0 && n <= SUBJECT_MAX ? calloc(1, (size_t)n + 1) : NULL;
    if (s->subject)
        memcpy(s->subject, p, (size_t)n); /* no zero ends it */
    BIO_free(text);
}

/* Sends the ciphertext that is there. */
static bool sealed_send(struct conn *c)
{
    struct tls_conn *s = c->tls;
    char *p;
    long n = BIO_get_mem_data(s->out, &p);
    if (n <= 0 || c->writing || c->closed)
        return n <= 0;
    bool all = conn_send_copy(c, (struct str){ p, (size_t)n });
    (void)BIO_reset(s->out);
    return all;
}

bool tls_send(struct conn *c, const uv_buf_t *v, unsigned n)
{
    struct tls_conn *s = c->tls;
    if (v) {
        memcpy(s->v, v, n * sizeof *v);
        s->at = 0;
        s->n = n;
    }
    size_t got, sealed = 0;
    while (s->at < s->n || BIO_ctrl_pending(s->out)) {
        while (s->at < s->n && sealed < SEAL_BYTES) {
            uv_buf_t *b = &s->v[s->at];
            size_t part = b->len < SEAL_BYTES ? b->len : SEAL_BYTES;
            if (b->len && SSL_write_ex(s->ssl, b->base, part, &got) != 1) {
                ERR_clear_error();
                conn_close(c);
                return false;
            }
            got = b->len ? got : 0;
            b->base += got;
            b->len -= got;
            sealed += got;
            s->at += b->len == 0;
        }
        sealed = 0;
        if (!sealed_send(c))
            return false;
    }
    s->n = s->at = 0;
    return true;
}

bool tls_sends(const struct conn *c)
{
    return c->tls->at < c->tls->n || BIO_ctrl_pending(c->tls->out);
}

static bool handshake(struct conn *c)
{
    struct tls_conn *s = c->tls;
    int got = SSL_do_handshake(s->ssl);
    int how = SSL_get_error(s->ssl, got);
    ERR_clear_error();
    (void)sealed_send(c); /* what to say next, or why not */
    if (got == 1) {
        s->ready = true;
        c->idle_due = 0;
        subject_take(s);
        return true;
    }
    if (how != SSL_ERROR_WANT_READ)
        conn_linger(c);
    return false;
}

/* A client that speaks HTTP is told what is spoken here. */
static bool is_plain(struct conn *c, struct str in)
{
    static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                               "Connection: close\r\n\r\nthis port speaks TLS: write https:// for http://\n";
    if (c->tls->seen || !in.n)
        return false;
    c->tls->seen = true;
    if (in.p[0] == 0x16) /* the first byte of a handshake */
        return false;
    (void)conn_send_copy(c, (struct str){ text, sizeof text - 1 });
    if (!c->closed)
        conn_linger(c);
    return true;
}

void tls_take(struct conn *c, struct str in)
{
    struct tls_conn *s = c->tls;
    if (is_plain(c, in))
        return;
    if (in.n && BIO_write(s->in, in.p, (int)in.n) != (int)in.n) {
        conn_close(c);
        return;
    }
    if (!s->ready && !handshake(c))
        return;
    while (conn_takes(c) && !c->rest.n) {
        size_t n;
        int got = SSL_read_ex(s->ssl, c->loop->plain, IN_SIZE, &n);
        int how = SSL_get_error(s->ssl, got);
        ERR_clear_error();
        if (got != 1) {
            (void)sealed_send(c); /* an answer to a key update, or an alert */
            if (how == SSL_ERROR_ZERO_RETURN)
                conn_eof(c);
            else if (how != SSL_ERROR_WANT_READ && !c->closed)
                conn_linger(c);
            return;
        }
        conn_give(c, (struct str){ c->loop->plain, n });
    }
}

void tls_goodbye(struct conn *c)
{
    char *p;
    if (!c->tls->ready || c->writing || SSL_shutdown(c->tls->ssl) < 0)
        return;
    long n = BIO_get_mem_data(c->tls->out, &p);
    uv_buf_t b = uv_buf_init(p, (unsigned)n);
    (void)uv_try_write((uv_stream_t *)&c->tcp, &b, 1); /* or it learns from the socket */
    (void)BIO_reset(c->tls->out);
    c->tls->ready = false;
}
