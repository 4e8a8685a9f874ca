// The load: many WebSockets and many keep-alive HTTP connections in one thread on one epoll. It judges nothing.
//
// Reads one command a line from standard input and answers each with one line of JSON:
//
//   open PORT PATHS COUNT INFLIGHT HELLO     open COUNT sockets, the paths of the file PATHS in turn, INFLIGHT at a time;
//                                            HELLO 1: one is open only when its first frame has come, not at the 101
//   post PORT REQUESTS CONNS SECONDS RATE    send the requests of the file REQUESTS in turn. RATE 0: every connection sends
//                                            the next when the last is answered. Else RATE a second, by the clock
//   count FRAMES IDLE                        wait until FRAMES marked frames have come since the last count, or none for
//                                            IDLE seconds
//   census EACH                              how many open sockets got exactly EACH marked frames since they were opened
//   stall                                    read from none of the sockets any more
//   drop                                     reset all sockets
//
// A marker is '@', 19 digits of CLOCK_MONOTONIC nanoseconds, '@'. In a request it is filled in when the request is due (not
// when a connection was free to take it: waiting counts); in a frame it gives the latency. REQUESTS holds, for each
// request, its length as a decimal line and then its bytes. Pings are answered. Times in the answers are nanoseconds.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MARK = 21, BUFFER = 1 << 18, EVENTS = 512 };
enum kind { SOCKET, POST, INPUT };
enum state { CONNECTING, HEAD, OPEN, GONE };
typedef int64_t ns;
#define EARLY 50000

struct list { ns *at; size_t n, room; };
struct request { char *bytes; size_t size; size_t *marks; size_t nmarks; };

struct peer {
  enum kind kind;
  enum state state;
  int fd, served;
  unsigned tail;               // the last four bytes of a head
  char status[16]; int nstatus;
  // a socket: one frame at a time
  unsigned char head[10], control[125]; int nhead, ncontrol;
  uint64_t left; int in_payload;
  int digits; ns mark; int marking, marked; long nmarked;
  // a post
  char *out; size_t size, sent;
  char *line; int nline; long body; ns due;
};

static int ep, expect_hello, quit_asked, have_line;
static char line[4096]; static size_t nline;
static unsigned char *buffer;
static struct peer input = {.kind = INPUT};
static struct peer *sockets; static long nsockets, upgraded, served, failed, closed;
static struct list frames, answers; static ns first_frame, last_frame;
static long bad_answers, outstanding;
// A ring: whoever has been idle for longest is next, so that no server finds one idle for too long and hangs up.
static struct peer **idle; static long nidle, first_idle, room_idle;
static void rest(struct peer *p) { idle[(first_idle + nidle++) % room_idle] = p; }
static struct peer *rested(void) { struct peer *p = idle[first_idle]; first_idle = (first_idle + 1) % room_idle; nidle--; return p; }

static ns now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static void die(const char *what) { perror(what); exit(1); }
static void *must(void *memory) { if (!memory) die("memory"); return memory; }
static void push(struct list *l, ns value) {
  if (l->n == l->room) l->at = must(realloc(l->at, (l->room = l->room ? 2 * l->room : 4096) * sizeof *l->at));
  l->at[l->n++] = value;
}
static int by_size(const void *a, const void *b) { ns x = *(const ns *)a, y = *(const ns *)b; return (x > y) - (x < y); }
static ns share(struct list *l, double part) { return l->n ? l->at[(size_t)((double)(l->n - 1) * part)] : -1; }
static void print_latencies(struct list *l) {
  qsort(l->at, l->n, sizeof *l->at, by_size);
  printf("\"p50\":%lld,\"p99\":%lld,\"max\":%lld", (long long)share(l, .5), (long long)share(l, .99), (long long)share(l, 1));
}

static void watch(struct peer *p, uint32_t events, int op) {
  struct epoll_event e = {.events = events, .data.ptr = p};
  if (epoll_ctl(ep, op, p->fd, &e)) die("epoll_ctl");
}
static void dial(struct peer *p, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  p->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (p->fd < 0) die("socket");
  setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  p->state = CONNECTING;
  if (connect(p->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
  watch(p, EPOLLOUT, EPOLL_CTL_ADD);
}
static void gone(struct peer *p) {
  struct linger reset = {1, 0};
  if (p->state == GONE) return;
  if (p->kind == SOCKET) {
    if (p->state != OPEN || (expect_hello && !p->served)) failed++; else closed++;
  } else { fprintf(stderr, "a connection for posts was lost: %.*s\n", p->nstatus, p->status); exit(1); }
  p->state = GONE;
  setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  close(p->fd);
}

#include "load_frames.h"

// -- posts -----------------------------------------------------------------------------------------------------------

static void send_more(struct peer *p) {
  while (p->sent < p->size) {
    ssize_t n = write(p->fd, p->out + p->sent, p->size - p->sent);
    if (n < 0) { if (errno != EAGAIN) gone(p); else watch(p, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD); return; }
    p->sent += (size_t)n;
  }
  watch(p, EPOLLIN, EPOLL_CTL_MOD);
}
static void start(struct peer *p, struct request *r, ns due) {
  char mark[32];
  snprintf(mark, sizeof mark, "@%019lld@", (long long)due);
  p->out = must(realloc(p->out, r->size));
  memcpy(p->out, r->bytes, r->size);
  for (size_t k = 0; k < r->nmarks; k++) memcpy(p->out + r->marks[k], mark, MARK);
  p->size = r->size; p->sent = 0; p->due = due; p->nline = 0; p->body = -1; p->nstatus = 0;
  outstanding++;
  send_more(p);
}
static void take_answer(struct peer *p, unsigned char *b, ssize_t n) {
  for (ssize_t i = 0; i < n;) {
    if (p->body < 0) {
      if (p->nline == 4095) { fprintf(stderr, "the head of an answer is too long\n"); exit(1); }
      p->line[p->nline++] = (char)b[i++]; p->line[p->nline] = 0;
      if (p->nline < 4 || memcmp(p->line + p->nline - 4, "\r\n\r\n", 4)) continue;
      char *length = strcasestr(p->line, "\r\ncontent-length:");
      if (!length) { fprintf(stderr, "an answer without a length: %s\n", p->line); exit(1); }
      p->body = atol(length + 17);
      if (p->line[9] != '2' && !bad_answers++) fprintf(stderr, "refused: %.200s\n", p->line);
    }
    ssize_t here = p->body < n - i ? p->body : n - i;
    p->body -= here; i += here;
    if (!p->body) { push(&answers, now() - p->due); outstanding--; rest(p); return; }
  }
}

// -- the loop --------------------------------------------------------------------------------------------------------

static char **paths; static long npaths; static int ws_port;
static void ready(struct peer *p, uint32_t events) {
  if (p->kind == INPUT) {
    ssize_t n = read(0, line + nline, sizeof line - 1 - nline);
    if (n <= 0) { quit_asked = 1; return; }
    nline += (size_t)n; have_line = memchr(line, '\n', nline) != NULL;
  } else if (p->state == CONNECTING) {
    int error = 0; socklen_t size = sizeof error;
    getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) { errno = error; die("connect"); }
    if (p->kind == SOCKET) {
      char head[8192];
      int size = snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n", paths[(p - sockets) % npaths], ws_port);
      if (write(p->fd, head, (size_t)size) != size) die("write");
      p->state = HEAD;
    } else { p->state = OPEN; rest(p); }
    watch(p, EPOLLIN, EPOLL_CTL_MOD);
  } else {
    if (p->kind == POST && (events & EPOLLOUT)) send_more(p);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    ssize_t n = read(p->fd, buffer, BUFFER);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) gone(p); else if (p->kind == POST) take_answer(p, buffer, n);
    else if (p->state == HEAD) take_head(p, buffer, n); else take_frames(p, buffer, n);
  }
}
static int turn_ns(ns wait) {
  struct epoll_event events[EVENTS];
  struct timespec t = { .tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000 };
  int n = epoll_pwait2(ep, events, EVENTS, &t, NULL);
  for (int i = 0; i < n; i++) {
    struct peer *p = events[i].data.ptr;
    if (p->state != GONE) ready(p, events[i].events);  // one event may end another of the same turn
  }
  return n;
}
static int turn(int wait_ms) { return turn_ns((ns)wait_ms * 1000000); }

// -- commands --------------------------------------------------------------------------------------------------------

static void open_sockets(int port, const char *file, long count, long inflight, int hello) {
  FILE *f = fopen(file, "r"); char *text = NULL; size_t room = 0; ssize_t n;
  if (!f) die(file);
  while (npaths) free(paths[--npaths]);
  while ((n = getline(&text, &room, f)) > 0) {
    text[strcspn(text, "\n")] = 0;
    paths = must(realloc(paths, (size_t)(npaths + 1) * sizeof *paths)); paths[npaths++] = must(strdup(text));
  }
  free(text); fclose(f);
  sockets = must(calloc((size_t)count, sizeof *sockets));
  ws_port = port; expect_hello = hello; nsockets = upgraded = served = failed = closed = 0;
  ns from = now(), moved = from;
  for (long done = 0, opened = 0; opened < count;) {
    for (; nsockets < count && nsockets - done < inflight; nsockets++) { sockets[nsockets].kind = SOCKET; dial(&sockets[nsockets], port); }
    turn(100);
    if (upgraded + failed != done || served + failed != opened) moved = now();
    done = upgraded + failed; opened = served + failed;
    if (now() - moved > 20000000000LL) break;
  }
  printf("{\"opened\":%ld,\"failed\":%ld,\"from\":%lld,\"served_in\":%lld}\n", served, failed, (long long)from, (long long)(now() - from));
}
static struct request *read_requests(const char *file, size_t *count) {
  FILE *f = fopen(file, "r"); struct request *all = NULL; size_t size;
  if (!f) die(file);
  for (*count = 0; fscanf(f, "%zu", &size) == 1; ++*count) {
    fgetc(f);
    all = must(realloc(all, (*count + 1) * sizeof *all));
    struct request *r = &all[*count];
    *r = (struct request){must(malloc(size)), size, NULL, 0};
    if (fread(r->bytes, 1, size, f) != size) die(file);
    for (char *at = r->bytes; (at = memmem(at, size - (size_t)(at - r->bytes), "@0000000000000000000@", MARK)); at += MARK) {
      r->marks = must(realloc(r->marks, (r->nmarks + 1) * sizeof *r->marks)); r->marks[r->nmarks++] = (size_t)(at - r->bytes);
    }
  }
  fclose(f);
  return all;
}
static void post(int port, const char *file, long conns, double seconds, double rate) {
  size_t nrequests; static size_t turn_of;
  struct request *requests = read_requests(file, &nrequests);
  struct peer *posts = must(calloc((size_t)conns, sizeof *posts));
  idle = must(calloc((size_t)conns, sizeof *idle)); nidle = first_idle = 0; room_idle = conns; answers.n = 0; bad_answers = outstanding = 0;
  for (long i = 0; i < conns; i++) { posts[i].kind = POST; posts[i].line = must(malloc(4096)); dial(&posts[i], port); }
  while (nidle < conns) turn(1000);
  ns from = now(), until = from + (ns)(seconds * 1e9);
  long due = 0, total = rate > 0 ? (long)(rate * seconds) : 0;
  for (;;) {
    ns t = now();
    while (nidle && (rate > 0 ? due < total && from + (ns)((double)due / rate * 1e9) <= t : t < until)) {
      start(rested(), &requests[turn_of++ % nrequests], rate > 0 ? from + (ns)((double)due / rate * 1e9) : now());
      due++;
    }
    if (!outstanding && (rate > 0 ? due >= total : t >= until)) break;
    // With a rate and somebody free: asleep until shortly before the next is due, then awake, for a sleeper may be late.
    ns gap = rate > 0 && due < total ? from + (ns)((double)due / rate * 1e9) - now() : 0;
    turn_ns(rate > 0 && nidle && due < total ? (gap > EARLY ? gap - EARLY : 0) : 100000000);
  }
  ns to = now();
  printf("{\"requests\":%zu,\"refused\":%ld,\"from\":%lld,\"to\":%lld,", answers.n, bad_answers, (long long)from, (long long)to);
  print_latencies(&answers); printf("}\n");
  for (long i = 0; i < conns; i++) { close(posts[i].fd); free(posts[i].out); free(posts[i].line); }
  for (size_t i = 0; i < nrequests; i++) { free(requests[i].bytes); free(requests[i].marks); }
  free(requests); free(posts); free(idle);
}
static void count(size_t expected, double seconds) {
  ns moved = now(); size_t before = frames.n;
  while (frames.n < expected && now() - moved < (ns)(seconds * 1e9)) { turn(100); if (frames.n != before) { moved = now(); before = frames.n; } }
  printf("{\"frames\":%zu,\"lost_sockets\":%ld,\"first\":%lld,\"last\":%lld,", frames.n, closed, (long long)first_frame, (long long)last_frame);
  print_latencies(&frames); printf("}\n");
  frames.n = 0;
}
static void census(long each) {
  long complete = 0;
  for (long i = 0; i < nsockets; i++) complete += sockets[i].state == OPEN && sockets[i].nmarked == each;
  printf("{\"complete\":%ld,\"lost_sockets\":%ld}\n", complete, closed);
}
static void stall(void) {
  long stalled = 0;
  for (long i = 0; i < nsockets; i++)
    if (sockets[i].state == OPEN && !epoll_ctl(ep, EPOLL_CTL_DEL, sockets[i].fd, NULL)) stalled++;
  printf("{\"stalled\":%ld}\n", stalled);
}
static void drop(void) {
  for (long i = 0; i < nsockets; i++) gone(&sockets[i]);
  printf("{\"dropped\":%ld}\n", nsockets);
  free(sockets); sockets = NULL; nsockets = 0;
}

int main(void) {
  ep = epoll_create1(EPOLL_CLOEXEC); buffer = must(malloc(BUFFER));
  watch(&input, EPOLLIN, EPOLL_CTL_ADD);
  while (!quit_asked) {
    if (!have_line) { turn(1000); continue; }
    char file[1024]; long a, b; int port, hello; double x, y;
    if (sscanf(line, "open %d %1023s %ld %ld %d", &port, file, &a, &b, &hello) == 5) open_sockets(port, file, a, b, hello);
    else if (sscanf(line, "post %d %1023s %ld %lf %lf", &port, file, &a, &x, &y) == 5) post(port, file, a, x, y);
    else if (sscanf(line, "count %ld %lf", &a, &x) == 2) count((size_t)a, x);
    else if (sscanf(line, "census %ld", &a) == 1) census(a);
    else if (!strncmp(line, "stall", 5)) stall();
    else if (!strncmp(line, "drop", 4)) drop();
    else { fprintf(stderr, "what is: %s", line); return 2; }
    fflush(stdout);
    char *end = memchr(line, '\n', nline);
    nline -= (size_t)(end + 1 - line); memmove(line, end + 1, nline); have_line = memchr(line, '\n', nline) != NULL;
  }
  return 0;
}
