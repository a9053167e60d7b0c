// SPDX-License-Identifier: Apache-2.0
/* floor: the least that an HTTP server can do: one thread, epoll, and the same answer to each request, of which only the
 * end is looked for (the blank line, and as many bytes as Content-Length says). Usage: floor PORT < ANSWER */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FDS = 4096, BUFFER = 256 << 10, BODY = 4096, EVENTS = 256 };

struct client {
    size_t n;
    char bytes[BUFFER];
};
static struct client *clients[FDS];
static char answer[BODY + 256];
static size_t answer_n;

static void must(int result, const char *what)
{
    if (result >= 0)
        return;
    perror(what);
    exit(1);
}

/* How long the first whole request is; 0: not all of it is there. */
static size_t request_size(const struct client *c)
{
    const char *end = memmem(c->bytes, c->n, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end - c->bytes) + 4;
    const char *field = memmem(c->bytes, head, "Content-Length: ", 16);
    size_t all = head + (field ? strtoul(field + 16, NULL, 10) : 0);
    return all <= c->n ? all : 0;
}

static void client_close(int fd)
{
    close(fd);
    free(clients[fd]);
    clients[fd] = NULL;
}

static void client_read(int fd)
{
    struct client *c = clients[fd];
    ssize_t got = read(fd, c->bytes + c->n, BUFFER - c->n);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            client_close(fd);
        return;
    }
    c->n += (size_t)got;
    for (size_t size; (size = request_size(c)) > 0;) {
        memmove(c->bytes, c->bytes + size, c->n - size);
        c->n -= size;
        if (write(fd, answer, answer_n) != (ssize_t)answer_n) {
            client_close(fd);
            return;
        }
    }
}

static void client_accept(int epoll, int listener)
{
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (fd >= FDS || !(clients[fd] = calloc(1, sizeof *clients[fd]))) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN, .data.fd = fd }),
         "epoll_ctl");
}

static int listen_on(const char *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons((in_port_t)atoi(port)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    must(fd, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    must(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    must(listen(fd, 1024), "listen");
    return fd;
}

int main(int argc, char **argv)
{
    char body[BODY];
    if (argc != 2)
        return 2;
    size_t n = fread(body, 1, sizeof body, stdin);
    answer_n = (size_t)snprintf(
        answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%.*s", n, (int)n,
        body);
    int listener = listen_on(argv[1]), epoll = epoll_create1(0);
    must(epoll, "epoll_create1");
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, listener,
                   &(struct epoll_event){ .events = EPOLLIN, .data.fd = listener }),
         "epoll_ctl");
    for (struct epoll_event events[EVENTS];;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                client_accept(epoll, listener);
            else
                client_read(events[i].data.fd);
        }
    }
}
