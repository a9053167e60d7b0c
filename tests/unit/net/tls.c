// SPDX-License-Identifier: Apache-2.0
#define SUITE net_tls
#include "help.h"
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>

static char dir[] = "/tmp/dhow-tls-XXXXXX";
static const char *cert_file, *key_file, *ca_file;
static atomic_int reported, stopped, failed, asked;
static char report_text[256];

/* ---- certificates ---- */

struct pair {
    EVP_PKEY *key;
    X509 *cert;
};

static void extend(X509 *cert, int what, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, what, value);
    CHECK(e && X509_add_ext(cert, e, -1));
    X509_EXTENSION_free(e);
}

/* by NULL: signed by itself. */
static struct pair pair_new(const char *name, const struct pair *by)
{
    static int serial = 1;
    struct pair p = { EVP_EC_gen("P-256"), X509_new() };
    CHECK(p.key && p.cert);
    X509_set_version(p.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(p.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(p.cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(p.cert), 3600);
    X509_set_pubkey(p.cert, p.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(p.cert), "CN", MBSTRING_ASC, (const uint8_t *)name, -1,
                               -1, 0);
    X509_set_issuer_name(p.cert, X509_get_subject_name(by ? by->cert : p.cert));
    extend(p.cert, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    extend(p.cert, NID_basic_constraints, by ? "CA:FALSE" : "CA:TRUE");
    CHECK(X509_sign(p.cert, by ? by->key : p.key, EVP_sha256()));
    return p;
}

static void pair_free(struct pair p)
{
    X509_free(p.cert);
    EVP_PKEY_free(p.key);
}

static const char *file(struct arena *a, const char *name)
{
    return fmtz(a, "%s/%s", dir, name);
}

/* Renamed into its place, as people who rotate certificates do. */
static void pem_write(struct arena *a, const char *path, const struct pair *p, bool key)
{
    const char *tmp = fmtz(a, "%s.new", path);
    FILE *f = fopen(tmp, "w");
    CHECK(f);
    CHECK(key ? PEM_write_PrivateKey(f, p->key, NULL, NULL, 0, NULL, NULL) : PEM_write_X509(f, p->cert));
    fclose(f);
    CHECK(rename(tmp, path) == 0);
}

static void pair_write(struct arena *a, const struct pair *p)
{
    pem_write(a, key_file, p, true);
    pem_write(a, cert_file, p, false);
}

static void files_begin(struct arena *a)
{
    CHECK(mkdtemp(dir));
    cert_file = file(a, "cert.pem");
    key_file = file(a, "key.pem");
    ca_file = file(a, "ca.pem");
}

static void on_report(const char *event, err e)
{
    CHECK(!strcmp(event, "tls.reload_failed"));
    snprintf(report_text, sizeof report_text, "%.*s", STR(e->text));
    reported++;
}

static err say_subject(struct req *r)
{
    return req_reply(r, 200, "text/plain", r->tls_subject);
}
static const struct route table[] = { { M_GET, "/subject", say_subject, "public", .on_loop = true }, { 0 } };
static const struct route *const tables[] = { help_routes, table, NULL };

static struct net *start(const char *ca)
{
    struct net_config c = { .routes = tables,
                            .loops = 1,
                            .tls_cert = str_of(cert_file),
                            .tls_key = str_of(key_file),
                            .tls_client_ca = str_of(ca),
                            .tls_look_ms = 20,
                            .report = on_report };
    c.limits.header_ms_max = 500;
    return help_start(c);
}

static struct http *https(struct arena *a, const struct net *net, const char *ca)
{
    struct http *h;
    setenv("DHOW_CA", ca, 1);
    CHECK_OK(http_open(fmt(a, "https://%.*s", STR(net_address(net))), S(""), 10 * 1000, &h));
    return h;
}

/* ---- a client by hand ---- */

struct dial {
    int version;
    const char *alpn;
    const struct pair *as;
};
struct dialled {
    bool done;
    char alpn[16];
    char reply[512];
};

static struct dialled dial(const struct net *net, struct dial d, const char *say)
{
    struct dialled got = { 0 };
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(ctx, d.version);
    SSL_CTX_set_max_proto_version(ctx, d.version);
    if (d.as) {
        SSL_CTX_use_certificate(ctx, d.as->cert);
        SSL_CTX_use_PrivateKey(ctx, d.as->key);
    }
    SSL *s = SSL_new(ctx);
    int fd = help_connect(net);
    SSL_set_fd(s, fd);
    if (d.alpn)
        SSL_set_alpn_protos(s, (const uint8_t *)d.alpn, (unsigned)strlen(d.alpn));
    got.done = SSL_connect(s) == 1;
    const unsigned char *p = NULL;
    unsigned n = 0;
    SSL_get0_alpn_selected(s, &p, &n);
    snprintf(got.alpn, sizeof got.alpn, "%.*s", (int)n, p ? (const char *)p : "");
    size_t at = 0;
    if (got.done && say && SSL_write(s, say, (int)strlen(say)) > 0)
        for (int more; at < sizeof got.reply - 1 &&
                       (more = SSL_read(s, got.reply + at, (int)(sizeof got.reply - 1 - at))) > 0;)
            at += (size_t)more;
    SSL_free(s);
    SSL_CTX_free(ctx);
    ERR_clear_error();
    close(fd);
    return got;
}

/* ---- what holds ---- */

TEST(our_client_and_server_speak_it)
{
    auto_arena struct arena *a = arena_new(0);
    files_begin(a);
    struct pair p = pair_new("one", NULL), other = pair_new("two", NULL);
    pair_write(a, &p);
    pem_write(a, ca_file, &other, false);
    struct net *net = start(NULL);
    struct http *h = https(a, net, cert_file);
    static const size_t sizes[] = { 0, 100, 70000, 20 << 20 };
    struct http_reply r;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct str body = { arena_alloc(a, sizes[i] + 1, 1), sizes[i] };
        memset((char *)body.p, 'a', body.n);
        CHECK_OK(http_do(h, a, M_POST, S("/lane"), S(""), body, &r));
        CHECK(r.status == 200 && str_eq(r.body, body));
    }
    CHECK_OK(http_do(h, a, M_GET, S("/much"), S(""), S(""), &r));
    CHECK(r.body.n == 32 << 20);
    http_close(h);
    h = https(a, net, ca_file); /* whom it trusts did not sign for this server */
    CHECK_ERR(http_do(h, a, M_GET, S("/loop"), S(""), S(""), &r), UNAVAILABLE);
    http_close(h);
    pair_free(p);
    pair_free(other);
    net_stop(net);
}

TEST(only_1_3_and_both_protocols)
{
    auto_arena struct arena *a = arena_new(0);
    files_begin(a);
    struct pair p = pair_new("one", NULL);
    pair_write(a, &p);
    struct net *net = start(NULL);
    CHECK(!dial(net, (struct dial){ TLS1_2_VERSION, NULL, NULL }, NULL).done);
    struct dialled got = dial(net, (struct dial){ TLS1_3_VERSION, "\x08http/1.1\x02h2", NULL }, NULL);
    CHECK(got.done && !strcmp(got.alpn, "h2"));
    got = dial(net, (struct dial){ TLS1_3_VERSION, "\x08http/1.1", NULL }, LAST("/loop"));
    CHECK(got.done && !strcmp(got.alpn, "http/1.1") && strstr(got.reply, "\r\n\r\nhello"));
    CHECK(!dial(net, (struct dial){ TLS1_3_VERSION, "\x03xyz", NULL }, NULL).done);
    struct str told = help_talk(a, net, S(GET("/loop")));
    CHECK(help_status(told) == 400 && help_has(told, S("https://")));
    int fd = help_connect(net); /* a handshake that does not come */
    help_send(fd, S("\x16\x03\x01"));
    CHECK_STR(help_drain(a, fd), "");
    close(fd);
    pair_free(p);
    net_stop(net);
}

TEST(clients_show_who_they_are)
{
    auto_arena struct arena *a = arena_new(0);
    files_begin(a);
    struct pair p = pair_new("server", NULL), ca = pair_new("the ca", NULL), anna = pair_new("anna", &ca);
    struct pair forged = pair_new("anna", NULL);
    pair_write(a, &p);
    pem_write(a, ca_file, &ca, false);
    struct net *net = start(ca_file);
    struct dialled got = dial(net, (struct dial){ TLS1_3_VERSION, NULL, &anna }, LAST("/subject"));
    CHECK(strstr(got.reply, "\r\n\r\nCN=anna"));
    got = dial(net, (struct dial){ TLS1_3_VERSION, NULL, NULL }, LAST("/subject"));
    CHECK(!got.reply[0]);
    got = dial(net, (struct dial){ TLS1_3_VERSION, NULL, &forged }, LAST("/subject"));
    CHECK(!got.reply[0]);
    pair_free(p);
    pair_free(ca);
    pair_free(anna);
    pair_free(forged);
    net_stop(net);
}

static void *ask_on(void *arg)
{
    const struct net *net = arg;
    auto_arena struct arena *a = arena_new(0);
    struct http *h = https(a, net, ca_file);
    for (int i = 0; !stopped; i++) {
        struct http_reply r;
        if (i % 10 == 9) { /* a new handshake now and then */
            http_close(h);
            h = https(a, net, ca_file);
        }
        err e = http_do(h, a, M_GET, S("/loop"), S(""), S(""), &r);
        failed += e || r.status != 200;
        asked++;
        err_reset();
    }
    http_close(h);
    return NULL;
}

static void wait_for(atomic_int *what, int n)
{
    for (int i = 0; i < 10000 && *what < n; i++)
        usleep(1000);
    CHECK(*what >= n);
}

static X509 *shown(const struct net *net)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *s = SSL_new(ctx);
    int fd = help_connect(net);
    SSL_set_fd(s, fd);
    CHECK(SSL_connect(s) == 1);
    X509 *got = SSL_get1_peer_certificate(s);
    SSL_free(s);
    SSL_CTX_free(ctx);
    close(fd);
    return got;
}

static void wait_shown(const struct net *net, const X509 *want)
{
    bool same = false;
    for (int i = 0; i < 1000 && !same; i++) {
        X509 *now = shown(net);
        same = X509_cmp(now, want) == 0;
        X509_free(now);
        usleep(5000);
    }
    CHECK(same);
}

TEST(a_rotation_under_load_fails_nobody)
{
    enum { CLIENTS = 4 };
    auto_arena struct arena *a = arena_new(0);
    files_begin(a);
    struct pair ca = pair_new("the ca", NULL), one = pair_new("one", &ca), two = pair_new("two", &ca);
    pem_write(a, ca_file, &ca, false);
    pair_write(a, &one);
    struct net *net = start(NULL);
    pthread_t t[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        CHECK(!thread_start("client", ask_on, net, &t[i]));
    wait_for(&asked, 50);
    CHECK_OK(file_write(key_file, S("this is no key")));
    wait_for(&reported, 1);
    CHECK(strstr(report_text, key_file));
    wait_shown(net, one.cert); /* the old pair goes on */
    pair_write(a, &two);
    wait_shown(net, two.cert);
    wait_for(&asked, asked + 50);
    stopped = 1;
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(t[i], NULL);
    CHECK(!failed);
    pair_free(ca);
    pair_free(one);
    pair_free(two);
    net_stop(net);
}

TEST(a_bad_pair_does_not_start)
{
    auto_arena struct arena *a = arena_new(0);
    files_begin(a);
    struct pair one = pair_new("one", NULL), two = pair_new("two", NULL);
    struct net_config c = { .listen = S("127.0.0.1:0"), .routes = tables, .tls_cert = str_of(cert_file) };
    struct net *net;
    CHECK_ERR(net_start(&c, &net), INVALID); /* no key */
    c.tls_key = str_of(key_file);
    CHECK_ERR(net_start(&c, &net), INVALID); /* no files */
    pem_write(a, cert_file, &one, false);
    pem_write(a, key_file, &two, true);
    CHECK_ERR(net_start(&c, &net), INVALID); /* not of each other */
    pair_free(one);
    pair_free(two);
}
