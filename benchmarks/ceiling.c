/* How fast can anything read these objects? One thread, epoll, keep-alive connections, nothing done with the bytes.
 *
 * Usage: ceiling CONNECTIONS [DEPTH] < requests, a line each: "ADDRESS PORT PATH RANGE"; the range is "FIRST-LAST", or
 * "-" for all. DEPTH requests go out together on a connection, and the next ones when all are answered. Prints "OBJECTS BYTES SECONDS CPU". Any answer but a 200 or 206 with Content-Length ends it with status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 8192, PIECE = 1 << 18 };
struct server { char address[64]; int port; char **paths; size_t count, next; };
struct connection { int fd; struct server *of; long left; int in_body, owed; size_t have; char head[HEAD + 1]; };

static struct server servers[64];
static size_t server_count, objects, expected, depth = 1;
static unsigned long long bytes;
static char piece[PIECE];

static void fail(const char *why) { fprintf(stderr, "ceiling: %s\n", why); exit(1); }

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

static struct server *server_of(const char *address, int port) {
  for (size_t i = 0; i < server_count; i++)
    if (servers[i].port == port && !strcmp(servers[i].address, address)) return &servers[i];
  if (server_count == 64) fail("more than 64 servers");
  struct server *found = &servers[server_count++];
  snprintf(found->address, sizeof found->address, "%s", address);
  found->port = port;
  return found;
}

static int asked(struct connection *c) { /* 0 when its server has nothing more to ask for */
  char text[1 << 16];
  size_t sent = 0;
  for (size_t i = 0; i < depth && c->of->next < c->of->count; i++, c->owed++) {
    char *path = c->of->paths[c->of->next++], *range = strchr(path, ' ') + 1;
    size_t room = sizeof text - sent;
    int length = snprintf(text + sent, room, "GET %.*s HTTP/1.1\r\nHost: %s:%d\r\n%s%s%s\r\n", (int)(range - path - 1),
                          path, c->of->address, c->of->port, *range == '-' ? "" : "Range: bytes=",
                          *range == '-' ? "" : range, *range == '-' ? "" : "\r\n");
    if (length >= (int)room) fail("names too long");
    sent += length;
  }
  if (write(c->fd, text, sent) != (ssize_t)sent) fail("cannot send");
  return c->owed > 0;
}

static int readable(struct connection *c) { /* 0 when it has nothing more to do */
  for (;;) {
    if (!c->in_body) {
      char *end = c->have ? strstr(c->head, "\r\n\r\n") : NULL;
      if (!end) {
        if (c->have == HEAD) fail("a long header");
        ssize_t got = recv(c->fd, c->head + c->have, HEAD - c->have, MSG_DONTWAIT);
        if (got < 0) return 1;
        if (got == 0) fail("closed in a header");
        c->have += got, c->head[c->have] = 0;
        continue;
      }
      if (strncmp(c->head, "HTTP/1.1 200", 12) && strncmp(c->head, "HTTP/1.1 206", 12)) fail(c->head);
      char *length = strcasestr(c->head, "\r\nContent-Length:");
      if (!length || length > end) fail("no Content-Length");
      c->left = atol(length + 17);
      bytes += c->left;
      size_t come = c->head + c->have - (end + 4), taken = (long)come < c->left ? come : (size_t)c->left;
      c->left -= taken, c->have = come - taken, c->in_body = 1;
      memmove(c->head, end + 4 + taken, c->have);
      c->head[c->have] = 0;
    }
    while (c->left > 0) {
      ssize_t got = recv(c->fd, piece, c->left < PIECE ? c->left : PIECE, MSG_DONTWAIT);
      if (got < 0) return 1;
      if (got == 0) fail("closed in a body");
      c->left -= got;
    }
    objects++, c->in_body = 0;
    if (!--c->owed && !asked(c)) return 0;
  }
}

int main(int argc, char **argv) {
  int width = argc > 1 ? atoi(argv[1]) : 64, port, poll = epoll_create1(0);
  char address[64], path[3072]; /* and range */
  if (argc > 2) depth = atoi(argv[2]);
  while (scanf("%63s %d %3071[^\n]", address, &port, path) == 3) {
    struct server *s = server_of(address, port);
    s->paths = realloc(s->paths, (s->count + 1) * sizeof *s->paths);
    s->paths[s->count++] = strdup(path), expected++;
  }
  double began = now();
  for (int i = 0; i < width; i++) {
    struct connection *c = calloc(1, sizeof *c);
    struct sockaddr_in to = {.sin_family = AF_INET};
    c->of = &servers[i % server_count], c->fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons(c->of->port), inet_pton(AF_INET, c->of->address, &to.sin_addr);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to)) fail("cannot connect");
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event);
    asked(c);
  }
  while (objects < expected) {
    struct epoll_event events[256];
    int count = epoll_wait(poll, events, 256, 30000);
    if (count <= 0) fail("nothing came for 30 s");
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (!readable(c)) epoll_ctl(poll, EPOLL_CTL_DEL, c->fd, NULL);
    }
  }
  struct rusage usage;
  double seconds = now() - began;
  getrusage(RUSAGE_SELF, &usage);
  double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  printf("%zu %llu %f %f\n", objects, bytes, seconds, cpu);
  return 0;
}
